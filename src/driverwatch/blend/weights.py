"""How much each member of a blend counts: equal weights, weights fitted on labelled rows, and choices of members."""

from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize

from driverwatch.metrics import CLIP

ROUNDS = 50  # of greedy selection: weights in steps of a fiftieth, finer than 19 drivers can tell apart


def equal(members: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The same weight for each of (M, N, C): float64 (M,)."""
    return np.full(len(members), 1 / len(members))


def of_mean(members: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Weights (M,) of the arithmetic mean with the lowest log loss on these rows.

    With s the probability that a member gives to the true class, the loss is the mean of -log(w.s): convex in w.
    """
    given = _given(members, labels)

    def loss(share: np.ndarray) -> tuple[float, np.ndarray]:
        mixed = np.maximum(share @ given, CLIP)
        return float(-np.log(mixed).mean()), -(given / mixed).mean(axis=1)

    return _on_simplex(loss, len(members))


def of_geometric_mean(members: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Weights (M,) of the geometric mean with the lowest log loss on these rows.

    The normalised mean is a softmax of z = sum_m w_m log p_m, so the loss, logsumexp(z) - z_y, is convex in w too.
    """
    logs = np.log(np.maximum(members, CLIP))
    chosen = np.log(_given(members, labels))

    def loss(share: np.ndarray) -> tuple[float, np.ndarray]:
        mixed = np.einsum("mnc,m->nc", logs, share)
        top = mixed.max(axis=1, keepdims=True)
        rows = np.exp(mixed - top)
        total = rows.sum(axis=1, keepdims=True)
        value = np.log(total[:, 0]) + top[:, 0] - share @ chosen
        expected = np.einsum("mnc,nc->mn", logs, rows / total)
        return float(value.mean()), (expected - chosen).mean(axis=1)

    return _on_simplex(loss, len(members))


def _given(members: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """What each member gives to each image's true class, at least 1e-15: float64 (M, N)."""
    return np.maximum(members[:, np.arange(len(labels)), labels], CLIP)


Loss = Callable[[np.ndarray], tuple[float, np.ndarray]]  # weights (M,) -> loss, gradient (M,)


def _on_simplex(loss: Loss, count: int) -> np.ndarray:
    """Weights (count,), not negative, summing to 1, where a convex loss is least: SLSQP from equal weights.

    Equal weights stay where the search ends no better (members that cannot be told apart).
    """
    start = np.full(count, 1 / count)
    if count == 1:
        return start
    whole = {"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like}
    found = minimize(
        loss,
        start,
        jac=True,
        method="SLSQP",
        bounds=[(0, 1)] * count,
        constraints=whole,
        options={"ftol": 1e-10, "maxiter": 500},
    ).x
    if not np.isfinite(found).all() or np.maximum(found, 0).sum() <= 0:
        return start
    found = np.maximum(found, 0) / np.maximum(found, 0).sum()
    return found if loss(found)[0] < loss(start)[0] else start


def greedy(members: np.ndarray, labels: np.ndarray, rounds: int = ROUNDS) -> np.ndarray:
    """Weights (M,) from ensemble selection: of `rounds` picks, each member's share (Caruana et al. 2004, ICML).

    From an empty ensemble, each round adds the member (any, any number of times) that leaves the arithmetic mean of all
    picks with the lowest log loss; ties go to the first. Without bagging, which is for hundreds of members.
    """
    given = _given(members, labels)
    picks, total = np.zeros(len(members)), np.zeros(len(labels))
    for taken in range(1, rounds + 1):
        losses = -np.log((total + given) / taken).mean(axis=1)
        best = int(losses.argmin())
        picks[best] += 1
        total = total + given[best]
    return picks / rounds


def per_class(members: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Weights (M, C): in each class's column the better half of the members counts, equally, and the others not at all.

    After the competition's 1st place, who took for each class the models that were best on it. Better on class c means a
    lower log loss of its column read as "c or not c" over all images. On images of class c alone a member that cries c
    everywhere would win; with the others' images the score is proper. Half (rounded up; ties to the first), since the very best
    on some 30 images a driver is luck, and averaging is what an ensemble is for. A class that no image shows is left
    to all members. Rows no longer sum to 1, so they are divided by their sum.
    """
    rows = np.clip(members, CLIP, 1 - CLIP)
    shown = labels[:, None] == np.arange(members.shape[2])
    losses = -np.where(shown, np.log(rows), np.log1p(-rows)).mean(axis=1)  # (M, C)
    better = np.argsort(np.argsort(losses, axis=0, kind="stable"), axis=0, kind="stable") < (len(members) + 1) // 2
    kept = np.where(shown.any(axis=0), better, True)
    return kept / kept.sum(axis=0)
