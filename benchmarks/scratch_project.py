"""Projects of their own for measuring commands: a folder with the real configs, a synthetic competition of so many tiny images."""

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.memory_sampler import watched
from driverwatch.data.context import CONFIGS
from driverwatch.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
PER_DRIVER = 100  # images: 10 classes of 10 frames
LABELLED_SHARE = 0.22  # of all images, as in the competition: 22,424 of 102,150
SET = (
    "input.pack=32x40 input.size=32x36 train.epochs=1 predict.tta=centre predict.batch_size=200 train.loader=processes"
)
STEPS = {
    "synthetic": ["synthetic", "--frames", str(PER_DRIVER // 10), "--size", "32x40"],
    "folds": ["folds"],
    "pack": ["pack", "--model", "tiny", "--set", SET],
    "train": ["train", "tiny", "--set", SET],
    "predict": ["predict", "tiny", "--tta", "ten_crop", "--batch-size", "200"],
    "ensemble": ["ensemble", "--name", "size"],
}


@dataclass(frozen=True)
class Cost:
    """What one command took: seconds, and peak private memory of all its processes together, MiB."""

    seconds: float
    memory: float


@dataclass(frozen=True)
class Project:
    """A project of `images` synthetic images, two folds."""

    folder: Path
    images: int

    def start(self) -> None:
        """An empty folder with the real configs."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(CONFIGS, self.folder / "configs")
        (self.folder / "folds").mkdir()
        settings = self.folder / "configs" / "datasets" / "demo.yaml"
        settings.write_text(settings.read_text().replace("folds: 3", "folds: 2"))

    def words(self, step: str) -> list[str]:
        """A step's command and options."""
        if step != "synthetic":
            return STEPS[step]
        drivers = max(2, round(self.images * LABELLED_SHARE / PER_DRIVER))
        tests = max(1, round(self.images / PER_DRIVER) - drivers)
        return [*STEPS[step], "--drivers", str(drivers), "--test-drivers", str(tests)]

    def run(self, step: str) -> Cost:
        """The cost of a step, run to its end.

        Raises:
            InputError: it failed, with the last of what it printed.
        """
        log, start = self.folder / "log.txt", time.monotonic()
        with log.open("a") as output:
            words = command([*self.words(step), "--dataset", "demo"])
            process = subprocess.Popen(words, cwd=self.folder, env=environment(), stdout=output, stderr=output)
            memory, _ = watched(process)
        if process.returncode:
            raise InputError(f"{self.folder}: {step} of {self.images} images failed: {log.read_text()[-500:]}")
        return Cost(time.monotonic() - start, memory / 2**20)


def command(words: list[str]) -> list[str]:
    """A `driverwatch` command for a process."""
    return [sys.executable, "-m", "driverwatch", *words]


def environment() -> dict[str, str]:
    """This process' environment, with the package and the bench found from any folder."""
    paths = [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
