"""An epoch of gradient steps, each on one device or split evenly over several."""

import numpy as np

from driverwatch.models.classifier import Classifier, Learner
from driverwatch.models.devices import ONE, Devices
from driverwatch.training.batches import TrainingBatches
from driverwatch.training.epoch_bar import EpochBar


def descend(learner: Learner, batches: TrainingBatches, bar: EpochBar, devices: Devices) -> tuple[float, float]:
    """One epoch; its training loss and accuracy.

    A last batch that cannot be split evenly is computed whole by every device: padding it with images of weight 0 would
    leave them in batch statistics.
    """
    with devices.scope():
        if not batches.is_odd(devices.count):
            return _fitted(learner, batches, bar)
        last = batches.leave_out_last()
        before = [_fitted(learner, batches, bar)] if last else []
        logs = learner.train_on_batch(*batches.made(last), return_dict=True)
        bar.on_train_batch_end(last, logs)
        losses, rights = zip(*before, (logs["loss"], logs["accuracy"]), strict=True)
        images, weights = [last * batches.batch, len(batches.order) - last * batches.batch], batches.weighed
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
