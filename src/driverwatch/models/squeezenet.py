"""SqueezeNet v1.0 (Iandola et al. 2016, arXiv:1602.07360), which keras.applications lacks."""

from typing import Any

from keras import Model, layers

FIRES = {2: (16, 64), 3: (16, 64), 4: (32, 128), 5: (32, 128), 6: (48, 192), 7: (48, 192), 8: (64, 256), 9: (64, 256)}
POOL_AFTER = ("conv1", 4, 8)


def squeezenet(
    weights: None = None, include_top: bool = False, input_shape: tuple[int, int, int] = (227, 227, 3)
) -> Model:
    """Build the trunk up to `fire9_concat`: (B, H, W, 3) -> (B, h, w, 512), input already scaled.

    conv1 is 7x7/2 'valid'; pools are 3x3/2 and round up, as in the Caffe release (at 227 px up and down agree).
    Layers: `conv1`, `pool1`, `fire<i>_squeeze1x1`, `fire<i>_expand1x1`, `fire<i>_expand3x3`, `fire<i>_concat`, ...

    Raises:
        ValueError: `weights` or `include_top` given; arrays are loaded by `driverwatch.models.weights`.
    """
    if weights is not None or include_top:
        raise ValueError("squeezenet builds an empty trunk: weights must be None and include_top False")
    inputs = layers.Input(input_shape)
    x = layers.Conv2D(96, 7, strides=2, activation="relu", name="conv1")(inputs)
    x = _pool(x, "pool1")
    for i, (squeeze, expand) in FIRES.items():
        x = _fire(x, i, squeeze, expand)
        if i in POOL_AFTER:
            x = _pool(x, f"pool{i}")
    return Model(inputs, x, name="squeezenet")


def _fire(x: Any, index: int, squeeze: int, expand: int) -> Any:
    """Fire module: a 1x1 squeeze, then 1x1 and 3x3 expands side by side."""
    name = f"fire{index}"
    x = layers.Conv2D(squeeze, 1, activation="relu", name=f"{name}_squeeze1x1")(x)
    sides = [
        layers.Conv2D(expand, 1, activation="relu", name=f"{name}_expand1x1")(x),
        layers.Conv2D(expand, 3, padding="same", activation="relu", name=f"{name}_expand3x3")(x),
    ]
    return layers.Concatenate(name=f"{name}_concat")(sides)


def _pool(x: Any, name: str) -> Any:
    """3x3/2 max-pool that rounds up: where it does not fit, one row or column of zeros (no maximum after a ReLU) is added."""
    spare = [(side - 3) % 2 for side in x.shape[1:3]]
    if any(spare):
        x = layers.ZeroPadding2D(((0, spare[0]), (0, spare[1])), name=f"{name}_round_up")(x)
    return layers.MaxPooling2D(3, 2, name=name)(x)
