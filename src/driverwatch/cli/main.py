"""Where the command line begins and ends: commands put together, bad input refused in one sentence."""

import os
import sys
import traceback
from contextlib import suppress
from typing import NoReturn

import typer

from driverwatch.cli import analysis, pipeline, tools
from driverwatch.cli.command import Command
from driverwatch.errors import InputError, printable
from driverwatch.io import console
from driverwatch.io.paths import is_on, settle_environment

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
        if (
            end.code in (None, 0) and "--parent-pipe" not in sys.argv
        ):  # a fold's process leaves that to who asked for it
            _refuse_loss()
        raise
    except Exception as error:  # a file that was edited or damaged in a way not thought of, or a defect
        words = " ".join(str(error).split())[:200]
        _refuse(
            f"unexpected {type(error).__name__} ({words}); DEBUG=1 shows where. If no file was edited or damaged, this is a "
            "defect: please report it with what DEBUG=1 shows"
        )


def _refuse_loss() -> None:
    if why := console.lost():
        _refuse(f"standard output: {why}; what was asked for is done, but not all that it printed arrived")


def _refuse(sentence: str) -> NoReturn:
    with suppress(InputError):  # DEBUG itself is what is refused
        if is_on("DEBUG"):
            traceback.print_exc()
    print("driverwatch: " + "\n".join(printable(line, 2000) for line in sentence.split("\n")), file=sys.stderr)
    sys.exit(2)
