"""A fit on all drivers with the number of epochs that a finished run's folds chose."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from driverwatch.artifacts import digest_of
from driverwatch.errors import InputError
from driverwatch.settings import ModelSettings
from driverwatch.steps.context import Context
from driverwatch.steps.submit import finished_runs
from driverwatch.steps.train import train
from driverwatch.terminal import say
from driverwatch.training.history import read_history
from driverwatch.training.run import Run
from driverwatch.typed_yaml import overridden, parse


@dataclass(frozen=True)
class Epochs:
    """`losses` (E,): mean held-out loss after each epoch of the last stage, over folds by their images."""

    losses: np.ndarray

    @property
    def chosen(self) -> int:
        """How many epochs had the least (the fewest of equals)."""
        return int(np.argmin(self.losses)) + 1


def make_final(context: Context, name: str, overrides: str, weights: Path | None, fold: int | None) -> None:
    """Train `<name>-all` as `name` was trained, on all drivers, for the epochs that did best on its held-out drivers.

    The number is chosen on every driver, so no score of the final fit would be one on unseen drivers; it has none.
    """
    (run,), _, folds, pack = finished_runs(context, [name])
    if not run.settings.train.splits.scored:
        raise InputError(f"{run.folder}: expected a run on folds, it was {run.settings.train.splits.unscored}")
    images = np.bincount([folds.of_driver[driver] for driver in pack.drivers], minlength=folds.count)
    histories = [_history(run, number) for number in range(folds.count)]
    found = epochs(histories, images, run.settings.train.planned, str(run.folder))
    last = f"{found.losses[-1]:.4f} after all {len(found.losses)}"
    say(
        f"{name}: least mean held-out loss {found.losses.min():.4f} after {found.chosen} epochs of the last stage, {last}"
    )
    chosen = {"run": name, "chosen_on": "held-out drivers", "epoch": found.chosen, "histories": digest_of(histories)}
    settings = final_settings(run, found, overrides)
    train(context, settings, f"{name}-all", weights, fold, False, epochs=chosen)


def epochs(histories: list[list[dict[str, str]]], images: np.ndarray, planned: list[int], where: str) -> Epochs:
    """The last stage's losses, over the epochs that every fold had of it.

    Args:
        histories: rows of each fold's `history.csv`.
        images: (K,) held-out images of each fold.
        planned: epochs of each stage.

    Raises:
        InputError: an earlier stage that `patience` cut short in some fold: on all drivers nobody is there to watch it.
    """
    for stage, count in enumerate(planned[:-1]):
        if short := [fold for fold, rows in enumerate(histories) if len(_losses(rows, stage)) < count]:
            raise InputError(
                f"{where}: train.patience ended stage {stage} early in fold {short[0]}; a fit on all drivers holds nobody out "
                "to watch, so train the run without patience, or with fewer epochs in that stage"
            )
    losses = [_losses(rows, len(planned) - 1) for rows in histories]
    common = min(len(each) for each in losses)
    if not common:
        raise InputError(f"{where}: a fold's history.csv holds no epoch of the last stage; train the fold anew")
    return Epochs(np.average([each[:common] for each in losses], axis=0, weights=images))


def _losses(history: list[dict[str, str]], stage: int) -> list[float]:
    return [float(row["held_out_loss"]) for row in history if int(row["stage"]) == stage]


def _history(run: Run, number: int) -> list[dict[str, str]]:
    """What decides of a fold's history: stage, epoch and held-out loss of each epoch."""
    path = run.fold(number) / "history.csv"
    rows = read_history(path)
    if any(row.get("held_out_loss") is None for row in rows):
        raise InputError(f"{path}: not a whole history (no held_out_loss); train fold {number} anew with FORCE=1")
    return [{key: str(row[key]) for key in ("stage", "epoch", "held_out_loss")} for row in rows]


def final_settings(run: Run, found: Epochs, overrides: str) -> ModelSettings:
    """The run's settings on all drivers, and what `SET=` changes besides (`train.splits.count=3`: as many seeds)."""
    content: dict[str, Any] = run.settings.model_dump()
    content["train"] |= {"splits": {"kind": "all"}, "select": "last", "patience": None}
    gradient = run.settings.train.stages[-1].fit == "gradient"
    content["train"]["stop_after"] = found.chosen if gradient else None
    content["predict"] = run.manifest(0)["settings"]["predict"]  # run.json leaves out what decides speed alone
    return parse(ModelSettings, overridden(content, overrides, ModelSettings), f"make final RUN={run.name}")
