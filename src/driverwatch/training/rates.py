"""What a learning-rate range test says: its smoothed loss, where that falls fastest, where it diverges. Imports no Keras."""

from dataclasses import dataclass, field

import numpy as np

MEMORY = 0.9  # of the exponential mean: about the last ten steps
DIVERGED = 4.0  # times the least smoothed loss so far
SETTLED = 10  # steps before divergence is believed
CHORD = 10  # steps over which the steepness is taken: from one to the next it is mostly noise


@dataclass
class Smoothing:
    """An exponential mean of losses that come one by one, without the bias towards 0 of its start (Kingma & Ba 2015, section 3)."""

    mean: float = 0.0
    count: int = 0
    least: float = field(default=float("inf"))

    def __call__(self, loss: float) -> float:
        """The mean after one more loss."""
        self.count += 1
        self.mean = MEMORY * self.mean + (1 - MEMORY) * loss
        return self.mean / (1 - MEMORY**self.count)

    def diverged(self, loss: float) -> bool:
        """Whether the mean, after one more loss, lies far above the least there was."""
        smooth = self(loss)
        self.least = min(self.least, smooth)
        return self.count > SETTLED and smooth > DIVERGED * self.least


def smoothed(losses: np.ndarray) -> np.ndarray:
    """The exponential mean after each loss: float64 (N,); no number from where a loss is none."""
    smoothing = Smoothing()
    return np.array([smoothing(float(loss)) for loss in losses], np.float64)


@dataclass(frozen=True)
class Suggestion:
    """Two rates that are commonly taken: where the loss falls fastest, and a tenth of where it is least."""

    steepest: float
    tenth_of_least: float


def suggested(rates: np.ndarray, smooth: np.ndarray) -> Suggestion | None:
    """Read both off a smoothed course (N,); None: the loss falls nowhere, so that there is nothing to read.

    The steepest descent is that of a chord over `CHORD` steps, by logarithm of the rate, before the least loss and past the
    first steps, where the mean is of few losses. The mean lags behind by some steps, so that both are rather high.
    """
    known = np.isfinite(smooth)
    rates, smooth, half = rates[: len(smooth)][known], smooth[known], CHORD // 2
    least = SETTLED + int(smooth[SETTLED:].argmin()) if len(smooth) > SETTLED else 0
    middles = np.arange(SETTLED, least - half + 1)
    if not len(middles):
        return None
    run = np.log(rates[middles + half]) - np.log(rates[middles - half])
    slopes = (smooth[middles + half] - smooth[middles - half]) / run
    if slopes.min() >= 0:
        return None
    steepest = int(middles[slopes.argmin()])
    return Suggestion(float(rates[steepest]), float(rates[least]) / 10)
