"""Log loss and its company, as the competition defines them."""

from collections.abc import Sequence

import numpy as np

CLIP = 1e-15  # the competition's own limit
FLOOR = 1e-5  # of a submission: a confident mistake costs at most ln(1e5) = 11.5 instead of Kaggle's 34.5


def log_losses(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Multi-class log loss of each row, in nats.

    As on Kaggle, each row is divided by its sum, then limited to [1e-15, 1 - 1e-15].

    Args:
        probabilities: float (N, C), non-negative, rows with a positive sum.
        labels: int (N,), 0..C-1.

    Returns:
        float64 (N,).
    """
    rows = np.asarray(probabilities, dtype=np.float64)
    rows = rows / rows.sum(axis=1, keepdims=True)
    chosen = rows[np.arange(len(rows)), labels]
    return -np.log(np.clip(chosen, CLIP, 1 - CLIP))


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean of `log_losses`."""
    return float(log_losses(probabilities, labels).mean())


def over_folds(losses: Sequence[float], images: Sequence[int]) -> tuple[float, float]:
    """Mean loss over all images from each fold's own, and its standard error over folds; NaN for a single fold.

    That of the mean over folds, weighted by their images (a ratio estimate, as over drivers in `blend/score.py`).

    Args:
        losses: (K,), mean log loss on each fold's held-out images.
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
