"""SqueezeNet (Iandola et al. 2016, arXiv:1602.07360), which keras.applications lacks: three published versions of it."""

from typing import Any

from keras import Model, layers

from driverwatch.models.convert_torch import FIRES, SQUEEZENETS
from driverwatch.models.pooling import max_pool_up

Shape = tuple[int, int, int]


def squeezenet(
    weights: None = None, include_top: bool = False, input_shape: Shape = (227, 227, 3), classes: int = 1000
) -> Model:
    """Build v1.0 as its authors released it for Caffe: (B, H, W, 3), already scaled -> (B, h, w, 512), `fire9_concat`.

    conv1 is 7x7/2 'valid'; pools are 3x3/2 and round up (at 227 px up and down agree). Layers: `conv1`, `pool1`,
    `fire<i>_squeeze1x1`, `fire<i>_expand1x1`, `fire<i>_expand3x3`, `fire<i>_concat`, `pool<i>`, ...

    Args:
        include_top: continue with dropout, `conv10`, its ReLU, global average and softmax: (B, classes) float32, rows sum to 1.
        classes: C, read with `include_top`.

    Raises:
        ValueError: `weights` given; arrays are loaded by `driverwatch.models.pretrained`.
    """
    return _build("squeezenet", weights, include_top, input_shape, classes)


def squeezenet_torch(
    weights: None = None, include_top: bool = False, input_shape: Shape = (224, 224, 3), classes: int = 1000
) -> Model:
    """Build v1.0 as torchvision releases it, `conv10` without padding. Arguments, layers and errors as `squeezenet`."""
    return _build("squeezenet_torch", weights, include_top, input_shape, classes)


def squeezenet_v1_1(
    weights: None = None, include_top: bool = False, input_shape: Shape = (224, 224, 3), classes: int = 1000
) -> Model:
    """Build v1.1: a 3x3 conv1 of 64 channels and earlier pools, 2.4 times less work (its authors' figure).

    Arguments, layers and errors as `squeezenet`.
    """
    return _build("squeezenet_v1_1", weights, include_top, input_shape, classes)


def _build(name: str, weights: None, include_top: bool, input_shape: Shape, classes: int) -> Model:
    if weights is not None:
        raise ValueError(f"{name} is built empty: weights must be None")
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
