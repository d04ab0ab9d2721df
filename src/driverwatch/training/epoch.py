"""One epoch of gradient steps, its progress bar, the time still to go, and batch normalisation recalibrated at its end."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from statistics import mean
from typing import Any

import keras
import numpy as np

from driverwatch.errors import InputError
from driverwatch.io.console import Meter, Part, clock
from driverwatch.io.manifests import read_json
from driverwatch.models.classifier import Classifier, Learner
from driverwatch.models.devices import ONE, Devices
from driverwatch.run import Run
from driverwatch.training.data_loader import TrainingBatches


@dataclass(frozen=True)
class TimeRemaining:
    """Time already spent and still needed for a fold and its run.

    Seconds are those of whole epochs, validation drivers included; later stages are taken to last as long per epoch as this one.
    """

    planned: tuple[int, ...]  # epochs by stage
    others: int  # folds that the same command trains after this one
    each: float | None  # seconds that a finished fold of the run took, predictions included; None: none is finished

    def fold(self, history: list[dict[str, Any]], stage: int, epoch: float, left: float) -> float:
        """Seconds to the fold's last epoch's end.

        Args:
            history: a line per finished epoch, with `stage` and `seconds`.
            epoch: seconds of the epoch that runs, as far as can be told.
            left: seconds that it has still to go.
        """
        behind = [row["seconds"] for row in history if row["stage"] == stage]
        here = max(self.planned[stage] - len(behind) - 1, 0)
        return left + (here + sum(self.planned[stage + 1 :])) * (mean(behind) if behind else epoch)

    def run(self, history: list[dict[str, Any]], epoch: float, left: float, fold: float) -> float:
        """Seconds to the end of the last fold that this command trains; `fold`: those of this one."""
        each = self.each or sum(row["seconds"] for row in history) + epoch - left + fold
        return fold + self.others * each

    def parts(self, history: list[dict[str, Any]], stage: int, epoch: float, left: float) -> list[Part]:
        """The same in words, for a bar."""
        fold = self.fold(history, stage, epoch, left)
        said = [(4, f"fold {clock(fold)}")]
        return said + ([(3, f"run {clock(self.run(history, epoch, left, fold))}")] if self.others else [])


def time_remaining(run: Run, others: int) -> TimeRemaining:
    """What is before a fold of `run`, with `others` to come after it."""
    known = []
    for path in run.folder.glob("fold*/manifest.json"):
        with suppress(InputError):  # an estimate can do without; who uses that fold will say what is wrong with it
            seconds = read_json(path).get("seconds")
            known += [float(seconds)] if isinstance(seconds, int | float) else []
    return TimeRemaining(tuple(run.settings.train.planned), others, mean(known) if known else None)


HALFWAY_LOG_SECONDS = 60.0  # of half an epoch, from which on a log gets a line at half way


class EpochBar(keras.callbacks.Callback):
    """Reports each step of one `fit` of one epoch to a `Meter`, which the caller opens."""

    def __init__(
        self, meter: Meter, batch: int, ahead: TimeRemaining, history: list[dict[str, Any]], stage: int
    ) -> None:
        """Prepare for an epoch.

        Args:
            batch: images in a step.
            history: a line per finished epoch of the fold, as `TimeRemaining.fold` takes it.
        """
        super().__init__()
        self.meter, self.images, self.ahead = meter, batch, ahead
        self.history, self.stage = history, stage

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Count a step; the loss, the epoch's mean so far, is only asked of the device when it is shown."""
        loss = (logs or {}).get("loss")

        def notes() -> list[Part]:
            said: list[Part] = [] if loss is None else [(1, f"loss {float(loss):.3f}")]
            if self.meter.known and self.meter.rate:
                whole = self.meter.total / self.meter.rate
                said += self.ahead.parts(self.history, self.stage, whole, self.meter.left)
            return said

        self.meter.at((batch + 1) * self.images, notes)


def train_epoch(learner: Learner, batches: TrainingBatches, bar: EpochBar, devices: Devices) -> tuple[float, float]:
    """One epoch; its training loss and accuracy.

    A last batch that cannot be split evenly is computed whole by every device: padding it with images of weight 0 would
    leave them in batch statistics.
    """
    with devices.scope():
        if len(batches.order) % batches.batch % devices.count == 0:
            return _fitted(learner, batches, bar)
        batches.steps -= 1  # the epoch ends before its last batch
        last = batches.steps
        before = [_fitted(learner, batches, bar)] if last else []
        logs = learner.train_on_batch(*batches.made(last), return_dict=True)
        bar.on_train_batch_end(last, logs)
        losses, rights = zip(*before, (logs["loss"], logs["accuracy"]), strict=True)
        images, weights = [last * batches.batch, len(batches.order) - last * batches.batch], batches.weight_sums
        loss = np.average(losses, weights=images[-len(losses) :])
        right = np.average(rights, weights=[weights[:last].sum(), weights[last]][-len(rights) :])
        return float(loss), float(right)


def _fitted(learner: Learner, batches: TrainingBatches, bar: EpochBar) -> tuple[float, float]:
    history = learner.fit(batches, shuffle=False, verbose=0, callbacks=[bar]).history
    return history["loss"][-1], history["accuracy"][-1]


def reseed(classifier: Classifier, seed: tuple[int, ...], on: Devices = ONE) -> None:
    """Derive every dropout's random state from `seed`, so that an epoch's randomness does not depend on what ran before."""
    random = np.random.default_rng(seed)
    generators = [getattr(layer, "seed_generator", None) for layer in classifier._flatten_layers()]
    for generator in {id(found): found for found in generators if found is not None}.values():
        on.seed(generator.state, random.integers(2**31, size=2).astype("uint32"))


RECALIBRATION_BATCHES = 50  # of training inputs that statistics of batch normalisation are measured on


def recalibrate_batch_norm(learner: Learner, batches: Iterable[np.ndarray]) -> None:
    """Set the moving mean and variance of every normalisation layer that learns to those over `batches` of equal size.

    For stages with `normalization: recalibrated`. Moving averages lag behind weights that move (Keras' MobileNets keep 99.9 % of
    them at each step), and inference then runs on statistics of weights long gone. Wu & Johnson 2021 (arXiv:2105.07576) call the
    remedy precise batch normalisation. The variance over all is the mean of the batches' variances plus that of their means.
    """
    each = {id(layer): layer for layer in learner._flatten_layers()}.values()  # a shared one is listed twice
    layers = [layer for layer in each if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable]
    seen: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in layers]
    momenta = [layer.momentum for layer in layers]
    try:
        for layer in layers:
            layer.momentum = 0.0  # the moving statistics are then the last batch's own
        for batch in batches:
            learner(batch, training=True)
            for layer, found in zip(layers, seen, strict=True):
                values = (layer.moving_mean, layer.moving_variance)
                mean, variance = (keras.ops.convert_to_numpy(value).astype(np.float64) for value in values)
                found.append((mean, variance))
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
    for layer, found in zip(layers, seen, strict=True):
        means, variances = (np.stack(values) for values in zip(*found, strict=True))
        layer.moving_mean.assign(means.mean(axis=0))
        layer.moving_variance.assign(variances.mean(axis=0) + means.var(axis=0))
