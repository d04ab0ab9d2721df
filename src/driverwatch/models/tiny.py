"""Two networks small enough for a demo and for tests on a CPU, trained from scratch."""

from typing import Any

from keras import Model, layers

WIDTHS = (16, 32, 64, 96)


def tiny(weights: None = None, include_top: bool = False, input_shape: tuple[int, int, int] = (96, 128, 3)) -> Model:
    """Four stages of 3x3 convolution, normalisation, ReLU and a 2x2 max-pool: (B, H, W, 3) -> (B, H/16, W/16, 96)."""
    inputs = layers.Input(input_shape)
    x = inputs
    for i, width in enumerate(WIDTHS, start=1):
        x = _normalized(layers.Conv2D(width, 3, padding="same", use_bias=False, name=f"stage{i}_conv")(x), f"stage{i}")
        x = layers.MaxPooling2D(2, name=f"stage{i}")(x)
    return Model(inputs, x, name="tiny")


def tiny_separable(weights: None = None, include_top: bool = False, input_shape: tuple[int, int, int] = (96, 128, 3)) -> Model:
    """A strided convolution, then depthwise-separable stages that halve the size: (B, H, W, 3) -> (B, H/16, W/16, 192)."""
    inputs = layers.Input(input_shape)
    x = _normalized(layers.Conv2D(WIDTHS[0], 3, strides=2, padding="same", use_bias=False, name="stage1_conv")(inputs), "stage1")
    x = layers.Activation("linear", name="stage1")(x)
    for i, width in enumerate(WIDTHS[1:], start=2):
        for part, strides in (("a", 2), ("b", 1)):
            name = f"stage{i}{part}"
            x = layers.SeparableConv2D(2 * width, 3, strides=strides, padding="same", use_bias=False, name=f"{name}_conv")(x)
            x = _normalized(x, name)
        x = layers.Activation("linear", name=f"stage{i}")(x)
    return Model(inputs, x, name="tiny_separable")


def _normalized(x: Any, name: str) -> Any:
    """Batch normalisation (momentum 0.9: short trainings must catch up) and ReLU."""
    return layers.ReLU(name=f"{name}_relu")(layers.BatchNormalization(momentum=0.9, name=f"{name}_bn")(x))
