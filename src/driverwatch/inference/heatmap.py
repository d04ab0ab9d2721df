"""Heat maps: where in its input a network sees a class. No gradient is taken, so every backend gives them.

Two ways, and a network's layers decide which. Where its head is linear in its last map of features (a global average or a
flattening, then one dense softmax) the class-activation map is exact (Zhou et al. 2016, arXiv:1512.04150). Any other head
(hidden layers, a normalisation after the pooling, no map at all) is asked by occlusion (Zeiler and Fergus 2014, arXiv:1311.2901).
"""

import math
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from driverwatch.inference.network import POOLS, Network

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
    kernel = class_kernel(network.head)
    if network.features is None or kernel is None:
        return occlusion(network, image, label), "occlusion"
    features, kernels = ops.convert_to_numpy(network.features(image[None])), np.split(kernel, network.regions)
    maps = [class_activation(*pair, label, network.margin) for pair in zip(features, kernels, strict=True)]
    return np.concatenate(maps), "class activation"


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

    A patch lies in one region; where others show the same spot, they go on showing it.

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
