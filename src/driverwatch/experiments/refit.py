"""Refit on all data: a finished run's settings on all drivers, for the number of epochs that its folds chose."""

from pathlib import Path

import numpy as np

from driverwatch.config.loading import overridden, parse
from driverwatch.config.model import ModelSettings
from driverwatch.data.context import Context
from driverwatch.ensemble.members import finished_runs
from driverwatch.errors import InputError
from driverwatch.experiments.experiment import settings_as_trained
from driverwatch.io.console import say
from driverwatch.io.manifests import checksum_of
from driverwatch.run import Run
from driverwatch.training.checkpoint import read_history
from driverwatch.training.train import TrainRequest, train

History = list[dict[str, str]]  # an epoch each: what decides of it


def refit(context: Context, name: str, overrides: str, weights: Path | None, fold: int | None) -> None:
    """Train `<name>-all` as `name` was trained, on all drivers, for the epochs with the least validation loss.

    The number is chosen on every driver, so no score of the refit would be one on unseen drivers; it has none.

    Args:
        overrides: `SET=`, what it changes besides.
        fold: the one model to train, where `train.splits.count` asks for several.
    """
    (run,), _, folds, pack = finished_runs(context, [name])
    if not run.settings.train.splits.scored:
        raise InputError(f"{run.folder}: expected a run on folds, it was {run.settings.train.splits.unscored}")
    images = np.bincount([folds.of_driver[driver] for driver in pack.drivers], minlength=folds.count)
    histories = [_history(run, number) for number in range(folds.count)]
    losses = epoch_losses(histories, images, run.settings.train.planned, str(run.folder))
    epoch = best_epoch(losses)
    say(
        f"{name}: least mean validation loss {losses.min():.4f} after {epoch} epochs of the last stage, {losses[-1]:.4f} after "
        f"all {len(losses)}"
    )
    chosen = {"run": name, "chosen_on": "validation drivers", "epoch": epoch, "histories": checksum_of(histories)}
    settings = refit_settings(run, epoch, overrides)
    name = f"{name}-all"
    train(TrainRequest(context=context, settings=settings, name=name, weights=weights, fold=fold, epochs=chosen))


def epoch_losses(histories: list[History], images: np.ndarray, planned: list[int], where: str) -> np.ndarray:
    """Mean validation loss after each epoch of the last stage that every fold had, weighted by images: float64 (E,).

    Args:
        histories: of each fold.
        images: (K,) validation images of each fold.
        planned: epochs of each stage.

    Raises:
        InputError: an earlier stage that `patience` cut short in some fold: without validation drivers nothing can.
    """
    for stage, count in enumerate(planned[:-1]):
        if short := [fold for fold, history in enumerate(histories) if len(_losses(history, stage)) < count]:
            raise InputError(
                f"{where}: train.patience ended stage {stage} early in fold {short[0]}; a refit on all data has no validation "
                "drivers to do so, so train the run without patience, or with fewer epochs in that stage"
            )
    losses = [_losses(history, len(planned) - 1) for history in histories]
    common = min(map(len, losses))
    if not common:
        raise InputError(f"{where}: a fold's history.csv holds no epoch of the last stage; retrain the fold")
    return np.average([each[:common] for each in losses], axis=0, weights=images)


def best_epoch(losses: np.ndarray) -> int:
    """How many epochs had the least of the losses (E,): the fewest of equals."""
    return int(np.argmin(losses)) + 1


def _losses(history: History, stage: int) -> list[float]:
    return [float(epoch["val_loss"]) for epoch in history if int(epoch["stage"]) == stage]


def _history(run: Run, number: int) -> History:
    """Stage, epoch and validation loss of each epoch of a fold."""
    path = run.fold(number) / "history.csv"
    epochs = read_history(path)
    if any(epoch.get("val_loss") is None for epoch in epochs):
        raise InputError(f"{path}: not a whole history (no val_loss); retrain fold {number} with FORCE=1")
    return [{key: str(epoch[key]) for key in ("stage", "epoch", "val_loss")} for epoch in epochs]


def refit_settings(run: Run, epoch: int, overrides: str) -> ModelSettings:
    """The run's settings on all drivers, and what `SET=` changes besides (`train.splits.count=3`: as many seeds)."""
    content = settings_as_trained(run)
    content["train"] |= {"splits": {"kind": "all"}, "select": "last", "patience": None}
    gradient = run.settings.train.stages[-1].fit == "gradient"
    content["train"]["max_epochs"] = epoch if gradient else None
    return parse(ModelSettings, overridden(content, overrides, ModelSettings), f"make refit RUN={run.name}")
