"""Balance classes within each driver: every driver of the competition does everything about equally often.

A model that meets a new driver is biased in its own way for that driver (someone whose hair hides the ear is "hair and makeup"
in every frame). Drivers are found by clustering embeddings (`ensemble/embedding_index.py`), and each driver's probabilities are
shifted by one bias per class until the classes are about as frequent as in training. No label of the images is asked; but all
images of a driver are needed at once, so this belongs to competitions, not to single images in use.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import logsumexp, softmax

from driverwatch.ensemble.embedding_index import EmbeddingIndex, best_reach
from driverwatch.ensemble.transform import MemberPredictions
from driverwatch.io.console import say
from driverwatch.metrics import log_loss

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
FLOOR = 1e-6  # of a probability: what a model rules out may still be raised, a millionfold at most
ROUNDS = 100
TOLERANCE = 1e-6  # of a class's mean
VISIBLE = 1e-3  # of a class's mean, from which a miss is worth a sentence
RIDGE = 1e-9  # of the curvature, which is singular: a factor common to all classes changes nothing
LEAP = 4.0  # nats between two classes in one step: farther away the curvature is another
PER_CLASS = 2.0  # images per class at which a cluster's counts are trusted half


@dataclass(frozen=True, eq=False)
class FittedClassBalance:
    """Fitted: the height that parts drivers, how far to go, and the class frequencies aimed at."""

    space: EmbeddingIndex
    reach: float
    strength: float
    prior: np.ndarray

    @property
    def facts(self) -> dict[str, Any]:
        return {"embeddings": self.space.what, "reach": round(self.reach, 4), "strength": self.strength}

    def __call__(self, predictions: MemberPredictions) -> MemberPredictions:
        groups = [(chosen, grown.cut(self.reach)) for chosen, grown in self.space.trees(predictions)]
        return rebalanced(predictions, groups, self.prior, self.strength)


@dataclass(frozen=True, eq=False)
class ClassBalance:
    """The step: the height is fitted on known drivers, the strength on the log loss of what comes of it."""

    space: EmbeddingIndex
    name: str = "class_balance"

    def fit(self, predictions: MemberPredictions, labels: np.ndarray, drivers: np.ndarray) -> FittedClassBalance:
        """Height and strength for labels int (N,) of drivers (N,), who are clustered within each set, as in a test set."""
        grown = self.space.trees(predictions)
        reach = best_reach([one for _, one in grown], [drivers[chosen] for chosen, _ in grown])
        groups = [(chosen, one.cut(reach)) for chosen, one in grown]
        classes = predictions.members.shape[2]
        prior = (np.bincount(labels, minlength=classes) + 1) / (len(labels) + classes)
        losses = [log_loss(rebalanced(predictions, groups, prior, one).blended, labels) for one in STRENGTHS]
        return FittedClassBalance(self.space, reach, STRENGTHS[int(np.argmin(losses))], prior)


def rebalanced(
    predictions: MemberPredictions, groups: list[tuple[np.ndarray, np.ndarray]], prior: np.ndarray, strength: float
) -> MemberPredictions:
    """Predictions `balanced` within each set; `groups`: a set's row numbers int (n,) and their clusters int (n,)."""
    found = predictions.members.copy()
    for chosen, clusters in groups:
        for member in found:
            member[chosen] = balanced(member[chosen], clusters, prior, strength)
    return predictions.changed(found)


def balanced(probabilities: np.ndarray, clusters: np.ndarray, prior: np.ndarray, strength: float) -> np.ndarray:
    """Shift each cluster's log probabilities by class until their means approach the prior.

    Args:
        probabilities: float (N, C), rows sum to 1.
        clusters: int (N,).
        prior: float (C,), sums to 1.
        strength: share of the shift that makes the means equal to the prior, 0 to 1; a cluster of n images takes
            n / (n + 2 C) of that, since a few images need not show every class.

    Returns:
        float64 (N, C), rows sum to 1.
    """
    found = np.asarray(probabilities, np.float64).copy()
    for cluster in np.unique(clusters):
        chosen = clusters == cluster
        floored = np.maximum(found[chosen], FLOOR)
        trust = chosen.sum() / (chosen.sum() + PER_CLASS * len(prior))
        shifted = floored * shift(floored, prior) ** (strength * trust)
        found[chosen] = shifted / shifted.sum(axis=1, keepdims=True)
    return found


def shift(probabilities: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Factors (C,) by which to multiply positive rows (N, C), so that, each divided by its sum, their mean is the prior.

    They minimise mean(log(rows @ factors)) - prior @ log(factors), convex in their logarithms, whose slope is that mean less the
    prior. Columns and rows scaled in turn (Sinkhorn & Knopp 1967) go down it at every step, but slowly where rows are sure; each
    round so takes the better of such a step and of Newton's. A sentence says so where the means are not within `VISIBLE`.
    """
    logs, best = np.log(probabilities), np.zeros(len(prior))
    for _ in range(ROUNDS):
        shares = softmax(logs + best, axis=1)
        mean = shares.mean(axis=0)
        gap = float(np.abs(mean - prior).max())
        if gap < TOLERANCE:
            break
        bend = np.diag((1 + RIDGE) * mean) - shares.T @ shares / len(shares)
        newton = np.linalg.solve(bend, prior - mean)
        newton *= min(1.0, LEAP / float(np.ptp(newton)))
        tried = (best + step - step.max() for step in (np.log(prior / mean), newton))
        best = min(tried, key=lambda u: float(logsumexp(logs + u, axis=1).mean() - prior @ u))
    if gap > VISIBLE:
        say(
            f"balance: the class means of a driver with {len(probabilities)} images end {gap:.1g} from those of training after "
            f"{ROUNDS} rounds, {TOLERANCE:g} is meant; leave CLASS_BALANCE out if its gain is small"
        )
    return np.asarray(softmax(best))
