"""Two networks small enough for a demo and for tests on a CPU, trained from scratch."""

from typing import Any

from keras import Model, layers

Shape = tuple[int, int, int]


def tiny(weights: None = None, include_top: bool = False, input_shape: Shape = (84, 112, 3)) -> Model:
    """Four 3x3 convolutions (the first 5x5), three of them with stride 2: (B, H, W, 3) -> (B, H/16, W/16, 64), input scaled."""
    inputs = layers.Input(input_shape)
    x = inputs
    for i, (width, kernel, strides) in enumerate([(16, 5, 2), (32, 3, 2), (64, 3, 2), (64, 3, 1)], start=1):
        x = layers.Conv2D(width, kernel, strides=strides, padding="same", use_bias=False, name=f"stage{i}_conv")(x)
        x = _normalized(x, f"stage{i}")
    return Model(inputs, layers.AveragePooling2D(2, name="pool4")(x), name="tiny")


def tiny_separable(weights: None = None, include_top: bool = False, input_shape: Shape = (84, 112, 3)) -> Model:
    """A 5x5 convolution, then four depthwise-separable ones: (B, H, W, 3) -> (B, H/16, W/16, 96)."""
    inputs = layers.Input(input_shape)
    x = layers.Conv2D(16, 5, strides=2, padding="same", use_bias=False, name="stage1_conv")(inputs)
    x = _normalized(x, "stage1")
    for i, (width, strides) in enumerate([(32, 2), (64, 1), (64, 2), (96, 1)], start=2):
        x = layers.SeparableConv2D(width, 3, strides=strides, padding="same", use_bias=False, name=f"stage{i}_conv")(x)
        x = _normalized(x, f"stage{i}")
    return Model(inputs, layers.AveragePooling2D(2, name="pool5")(x), name="tiny_separable")


def _normalized(x: Any, name: str) -> Any:
    """Batch normalisation (momentum 0.9: short trainings must catch up) and ReLU."""
    return layers.ReLU(name=f"{name}_relu")(layers.BatchNormalization(momentum=0.9, name=f"{name}_bn")(x))
