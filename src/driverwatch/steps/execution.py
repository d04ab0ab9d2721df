"""How a run is trained now, in `execution.json` beside `run.json`: its data set, and what decides speed alone.

What decides a run's result lies in `run.json` and is compared; this is written anew by each command that trains, so that a run
may go on with other workers or on other devices.
"""

from pathlib import Path
from typing import Any

from driverwatch.artifacts import Places, read_json
from driverwatch.models import weights as weight_files
from driverwatch.settings import ModelSettings
from driverwatch.training import run as runs
from driverwatch.training.run import Run
from driverwatch.typed_yaml import Strict, parse
from driverwatch.writing import write_json

NAME = "execution.json"


class Execution(Strict):
    """What a fold's process must know beside the run itself."""

    dataset: str
    study: str | None  # whose run it is
    weights: str | None  # folder of local ImageNet weights, where the model's file is there
    settings: dict[str, dict[str, Any]]  # those that decide speed alone, as `runs.speed` has them
    folds: list[int]  # which the command trains in turn, for the time that is told to be left

    def others(self, run: Run, number: int) -> int:
        """How many folds are to be trained after this one."""
        return sum(later > number and not run.finished(later) for later in self.folds)


def write(places: Places, run: Run, settings: ModelSettings, weights: Path | None, folds: list[int]) -> None:
    """Record how a run's folds are to be trained. The caller holds its lock.

    Args:
        settings: those of today, for what decides speed alone.
        weights: folder of local weight files.
    """
    file = weight_files.find(run.settings, weights)
    made = Execution(
        dataset=places.dataset,
        study=places.study,
        weights=str(file.parent) if file else None,
        settings=runs.speed(settings),
        folds=folds,
    )
    write_json(run.folder / NAME, made.model_dump())


def read(folder: Path) -> Execution:
    """How the run in `folder` is to be trained. Raises `InputError` where the record is missing or damaged."""
    path = folder / NAME
    return parse(Execution, read_json(path), str(path))
