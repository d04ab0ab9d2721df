"""Blends: several members' probabilities become one row per image, by a weighted mean whose weights may be fitted."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from driverwatch.blend import weights
from driverwatch.blend.chain import Rows
from driverwatch.errors import InputError
from driverwatch.metrics import TINY


@dataclass(frozen=True, eq=False)
class Mean:
    """A fitted blend: the weighted mean of the members, arithmetic or geometric, rows divided by their sum.

    Args:
        weights: float (M,), or (M, C) where each class has its own; not negative, each class's sum to 1.
    """

    weights: np.ndarray
    geometric: bool = False

    @property
    def facts(self) -> dict[str, Any]:
        """The weights in the order of the members."""
        return {"weights": np.round(self.weights, 6).tolist()}

    def __call__(self, rows: Rows) -> Rows:
        """M members become one. Raises InputError for another number of members than the weights were fitted on."""
        if len(rows.members) != len(self.weights):
            raise InputError(
                f"blend: its weights are of {len(self.weights)} members, got {len(rows.members)}; blend the same runs"
            )
        if self.geometric:
            return rows.changed(geometric(rows.members, self.weights)[None])
        total = np.einsum("mnc,mc->nc", rows.members, self._by_class(rows.members.shape[2]))
        plain = rows.members.mean(axis=0)  # where no class's own members give it anything
        return rows.changed(np.where(total.sum(axis=1, keepdims=True) > 0, total, plain)[None])

    def _by_class(self, classes: int) -> np.ndarray:
        return np.broadcast_to(self.weights.reshape(len(self.weights), -1), (len(self.weights), classes))


def geometric(members: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Weighted geometric mean of (M, N, C) by weights (M,), its largest entry 1: float64 (N, C), rows yet to be normalised.

    Probabilities below 1e-15 count as 1e-15: a member's rounded zero would else veto a class whatever all the others say.
    """
    logs = np.einsum("mnc,m->nc", np.log(np.maximum(members, TINY)), share)
    return np.exp(logs - logs.max(axis=1, keepdims=True))


Fit = Callable[[np.ndarray, np.ndarray], np.ndarray]  # members (M, N, C), labels (N,) -> weights (M,) or (M, C)


@dataclass(frozen=True)
class Blend:
    """A blend by name, not yet fitted: how its weights are found, and which mean takes them."""

    name: str
    weigh: Fit
    geometric: bool = False

    def fit(self, rows: Rows, labels: np.ndarray, drivers: np.ndarray) -> Mean:
        """Weights from these rows; every image counts the same, as in the competition's loss."""
        return Mean(self.weigh(rows.members, labels), self.geometric)


BLENDS = {
    blend.name: blend
    for blend in (
        Blend("mean", weights.equal),
        Blend("geometric", weights.equal, geometric=True),
        Blend("weighted", weights.of_mean),
        Blend("weighted_geometric", weights.of_geometric_mean, geometric=True),
        Blend("greedy", weights.greedy),
        Blend("per_class", weights.per_class),
    )
}
