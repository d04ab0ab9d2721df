"""`make doctor`: every check in turn, one line each; exit status 2 if any is a problem."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.doctor import machine
from scripts.doctor.machine import REBUILD, Finding, Surroundings, note, problem

# in the order in which findings follow from one another
TITLES = ("Python", "make", "git", "encoding", "clock", "processor", "memory", "limits", "folders", "disk", "environment",
          "packages", "libraries", "Keras", "accelerator", "data set", "made", "weights", "Kaggle token")  # fmt: skip
if TYPE_CHECKING:  # which Python 3.8 cannot evaluate
    Check = Callable[[Surroundings], Finding]


def checks(s: Surroundings) -> dict[str, Check]:
    """Every check by its title; where the libraries of `.venv` are not there, those that need them say so."""
    found: dict[str, Check] = dict(machine.CHECKS)
    unseen = note("not looked at, for want of a working .venv", "See environment")
    if s.is_inside:
        try:
            from driverwatch.io.paths import settle_environment
            from scripts.doctor import project

            settle_environment()
            found.update(project.CHECKS)
        except Exception as error:  # a library that is missing or broken, or a file of the package that does not fit
            invalid = problem(f"the checks of the project cannot be imported ({error})", REBUILD)
            found["packages"] = lambda _: invalid
    return {title: found.get(title, lambda _: unseen) for title in TITLES}


def examine(s: Surroundings, asked: dict[str, Check]) -> int:
    """Print every finding as soon as it is there, then their count; the exit status."""
    count = {"ok": 0, "note": 0, "problem": 0}
    for title, check in asked.items():
        finding = examined(check, s)
        count[finding.mark] += 1
        print(finding.line(title), flush=True)
    print(f"\n{count['ok']} ok, {count['note']} to note, {count['problem']} to fix", flush=True)
    if count["problem"]:
        print("Start with the first problem: later ones often follow from it.", flush=True)
    return 2 if count["problem"] else 0


def examined(check: Check, s: Surroundings) -> Finding:
    """A check's finding; a check that raises is a problem of its own.

    The exception's text is left out: it may repeat what was read, and a token must never be printed.
    """
    try:
        return check(s)
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        reason = f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else ""
        found = f"{type(error).__name__}{reason} at {Path(frame.filename).name}:{frame.lineno}"
        return problem(f"this check failed itself: {found}", "Report it with this line")


def main(arguments: Sequence[str] | None = None) -> int:
    """Examine the repository in the working directory, as make's variables describe it; the exit status."""
    parser = argparse.ArgumentParser(prog="make doctor", description=__doc__)
    parser.add_argument("--dataset", default="statefarm")
    for option in ("data", "weights", "make-version"):
        parser.add_argument(f"--{option}", default="")
    parser.add_argument("--accelerator", default="cpu")
    parser.add_argument("--only", nargs="+", default=TITLES, choices=TITLES)
    given = vars(parser.parse_args(arguments))
    only = given.pop("only")
    s = Surroundings(**given)
    try:
        return examine(s, {title: check for title, check in checks(s).items() if title in only})
    except OSError as error:  # a full disk behind standard output
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        print(f"make doctor: standard output: {error.strerror}; the report did not arrive whole", file=sys.stderr)
        return 2


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `make doctor | head` ends quietly
    if sys.stdout is not None:
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a folder's name must not end the report
    sys.exit(main())
