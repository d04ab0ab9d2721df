"""Log loss and its company: the one place that clips probabilities for a score, averages losses and gives their uncertainty."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

FLOOR = 1e-5  # of every printed log loss and of submissions: a confident mistake costs at most ln(1e5) = 11.5, not Kaggle's 34.5
KAGGLE_FLOOR = 1e-15  # the competition's own limit
TINY = 1e-15  # keeps logarithms of what is transformed, not scored, finite


class OofScore(NamedTuple):
    """Losses (N,) of out-of-fold rows, in nats; their mean, its standard error over drivers, and the accuracy."""

    losses: np.ndarray
    log_loss: float
    standard_error: float
    accuracy: float


def oof_score(probabilities: np.ndarray, labels: np.ndarray, drivers: np.ndarray, level: float = FLOOR) -> OofScore:
    """What is printed of out-of-fold rows: arguments as of `log_losses`, `drivers` (N,) as of `standard_error`."""
    losses = log_losses(probabilities, labels, level)
    return OofScore(losses, float(losses.mean()), standard_error(losses, drivers), accuracy(probabilities, labels))


def log_losses(probabilities: np.ndarray, labels: np.ndarray, level: float = FLOOR) -> np.ndarray:
    """Multi-class log loss of each row, in nats: what `FLOOR`, put on a submission of these rows, leaves it to lose.

    Each row is divided by its sum, `limited` to [1e-5, 1], and its true class counts.

    Args:
        probabilities: float (N, C), non-negative, rows with a positive sum.
        labels: int (N,), 0..C-1.
        level: of a submission that has a higher floor of its own (`CLIP=`).

    Returns:
        float64 (N,).
    """
    rows = np.asarray(probabilities, dtype=np.float64)
    kept = limited(rows / rows.sum(axis=1, keepdims=True), level)
    return -np.log(kept[np.arange(len(kept)), labels])


def log_loss(probabilities: np.ndarray, labels: np.ndarray, level: float = FLOOR) -> float:
    """Mean of `log_losses`."""
    return float(log_losses(probabilities, labels, level).mean())


def log_loss_and_slope(probabilities: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """`log_loss` of rows that sum to 1, and its derivative by each probability, float64 (N, C): for fits by gradient."""
    rows, each = np.asarray(probabilities, np.float64), np.arange(len(labels))
    kept = np.clip(rows, FLOOR, 1.0)
    total = kept.sum(axis=1, keepdims=True)
    slope = 1 / np.broadcast_to(total, rows.shape)
    slope[each, labels] -= 1 / kept[each, labels]
    value = (np.log(total[:, 0]) - np.log(kept[each, labels])).mean()
    return float(value), np.where(rows > FLOOR, slope, 0.0) / len(rows)


def binary_log_losses(probabilities: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Mean log loss of each column read as "this class or not": (..., N, C) probabilities, bool (N, C) -> float64 (..., C)."""
    rows = np.clip(np.asarray(probabilities, np.float64), FLOOR, 1 - FLOOR)
    return np.asarray(-np.where(shown, np.log(rows), np.log1p(-rows)).mean(axis=-2))


def kaggle_log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean log loss of a submission as Kaggle scores it: rows divided by their sum, then limited to [1e-15, 1 - 1e-15].

    For submissions whose test labels are known; every other log loss is `log_loss`.
    """
    rows = np.asarray(probabilities, dtype=np.float64)
    chosen = (rows / rows.sum(axis=1, keepdims=True))[np.arange(len(rows)), labels]
    return float(-np.log(np.clip(chosen, KAGGLE_FLOOR, 1 - KAGGLE_FLOOR)).mean())


def standard_error(losses: np.ndarray, groups: np.ndarray) -> float:
    """Cluster-robust standard error of the mean of `losses` (N,) over `groups` (N,); NaN for a single group."""
    names, index = np.unique(groups, return_inverse=True)
    residuals = np.bincount(index, losses - losses.mean())
    count = len(names)
    return float(np.sqrt(count / (count - 1) * (residuals**2).sum()) / len(losses)) if count > 1 else float("nan")


def interval(losses: np.ndarray, groups: np.ndarray, resamples: int = 10_000) -> tuple[float, float]:
    """95 % confidence interval of the mean of `losses` (N,) when drivers, not frames, are drawn again; NaN for a single group.

    Percentiles of a cluster bootstrap: whole drivers are drawn with replacement, each with all its images (Davison & Hinkley
    1997, section 3.8).
    """
    if len(set(groups)) == 1:
        return float("nan"), float("nan")
    low, high = np.percentile(bootstrap_means(losses, groups, resamples), [2.5, 97.5])
    return float(low), float(high)


def bootstrap_means(losses: np.ndarray, drivers: np.ndarray, resamples: int) -> np.ndarray:
    """Means of `losses` (..., N) over the images of resampled drivers (N,), the same for all: float64 (..., resamples)."""
    names, index = np.unique(drivers, return_inverse=True)
    sums = np.apply_along_axis(lambda each: np.bincount(index, each), -1, losses)
    drawn = np.random.default_rng(0).integers(len(names), size=(resamples, len(names)))
    return np.asarray(sums[..., drawn].sum(axis=-1) / np.bincount(index)[drawn].sum(axis=-1))


def over_folds(losses: Sequence[float], images: Sequence[int]) -> tuple[float, float]:
    """Mean loss over all images from each fold's own, and its standard error over folds; NaN for a single fold.

    That of the mean over folds, weighted by their images (a ratio estimate, as over drivers in `standard_error`).

    Args:
        losses: (K,), mean log loss on each fold's validation images.
        images: (K,), how many these are, one at least.
    """
    each, weight = np.asarray(losses, np.float64), np.asarray(images, np.float64)
    mean, count = float((each * weight).sum() / weight.sum()), len(each)
    residuals = weight * (each - mean)
    error = np.sqrt(count / (count - 1) * (residuals**2).sum()) / weight.sum() if count > 1 else np.nan
    return mean, float(error)


def accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Share of rows whose largest probability is the label's."""
    return float((np.argmax(probabilities, axis=1) == labels).mean())


def limited(probabilities: np.ndarray, level: float) -> np.ndarray:
    """Limit to [`level`, 1] and divide each row by its sum: float64, of the same shape (..., C)."""
    rows = np.clip(np.asarray(probabilities, np.float64), level, 1.0)
    return rows / rows.sum(axis=-1, keepdims=True)
