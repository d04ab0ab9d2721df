"""A power law through losses at several amounts of data, with what drawing drivers anew says of it."""

from dataclasses import dataclass

import numpy as np

RESAMPLES, SEED = 2_000, 0


@dataclass(frozen=True)
class Fall:
    """loss = at_one * amount ** -exponent; 90 % intervals by drawing the held-out drivers anew."""

    at_one: float
    exponent: float
    exponents: tuple[float, float]
    drawn: np.ndarray  # (R, 2): at_one and exponent of each resample

    def loss(self, amount: float) -> tuple[float, float, float]:
        """Loss at an amount, least, most."""
        each = self.drawn[:, 0] * amount ** -self.drawn[:, 1]
        low, high = np.percentile(each, [5, 95])
        return self.at_one * amount**-self.exponent, float(low), float(high)


def fitted(amounts: list[float], losses: list[np.ndarray], held_out: np.ndarray) -> Fall:
    """A straight line through the logarithms of the mean losses, and through those of drivers drawn anew (cluster bootstrap).

    Power laws in the amount of data: Hestness et al. 2017 (arXiv:1712.00409).

    Args:
        losses: (N,) of each point.
        held_out: (N,), each image's driver.
    """
    names, index = np.unique(held_out, return_inverse=True)
    sums = np.stack([np.bincount(index, each) for each in losses])
    counts = np.bincount(index)
    chosen = np.random.default_rng(SEED).integers(len(names), size=(RESAMPLES, len(names)))
    means = sums[:, chosen].sum(axis=2) / counts[chosen].sum(axis=1)  # (points, R)
    slope, height = _line(amounts, np.stack([each.mean() for each in losses])[:, None])
    slopes, heights = _line(amounts, means)
    low, high = np.percentile(-slopes, [5, 95])
    return Fall(
        float(np.exp(height[0])),
        float(-slope[0]),
        (float(low), float(high)),
        np.stack([np.exp(heights), -slopes], axis=1),
    )


def _line(amounts: list[float], means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least squares of log loss (points, R) on log amounts: slopes and heights (R,)."""
    slopes, heights = np.polynomial.polynomial.polyfit(np.log(amounts), np.log(means), 1)[::-1]
    return slopes, heights
