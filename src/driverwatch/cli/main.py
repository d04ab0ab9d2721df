"""Where the command line begins and ends: commands put together, bad input refused in one sentence that reads as it was typed."""

import os
import re
import sys
import traceback
from contextlib import suppress
from itertools import takewhile
from typing import Any, NoReturn

import typer
from typer.core import TyperCommand

from driverwatch.cli import analysis, pipeline, tools
from driverwatch.errors import InputError, printable
from driverwatch.io import console
from driverwatch.io.paths import is_on, settle_environment

USAGE_ERROR: Any = typer.BadParameter.__mro__[1]  # click's, which typer carries along under a name of its own
VARIABLES = {"--cpus": "CPUS_PER_FOLD", "--gpus": "GPUS_PER_FOLD", "--memory": "MEMORY_PER_FOLD", "--client": "KAGGLE"}
VALUE = r"""(?:"[^"]*"|\.\.\.|<[^>]*>|[^\s"`]*[^\s"`;,.:)])"""
HINT = re.compile(f"make (?P<target>[a-z]+(?:-[a-z]+)*)(?P<variables>(?: [A-Z_]+={VALUE})*)")


class Command(TyperCommand):
    """Raises what it refuses as one `InputError`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As click, but a refusal is an `InputError` that names the command, and no option given twice loses a value."""
        words = [word.partition("=")[0] for word in takewhile(lambda word: word != "--", args)]
        once = [name for each in self.params if not getattr(each, "multiple", True) for name in each.opts]
        if twice := [name for name in once if words.count(name) > 1]:
            raise InputError(f"{self.name}: {twice[0]} is given twice; put both values into one, in quotes")
        try:
            return list(super().parse_args(ctx, args))
        except USAGE_ERROR as error:
            raise InputError(f"{self.name}: {as_typed(error.format_message())}") from None

    def invoke(self, ctx: Any) -> Any:
        """As click, but commands that an `InputError` suggests name the data set, unless it is the default."""
        try:
            return super().invoke(ctx)
        except InputError as error:
            dataset, usual = ctx.params.get("dataset"), {each.name: each.default for each in self.params}
            if dataset == usual.get("dataset"):
                raise
            raise InputError(with_dataset(str(error), dataset, commands_of_datasets(ctx.parent.command))) from error


def commands_of_datasets(group: Any) -> set[str]:
    """Names of the commands, and so of make's targets, that take a data set."""
    return {name for name, each in group.commands.items() if any(option.name == "dataset" for option in each.params)}


def with_dataset(sentence: str, dataset: str | None, targets: set[str]) -> str:
    """The sentence with `DATASET=` in each command that it suggests, so that it does what it says when it is copied."""

    def complete(found: "re.Match[str]") -> str:
        lacks = dataset and found["target"] in targets and " DATASET=" not in found["variables"]
        return f"{found[0]} DATASET={dataset}" if lacks else found[0]

    return HINT.sub(complete, sentence)


def as_typed(sentence: str) -> str:
    """The sentence with options by the names that were typed after make (`CAM=`), or unchanged without make."""
    if "MAKELEVEL" not in os.environ:
        return sentence
    return re.sub(r"'?(--[a-z-]+)'?", lambda found: f"{variable_of(found[1])}=", sentence)


def variable_of(option: str) -> str:
    """Make's variable of an option."""
    return VARIABLES.get(option, option.removeprefix("--").upper().replace("-", "_"))


app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="From driver-camera images to a Kaggle submission. `make help` lists the same steps as make targets.",
)
for part in (pipeline, analysis, tools):
    for registered in part.app.registered_commands:
        registered.cls = Command
    app.add_typer(part.app)


def main(app: typer.Typer = app) -> None:
    """Run a command of `app`; bad input is one sentence on stderr and exit status 2 (`DEBUG=1` shows the traceback).

    Printing fails no work: what it could not print is reported at the end, with status 2, unless the reader has gone.
    """
    console.keep_printing()
    os.environ.setdefault("HDF5_USE_FILE_LOCKING", "FALSE")  # for Keras' own files; ours are opened so (`hdf5.py`)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    try:
        is_on("DEBUG")  # or refused, before anything is done
        settle_environment()
        app()
    except InputError as error:
        _refuse(str(error))
    except OSError as error:  # of a place that no artefact's writer watches over
        from driverwatch.io.atomic import reason, way_out

        place = f"{error.filename}: " if error.filename else ""
        _refuse(f"{place}{reason(error)}; {way_out(error)}, and run again")
    except MemoryError:
        _refuse(
            "not enough memory; close other programs, or lower predict.batch_size, train.batch_size or the pack's size"
        )
    except SystemExit as end:
        if end.code == 130:  # Ctrl-C
            print("driverwatch: interrupted; the same command resumes", file=sys.stderr)
        own = "--parent-pipe" not in sys.argv  # a fold's process leaves it to its parent
        if end.code in (None, 0) and own and (why := console.lost()):
            _refuse(f"standard output: {why}; what was asked for is done, but not all that it printed arrived")
        raise
    except Exception as error:  # a file that was edited or damaged in a way not thought of, or a defect
        words = " ".join(str(error).split())[:200]
        _refuse(
            f"unexpected {type(error).__name__} ({words}); DEBUG=1 shows where. If no file was edited or damaged, this is a "
            "defect: please report it with what DEBUG=1 shows"
        )


def _refuse(sentence: str) -> NoReturn:
    with suppress(InputError):  # DEBUG itself is what is refused
        if is_on("DEBUG"):
            traceback.print_exc()
    print("driverwatch: " + "\n".join(printable(line, 2000) for line in sentence.split("\n")), file=sys.stderr)
    sys.exit(2)
