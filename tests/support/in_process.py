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
from driverwatch.errors import InputError
from driverwatch.steps import context
from driverwatch.training.run import Run


class InThisProcess:
    """A `FoldRunner` that trains folds where Keras has been imported already."""

    def run_fold(self, run: Run, number: int, lock: int) -> None:
        from driverwatch.steps.train import train_one_fold

        train_one_fold(run.folder, number)


@contextlib.contextmanager
def folds_in_this_process() -> Iterator[None]:
    """Commands that are run in this process meanwhile train their folds here too."""
    opened = context.open_context
    with mock.patch.object(context, "open_context", lambda *asked: replace(opened(*asked), runner=InThisProcess())):
        yield


def here(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a verb in this process, in the working directory: its exit status and what it said."""
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


def said(arguments: list[str]) -> tuple[int, str]:
    """Run a verb in this process, in the working directory; its exit status and all that it said."""
    if arguments[0] == "weights":
        return weights_said(arguments[1])
    options = [] if "--dataset" in arguments else ["--dataset", "drawn"]
    takes_data = arguments[0] not in ("predict",)
    text, before = io.StringIO(), sys.argv
    sys.argv = ["driverwatch", *arguments, *options, *(["--data", "data"] if takes_data else [])]
    try:
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
            cli.main()
    except SystemExit as end:
        return int(end.code or 0), text.getvalue()
    finally:
        sys.argv = before
    return 0, text.getvalue()


def weights_said(backbone: str) -> tuple[int, str]:
    """What a fold's process would say of the weights in `weights/`; here, because it takes seconds to start one."""
    from driverwatch.models.weights import build_trunk, find
    from driverwatch.settings import ModelSettings
    from driverwatch.typed_yaml import parse

    settings = parse(ModelSettings, {"backbone": backbone, "input": {"pack": "96x96", "size": "96x96"}}, "a model")
    try:
        build_trunk(settings, find(settings, Path("weights")))
    except InputError as error:
        return 2, f"driverwatch: {error}"
    return 0, ""
