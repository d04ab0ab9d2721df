"""Average probabilities: views within a model, then folds, then runs; joined by image name, never by position."""

from dataclasses import dataclass

import numpy as np

from driverwatch.data.folds import FoldTable
from driverwatch.data.pack import Pack
from driverwatch.errors import InputError
from driverwatch.inference import predictions
from driverwatch.inference.paths import prediction_path
from driverwatch.inference.predictions import Predictions
from driverwatch.settings import VIEW_SETS, ViewSet
from driverwatch.training.run import Run


@dataclass(frozen=True)
class Member:
    """A run, the pack of test images that it was predicted on, and the view set it takes part with."""

    run: Run
    test: Pack
    views: ViewSet


def honest_views(run: Run) -> ViewSet:
    """The view set that a run takes part with when none is asked for."""
    return run.settings.honest_views


def mirrored(run: Run) -> bool:
    """Whether training showed mirrored images."""
    return run.settings.shows_mirrored


def scored(run: Run) -> bool:
    """Whether a run has an out-of-fold score: others were not trained on folds, and join averages of test images alone."""
    return run.settings.train.splits.scored


def out_of_fold(member: Member, pack: Pack, folds: FoldTable) -> np.ndarray:
    """Each labelled image's probabilities from the model that never saw its driver, float32 (N, C), in the pack's order.

    Raises:
        InputError: a fold without predictions, or with predictions for other images than its held-out drivers'; a run that
            was not trained on folds.
    """
    run = member.run
    if not scored(run):
        raise InputError(f"{run.folder}: no out-of-fold score: {run.settings.train.splits.unscored}; leave it out")
    found = np.full((len(pack.names), len(run.classes)), np.nan, np.float32)
    for fold in range(folds.count):
        _, held_out = folds.rows(pack.drivers, fold)
        found[held_out] = _read(member, fold, "held_out").aligned_to(list(pack.names[held_out]))
    return found


def _read(member: Member, fold: int, kind: str) -> Predictions:
    """A fold's predictions, which must be of its weights and of the run's classes."""
    path = prediction_path(member.run.fold(fold), kind, member.views)
    made = predictions.read(path, origin(member.run, fold, member.views))
    if made.probabilities.shape[1] != len(member.run.classes):
        raise InputError(
            f"{path}: {made.probabilities.shape[1]} classes, the run has {len(member.run.classes)}; predict again"
        )
    return made


def on_test(member: Member, names: list[str], folds: list[int]) -> np.ndarray:
    """Mean over `folds` of the test images' probabilities, float64 (len(names), C), in the order of `names`.

    Rows of images that the member's pack was made without (`SKIP_BROKEN=1`) are NaN.
    """
    lacked = set(member.test.left_out.names)
    known = [name for name in names if name not in lacked]
    made = [_read(member, fold, "test").aligned_to(known) for fold in folds]
    rows = np.full((len(names), len(member.run.classes)), np.nan)
    rows[[name not in lacked for name in names]] = np.stack(made).mean(axis=0, dtype=np.float64)
    return rows


def completed(members: list[np.ndarray], prior: np.ndarray) -> np.ndarray:
    """Mean over the members (each float (N, C)) that know an image, or the class prior (C,) where none does.

    Args:
        members: rows of NaN where a member's pack lacks the image.
    """
    known = ~np.isnan(np.stack([rows[:, 0] for rows in members]))
    total = np.sum([np.nan_to_num(rows) for rows in members], axis=0)
    count = known.sum(axis=0)[:, None]
    average = np.where(count > 0, total / np.maximum(count, 1), prior)
    return average / average.sum(axis=1, keepdims=True)


def origin(run: Run, fold: int, views: ViewSet) -> dict[str, str]:
    """What a fold's prediction file must say of its origin: the run's digests and the weights the fold ended with."""
    return run.predicted(fold, views)


def mean(parts: list[np.ndarray]) -> np.ndarray:
    """Arithmetic mean of equally shaped probabilities, rows divided by their sum: float64 (N, C)."""
    average = np.stack(parts).mean(axis=0, dtype=np.float64)
    return average / average.sum(axis=1, keepdims=True)


def views_there(run: Run, folds: int) -> list[ViewSet]:
    """View sets that every fit of a finished run has predicted, smallest first, where the data set has so many folds."""
    splits = run.settings.train.splits
    kinds = ("test",) if splits.kind == "all" else ("held_out", "test")
    files = [(run.fold(fit), kind) for fit in range(splits.fits(folds)) for kind in kinds]
    return [views for views in VIEW_SETS if all(prediction_path(fit, kind, views).is_file() for fit, kind in files)]
