"""A small finished line, which tests get copies of: images, two folds, packs, a run of one epoch, a submission."""

import contextlib
from pathlib import Path

from driverwatch.config.dataset import DatasetSettings
from driverwatch.config.loading import load
from driverwatch.data import synthetic
from support import kills
from support.in_process import InThisProcess, folds_by, good
from support.project import MINI, QUICK

PLACE = ["--dataset", "demo", "--data", "data"]  # from the project's folder


def make(folder: Path) -> None:
    """Run the line in a new project folder: images in `data`, the run `tiny`, the submission `first`."""
    kills.new_project(folder)
    synthetic.write(MINI, load(DatasetSettings, folder / "configs" / "datasets", "demo"), folder / "data")
    asked = ["--set", QUICK, *PLACE]
    with contextlib.chdir(folder), folds_by(InThisProcess()):
        good("folds", *PLACE)
        good("pack", "--model", "tiny", *asked)
        good("train", "tiny", *asked)
        good("ensemble", "--name", "first", *PLACE)
