"""A network opened up for heat maps: its probabilities, its last map of features, and the layers above that."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras

from driverwatch.models.classifier import Classifier
from driverwatch.models.regions import split
from driverwatch.models.scaling import ChannelScaling

POOLS = (keras.layers.GlobalAveragePooling2D, keras.layers.Flatten)


@dataclass(frozen=True)
class Network:
    """uint8 RGB (B, R * h, w, 3) in 0-255 -> float32 (B, C) probabilities.

    `features` gives the last map of each of R regions, (B * R, y, x, K), or is None where the network has none; `head` holds
    the layers above it, the pooling first, and takes the regions' features side by side. `margin` counts rows (above, below)
    and columns (left, right) of a map that lie outside of the image.
    """

    probabilities: Callable[[Any], Any]
    features: Callable[[Any], Any] | None
    head: tuple[Any, ...]
    margin: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    regions: int = 1

    def __call__(self, images: Any) -> Any:
        return self.probabilities(images)


def of_classifier(classifier: Classifier) -> Network:
    """A fold's classifier; its trunk may have been cut where no map is left."""

    def features(images: Any) -> Any:
        return classifier.trunk(classifier.scaling(split(images, classifier.regions)), training=False)

    def probabilities(images: Any) -> Any:
        return classifier(images, training=False)

    if len(classifier.trunk.output.shape) != 4:
        return Network(probabilities, None, (), regions=classifier.regions)
    head = (classifier.pool, *classifier.hidden, classifier.dropout, classifier.top)
    return Network(probabilities, features, head, margin(classifier.trunk), classifier.regions)


def of_whole(model: keras.Model, scaling: ChannelScaling) -> Network:
    """A published network with its top: a functional model (B, h, w, 3), scaled -> (B, C), that ends in one chain of layers."""
    pooled, head = _above_the_map(model)
    trunk: Any = None if pooled is None else keras.Model(model.input, pooled)

    def features(images: Any) -> Any:
        return trunk(scaling(images), training=False)

    def probabilities(images: Any) -> Any:
        return model(scaling(images), training=False)

    if trunk is None:
        return Network(probabilities, None, ())
    return Network(probabilities, features, head, margin(trunk))


def _above_the_map(model: keras.Model) -> tuple[Any, tuple[Any, ...]]:
    """The tensor that the last pooling (or flattening) of a map takes, and all layers from there up; None if there is none."""
    head: list[Any] = []
    for layer in chain(model):
        head.insert(0, layer)
        given = layer.input.shape if isinstance(layer, POOLS) else ()
        if len(given) == 4 and given[1:3] != (1, 1):  # flattening what a pooling left at 1x1 is only a change of shape
            return layer.input, tuple(head)
    return None, ()


def chain(model: keras.Model) -> list[Any]:
    """A functional model's layers from the output down, as long as each has one input from one layer."""
    found, layer = [], model.output._keras_history.operation
    while layer is not None:
        found.append(layer)
        parents = {id(node.operation): node.operation for node in layer._inbound_nodes[-1].parent_nodes}
        layer = next(iter(parents.values())) if len(parents) == 1 else None
    return found


def margin(trunk: keras.Model) -> tuple[tuple[int, int], tuple[int, int]]:
    """Padding between a trunk's last convolution of some extent and its output: cells of the map outside of the image."""
    for layer in chain(trunk):
        if isinstance(layer, keras.layers.ZeroPadding2D):
            return layer.padding
        pointwise = isinstance(layer, keras.layers.Conv2D) and layer.kernel_size == (1, 1) and layer.strides == (1, 1)
        if not pointwise and not isinstance(layer, keras.layers.Activation | keras.layers.ReLU | keras.layers.Dropout):
            break
    return ((0, 0), (0, 0))
