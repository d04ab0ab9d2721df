"""The learning-rate range test: one training whose rate rises step by step, and what its loss makes of that.

Smith 2017, "Cyclical learning rates for training neural networks" (arXiv:1506.01186), section 3.3, with the rate rising
exponentially and the loss smoothed, as fastai has it since.
"""

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import keras
import numpy as np

from driverwatch.terminal import Meter
from driverwatch.training.fold import FoldTraining
from driverwatch.training.progress import Progress
from driverwatch.training.rates import Smoothing
from driverwatch.training.stages import StagePlan, compile_at, rate_factors


@dataclass(frozen=True)
class Rise:
    """Rates from `low` to `high`, each the same factor above the one before; `points` of them."""

    low: float
    high: float
    points: int

    @property
    def rates(self) -> np.ndarray:
        """float64 (points,)."""
        return np.geomspace(self.low, self.high, self.points)


def range_test(training: FoldTraining, stage: StagePlan, rise: Rise) -> np.ndarray:
    """Train a stage's layers, which the fold has not entered yet, at rising rates, a step each; whole batches, epoch after epoch.

    Ends with the last rate, or where the loss is no number or its smoothed course has diverged.

    Returns:
        Loss of each step that was taken, float64 (steps,), by `rise.rates`.
    """
    begun = sum(training.settings.planned[: stage.number])
    training.enter(stage)
    climbing = keras.optimizers.schedules.ExponentialDecay(rise.low, rise.points - 1, rise.high / rise.low)
    compile_at(training.learner, training.settings, climbing, rate_factors(training.classifier, stage))
    losses, smoothing = list[float](), Smoothing()
    with training.loader, Meter("range test", rise.points, "steps", whose=training.run.name) as meter:
        while len(losses) < rise.points:
            training.progress = Progress(begun)  # which images an epoch shows goes by its number
            begun += 1
            for loss in _epoch(training, rise.points - len(losses)):
                losses.append(loss)
                meter.at(len(losses))
                if not math.isfinite(loss) or smoothing.diverged(loss):
                    return np.array(losses)
    return np.array(losses)


def _epoch(training: FoldTraining, most: int) -> Iterator[float]:
    """Losses of an epoch's whole batches (a smaller last one would weigh as much), `most` of them."""
    whole = max(len(training.shown) // training.settings.batch_size, 1)
    with closing(training.batches()) as batches:
        for step in range(min(whole, most)):
            training.learner.reset_metrics()  # or the loss would be the epoch's mean so far
            images, targets, weights = batches[step]
            said = training.learner.train_on_batch(images, targets, weights, return_dict=True)
            yield float(said["loss"])
