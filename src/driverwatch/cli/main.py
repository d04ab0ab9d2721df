"""Where the command line begins and ends: verbs put together, bad input told in one sentence."""

import os
import sys
import traceback
from typing import NoReturn

import typer

from driverwatch.cli import cluster, elsewhere, measuring, networks, pages, photos, runs, searching, status, submissions
from driverwatch.errors import InputError, printable
from driverwatch.terminal import print_any_name

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="From driver-camera photos to a Kaggle submission. `make help` lists the same steps as make targets.",
)
for part in (photos, runs, searching, cluster, submissions, pages, networks, elsewhere, measuring, status):
    app.add_typer(part.app)


def main() -> None:
    """Run a verb; bad input is one sentence on stderr and exit status 2 (`DEBUG=1` in the environment shows the traceback)."""
    print_any_name()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    try:
        app()
    except InputError as error:
        _refuse(str(error))
    except OSError as error:  # of a place that no artefact's writer watches over
        from driverwatch.writing import reason, way_out

        place = f"{error.filename}: " if error.filename else ""
        _refuse(f"{place}{reason(error)}; {way_out(error)}, and run again")
    except MemoryError:
        _refuse(
            "not enough memory; close other programs, or lower predict.batch_size, train.batch_size or the pack's size"
        )
    except SystemExit as end:
        if end.code == 130:  # Ctrl-C
            print("driverwatch: interrupted; the same command goes on", file=sys.stderr)
        _flush()
        raise
    except Exception as error:  # a file that was edited or damaged in a way not thought of, or a defect
        words = " ".join(str(error).split())[:200]
        _refuse(
            f"unexpected {type(error).__name__} ({words}); DEBUG=1 shows where. If no file was edited or damaged, this is a "
            "defect: please report it with what DEBUG=1 shows"
        )


def _flush() -> None:
    """Find a standard output that is full now: at the interpreter's end it would be a traceback and status 120."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _refuse(f"standard output: {error.strerror}; what was asked for is done or goes on with the same command")


def _refuse(sentence: str) -> NoReturn:
    if os.environ.get("DEBUG"):
        traceback.print_exc()
    print("driverwatch: " + "\n".join(printable(line, 2000) for line in sentence.split("\n")), file=sys.stderr)
    sys.exit(2)
