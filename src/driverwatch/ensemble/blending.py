"""How much each member of a blend counts: equal weights, weights fitted on labelled rows, and choices of members."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import softmax

from driverwatch.ensemble.transform import MemberPredictions, Step
from driverwatch.errors import InputError
from driverwatch.metrics import TINY, binary_log_losses, log_loss, log_loss_and_slope

ROUNDS = 50  # of greedy selection: weights in steps of a fiftieth, finer than 19 drivers can tell apart


def equal(members: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The same weight for each of (M, N, C): float64 (M,)."""
    return np.full(len(members), 1 / len(members))


def of_mean(members: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Weights (M,) of the arithmetic mean with the lowest log loss on these rows: the one that is printed.

    But for its floor that loss is convex in the weights.
    """

    return _on_simplex(members, partial(log_loss_and_slope, labels=labels))


def of_geometric_mean(members: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Weights (M,) of the geometric mean with the lowest log loss on these rows.

    The normalised mean is a softmax of z = sum_m w_m log p_m, so but for its floor the loss is convex in w too.
    """
    return _on_simplex(np.log(np.maximum(members, TINY)), partial(softmax_loss, labels=labels))


def softmax_loss(scores: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """Log loss of softmax(scores), scores float (N, C), and its derivative by each score, (N, C)."""
    rows = softmax(scores, axis=1)
    value, slope = log_loss_and_slope(rows, labels)
    return value, rows * (slope - (rows * slope).sum(axis=1, keepdims=True))


Loss = Callable[[np.ndarray], tuple[float, np.ndarray]]  # a sum (N, C) -> its loss, gradient (N, C)


def _on_simplex(parts: np.ndarray, of_sum: Loss) -> np.ndarray:
    """Weights (M,), not negative, summing to 1, where the weighted sum of `parts` (M, N, C) loses least: SLSQP from equal ones.

    Equal weights stay where the search ends no better (members that predict the same), and one member stands alone where
    that is better still: near there the loss has its floor, and so is not convex.
    """
    count = len(parts)
    start = np.full(count, 1 / count)
    if count == 1:
        return start

    def loss(share: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = of_sum(np.einsum("mnc,m->nc", parts, share))
        return value, np.einsum("mnc,nc->m", parts, slope)

    whole = {"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like}
    limits: dict[str, Any] = {"bounds": [(0, 1)] * count, "constraints": whole}
    found = minimize(loss, start, jac=True, method="SLSQP", options={"ftol": 1e-10, "maxiter": 500}, **limits).x
    tried = [start, *np.eye(count)]
    if np.isfinite(found).all() and np.maximum(found, 0).sum() > 0:
        tried.insert(1, np.maximum(found, 0) / np.maximum(found, 0).sum())
    return min(tried, key=lambda share: loss(share)[0])


def greedy(members: np.ndarray, labels: np.ndarray, rounds: int = ROUNDS) -> np.ndarray:
    """Weights (M,) from ensemble selection: of `rounds` picks, each member's share (Caruana et al. 2004, ICML).

    From an empty ensemble, each round adds the member (any, any number of times) that leaves the arithmetic mean of all
    picks with the lowest log loss; ties go to the first. Without bagging, which is for hundreds of members.
    """
    picks, total = np.zeros(len(members)), np.zeros(members.shape[1:])
    for _ in range(rounds):
        best = int(np.argmin([log_loss(total + member, labels) for member in members]))
        picks[best] += 1
        total = total + members[best]
    return picks / rounds


def per_class(members: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Weights (M, C): in each class's column the better half of the members counts, equally, and the others not at all.

    After the competition's 1st place, who took for each class the models that were best on it. Better on class c means a
    lower log loss of its column read as "c or not c" over all images. On images of class c alone a member that cries c
    everywhere would win; with the others' images the score is proper. Half (rounded up; ties to the first), since the very best
    on some 30 images a driver is luck, and averaging is what an ensemble is for. A class that no image shows is left
    to all members. Rows no longer sum to 1, so they are divided by their sum.
    """
    shown = labels[:, None] == np.arange(members.shape[2])
    losses = binary_log_losses(members, shown)  # (M, C)
    better = np.argsort(np.argsort(losses, axis=0, kind="stable"), axis=0, kind="stable") < (len(members) + 1) // 2
    kept = np.where(shown.any(axis=0), better, True)
    return kept / kept.sum(axis=0)


@dataclass(frozen=True, eq=False)
class Mean:
    """A fitted blend: the weighted mean of the members, arithmetic or geometric, rows divided by their sum.

    `weights`: float (M,), or (M, C) where each class has its own; not negative, each class's sum to 1.
    """

    weights: np.ndarray
    geometric: bool = False

    @property
    def facts(self) -> dict[str, Any]:
        """The weights in the order of the members."""
        return {"weights": np.round(self.weights, 6).tolist()}

    def __call__(self, predictions: MemberPredictions) -> MemberPredictions:
        """M members become one. Raises InputError for another number of members than the weights were fitted on."""
        if len(predictions.members) != len(self.weights):
            raise InputError(
                f"blend: its weights are of {len(self.weights)} members, got {len(predictions.members)}; blend the same runs"
            )
        if self.geometric:
            return predictions.changed(geometric(predictions.members, self.weights)[None])
        each, classes = len(self.weights), predictions.members.shape[2]
        by_class = np.broadcast_to(self.weights.reshape(each, -1), (each, classes))
        total = np.einsum("mnc,mc->nc", predictions.members, by_class)
        plain = predictions.members.mean(axis=0)  # where no class's own members give it anything
        return predictions.changed(np.where(total.sum(axis=1, keepdims=True) > 0, total, plain)[None])


def geometric(members: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Weighted geometric mean of (M, N, C) by weights (M,), its largest entry 1: float64 (N, C), rows yet to be normalised.

    Probabilities below 1e-15 count as 1e-15: a member's rounded zero would else veto a class whatever all the others say.
    """
    logs = np.einsum("mnc,m->nc", np.log(np.maximum(members, TINY)), share)
    return np.exp(logs - logs.max(axis=1, keepdims=True))


Fit = Callable[[np.ndarray, np.ndarray], np.ndarray]  # members (M, N, C), labels (N,) -> weights (M,) or (M, C)


def _blend(name: str, weigh: Fit, geometric: bool = False) -> Step:
    """A mean whose weights `weigh` finds; every image counts the same, as in the competition's loss, so drivers are not asked."""
    return Step(name, lambda predictions, labels, _: Mean(weigh(predictions.members, labels), geometric))


BLENDS = {
    blend.name: blend
    for blend in (
        _blend("mean", equal),
        _blend("geometric", equal, geometric=True),
        _blend("weighted", of_mean),
        _blend("weighted_geometric", of_geometric_mean, geometric=True),
        _blend("greedy", greedy),
        _blend("per_class", per_class),
    )
}
