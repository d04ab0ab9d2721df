"""Commands run in this process, folds included, so that TensorFlow is imported once."""

import contextlib
import io
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

from driverwatch.cli import main as cli
from driverwatch.data import context
from driverwatch.run import Run
from driverwatch.training.fold_runner import FoldRunner


class InThisProcess:
    """A `FoldRunner` that trains folds where Keras has been imported already."""

    def run_fold(self, run: Run, number: int, lock: int) -> None:
        from driverwatch.training.train import train_one_fold

        train_one_fold(run.folder, number)

    def stop(self) -> None:
        pass


@contextlib.contextmanager
def folds_by(runner: FoldRunner) -> Iterator[None]:
    """Commands that are run in this process meanwhile have their folds trained by `runner`."""
    opened = context.open_context
    with mock.patch.object(context, "open_context", lambda *asked: replace(opened(*asked), runner=runner)):
        yield


def here(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command in this process, in the working directory: its exit status and what it said."""
    words, said, refused = ["driverwatch", *map(str, arguments)], io.StringIO(), io.StringIO()
    status = 0
    with (
        mock.patch.object(sys, "argv", words),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(refused),
    ):
        try:
            cli.main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
    return subprocess.CompletedProcess(words, status, said.getvalue(), refused.getvalue())


def good(*arguments: str | Path) -> str:
    """What a command says, which must succeed."""
    made = here(*arguments)
    assert made.returncode == 0, made.stderr
    return made.stdout
