"""The classifier: scaling, a trunk, a new softmax; and which of its layers learn."""

from pathlib import Path
from typing import Any

import keras
import numpy as np

from driverwatch.backbones import BACKBONES
from driverwatch.errors import InputError, nearest
from driverwatch.hdf5 import created, opened
from driverwatch.models.scaling import ChannelScaling
from driverwatch.models.weights import build_trunk
from driverwatch.settings import HeadSettings, ModelSettings, pixels
from driverwatch.writing import replacing


class Classifier(keras.Model):
    """uint8 or float RGB (B, h, w, 3) in 0-255 -> float32 (B, C) probabilities, rows sum to 1.

    `train_statistics` says whether the trunk's normalisation uses batch statistics in training. It is passed explicitly
    at each call: in Keras 3 an enclosing functional model hands its own `training` down and would override
    `trunk(x, training=False)`.
    """

    def __init__(self, scaling: ChannelScaling, trunk: keras.Model, classes: int, head: HeadSettings) -> None:
        super().__init__(name="classifier")
        self.scaling, self.trunk = scaling, trunk
        average = head.pooling == "average"
        self.pool = keras.layers.GlobalAveragePooling2D(name="pool") if average else keras.layers.Flatten(name="pool")
        self.dropout = keras.layers.Dropout(head.dropout, name="dropout")
        penalty = keras.regularizers.L2(head.weight_decay) if head.weight_decay else None
        self.top = keras.layers.Dense(
            classes, activation="softmax", kernel_regularizer=penalty, dtype="float32", name="top"
        )
        self.train_statistics = False

    def call(self, images: Any, training: bool = False) -> Any:
        features = self.trunk(self.scaling(images), training=bool(training) and self.train_statistics)
        return self.top(self.dropout(self.pool(features), training=training))


def build(
    settings: ModelSettings, classes: int, mean: tuple[float, ...], weights: Path | None, load: bool = True
) -> Classifier:
    """Build a model's classifier.

    Args:
        classes: C.
        mean: the data set's channel means (RGB, 0-255), used with `mean: dataset`.
        weights: local weight file of the trunk, or None (Keras downloads, or random).
        load: False leaves the trunk random, to be filled by `load_state`.
    """
    keras.backend.clear_session()  # automatic layer names begin anew, so that `freeze_until` finds the same layers
    trunk = build_trunk(settings, weights, load)
    scaling = ChannelScaling.of(BACKBONES[settings.backbone].scaling, mean if settings.mean == "dataset" else None)
    classifier = Classifier(scaling, trunk, classes, settings.head)
    classifier(np.zeros((1, *pixels(settings.input.size), 3), np.uint8))
    return classifier


def freeze(classifier: Classifier, until: str | int | None, train_statistics: bool) -> int:
    """Freeze the trunk up to and including `until`; return how many of its layers learn.

    Args:
        until: a layer's name, a block's name (its last layer whose name begins `<block>_`), a number of layers,
            `head` (the whole trunk), or None (nothing).

    Raises:
        InputError: no such layer, with the nearest name.
    """
    layers = classifier.trunk.layers
    count = frozen_count(layers, until)
    classifier.trunk.trainable = count < len(layers)
    for i, layer in enumerate(layers):
        layer.trainable = i >= count
    classifier.train_statistics = train_statistics
    return len(layers) - count


def frozen_count(layers: list[Any], until: str | int | None) -> int:
    """How many of a trunk's layers `freeze(..., until)` freezes."""
    if until is None:
        return 0
    if until == "head":
        return len(layers)
    if isinstance(until, int):
        if until > len(layers):
            raise InputError(f"freeze_until: {until}: the trunk has {len(layers)} layers")
        return until
    names = [layer.name for layer in layers]
    found = [i for i, name in enumerate(names) if name == until] or [
        i for i, name in enumerate(names) if name.startswith(f"{until}_")
    ]
    if not found:
        raise InputError(f"freeze_until: {until} is no layer or block of this trunk{nearest(until, names)}")
    return found[-1] + 1


def write_state(path: Path, groups: dict[str, list[Any]], attributes: dict[str, str]) -> None:
    """Write variables (or arrays), in order, as HDF5 `<group>/<number>`, each with its name; whole or not at all."""
    sizes = [4 * int(np.prod(v.shape)) + 1000 for variables in groups.values() for v in variables]
    with replacing(path) as temporary, created(temporary, sum(sizes)) as file:
        for group, variables in groups.items():
            file.create_group(group)
            for i, variable in enumerate(variables):
                value = keras.ops.convert_to_numpy(variable)
                file[group].create_dataset(f"{i:04d}", data=value).attrs["name"] = getattr(variable, "path", "")
        file.attrs.update(attributes)


def load_state(path: Path, groups: dict[str, list[Any]]) -> dict[str, str]:
    """Assign what `write_state` wrote; return its attributes.

    Raises:
        InputError: not a whole state file, or one of other variables (number and shapes are compared).
    """
    try:
        with opened(path) as file:
            for group, variables in groups.items():
                shapes = [file[group][key].shape for key in sorted(file[group])]
                if shapes != [tuple(v.shape) for v in variables]:
                    raise InputError(
                        f"{path}: holds {len(shapes)} arrays of other shapes than the {len(variables)} in "
                        f"{group}; it is another network's"
                    )
                for variable, key in zip(variables, sorted(file[group]), strict=True):
                    variable.assign(file[group][key][...])
            return dict(file.attrs)
    except (OSError, KeyError, ValueError, AttributeError, TypeError) as error:
        words = " ".join(str(error).split())[:150]
        raise InputError(f"{path}: not a whole state file ({words}); remove it and run again") from error
