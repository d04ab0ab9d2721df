"""What commands import that need nothing of it: Keras, TensorFlow, pandas, by any of their processes. Target: none."""

import os
import subprocess
import time
from pathlib import Path

from benchmarks.result import Result, once
from benchmarks.scratch_project import SET, Project, command, environment
from benchmarks.timing import Timing
from benchmarks.workload import Bench

HEAVY = {"keras", "tensorflow", "pandas"}
IMAGES = 400
TRAIN = ["train", "tiny", "--set", SET, "--dataset", "demo"]
COMMANDS = {
    "--help": ["--help"],
    "make status": ["status", "--dataset", "demo"],
    "make train again, its pack": ["pack", "--model", "tiny", "--set", SET, "--dataset", "demo"],
    "make train again, its train": TRAIN,
}


def results(bench: Bench) -> list[Result]:
    """A result for each command, in a project whose run is finished."""
    project = Project(bench.place / "finished", IMAGES)
    is_trained = (project.folder / "build/demo/runs/tiny/fold1/manifest.json").is_file()
    if not is_trained or _run(project.folder, TRAIN).returncode:
        project.start()
        for step in ("synthetic", "folds", "pack", "train"):
            project.run(step)
    return [_result(project.folder, name, words, bench.asked.repeat) for name, words in COMMANDS.items()]


def _result(folder: Path, name: str, words: list[str], repeat: int) -> Result:
    heavy = imported(folder, words)
    timing = Timing(*zip(*(_timed(folder, words) for _ in range(repeat)), strict=True))
    facts = {"imported": sorted(heavy), "seconds": timing.median}
    return Result("imports", name, "lower", 0, once(float(len(heavy))), {"ours": timing}, facts)


def imported(folder: Path, words: list[str]) -> set[str]:
    """Which of `HEAVY` a command and its processes import."""
    return heavy_in(_run(folder, words, PYTHONPROFILEIMPORTTIME="1").stderr)  # inherited by every Python it starts


def heavy_in(listing: str) -> set[str]:
    """Packages of `HEAVY` in what `-X importtime` prints."""
    lines = (line for line in listing.splitlines() if line.startswith("import time:"))
    return {line.rpartition("|")[2].strip().split(".")[0] for line in lines} & HEAVY


def _timed(folder: Path, words: list[str]) -> tuple[float, float]:
    """Seconds, and CPU seconds of the command and its processes."""
    before, start = os.times(), time.perf_counter()
    _run(folder, words)
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - start, spent


def _run(folder: Path, words: list[str], **more: str) -> "subprocess.CompletedProcess[str]":
    """A command, run to its end in a folder."""
    variables = {**environment(), **more}
    return subprocess.run(command(words), cwd=folder, env=variables, capture_output=True, text=True, check=False)
