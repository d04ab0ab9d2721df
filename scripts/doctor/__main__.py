"""`make doctor`: every check in turn, one line each; exit status 2 if any is a problem."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence

from driverwatch.paths import settle_environment
from driverwatch.streams import keep_printing, lost
from scripts.doctor import accelerator, environment, folders, kaggle_token, material, system
from scripts.doctor.finding import Surroundings, examined

CHECKS = (  # what later checks build on comes first
    ("Python", system.python),
    ("make", system.make),
    ("git", folders.git),
    ("encoding", system.encoding),
    ("clock", system.clock),
    ("processor", system.processor),
    ("memory", system.memory),
    ("limits", system.limits),
    ("folders", folders.writable),
    ("disk", folders.disk),
    ("environment", environment.virtual_environment),
    ("packages", environment.packages),
    ("libraries", environment.imports),
    ("Keras", accelerator.configuration),
    ("accelerator", accelerator.accelerator),
    ("data set", material.dataset),
    ("made", material.made),
    ("weights", material.weights),
    ("Kaggle token", kaggle_token.token),
)


def examine(s: Surroundings, only: Sequence[str] = ()) -> int:
    """Print every finding (of checks named `only`, if any) as soon as it is there, then their count; return the exit status."""
    count = {"ok": 0, "note": 0, "problem": 0}
    for title, check in CHECKS:
        if only and title not in only:
            continue
        finding = examined(check, s)
        count[finding.mark] += 1
        print(finding.line(title), flush=True)
    print(f"\n{count['ok']} ok, {count['note']} to note, {count['problem']} to mend")
    if count["problem"]:
        print("Begin with the first problem: later ones often follow from it.")
    return 2 if count["problem"] else 0


def surroundings(arguments: Sequence[str] | None) -> tuple[Surroundings, list[str]]:
    """The repository in the working directory, as make's variables describe it, and the checks that are asked for."""
    parser = argparse.ArgumentParser(prog="make doctor", description=__doc__)
    parser.add_argument("--dataset", default="statefarm")
    for option in ("data", "weights", "make-version", "interpreter"):
        parser.add_argument(f"--{option}", default="")
    parser.add_argument("--accelerator", default="cpu")
    parser.add_argument("--only", nargs="+", default=[], choices=[title for title, _ in CHECKS])
    given = vars(parser.parse_args(arguments))
    only = given.pop("only")
    return Surroundings(**given), only


def main(arguments: Sequence[str] | None = None) -> int:
    keep_printing()  # a folder's name must not end the report
    settle_environment()
    status = examine(*surroundings(arguments))
    if why := lost():
        print(f"make doctor: standard output: {why}; the report did not arrive whole", file=sys.stderr)
        return 2
    return status


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `make doctor | head` ends quietly
    sys.exit(main())
