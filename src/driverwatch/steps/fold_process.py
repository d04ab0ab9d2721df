"""A fold's process, seen from the one that trains a run: started, waited for, ended with it."""

import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from driverwatch.errors import InputError
from driverwatch.settings import ModelSettings
from driverwatch.steps.context import Context
from driverwatch.terminal import show_cursor
from driverwatch.training import run as runs
from driverwatch.training.run import Run

PATIENCE = 5.0  # seconds that it has to end by itself after Ctrl-C


def in_own_process(
    context: Context, run: Run, number: int, weights: Path | None, settings: ModelSettings, lock: int, others: int
) -> None:
    """A fold in a process of its own: memory goes back, a crash costs one fold.

    It inherits the run's lock, so that nobody else writes there while it lives, and one end of a pipe, which tells it when
    this process is gone, however it went.
    """
    runs.forget_divergence(run.folder, number)
    leash, held = os.pipe()
    command = [sys.executable, "-m", "driverwatch", *words(context, run, number, settings, others)]
    command += [*(["--weights", str(weights)] if weights else []), "--leash", str(leash)]
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


def words(context: Context, run: Run, number: int, settings: ModelSettings, others: int = 0) -> list[str]:
    """The verb that trains a fold, and what it must know; beside it goes where the weights lie, and a leash."""
    predict = settings.predict
    command = ["train-fold", "--dataset", context.dataset, "--run", run.name, "--fold", str(number)]
    command += ["--views", " ".join(predict.views), "--batch-size", str(predict.batch_size), "--others", str(others)]
    command += ["--workers", str(settings.train.workers), "--loader", settings.train.loader]
    command += ["--devices", str(settings.train.devices)]
    command += [] if predict.test else ["--no-test"]
    return command + (["--study", context.places.study] if context.places.study else [])


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
