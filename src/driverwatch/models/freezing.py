"""Which layers of a classifier learn."""

from typing import Any

from driverwatch.config.training import Stage
from driverwatch.errors import InputError, nearest
from driverwatch.models.classifier import Classifier


def freeze(classifier: Classifier, until: str | int | float | None, train_statistics: bool) -> int:
    """Freeze the trunk up to and including `until`; return how many of its layers learn.

    Frozen layers drop nothing, so that they give the same each time. An auxiliary classifier learns if its tap does: on a
    frozen one it could teach the trunk nothing.

    Args:
        until: a layer's name, a block's name (its last layer whose name begins `<block>_`), a number of layers, a share
            of them (0 to 1), `head` (the whole trunk), or None (nothing).

    Raises:
        InputError: no such layer, with the nearest name.
    """
    layers = classifier.trunk.layers
    count = frozen_count(layers, until)
    classifier.trunk.trainable = count < len(layers)
    for i, layer in enumerate(layers):
        layer.trainable = i >= count
        if (rate := classifier.dropout_rates.get(layer.name)) is not None:
            layer.rate = rate if layer.trainable else 0.0
    for tap, one in zip(classifier.taps, classifier.auxiliaries, strict=True):
        one.trainable = classifier.trunk.get_layer(tap).trainable
    classifier.train_statistics = train_statistics
    return len(layers) - count


def frozen_count(layers: list[Any], until: str | int | float | None, key: str = "freeze_until") -> int:
    """How many of a trunk's layers `freeze(..., until)` freezes; errors name the setting `key`."""
    if until is None:
        return 0
    if until == "head":
        return len(layers)
    if isinstance(until, float):
        return int(until * len(layers))
    if isinstance(until, int):
        if until > len(layers):
            raise InputError(f"{key}: {until}: the trunk has {len(layers)} layers")
        return until
    names = [layer.name for layer in layers]
    found = [i for i, name in enumerate(names) if name == until] or [
        i for i, name in enumerate(names) if name.startswith(f"{until}_")
    ]
    if not found:
        raise InputError(f"{key}: {until} is no layer or block of this trunk{nearest(until, names)}")
    return found[-1] + 1


def check_names(layers: list[Any], stage: Stage) -> None:
    """Refuse a stage's layer names that a trunk of `layers` does not have."""
    frozen_count(layers, stage.freeze_until)
    for until in stage.rate_factors:
        frozen_count(layers, until, "rate_factors")
