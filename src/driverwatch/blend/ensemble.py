"""Average probabilities: views within a model, then folds, then runs; joined by image name, never by position."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from driverwatch.blend.chain import Rows, Rule, applied
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
    """`ten_crop` where training mirrored too, else `five_crop`: mirrored views of a network that never saw one mislead it."""
    return "ten_crop" if mirrored(run) else "five_crop"


def mirrored(run: Run) -> bool:
    """Whether training showed mirrored images."""
    return run.settings.shows_mirrored


def out_of_fold(member: Member, pack: Pack, folds: FoldTable) -> np.ndarray:
    """Each labelled image's probabilities from the model that never saw its driver, float32 (N, C), in the pack's order.

    Raises:
        InputError: a fold without predictions, or with predictions for other images than its held-out drivers'.
    """
    run = member.run
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


def labelled_rows(members: list[Member], pack: Pack, folds: FoldTable) -> Rows:
    """The members' out-of-fold probabilities in the pack's order; an image's set is the fold that held its driver out."""
    sets = np.array([folds.of_driver[driver] for driver in pack.drivers], np.int64)
    return Rows(pack.names, np.stack([_whole(out_of_fold(member, pack, folds)) for member in members]), sets)


def unseen_rows(members: list[Member], names: list[str], fold: int) -> Rows:
    """The members' probabilities of the test images from a fold's models, without images that no member's pack holds.

    A member whose pack lacks an image that others know (`SKIP_BROKEN=1`) takes the mean of the others for it, so that a
    plain mean is theirs.
    """
    stack = np.stack([_on_test(member, names, fold) for member in members])
    known = ~np.isnan(stack[:, :, 0])
    chosen = known.any(axis=0)
    known, stack = known[:, chosen], stack[:, chosen]
    others = np.where(known[..., None], stack, 0).sum(axis=0) / known.sum(axis=0)[:, None]
    sets = np.zeros(int(chosen.sum()), np.int64)
    return Rows(np.array(names, object)[chosen], np.where(known[..., None], stack, others), sets)


def _on_test(member: Member, names: list[str], fold: int) -> np.ndarray:
    """A fold's test probabilities, float64 (len(names), C); NaN where the member's pack lacks the image."""
    lacked = set(member.test.left_out.names)
    known = np.array([name not in lacked for name in names], bool)
    rows = np.full((len(names), len(member.run.classes)), np.nan)
    rows[known] = _whole(_read(member, fold, "test").aligned_to([name for name in names if name not in lacked]))
    return rows


def _whole(rows: np.ndarray) -> np.ndarray:
    """Rows (N, C) divided by their sum in float64: float32 leaves it 1e-7 off."""
    wide = rows.astype(np.float64)
    return wide / wide.sum(axis=1, keepdims=True)


def by_fold(folds: list[Rows], rules: Sequence[Rule]) -> np.ndarray:
    """What the rules make of each fold's rows for the same images: float64 (F, N, C), in the order of the first fold's.

    Rules were fitted on rows of single fold models, so they are applied to such, and averaged after (`blend/calibrate.py`).
    """
    return np.stack([applied(rules, rows.aligned_to(folds[0].names)).blended for rows in folds])


def completed(rows: np.ndarray, known: np.ndarray, names: list[str], prior: np.ndarray) -> np.ndarray:
    """Rows (K, C) of the images `known` (K,) put in the order of `names`, the class prior (C,) for the others: float64 (N, C)."""
    made = np.tile(np.asarray(prior, np.float64), (len(names), 1))
    position = {name: i for i, name in enumerate(names)}
    made[[position[name] for name in known]] = rows
    return made


def origin(run: Run, fold: int, views: ViewSet) -> dict[str, str]:
    """What a fold's prediction file must say of its origin: the run's digests and the weights the fold ended with."""
    return {**run.origin, "weights": run.manifest(fold)["weights"], "views": views}


def mean(parts: list[np.ndarray]) -> np.ndarray:
    """Arithmetic mean of equally shaped probabilities, rows divided by their sum: float64 (N, C)."""
    average = np.stack(parts).mean(axis=0, dtype=np.float64)
    return average / average.sum(axis=1, keepdims=True)


def views_there(run: Run, folds: int, kinds: tuple[str, ...] = ("held_out", "test")) -> list[ViewSet]:
    """View sets that every fold of a finished run has predicted, smallest first."""
    return [
        views
        for views in VIEW_SETS
        if all(prediction_path(run.fold(f), kind, views).is_file() for f in range(folds) for kind in kinds)
    ]
