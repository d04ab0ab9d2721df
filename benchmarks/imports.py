"""What commands import that need nothing of it: Keras, TensorFlow, pandas."""

import os
import re
import subprocess
import time
from pathlib import Path

from benchmarks.result import Line
from benchmarks.scratch_project import SET, Project, command, environment
from benchmarks.timing import Spread, Timing
from benchmarks.workload import Bench

HEAVY = ("keras", "tensorflow", "pandas")
IMAGES = 400
TRAIN = ["train", "tiny", "--set", SET, "--dataset", "drawn"]
PACK = ["pack", "--model", "tiny", "--set", SET, "--dataset", "drawn"]
VERBS = {
    "--help": ["--help"],
    "make status": ["status", "--dataset", "drawn"],
    "make train again, its pack": PACK,
    "make train again, its train": TRAIN,
}
WHAT = (
    "`driverwatch {words}`, with every import of all its processes listed by Python itself; the figure counts "
    + ", ".join(HEAVY)
)


def lines(bench: Bench) -> list[Line]:
    """A line for each command, in a project whose run is finished."""
    project = Project(bench.place / "finished", IMAGES)
    if not _succeeds(project.folder, TRAIN):
        project.begin()
        for step in ("sample", "folds", "pack", "train"):
            project.run(step)
    return [_line(project.folder, name, words, bench.asked.repeat) for name, words in VERBS.items()]


def _succeeds(folder: Path, words: list[str]) -> bool:
    """Whether a project is there and its run finished."""
    if not (folder / "build/drawn/runs/tiny/fold1/manifest.json").is_file():
        return False
    return (
        subprocess.run(command(words), cwd=folder, env=environment(), capture_output=True, check=False).returncode == 0
    )


def _line(folder: Path, name: str, words: list[str], repeat: int) -> Line:
    what = WHAT.format(words=" ".join(words[:2]))
    if words[0] == "status" and not has_verb(folder, "status"):
        return Line("imports", name, what, "", "lower", 0, skipped="this checkout has no verb `status`")
    heavy = imported(folder, words)
    timing = Timing(*zip(*(_timed(folder, words) for _ in range(repeat)), strict=True))
    count = float(len(heavy))
    facts = {"imported": sorted(heavy), "seconds": timing.median}
    return Line(
        "imports",
        name,
        what,
        "Time, which stands beside it.",
        "lower",
        0,
        Spread(count, count, count),
        {"ours": timing},
        facts,
    )


def has_verb(folder: Path, verb: str) -> bool:
    """Whether the command line lists a verb."""
    found = subprocess.run(
        command(["--help"]), cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )
    return re.search(rf"^\W*{verb}\b", found.stdout, re.MULTILINE) is not None


def imported(folder: Path, words: list[str]) -> set[str]:
    """Which of `HEAVY` a command and its processes import."""
    asked = {**environment(), "PYTHONPROFILEIMPORTTIME": "1"}  # inherited by every Python it starts
    found = subprocess.run(command(words), cwd=folder, env=asked, capture_output=True, text=True, check=False)
    return heavy_in(found.stderr)


def heavy_in(listing: str) -> set[str]:
    """Packages of `HEAVY` in what `-X importtime` prints."""
    modules = {
        line.rpartition("|")[2].strip().split(".")[0]
        for line in listing.splitlines()
        if line.startswith("import time:")
    }
    return modules & set(HEAVY)


def _timed(folder: Path, words: list[str]) -> tuple[float, float]:
    """Seconds, and CPU seconds of the command and its processes."""
    before, start = os.times(), time.perf_counter()
    subprocess.run(command(words), cwd=folder, env=environment(), capture_output=True, check=False)
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - start, spent
