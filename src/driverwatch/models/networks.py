"""Networks by row of the backbone table: built empty, with steady layer names and their own input constants."""

import importlib
import re
from collections import defaultdict
from typing import Any

from driverwatch.backbones import Backbone

# of ImageNet's channels, RGB in 0-1
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)


def construct(row: Backbone, size: tuple[int, int], top: bool = False) -> Any:
    """Build a row's network with random weights: (B, *size, 3), already scaled -> features, or (B, 1000) with its top.

    Raises:
        ValueError: a size that the constructor refuses.
    """
    module, name = row.constructor.rsplit(".", 1)
    build = getattr(importlib.import_module(module), name)
    network = build(weights=None, include_top=top, input_shape=(*size, 3))
    renumber(network)
    settle(network)
    return network


def renumber(network: Any) -> None:
    """Give automatically numbered layers (`add_3`) the numbers of a fresh process: Keras counts on from build to build.

    So `freeze_until: add_3` and `cut: add_3` mean the same layer whatever was built before.
    """
    numbered: dict[str, list[tuple[int, Any]]] = defaultdict(list)
    for layer in network.layers:
        if (number := automatic_number(layer, layer.name)) is not None:
            numbered[automatic_prefix(layer)].append((number, layer))
    for prefix, found in numbered.items():
        for number, (_, layer) in enumerate(sorted(found, key=lambda pair: pair[0])):
            layer.name = f"{prefix}_{number}" if number else prefix


def automatic_prefix(layer: Any) -> str:
    """`conv2d` for a Conv2D layer, as Keras names layers and keys of weight files (`keras/src/utils/naming.py`)."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", type(layer).__name__)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def automatic_number(layer: Any, name: str) -> int | None:
    """3 for `conv2d_3` as name of a Conv2D layer, 0 for `conv2d`; None for a name that somebody chose."""
    found = re.fullmatch(rf"{re.escape(automatic_prefix(layer))}(?:_(\d+))?", name)
    return int(found[1] or 0) if found else None


def settle(network: Any) -> None:
    """Give EfficientNet's normalisation of its input ImageNet's mean and variance.

    Keras leaves them to the weight file, whose "variance" is the deviation, and makes up for it by a layer that it adds
    under `weights="imagenet"` alone (https://github.com/tensorflow/tensorflow/issues/49930): a network built empty and then
    loaded from the same file would see inputs at half their scale. `(x - mean) / deviation` is what both come to.
    """
    import keras

    for layer in network.layers:
        if isinstance(layer, keras.layers.Normalization) and layer.input_mean is None:
            layer.adapt_mean.assign(MEAN)
            layer.adapt_variance.assign([deviation**2 for deviation in DEVIATION])
            layer.finalize_state()
