"""AlexNet (Krizhevsky et al. 2012) as the guides on HDF5 pipelines train it: in one piece, batch-normalised, regularised."""

from typing import Any

from keras import Model, layers, regularizers

Shape = tuple[int, int, int]
CONVOLUTIONS = {
    "conv1": (96, 11, 4),
    "conv2": (256, 5, 1),
    "conv3": (384, 3, 1),
    "conv4": (384, 3, 1),
    "conv5": (256, 3, 1),
}
POOL_AFTER = {"conv1": 1, "conv2": 2, "conv5": 5}  # 3x3/2, numbered as their convolutions
DENSE = {"fc1": 4096, "fc2": 4096}
WEIGHT_DECAY = 2e-4  # L2 on every kernel


def alexnet(
    weights: None = None, include_top: bool = False, input_shape: Shape = (227, 227, 3), classes: int = 1000
) -> Model:
    """Build the backbone up to the last pool and its dropout: (B, H, W, 3), scaled -> (B, h, w, 256), 6x6 at 227 px.

    Against the paper: no halves on two GPUs, batch normalisation after each ReLU in place of local response normalisation, dropout
    0.25 after each pool. Layers: `conv1`, `conv1_bn`, `pool1`, `drop1`, `conv2`, ..., `conv5`, `conv5_bn`, `pool5`, `drop5`.

    Args:
        include_top: continue with `flatten`, `fc1`, `fc2` (batch-normalised, dropout 0.5) and a softmax: (B, classes) float32,
            rows sum to 1.
        classes: C, read with `include_top`.
    """
    inputs = layers.Input(input_shape)
    x = inputs
    for name, (width, kernel, strides) in CONVOLUTIONS.items():
        x = _convolution(x, name, width, kernel, strides)
        if number := POOL_AFTER.get(name):
            x = layers.MaxPooling2D(3, 2, name=f"pool{number}")(x)
            x = layers.Dropout(0.25, name=f"drop{number}")(x)
    return Model(inputs, _top(x, classes) if include_top else x, name="alexnet")


def _convolution(x: Any, name: str, width: int, kernel: int, strides: int) -> Any:
    """Convolution ('valid' where it strides, else 'same'), ReLU, batch normalisation."""
    padding = "valid" if strides > 1 else "same"
    penalty = regularizers.L2(WEIGHT_DECAY)
    x = layers.Conv2D(
        width, kernel, strides=strides, padding=padding, activation="relu", kernel_regularizer=penalty, name=name
    )(x)
    return layers.BatchNormalization(name=f"{name}_bn")(x)


def _top(x: Any, classes: int) -> Any:
    x = layers.Flatten(name="flatten")(x)
    for name, width in DENSE.items():
        penalty = regularizers.L2(WEIGHT_DECAY)
        x = layers.Dense(width, activation="relu", kernel_regularizer=penalty, name=name)(x)
        x = layers.BatchNormalization(name=f"{name}_bn")(x)
        x = layers.Dropout(0.5, name=f"{name}_drop")(x)
    penalty = regularizers.L2(WEIGHT_DECAY)
    return layers.Dense(classes, activation="softmax", kernel_regularizer=penalty, dtype="float32", name="fc3")(x)
