"""Class activation maps (CAM): a network opened up into its probabilities, its last map of features and the layers above it.

Under global average pooling and one linear layer Grad-CAM is the same map but for a factor (Selvaraju et al. 2017, section 3.1).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from driverwatch.config.backbones import BACKBONES
from driverwatch.config.model import ModelSettings
from driverwatch.config.types import EngineName
from driverwatch.inference.engine import Engine, converts
from driverwatch.models.backend import load_state
from driverwatch.models.classifier import ChannelScaling, Classifier, build, split
from driverwatch.models.pretrained import build_whole

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


def of_classifier(classifier: Classifier, asked: EngineName = "keras", passes: int = 0) -> Network:
    """A fold's classifier; its backbone may have been cut where no map is left.

    `asked, passes`: the engine of its probabilities, as of `Engine`; with another than keras its weights must stay.
    """

    def features(images: Any) -> Any:
        return classifier.backbone(classifier.scaling(split(images, classifier.regions)), training=False)

    whole: Any = classifier
    probabilities: Callable[[Any], Any] = partial(whole, training=False)
    if converts(asked, passes):
        classifier.compile()
        probabilities = Engine(classifier, IMAGES_AT_ONCE, asked, passes)
    if len(classifier.backbone.output.shape) != 4:
        return Network(probabilities, None, (), regions=classifier.regions)
    head = (classifier.pool, *classifier.hidden, classifier.dropout, classifier.top)
    return Network(probabilities, features, head, margin(classifier.backbone), classifier.regions)


def of_whole(model: keras.Model, scaling: ChannelScaling) -> Network:
    """A published network with its top: a functional model (B, h, w, 3), scaled -> (B, C), that ends in one pipeline of layers."""
    pooled, head = _above_the_map(model)

    def probabilities(images: Any) -> Any:
        return model(scaling(images), training=False)

    if pooled is None:
        return Network(probabilities, None, ())
    backbone = keras.Model(model.input, pooled)
    return Network(probabilities, lambda images: backbone(scaling(images), training=False), head, margin(backbone))


def _above_the_map(model: keras.Model) -> tuple[Any, tuple[Any, ...]]:
    """The tensor that the last pooling (or flattening) of a map takes, and all layers from there up; None if there is none."""
    head: list[Any] = []
    for layer in pipeline(model):
        head.insert(0, layer)
        given = layer.input.shape if isinstance(layer, POOLS) else ()
        if len(given) == 4 and given[1:3] != (1, 1):  # flattening what a pooling left at 1x1 is only a change of shape
            return layer.input, tuple(head)
    return None, ()


def pipeline(model: keras.Model) -> list[Any]:
    """A functional model's layers from the output down, as long as each has one input from one layer."""
    found, layer = [], model.output._keras_history.operation
    while layer is not None:
        found.append(layer)
        parents = {id(node.operation): node.operation for node in layer._inbound_nodes[-1].parent_nodes}
        layer = next(iter(parents.values())) if len(parents) == 1 else None
    return found


def margin(backbone: keras.Model) -> tuple[tuple[int, int], tuple[int, int]]:
    """Padding between a backbone's last convolution of some extent and its output: cells of the map outside of the image."""
    for layer in pipeline(backbone):
        if isinstance(layer, keras.layers.ZeroPadding2D):
            return layer.padding
        pointwise = isinstance(layer, keras.layers.Conv2D) and layer.kernel_size == (1, 1) and layer.strides == (1, 1)
        if not pointwise and not isinstance(layer, keras.layers.Activation | keras.layers.ReLU | keras.layers.Dropout):
            break
    return ((0, 0), (0, 0))


GREY = 128  # 0-255, of the occluding patch
PATCHES = 5  # patches fit side by side along the shorter side
OVERLAP = 2  # patches begin at every such part of their side
AT_ONCE = 16  # occluded images in one forward pass

Method = Literal["class activation", "occlusion"]
SILENT = (keras.layers.Dropout, keras.layers.Reshape, keras.layers.Flatten, keras.layers.Softmax)  # above the pooling


def heat(network: Network, image: np.ndarray, label: int) -> tuple[np.ndarray, Method]:
    """A map for one class, and how it was made.

    Args:
        image: uint8 RGB (R * h, w, 3), what the network takes.
        label: the class, 0..C-1.

    Returns:
        float32 (R * y, x), a map per region, stacked as the regions are; each covers its region whatever its size:
        contributions to the class' logit, or drops in its probability.
    """
    if not is_linear(network):
        return occlusion(network, image, label), "occlusion"
    return heats(network, image, [label])[0], "class activation"


def is_linear(network: Network) -> bool:
    """Whether `heats` can be asked: the layers above the map are one linear one."""
    return network.features is not None and class_kernel(network.head) is not None


def heats(network: Network, image: np.ndarray, labels: list[int]) -> list[np.ndarray]:
    """`heat` of many classes by one forward pass, of a network that `is_linear`."""
    kernel = class_kernel(network.head)
    if network.features is None or kernel is None:
        raise ValueError("expected a network whose head is one linear layer above a map of features")
    features, kernels = ops.convert_to_numpy(network.features(image[None])), np.split(kernel, network.regions)
    pairs = list(zip(features, kernels, strict=True))
    return [np.concatenate([class_activation(*pair, label, network.margin) for pair in pairs]) for label in labels]


def embeddings(network: Network, images: np.ndarray) -> np.ndarray:
    """What the last layer takes: uint8 RGB (B, R * h, w, 3) -> float32 (B, F), of a network that has a map of features."""
    if network.features is None:
        raise ValueError("expected a network with a map of features")
    found = []
    for part in _parts(images):
        made = network.features(part)
        for layer in network.head[:-1]:
            made = layer(made, training=False) if isinstance(layer, keras.layers.Dropout) else layer(made)
        found.append(ops.convert_to_numpy(made).reshape(len(part), -1))
    return np.concatenate(found)


def class_activation(
    features: np.ndarray, kernel: np.ndarray, label: int, margin: tuple[tuple[int, int], ...] = ((0, 0), (0, 0))
) -> np.ndarray:
    """sum_k w_kc f_k(x, y), equation 2 of Zhou et al.; under a flattening each position has weights of its own.

    Args:
        features: (y, x, K).
        kernel: (K, C), or (y * x * K, C) where the features are flattened.
        margin: rows (above, below) and columns (left, right) to drop: they lie outside of the image.

    Returns:
        float32 (y, x) less the margin.
    """
    weights = kernel[:, label].reshape(-1, features.shape[-1])  # (1, K), or (y * x, K)
    products = features.reshape(-1, features.shape[-1]) * weights
    found = products.sum(axis=1, dtype=np.float64).reshape(features.shape[:2]).astype(np.float32)
    (above, below), (left, right) = margin
    return found[above : found.shape[0] - below, left : found.shape[1] - right]


def class_kernel(head: tuple[Any, ...]) -> np.ndarray | None:
    """The weights from map to logits of a head that is linear: (K, C), or (y * x * K, C) under a flattening; else None.

    A head without weights (SqueezeNet, whose last convolution makes one map per class) has the identity.
    """
    if not head or not isinstance(head[0], POOLS):
        return None
    loud = [layer for layer in head[1:] if not isinstance(layer, SILENT) and not _is_softmax(layer)]
    if not loud:
        return None if isinstance(head[0], keras.layers.Flatten) else np.eye(head[0].output.shape[-1], dtype=np.float32)
    return _kernel(loud[0]) if len(loud) == 1 else None


def _is_softmax(layer: Any) -> bool:
    return isinstance(layer, keras.layers.Activation) and layer.activation is keras.activations.softmax


def _kernel(layer: Any) -> np.ndarray | None:
    """The weights of a dense layer, or of the 1x1 convolution that stands for one (MobileNet)."""
    dense = isinstance(layer, keras.layers.Dense)
    pointwise = isinstance(layer, keras.layers.Conv2D) and layer.kernel_size == (1, 1)
    if not (dense or pointwise) or layer.activation not in (keras.activations.softmax, keras.activations.linear):
        return None
    kernel = ops.convert_to_numpy(layer.kernel)
    return kernel.reshape(-1, kernel.shape[-1])


def occlusion(network: Network, image: np.ndarray, label: int) -> np.ndarray:
    """How much the class' probability drops behind a grey patch: at each pixel the mean over the patches that cover it.

    A patch is in one region; where others show the same spot, they resume showing it.

    Returns:
        float32 (R * h, w), the image's size.
    """
    height, width = image.shape[0] // network.regions, image.shape[1]
    side = max(1, min(height, width) // PATCHES)
    tops = range(0, image.shape[0], height)
    corners = [(top + y, x) for top in tops for y in _starts(height, side) for x in _starts(width, side)]
    whole = float(ops.convert_to_numpy(network(image[None]))[0, label])
    drops, covered = (np.zeros(image.shape[:2]) for _ in range(2))
    for start in range(0, len(corners), AT_ONCE):
        chosen = corners[start : start + AT_ONCE]
        occluded = np.repeat(image[None], len(chosen), axis=0)
        for picture, (y, x) in zip(occluded, chosen, strict=True):
            picture[y : y + side, x : x + side] = GREY
        for (y, x), row in zip(chosen, ops.convert_to_numpy(network(occluded)), strict=True):
            drops[y : y + side, x : x + side] += whole - row[label]
            covered[y : y + side, x : x + side] += 1
    return (drops / covered).astype(np.float32)


def _starts(length: int, side: int) -> list[int]:
    """Where patches begin along an axis: evenly, at most `side / OVERLAP` apart, the first and last at the edges."""
    steps = math.ceil((length - side) * OVERLAP / side)
    return [int(start) for start in np.linspace(0, length - side, steps + 1).round()]


IMAGES_AT_ONCE = 16  # images in one forward pass

Networks = Callable[[], Iterator[Network]]  # each network in turn; one is spent when the next is asked for


def imagenet_network(backbone: str, folder: Path | None) -> Networks:
    """A backbone whole, with its top. Raises as `pretrained.build_whole`."""
    network = of_whole(build_whole(backbone, folder), ChannelScaling.of(BACKBONES[backbone].scaling))
    return lambda: iter([network])


def networks_of_run(settings: ModelSettings, classes: int, mean: tuple[float, ...], files: list[Path]) -> Networks:
    """A run's fold models: one classifier, into which each fold's weights are loaded in turn, so that memory holds but one."""
    classifier = build(settings, classes, mean, None, load=False)
    network = of_classifier(classifier)

    def each() -> Iterator[Network]:
        for file in files:
            load_state(file, {"model": classifier.weights})
            yield network

    return each


def resident(
    settings: ModelSettings, classes: int, mean: tuple[float, ...], files: list[Path], passes: int = 0
) -> Networks:
    """The same, each fold's classifier kept in memory: for repeated questions about an image at a time, or `passes` images."""
    networks = []
    for file in files:
        classifier = build(settings, classes, mean, None, load=False)
        load_state(file, {"model": classifier.weights})
        networks.append(of_classifier(classifier, settings.predict.engine, passes))
    return lambda: iter(networks)


def probabilities(networks: Networks, images: np.ndarray, asked: Sequence[tuple[int, ...]] | None = None) -> np.ndarray:
    """The mean over networks: uint8 (B, R * h, w, 3) -> float64 (B, C), rows sum to 1.

    `asked`: the networks that answer for each image, by their places; none of them, or None: all.
    """
    answers = ([ops.convert_to_numpy(network(part)) for part in _parts(images)] for network in networks())
    found = np.stack([np.concatenate(parts) for parts in answers])
    every = tuple(range(len(found)))
    chosen = [places or every for places in asked or [()] * len(images)]
    mean = np.stack([found[list(places), row].mean(axis=0, dtype=np.float64) for row, places in enumerate(chosen)])
    return np.asarray(mean / mean.sum(axis=1, keepdims=True))


def class_activation_map(
    networks: Networks, image: np.ndarray, label: int, asked: tuple[int, ...] = ()
) -> tuple[np.ndarray, Method]:
    """The mean over networks (all of one kind; `asked` as above) of `heat`: uint8 (R * h, w, 3) -> float32 (R * y, x)."""
    made = [heat(network, image, label) for place, network in enumerate(networks()) if not asked or place in asked]
    return np.mean([heat for heat, _ in made], axis=0), made[0][1]


def _parts(images: np.ndarray) -> Iterator[np.ndarray]:
    return (images[start : start + IMAGES_AT_ONCE] for start in range(0, len(images), IMAGES_AT_ONCE))
