"""A random split beside the driver split, by the same classifiers on thumbnails, on any data set."""

import time
from typing import Any

import numpy as np

from driverwatch.blend.score import interval
from driverwatch.data import competition, leakage
from driverwatch.data import folds as fold_tables
from driverwatch.data.competition import ImageTable
from driverwatch.data.photos import examine
from driverwatch.data.threads import in_threads
from driverwatch.errors import InputError, listed
from driverwatch.metrics import accuracy, log_losses
from driverwatch.steps.context import Context
from driverwatch.terminal import say, track
from driverwatch.wording import ending, table

CLASSIFIERS = {"nearest neighbour": leakage.nearest, "logistic regression": leakage.logistic}
COLUMNS = {"classifier": False, "split": False, "right": True, "log loss": True, "95 % over drivers": True}


def print_leakage(context: Context) -> None:
    """Score nearest neighbour and logistic regression on thumbnails, each on both splits.

    Raises:
        InputError: no fold file, a data set without drivers, or photos that cannot be read.
    """
    start = time.monotonic()
    labelled = _table(context)
    folds = fold_tables.read(context.places.folds, labelled)
    labels, drivers = labelled.frame["label"].to_numpy(), labelled.frame["driver"].to_numpy(object)
    seen = _thumbnails(context, labelled)
    splits = {
        "random": leakage.dealt(len(labels), folds.count),
        "drivers": np.array([folds.of_driver[driver] for driver in drivers]),
    }
    rows = compared(seen, labels, drivers, splits, len(labelled.classes))
    height, width = leakage.THUMBNAIL
    say(
        f"{context.dataset}: {len(labels)} photos of {len(folds.frame)} drivers, {width}x{height} thumbnails, {folds.count} "
        f"folds; drivers as in {context.places.folds} (digest {folds.digest[:12]}), random by seed 0"
    )
    say("\n".join(table(COLUMNS, rows, COLUMNS, 0)[0]))
    ending(time.monotonic() - start)


def compared(
    seen: np.ndarray, labels: np.ndarray, drivers: np.ndarray, splits: dict[str, np.ndarray], classes: int
) -> list[list[str]]:
    """A row of text for each classifier and split.

    Args:
        seen: float32 (N, F).
        labels: int (N,), 0..C-1.
        drivers: (N,).
        splits: by name, int (N,): the fold that holds each photo out.
        classes: C.
    """

    rows = []
    for name, classifier in CLASSIFIERS.items():
        for split, folds in splits.items():
            made = leakage.held_out(classifier, seen, labels, folds, classes)
            lost = _lost(made, labels, drivers) if classifier is leakage.logistic else ["", ""]
            rows.append([name, split, f"{accuracy(made, labels):.1%}", *lost])
    return rows


def _lost(rows: np.ndarray, labels: np.ndarray, drivers: np.ndarray) -> list[str]:
    """Log loss and its interval; a classifier without probabilities has none that means anything."""
    losses = log_losses(rows, labels)
    low, high = interval(losses, drivers)
    return [f"{losses.mean():.3f}", f"{low:.3f} to {high:.3f}"]


def _table(context: Context) -> ImageTable:
    if context.settings.columns.driver is None:
        raise InputError(
            f"leakage: {context.dataset} names no drivers (columns.driver: null), so there is no driver split to compare with"
        )
    found, problems, _ = competition.read_train(context.settings, context.data)
    if problems:
        raise InputError(f"leakage: {len(problems)} table rows are broken; make folds lists them:{listed(problems)}")
    return found


def _thumbnails(context: Context, labelled: ImageTable) -> Any:
    paths, broken = list(labelled.frame["path"]), list[str]()

    def one(path: str) -> np.ndarray:
        photo = examine(context.data / path, leakage.THUMBNAIL)
        if photo.pixels is None:
            broken.append(f"{path}: {photo.problem}")
            return np.zeros((*leakage.THUMBNAIL, 3), np.uint8)
        return photo.pixels

    seen = leakage.features(track(in_threads(one, paths), len(paths), "look"))
    if broken:
        raise InputError(f"leakage: {len(broken)} photos are broken; mend them (DATA=):{listed(sorted(broken))}")
    return seen
