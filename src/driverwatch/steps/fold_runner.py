"""Who trains a fold that is asked for: here a process of its own, started, waited for, ended with the one that trains a run."""

import os
import subprocess
import sys
import threading
from contextlib import suppress
from typing import Protocol

from driverwatch.errors import InputError
from driverwatch.terminal import show_cursor
from driverwatch.training import run as runs
from driverwatch.training.run import Run

PATIENCE = 5.0  # seconds that it has to end by itself after Ctrl-C


class FoldRunner(Protocol):
    """Trains a fold of a run that is begun and held for it (`train.begun`), and whose `execution.json` is written."""

    def run_fold(self, run: Run, number: int, lock: int) -> None:
        """Return when the fold is finished; `lock` is the descriptor of the run's lock. Raises `InputError` if it fails."""


class FoldProcess:
    """Every fold in a process of its own on this machine: memory goes back, a crash costs one fold."""

    def run_fold(self, run: Run, number: int, lock: int) -> None:
        """Train a fold to its end.

        The process inherits the run's lock, so that nobody else writes there while it lives, and one end of a pipe, which
        tells it when this process is gone, however it went.
        """
        runs.forget_divergence(run.folder, number)
        leash, held = os.pipe()
        command = [sys.executable, "-m", "driverwatch", *words(run, number), "--leash", str(leash)]
        try:
            status = ended(command, [lock, leash])
        finally:
            os.close(leash)
            os.close(held)
        if status != 0:
            raise InputError(
                f"{run.fold(number)}: fold {number} ended with status {status} (its own words stand above); "
                f"{runs.way_on(run.folder, number)}"
            )


def words(run: Run, number: int) -> list[str]:
    """The verb that trains a fold; the rest it reads from the run's folder."""
    return ["train-fold", "--run", str(run.folder), "--fold", str(number)]


def ended(command: list[str], descriptors: list[int]) -> int:
    """Run a fold's process to its end; its exit status. On Ctrl-C it has a moment to put the terminal in order."""
    with subprocess.Popen(command, pass_fds=descriptors) as process:
        try:
            return process.wait()
        except BaseException:
            with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
                process.wait(PATIENCE)
            process.kill()
            show_cursor()
            raise


def end_with(leash: int) -> None:
    """End this process, at once, when the other end of the pipe is closed: nothing it writes can be left half written."""

    def wait() -> None:
        os.read(leash, 1)
        show_cursor()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
