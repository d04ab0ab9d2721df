"""Networks by row of the backbone table: built empty, with steady layer names and their own input constants."""

import importlib
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from driverwatch.config.backbones import BACKBONES, Backbone
from driverwatch.errors import InputError, nearest

# of ImageNet's channels, RGB in 0-1
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def build_network(row: Backbone, size: tuple[int, int], top: bool = False) -> Any:
    """Build a row's network with random weights: (B, *size, 3), already scaled -> features, or (B, 1000) with its top.

    Raises:
        ValueError: a size that the constructor refuses.
    """
    module, name = row.constructor.rsplit(".", 1)
    build = getattr(importlib.import_module(module), name)
    network = build(weights=None, include_top=top, input_shape=(*size, 3))
    renumber(network)
    fix_normalization(network)
    return network


def renumber(network: Any) -> None:
    """Give automatically numbered layers (`add_3`) the numbers of a fresh process: Keras counts on from build to build.

    So `freeze_until: add_3` and `truncate_at: add_3` mean the same layer whatever was built before.
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


def fix_normalization(network: Any) -> None:
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


def single_tensor_layers(network: Any) -> list[str]:
    """Names of the layers where a network may be cut: all that was made before is used up there (no branch, no shortcut open).

    Operations that are no layers count too: ConvNeXt adds its shortcuts by `+`.
    """
    import keras

    operations = network.operations
    last_use = _last_uses(operations)
    legal, reach = [], 0
    for i, operation in enumerate(operations):
        if i > 0 and reach <= i and isinstance(operation, keras.layers.Layer):
            legal.append(operation.name)
        reach = max(reach, last_use[i])
    return legal


def _last_uses(operations: list[Any]) -> list[int]:
    """For each operation, the position of the last one that takes its output."""
    position = {id(operation): i for i, operation in enumerate(operations)}
    last_use = list(range(len(operations)))
    for i, operation in enumerate(operations):
        for node in operation._inbound_nodes:
            for parent in node.parent_nodes:
                if (j := position.get(id(parent.operation))) is not None:
                    last_use[j] = max(last_use[j], i)
    return last_use


def truncated(network: Any, cut: str | None, backbone: str) -> Any:
    """The network up to and including layer `cut`; all of it for None.

    Raises:
        InputError: no such layer, or not a single tensor there.
    """
    if cut is None:
        return network
    legal = single_tensor_layers(network)
    if cut not in legal:
        named = [layer.name for layer in network.layers]
        row = BACKBONES[backbone]
        points = [point for point in row.freeze_points if point in legal] or legal
        reason = "lies inside a branch or beside a shortcut" if cut in named else "is no layer of it"
        raise InputError(
            f"truncate_at: {cut} {reason}; {backbone} can be cut at {', '.join([*points[-8:], *row.top_cuts])} "
            f"and other single-tensor layers (make layers lists them){nearest(cut, legal)}"
        )
    import keras

    return keras.Model(network.input, network.get_layer(cut).output, name=network.name)


def refuse_empty(network: Any, kept: Any, backbone: str, source: Path) -> None:
    """Refuse layers whose kernels are all zero: the file did not hold them, and training would never wake them.

    Args:
        network: all that was loaded.
        kept: what is left of it after the cut.

    Raises:
        InputError: with the cuts that leave no such layer.
    """
    import keras

    def is_empty(layer: Any) -> bool:
        kernels = [weight for weight in layer.weights if len(weight.shape) > 1]
        return any(not np.any(keras.ops.convert_to_numpy(kernel)) for kernel in kernels)

    names = [layer.name for layer in network.layers]
    remaining = {layer.name for layer in kept.layers}
    if not (blocked := [layer.name for layer in network.layers if layer.name in remaining and is_empty(layer)]):
        return
    first = names.index(blocked[0])
    legal = [name for name in single_tensor_layers(network) if names.index(name) < first]
    points = [name for name in legal if name in BACKBONES[backbone].freeze_points]
    others = " or truncate_at: ".join(reversed(list(dict.fromkeys([*points[-3:], *legal[-1:]]))))
    way_out = f"cut earlier, for example truncate_at: {others}" if others else "fetch the file again"
    raise InputError(
        f"{source}: holds nothing for {len(blocked)} layers that this model keeps ({', '.join(blocked[:3])}, ...); {way_out}"
    )
