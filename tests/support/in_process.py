"""Commands run in this process: their exit status and all that they print."""

import contextlib
import io
import sys
from pathlib import Path

from driverwatch.cli import main as cli
from driverwatch.errors import InputError


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
