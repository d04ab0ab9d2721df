"""Balance classes within each driver: every driver of the competition does everything about equally often.

A model that meets a new driver is biased in its own way for that driver (someone whose hair hides the ear is "hair and makeup"
in every frame). Drivers are told apart by looks (`blend/drivers.py`), and each driver's probabilities are shifted by one bias
per class until the classes are about as frequent as in training. No label of the images is asked; but all images of a driver
are needed at once, so this belongs to competitions, not to single photos in use.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from driverwatch.blend.chain import Rows
from driverwatch.blend.drivers import best_reach
from driverwatch.blend.space import Space
from driverwatch.metrics import log_loss

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
FLOOR = 1e-6  # of a probability: what a model rules out may still be raised, a millionfold at most
ROUNDS = 100
PER_CLASS = 2.0  # images per class at which a cluster's counts are trusted half


@dataclass(frozen=True, eq=False)
class Balancing:
    """Fitted: the height that parts drivers, how far to go, and the class frequencies aimed at."""

    space: Space
    reach: float
    strength: float
    prior: np.ndarray

    @property
    def facts(self) -> dict[str, Any]:
        return {"features": self.space.what, "reach": round(self.reach, 4), "strength": self.strength}

    def __call__(self, rows: Rows) -> Rows:
        groups = [(chosen, grown.cut(self.reach)) for chosen, grown in self.space.trees(rows)]
        return rebalanced(rows, groups, self.prior, self.strength)


@dataclass(frozen=True, eq=False)
class Balance:
    """The step: the height is fitted on known drivers, the strength on the log loss of what comes of it."""

    space: Space
    name: str = "balance"

    def fit(self, rows: Rows, labels: np.ndarray, drivers: np.ndarray) -> Balancing:
        """See `Step.fit`. Drivers are told apart within each set, as they will be in a test set."""
        grown = self.space.trees(rows)
        reach = best_reach([one for _, one in grown], [drivers[chosen] for chosen, _ in grown])
        groups = [(chosen, one.cut(reach)) for chosen, one in grown]
        classes = rows.members.shape[2]
        prior = (np.bincount(labels, minlength=classes) + 1) / (len(labels) + classes)
        losses = [log_loss(rebalanced(rows, groups, prior, one).blended, labels) for one in STRENGTHS]
        return Balancing(self.space, reach, STRENGTHS[int(np.argmin(losses))], prior)


def rebalanced(rows: Rows, groups: list[tuple[np.ndarray, np.ndarray]], prior: np.ndarray, strength: float) -> Rows:
    """`balanced` within each set: its row numbers and their clusters."""
    found = rows.members.copy()
    for chosen, clusters in groups:
        for member in found:
            member[chosen] = balanced(member[chosen], clusters, prior, strength)
    return rows.changed(found)


def balanced(rows: np.ndarray, clusters: np.ndarray, prior: np.ndarray, strength: float) -> np.ndarray:
    """Shift each cluster's log probabilities by class until their means approach the prior.

    Args:
        rows: float (N, C), rows sum to 1.
        clusters: int (N,).
        prior: float (C,), sums to 1.
        strength: share of the shift that makes the means equal to the prior, 0 to 1; a cluster of n images takes
            n / (n + 2 C) of that, since a few images need not show every class.

    Returns:
        float64 (N, C), rows sum to 1.
    """
    found = np.asarray(rows, np.float64).copy()
    for cluster in np.unique(clusters):
        chosen = clusters == cluster
        floored = np.maximum(found[chosen], FLOOR)
        trust = chosen.sum() / (chosen.sum() + PER_CLASS * len(prior))
        shifted = floored * shift(floored, prior) ** (strength * trust)
        found[chosen] = shifted / shifted.sum(axis=1, keepdims=True)
    return found


def shift(rows: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Factors (C,) by which to multiply positive rows (N, C), so that, each divided by its sum, their mean is the prior.

    Columns and rows are scaled in turn (Sinkhorn & Knopp 1967), which settles for positive rows.
    """
    factors = np.ones(len(prior))
    for _ in range(ROUNDS):
        scaled = rows * factors
        mean = (scaled / scaled.sum(axis=1, keepdims=True)).mean(axis=0)
        if np.abs(mean - prior).max() < 1e-6:
            break
        factors = factors * prior / mean
    return factors / factors.sum()
