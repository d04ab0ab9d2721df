"""Steps from the members' probabilities to one prediction per image: fitted out of fold, scored by nested driver folds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from driverwatch.errors import InputError
from driverwatch.inference.predictions import positions, refuse_invalid


@dataclass(frozen=True, eq=False)
class MemberPredictions:
    """What a step works on: one row per image. Raises `InputError`: when built from anything else.

    Images of one set were predicted by the same models: a set is the fold that held them out, or 0 for all of a test set.
    """

    names: np.ndarray  # (N,), unique
    members: np.ndarray  # float64 (M, N, C), finite, not negative, rows sum to 1; M = 1 after blending
    sets: np.ndarray  # int (N,)

    def __post_init__(self) -> None:
        try:
            found = np.asarray(self.names), np.asarray(self.members, np.float64), np.asarray(self.sets)
        except (TypeError, ValueError) as error:
            raise InputError(f"rows: expected arrays of names, probabilities and set numbers, got {error}") from error
        for field, value in zip(("names", "members", "sets"), found, strict=True):
            object.__setattr__(self, field, value)
        _refuse_shapes(*found)
        refuse_invalid("rows", *found[:2])

    def at(self, chosen: np.ndarray) -> "MemberPredictions":
        """Some of the images: a mask or row numbers (K,)."""
        return MemberPredictions(self.names[chosen], self.members[:, chosen], self.sets[chosen])

    def aligned_to(self, names: np.ndarray) -> "MemberPredictions":
        """The same rows in the order of `names` (N,).

        Raises `InputError`: an asked name is not there, or there are images that were not asked for.
        """
        return self if np.array_equal(self.names, names) else self.at(positions("rows", self.names, names))

    def changed(self, members: np.ndarray) -> "MemberPredictions":
        """The same images with other probabilities (M', N, C), each row divided by its sum."""
        return replace(self, members=members / members.sum(axis=2, keepdims=True))

    @property
    def blended(self) -> np.ndarray:
        """The one row that each image has after blending, float64 (N, C).

        Raises `InputError`: nothing was blended yet.
        """
        if len(self.members) != 1:
            raise InputError(f"rows: expected one blended row per image, got {len(self.members)} members; blend first")
        return self.members[0]


def _refuse_shapes(names: np.ndarray, members: np.ndarray, sets: np.ndarray) -> None:
    if members.ndim != 3 or min(members.shape[0], members.shape[2] - 1) < 1:
        raise InputError(f"rows: expected probabilities (members, images, classes), got the shape {members.shape}")
    if names.shape != members.shape[1:2] or sets.shape != names.shape:
        raise InputError(
            f"rows: expected as many names and set numbers as the {members.shape[1]} images of the probabilities, got "
            f"{names.shape} and {sets.shape}"
        )
    if sets.dtype.kind not in "iu":
        raise InputError(f"rows: expected whole set numbers, got {sets.dtype}")


class FittedTransform(Protocol):
    """A fitted step; `facts` is what was fitted, as JSON-able data."""

    @property
    def facts(self) -> dict[str, Any]: ...

    def __call__(self, predictions: MemberPredictions) -> MemberPredictions: ...


class Transform(Protocol):
    """A step that is not fitted yet; `fit` gets labels int (N,), 0..C-1, and drivers (N,), in the order of the rows."""

    @property
    def name(self) -> str: ...

    def fit(self, predictions: MemberPredictions, labels: np.ndarray, drivers: np.ndarray, /) -> FittedTransform: ...


@dataclass(frozen=True)
class Step:
    """A step that nothing but its fit and its name makes."""

    name: str
    fit: Callable[[MemberPredictions, np.ndarray, np.ndarray], FittedTransform]


def fit_transforms(
    steps: Sequence[Transform], predictions: MemberPredictions, labels: np.ndarray, drivers: np.ndarray
) -> list[FittedTransform]:
    """Fit each step on what the ones before it make of all rows: what a submission uses.

    Raises `InputError`: labels or drivers that do not go with the rows.

    Args:
        labels: int (N,), 0..C-1, in the order of `rows.names`; drivers (N,) likewise.
    """
    labels, drivers = _checked(predictions, labels, drivers)
    rules: list[FittedTransform] = []
    for step in steps:
        rules.append(step.fit(predictions, labels, drivers))
        predictions = apply_transforms(rules[-1:], predictions)
    return rules


def apply_transforms(rules: Sequence[FittedTransform], predictions: MemberPredictions) -> MemberPredictions:
    """What the rules make of the rows, in the order that the rows came in."""
    for rule in rules:
        predictions = rule(predictions).aligned_to(predictions.names)
    return predictions


def nested_cross_validation(
    steps: Sequence[Transform], predictions: MemberPredictions, labels: np.ndarray, drivers: np.ndarray
) -> np.ndarray:
    """Each image's blended row from a pipeline that was fitted without its set: float64 (N, C), in the order of the rows.

    For each set the pipeline is fitted on the rows of the others and applied to its own, whose labels it never sees: the loss of
    the result is an honest score of choosing and fitting. One thing is shared, as in all stacking on one set of folds (Wolpert
    1992): the models that predicted the other sets had seen this set's drivers in training. What a pipeline learns of them is few
    numbers, so that little comes through; training folds of folds would cost K times the training.

    Args:
        labels: int (N,), 0..C-1, in the order of `rows.names`; drivers (N,) likewise, each with its images in one set.

    Raises:
        InputError: labels or drivers that do not go with the rows, fewer than two sets, or a driver in two of them.
    """
    labels, drivers = _checked(predictions, labels, drivers)
    numbers = np.unique(predictions.sets)
    if len(numbers) < 2:
        raise InputError("rows: a nested score needs at least two sets (folds), got one; nothing is left to fit on")
    _refuse_divided(drivers, predictions.sets)
    found = np.empty(predictions.members.shape[1:])
    for number in numbers:
        asked = predictions.sets == number
        rules = fit_transforms(steps, predictions.at(~asked), labels[~asked], drivers[~asked])
        found[asked] = apply_transforms(rules, predictions.at(asked)).blended
    return found


def _checked(predictions: MemberPredictions, labels: np.ndarray, drivers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels, drivers = np.asarray(labels), np.asarray(drivers)
    count, classes = predictions.members.shape[1:]
    if labels.shape != (count,) or drivers.shape != (count,) or count == 0:
        raise InputError(
            f"rows: expected a label and a driver for each of {count} images (at least one), got {labels.shape} and "
            f"{drivers.shape}"
        )
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= classes:
        raise InputError(f"rows: expected labels from 0 to {classes - 1}, got {labels.min()} to {labels.max()}")
    return labels, drivers


def _refuse_divided(drivers: np.ndarray, sets: np.ndarray) -> None:
    """Refuse a driver whose images are in two sets: a pipeline would be fitted on whom it is scored on."""
    import pandas as pd

    for driver, found in pd.Series(sets).groupby(drivers).unique().items():
        if len(found) > 1:
            raise InputError(f"rows: driver {driver} is in sets {found[0]} and {found[1]}; folds group by driver")
