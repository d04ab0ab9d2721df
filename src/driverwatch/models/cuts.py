"""Cuts: where a network may end earlier than it was built, and where it must because a file holds no more."""

from pathlib import Path
from typing import Any

import numpy as np

from driverwatch.backbones import BACKBONES
from driverwatch.errors import InputError, nearest


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


def cut_at(network: Any, cut: str | None, backbone: str) -> Any:
    """The network up to and including layer `cut`; all of it for None.

    Raises:
        InputError: no such layer, or not a single tensor there.
    """
    if cut is None:
        return network
    legal = single_tensor_layers(network)
    if cut not in legal:
        named = [layer.name for layer in network.layers]
        reason = "lies inside a branch or beside a shortcut" if cut in named else "is no layer of it"
        raise InputError(
            f"cut: {cut} {reason}; {backbone} can be cut at {', '.join(_points(backbone, legal))} "
            f"and other single-tensor layers (make layers lists them){nearest(cut, legal)}"
        )
    import keras

    return keras.Model(network.input, network.get_layer(cut).output, name=network.name)


def _points(backbone: str, legal: list[str]) -> list[str]:
    row = BACKBONES[backbone]
    return [*([point for point in row.freeze_points if point in legal] or legal)[-8:], *row.top_cuts]


def refuse_empty(network: Any, kept: Any, backbone: str, source: Path) -> None:
    """Refuse layers whose kernels are all zero: the file did not hold them, and training would never wake them.

    Args:
        network: all that was loaded.
        kept: what is left of it after the cut.

    Raises:
        InputError: with the cuts that leave no such layer.
    """
    names = [layer.name for layer in network.layers]
    remaining = {layer.name for layer in kept.layers}
    empty = [layer.name for layer in network.layers if any(_is_zero(w) for w in layer.weights if len(w.shape) > 1)]
    if not (blocked := [name for name in empty if name in remaining]):
        return
    first = names.index(blocked[0])
    legal = [name for name in single_tensor_layers(network) if names.index(name) < first]
    points = [name for name in legal if name in BACKBONES[backbone].freeze_points]
    others = list(dict.fromkeys([*points[-3:], *legal[-1:]]))
    way_out = (
        f"cut earlier, for example cut: {' or cut: '.join(reversed(others))}" if others else "fetch the file again"
    )
    raise InputError(
        f"{source}: holds nothing for {len(blocked)} layers that this model keeps ({', '.join(blocked[:3])}, ...); {way_out}"
    )


def _is_zero(weight: Any) -> bool:
    import keras

    return not np.any(keras.ops.convert_to_numpy(weight))
