"""Freezing: which layers of a classifier learn."""

from typing import Any

from driverwatch.config.training import Stage
from driverwatch.errors import InputError, nearest
from driverwatch.models.classifier import Classifier


def freeze(classifier: Classifier, until: str | int | float | None, train_statistics: bool) -> int:
    """Freeze the backbone up to and including `until`; return how many of its layers learn.

    Frozen layers drop nothing, so that they give the same each time. An auxiliary classifier learns if its tap does: on a
    frozen one it could teach the backbone nothing.

    Args:
        until: a layer's name, a block's name (its last layer whose name begins `<block>_`), a number of layers, a share
            of them (0 to 1), `head` (the whole backbone), or None (nothing).

    Raises:
        InputError: no such layer, with the nearest name.
    """
    layers = classifier.backbone.layers
    count = frozen_count(layers, until)
    classifier.backbone.trainable = count < len(layers)
    for i, layer in enumerate(layers):
        layer.trainable = i >= count
        if (rate := classifier.dropout_rates.get(layer.name)) is not None:
            layer.rate = rate if layer.trainable else 0.0
    for tap, one in zip(classifier.taps, classifier.auxiliaries, strict=True):
        one.trainable = classifier.backbone.get_layer(tap).trainable
    classifier.train_statistics = train_statistics
    return len(layers) - count


def frozen_count(layers: list[Any], until: str | int | float | None, key: str = "freeze_until") -> int:
    """How many of a backbone's layers `freeze(..., until)` freezes; errors name the setting `key`."""
    if until is None:
        return 0
    if until == "head":
        return len(layers)
    if isinstance(until, float):
        return int(until * len(layers))
    if isinstance(until, int):
        if until > len(layers):
            raise InputError(f"{key}: {until}: the backbone has {len(layers)} layers")
        return until
    names = [layer.name for layer in layers]
    found = [i for i, name in enumerate(names) if name == until] or [
        i for i, name in enumerate(names) if name.startswith(f"{until}_")
    ]
    if not found:
        raise InputError(f"{key}: {until} is no layer or block of this backbone{nearest(until, names)}")
    return found[-1] + 1


def check_names(layers: list[Any], stage: Stage) -> None:
    """Refuse a stage's layer names that a backbone of `layers` does not have."""
    frozen_count(layers, stage.freeze_until)
    for until in stage.lr_multipliers:
        frozen_count(layers, until, "lr_multipliers")
