"""How a run is trained now, in `execution.json` beside `run.json`: its data set, and what decides speed alone.

What decides a run's result is in `run.json` and is compared; this is written again by each command that trains, so that a run
may continue with other workers or on other devices.
"""

import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from driverwatch import run as runs
from driverwatch.config.loading import Strict, parse
from driverwatch.config.model import ModelSettings
from driverwatch.errors import InputError
from driverwatch.io.atomic import write_json
from driverwatch.io.console import show_cursor
from driverwatch.io.manifests import read_json
from driverwatch.io.paths import Places
from driverwatch.models import weight_files
from driverwatch.run import Run

NAME = "execution.json"


class Execution(Strict):
    """What a fold's process must know beside the run itself."""

    dataset: str
    study: str | None  # whose run it is
    weights: str | None  # folder of local ImageNet weights, where the model's file is there
    settings: dict[str, Any]  # those that decide speed alone, as `runs.speed` has them
    folds: list[int]  # which the command trains in turn, for the estimate of the time left

    def others(self, run: Run, number: int) -> int:
        """How many times a fold's own time the command goes on after this one."""
        later = sum(later > number and not run.finished(later) for later in self.folds)
        return -(-later // self.settings["train"].get("parallel_folds", 1))


def write(places: Places, run: Run, settings: ModelSettings, weights: Path | None, folds: list[int]) -> None:
    """Record how a run's folds are to be trained. The caller holds its lock.

    Args:
        settings: those of today, for what decides speed alone.
        weights: folder of local weight files.
    """
    file = weight_files.find(run.settings, weights)
    made = Execution(
        dataset=places.dataset,
        study=places.study,
        weights=str(file.parent) if file else None,
        settings=runs.speed(settings),
        folds=folds,
    )
    write_json(run.folder / NAME, made.model_dump())


def read(folder: Path) -> Execution:
    """How the run in `folder` is to be trained. Raises `InputError` where the record is missing or damaged."""
    path = folder / NAME
    return parse(Execution, read_json(path), str(path))


PATIENCE = 5.0  # seconds that it has to end by itself after Ctrl-C


class FoldRunner(Protocol):
    """Trains a fold of a run that is started and held for it (`train.started_run`), and whose `execution.json` is written."""

    def run_fold(self, run: Run, number: int, lock: int) -> None:
        """Return when the fold is finished; `lock` is the descriptor of the run's lock. Raises `InputError` if it fails."""

    def stop(self) -> None:
        """End what runs, for a command that was interrupted."""


class FoldProcess:
    """Every fold in a process of its own on this machine: memory goes back, a crash costs one fold."""

    def __init__(self, beside: bool = False) -> None:
        """Prepare for folds in turn, or `beside` each other, each reported by lines: two bars would share one place."""
        self.environment = {**os.environ, "TERM": "dumb"} if beside else None
        self.running: list[subprocess.Popen[bytes]] = []

    def run_fold(self, run: Run, number: int, lock: int) -> None:
        """Train a fold to its end.

        The process inherits the run's lock, so that nobody else writes there while it lives, and one end of a pipe, which
        tells it when this process is gone, however it went.
        """
        runs.forget_divergence(run.folder, number)
        parent_pipe, held = os.pipe()
        command = [sys.executable, "-m", "driverwatch", "train-fold", "--run", str(run.folder), "--fold", str(number)]
        command += ["--parent-pipe", str(parent_pipe)]
        try:
            status = self.run_to_end(command, [lock, parent_pipe])
        finally:
            os.close(parent_pipe)
            os.close(held)
        if status != 0:
            raise InputError(
                f"{run.fold(number)}: fold {number} ended with status {status} (its own words stand above); "
                f"{runs.way_on(run.folder, number)}"
            )

    def run_to_end(self, command: list[str], descriptors: list[int]) -> int:
        """Run a fold's process to its end; its exit status."""
        with subprocess.Popen(command, pass_fds=descriptors, env=self.environment) as process:
            self.running.append(process)
            try:
                return process.wait()
            except BaseException:
                self.stop()
                raise
            finally:
                self.running.remove(process)

    def stop(self) -> None:
        """End every process, after a moment to put the terminal in order: Ctrl-C reaches them too."""
        until = time.monotonic() + PATIENCE
        for process in list(self.running):
            with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
                process.wait(max(until - time.monotonic(), 0))
            process.kill()
        show_cursor()


def exit_with_parent(parent_pipe: int) -> None:
    """End this process, at once, when the other end of the pipe is closed: nothing it writes can be left half written."""

    def wait() -> None:
        os.read(parent_pipe, 1)
        show_cursor()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
