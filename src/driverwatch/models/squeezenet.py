"""SqueezeNet (Iandola et al. 2016, arXiv:1602.07360), which keras.applications lacks: three published versions of it."""

from functools import partial
from typing import Any

from keras import Model, layers

from driverwatch.models.convert_torch import FIRES, SQUEEZENETS

Shape = tuple[int, int, int]


def _build(
    name: str, weights: None = None, include_top: bool = False, input_shape: Shape = (224, 224, 3), classes: int = 1000
) -> Model:
    """Build a version: (B, H, W, 3), already scaled -> (B, h, w, 512), `fire9_concat`.

    conv1 is 'valid' with stride 2; pools are 3x3/2 and round up (at 227 px up and down agree). Layers: `conv1`, `pool1`,
    `fire<i>_squeeze1x1`, `fire<i>_expand1x1`, `fire<i>_expand3x3`, `fire<i>_concat`, `pool<i>`, ...

    Args:
        include_top: continue with dropout, `conv10`, its ReLU, global average and softmax: (B, classes) float32, rows sum to 1.
        classes: C, read with `include_top`.
    """
    version = SQUEEZENETS[name]
    inputs = layers.Input(input_shape)
    x = layers.Conv2D(version.width, version.kernel, strides=2, activation="relu", name="conv1")(inputs)
    x = max_pool_up(x, 3, "pool1")
    for i, (squeeze, expand) in FIRES.items():
        x = _fire(x, i, squeeze, expand)
        if i in version.pool_after:
            x = max_pool_up(x, 3, f"pool{i}")
    return Model(inputs, _top(x, version.top_padding, classes) if include_top else x, name=name)


def _fire(x: Any, index: int, squeeze: int, expand: int) -> Any:
    """Fire module: a 1x1 squeeze, then 1x1 and 3x3 expands side by side."""
    name = f"fire{index}"
    x = layers.Conv2D(squeeze, 1, activation="relu", name=f"{name}_squeeze1x1")(x)
    sides = [
        layers.Conv2D(expand, 1, activation="relu", name=f"{name}_expand1x1")(x),
        layers.Conv2D(expand, 3, padding="same", activation="relu", name=f"{name}_expand3x3")(x),
    ]
    return layers.Concatenate(name=f"{name}_concat")(sides)


def _top(x: Any, padding: int, classes: int) -> Any:
    """A classifier without dense layers: one map per class, averaged."""
    x = layers.Dropout(0.5, name="drop9")(x)
    if padding:
        x = layers.ZeroPadding2D(padding, name="conv10_pad")(x)
    x = layers.Conv2D(classes, 1, activation="relu", name="conv10")(x)
    x = layers.GlobalAveragePooling2D(name="pool10")(x)
    return layers.Softmax(dtype="float32", name="prob")(x)


def max_pool_up(x: Any, size: int, name: str) -> Any:
    """`size`x`size` max-pool with stride 2 whose last window may hang over the edge: n px -> ceil((n - size) / 2) + 1 px.

    Where the windows do not fit, one row or column of zeros is added below or to the right (`<name>_round_up`), so the
    input must be 0 or more, as it is after a ReLU.

    Args:
        x: Keras tensor (B, h, w, C) of known h and w.
    """
    spare = [(side - size) % 2 for side in x.shape[1:3]]
    if any(spare):
        x = layers.ZeroPadding2D(((0, spare[0]), (0, spare[1])), name=f"{name}_round_up")(x)
    return layers.MaxPooling2D(size, 2, name=name)(x)


# v1.0 as its authors released it for Caffe; as torchvision releases it, `conv10` without padding; and v1.1: a 3x3 conv1 of 64
# channels and earlier pools, 2.4 times less work (its authors' figure)
squeezenet = partial(_build, "squeezenet", input_shape=(227, 227, 3))
squeezenet_torch = partial(_build, "squeezenet_torch")
squeezenet_v1_1 = partial(_build, "squeezenet_v1_1")
