"""GoogLeNet (Szegedy et al. 2014, arXiv:1409.4842), which keras.applications lacks, in torchvision's variant.

The public weights are torchvision's, so its departures from the paper are ours: batch normalisation in place of biases and of
local response normalisation, 3x3 where the paper has 5x5, pools that round up, zeros on both sides of strided convolutions.
"""

from typing import Any

import keras
from keras import Model, layers

from driverwatch.models.convert_torch import INCEPTIONS, Inception
from driverwatch.models.squeezenet import max_pool_up

Shape = tuple[int, int, int]
POOL_AFTER = {"3b": ("pool3", 3), "4e": ("pool4", 2)}  # name and side, px; the stem has pool1 and pool2
EPSILON = 1e-3  # torchvision's; its momentum of 0.1 for the new batch is Keras' 0.9 for the old average
MOMENTUM = 0.9


def googlenet(
    weights: None = None, include_top: bool = False, input_shape: Shape = (224, 224, 3), classes: int = 1000
) -> Model:
    """Build the backbone up to `inception5b`: (B, H, W, 3), scaled to [-1, 1] -> (B, h, w, 1024), 7x7 at 224 px.

    Layers: `conv1`, `conv1_bn`, `conv1_relu`, `pool1`, ..., `inception3a_branch<1-4>_conv<1-2>`, ..., and each module's
    concatenation under the module's own name, `inception3a` to `inception5b`. The auxiliary classifiers of training are
    no part of it: `auxiliary` builds them.

    Args:
        include_top: continue with the global average, dropout 0.2 and a softmax: (B, classes) float32, rows sum to 1.
        classes: C, read with `include_top`.
    """
    inputs = layers.Input(input_shape)
    x = _stem(inputs)
    for index, widths in INCEPTIONS.items():
        x = _inception(x, f"inception{index}", widths)
        if index in POOL_AFTER:
            name, size = POOL_AFTER[index]
            x = max_pool_up(x, size, name)
    return Model(inputs, _top(x, classes) if include_top else x, name="googlenet")


def auxiliary(classes: int, name: str) -> layers.Layer:
    """Build one of the two classifiers that hang at `inception4a` and `inception4d` in training and are gone at inference.

    Takes the module's output (B, h, w, c) of known h and w; gives (B, classes) float32, rows sum to 1. Its loss counts 0.3 in
    the paper. As in torchvision: average pool to 4x4, 1x1 convolution of 128 channels with batch normalisation, dense
    layer of 1024, dropout 0.7.
    """
    return keras.Sequential(
        [
            layers.AdaptiveAveragePooling2D(4, name="pool"),
            layers.Conv2D(128, 1, use_bias=False, name="conv"),
            layers.BatchNormalization(epsilon=EPSILON, momentum=MOMENTUM, name="conv_bn"),
            layers.ReLU(name="conv_relu"),
            layers.Flatten(name="flatten"),
            layers.Dense(1024, activation="relu", name="fc1"),
            layers.Dropout(0.7, name="drop"),
            layers.Dense(classes, activation="softmax", dtype="float32", name="fc2"),
        ],
        name=name,
    )


def _stem(x: Any) -> Any:
    x = layers.ZeroPadding2D(3, name="conv1_pad")(x)  # 'same' would put less on the left than on the right
    x = max_pool_up(_unit(x, 64, 7, "conv1", strides=2, padding="valid"), 3, "pool1")
    x = _unit(_unit(x, 64, 1, "conv2"), 192, 3, "conv3")
    return max_pool_up(x, 3, "pool2")


def _inception(x: Any, name: str, widths: Inception) -> Any:
    """Four branches side by side: 1x1; 1x1 and 3x3; 1x1 and 3x3; 3x3 max-pool and 1x1."""
    first = _unit(x, widths.one, 1, f"{name}_branch1_conv1")
    sides = [first]
    for branch, (reduced, width) in ((2, widths.three), (3, widths.five)):
        y = _unit(x, reduced, 1, f"{name}_branch{branch}_conv1")
        sides.append(_unit(y, width, 3, f"{name}_branch{branch}_conv2"))
    y = layers.MaxPooling2D(3, 1, padding="same", name=f"{name}_branch4_pool")(x)
    sides.append(_unit(y, widths.pooled, 1, f"{name}_branch4_conv1"))
    return layers.Concatenate(name=name)(sides)


def _unit(x: Any, width: int, kernel: int, name: str, strides: int = 1, padding: str = "same") -> Any:
    """Convolution without bias, batch normalisation, ReLU."""
    x = layers.Conv2D(width, kernel, strides=strides, padding=padding, use_bias=False, name=name)(x)
    x = layers.BatchNormalization(epsilon=EPSILON, momentum=MOMENTUM, name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def _top(x: Any, classes: int) -> Any:
    x = layers.GlobalAveragePooling2D(name="pool5")(x)
    x = layers.Dropout(0.2, name="drop")(x)
    return layers.Dense(classes, activation="softmax", dtype="float32", name="fc")(x)
