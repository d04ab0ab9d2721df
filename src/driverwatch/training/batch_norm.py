"""Batch-normalisation statistics recalibrated on the weights as they are, for stages with `normalization: recalibrated`.

Moving averages lag behind weights that move (Keras' MobileNets keep 99.9 % of them at each step), and inference then runs on
statistics of weights long gone. Wu & Johnson 2021 (arXiv:2105.07576) call the remedy precise batch normalisation.
"""

from collections.abc import Iterable

import keras
import numpy as np

from driverwatch.models.classifier import Learner

BATCHES = 50  # of training inputs that statistics are measured on


def recalibrate_batch_norm(learner: Learner, batches: Iterable[np.ndarray]) -> None:
    """Set the moving mean and variance of every normalisation layer that learns to those over `batches` of equal size.

    The variance over all is the mean of the batches' variances plus the variance of their means.
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
