"""The repository's folders: a clone, writable, on a disk with room."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

from driverwatch.checkout import commit, environment, is_own
from scripts.doctor.finding import Finding, Surroundings, ask, gigabytes, note, ok, problem, standing
from scripts.doctor.material import data_folder, test_folder

WRITTEN = ("build", "folds", "submissions")
PACKS = 13.2e9  # bytes: 102,150 photos at 180x240
DOWNLOAD = 9.0e9  # bytes: the competition's archive beside what it unpacks to
LITTLE = 1.0e9  # bytes: less than this stops even small data sets


def git(s: Surroundings) -> Finding:
    """A clone, so that artefacts can record the commit that made them."""
    program = shutil.which("git", path=s.environ.get("PATH"))
    recorded = "so that what is made can record its commit; the line works without"
    if program is None:
        return note("git is missing", f"Install it, {recorded}")
    own = replace(s, environ=environment(s.environ))
    answer = ask(own, [program, "rev-parse", "--show-toplevel", "HEAD"])
    if not answer.fine:
        if "ownership" in answer.cause or "safe.directory" in answer.cause:
            return note(
                "this clone belongs to another user", f'git config --global --add safe.directory "{s.root.absolute()}"'
            )
        return note("this folder is not a clone with a commit", f"Clone the repository, {recorded}")
    top = answer.out.splitlines()[0]
    if Path(top).resolve() != s.root.resolve():
        return note(f"this folder lies inside another clone ({top})", f"Clone the repository, {recorded}")
    if not is_own(s.root):
        return note("this folder is another project's clone, and does not track src/driverwatch", f"Clone, {recorded}")
    return ok(f"a clone at {commit(s.root.resolve())}")


def writable(s: Surroundings) -> Finding:
    """The folders that targets write to, or the nearest folder above each."""
    problems = [said for said in (_obstacle(s.root / name) for name in WRITTEN) if said]
    if problems:
        return problem(", ".join(problems), "Make each a folder of your own that can be written")
    return ok(f"{', '.join(WRITTEN)} can be written")


def _obstacle(path: Path) -> str:
    """What keeps a folder from being written; empty where nothing does."""
    if path.is_symlink() and not path.exists():
        return f"{path} is a link to nothing"
    place = standing(path)
    if not place.is_dir():
        return f"{place} is a file"
    return "" if os.access(str(place), os.W_OK | os.X_OK) else f"{place} cannot be written"


def disk(s: Surroundings) -> Finding:
    """Free space for packs in build/ and for the data set, against the full competition's need; a shared disk needs both."""
    data = data_folder(s) or s.root / "data"
    there = (data / test_folder(s)).is_dir()
    needs = {s.root / "build": PACKS, data: 0.0 if there else DOWNLOAD}
    shared = len({standing(folder).stat().st_dev for folder in needs}) == 1
    free = {folder: shutil.disk_usage(str(standing(folder))).free for folder in needs}
    found = ", ".join(f"{gigabytes(bytes_free)} free in {folder}" for folder, bytes_free in free.items())
    if min(free.values()) < LITTLE:
        return problem(found, "Free some space, or link build and data to a larger disk")
    total = sum(needs.values())
    if any(free[folder] < (total if shared else need) for folder, need in needs.items()):
        return note(
            found,
            f"The full competition takes {gigabytes(PACKS)} for packs at 180x240 and {gigabytes(DOWNLOAD)} while its "
            "download is unpacked; make demo and samples take far less",
        )
    return ok(found)
