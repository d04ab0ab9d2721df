"""Steps from the members' probabilities to one prediction per image: fitted out of fold, scored by nested driver folds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from driverwatch.errors import InputError
from driverwatch.inference.predictions import positions, refuse_invalid


@dataclass(frozen=True, eq=False)
class MemberPredictions:
    """What a step works on: one row per image. Raises `InputError`: names or probabilities are not what is said of them.

    Images of one set were predicted by the same models: a set is the fold that held them out, or 0 for all of a test set.
    """

    names: np.ndarray  # (N,), unique
    members: np.ndarray  # float64 (M, N, C), finite, not negative, rows sum to 1; M = 1 after blending
    sets: np.ndarray  # int (N,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", np.asarray(self.members, np.float64))
        refuse_invalid("rows", self.names, self.members)

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

    Args:
        labels: int (N,), 0..C-1, in the order of `rows.names`; drivers (N,) likewise.
    """
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
        labels: int (N,), 0..C-1, in the order of `rows.names`; drivers (N,) likewise, each in one of two or more sets.
    """
    found = np.empty(predictions.members.shape[1:])
    for number in np.unique(predictions.sets):
        asked = predictions.sets == number
        rules = fit_transforms(steps, predictions.at(~asked), labels[~asked], drivers[~asked])
        found[asked] = apply_transforms(rules, predictions.at(asked)).blended
    return found
