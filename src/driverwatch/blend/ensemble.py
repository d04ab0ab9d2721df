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
from driverwatch.setting_types import ViewSet
from driverwatch.training.predicted import default_views
from driverwatch.training.run import Run


@dataclass(frozen=True)
class Member:
    """A run, the pack of test images that it was predicted on, and the view set it takes part with."""

    run: Run
    test: Pack
    views: ViewSet


def honest_views(run: Run) -> ViewSet:
    """The view set that a run takes part with when none is asked for: the best that all its fits have predicted."""
    return default_views(run)


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
        found[held_out] = held_out_rows(member, fold, list(pack.names[held_out]))
    return found


def held_out_rows(member: Member, fit: int, names: list[str]) -> np.ndarray:
    """A fit's probabilities of its held-out images, float32 (len(names), C), in the order of `names`; other images are refused."""
    return _read(member, fit, "held_out").aligned_to(names)


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


def fits_of(members: list[Member], folds: int, only: int | None = None) -> list[list[list[int]]]:
    """Which fits each member takes part with, for each fold: its own; a run without folds takes part in each with all it has.

    Where no run has folds there is one such list, and with `only` that fit of every member.
    """
    if only is not None:
        return [[[only]] * len(members)]
    whole = [list(range(member.run.settings.train.splits.fits(folds))) for member in members]
    if not any(scored(member.run) for member in members):
        return [whole]
    return [
        [[fold] if scored(m.run) else fits for m, fits in zip(members, whole, strict=True)] for fold in range(folds)
    ]


def unseen_rows(members: list[Member], names: list[str], fits: list[list[int]]) -> Rows:
    """The members' probabilities of the test images, each the mean of its `fits`, without images that no member's pack holds.

    A member whose pack lacks an image that others know (`SKIP_BROKEN=1`) takes the mean of the others for it, so that a
    plain mean is theirs.
    """
    stack = np.stack(
        [
            np.mean([_on_test(member, names, fit) for fit in own], axis=0)
            for member, own in zip(members, fits, strict=True)
        ]
    )
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


def by_fold(folds: list[Rows], rules: Sequence[Rule], fitted: int) -> np.ndarray:
    """What the rules make of each fold's rows for the same images: float64 (F, N, C), in the order of the first fold's.

    Rules were fitted on rows of single fold models, so they are applied to such, and averaged after (`blend/calibrate.py`).

    Args:
        fitted: how many members, the first ones, the blend was fitted on; each other one counts as one more in a mean with
            them, since it has no out-of-fold rows to be weighed by.
    """
    return np.stack([_chained(rows.aligned_to(folds[0].names), rules, fitted) for rows in folds])


def _chained(rows: Rows, rules: Sequence[Rule], fitted: int) -> np.ndarray:
    members = rows.members[fitted:]
    if fitted:
        blended = applied(rules[:1], rows.changed(rows.members[:fitted])).blended
        members = np.concatenate([np.repeat(blended[None], fitted, axis=0), members])
    return applied(rules[1:], rows.changed(members.mean(axis=0, keepdims=True))).blended


def completed(rows: np.ndarray, known: np.ndarray, names: list[str], prior: np.ndarray) -> np.ndarray:
    """Rows (K, C) of the images `known` (K,) put in the order of `names`, the class prior (C,) for the others: float64 (N, C)."""
    made = np.tile(np.asarray(prior, np.float64), (len(names), 1))
    position = {name: i for i, name in enumerate(names)}
    made[[position[name] for name in known]] = rows
    return made


def origin(run: Run, fold: int, views: ViewSet) -> dict[str, str]:
    """What a fold's prediction file must say of its origin: the run's digests and the weights the fold ended with."""
    return run.predicted(fold, views)


def mean(parts: list[np.ndarray]) -> np.ndarray:
    """Arithmetic mean of equally shaped probabilities, rows divided by their sum: float64 (N, C)."""
    average = np.stack(parts).mean(axis=0, dtype=np.float64)
    return average / average.sum(axis=1, keepdims=True)
