"""EfficientNet-Lite (Liu 2020, after Tan and Le 2019, arXiv:1905.11946), which keras.applications lacks.

The mobile variants of EfficientNet: no squeeze-and-excite, ReLU6 in place of swish, and the stem, the head and the repetitions
of the first and the last stage do not grow with the network. Layers are named as Keras names EfficientNet's.
Source: https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite
"""

from functools import partial
from typing import Any

from keras import Model, layers

from driverwatch.models.convert_torch import EFFICIENTNET_LITES, LITE_STEM, LITE_TOP, LiteBlock, lite_blocks

Shape = tuple[int, int, int]
EPSILON = 1e-3  # of batch normalisation, as TensorFlow's release
MOMENTUM = 0.99


def _build(
    name: str, weights: None = None, include_top: bool = False, input_shape: Shape = (224, 224, 3), classes: int = 1000
) -> Model:
    """Build the backbone up to `top_activation`: (B, H, W, 3), scaled by (x - 127) / 128 -> (B, h, w, 1280), 7x7 at 224 px.

    Layers: `stem_conv`, `block1a_dwconv`, ..., `block2b_add`, ..., `top_conv`, `top_bn`, `top_activation`.

    Args:
        include_top: continue with the global average, dropout and a softmax: (B, classes) float32, rows sum to 1.
        classes: C, read with `include_top`.
    """
    inputs = layers.Input(input_shape)
    x = layers.Conv2D(LITE_STEM, 3, strides=2, padding="same", use_bias=False, name="stem_conv")(inputs)
    x = _normalised(x, "stem")
    for block in lite_blocks(name):
        x = _mobile_block(x, block)
    x = layers.Conv2D(LITE_TOP, 1, use_bias=False, name="top_conv")(x)
    x = _normalised(x, "top")
    if include_top:
        x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
        x = layers.Dropout(EFFICIENTNET_LITES[name].dropout, name="top_dropout")(x)
        x = layers.Dense(classes, activation="softmax", dtype="float32", name="predictions")(x)
    return Model(inputs, x, name=name)


def _mobile_block(x: Any, block: LiteBlock) -> Any:
    """Inverted residual: 1x1 expansion, depthwise convolution, linear 1x1 projection; a shortcut where shapes agree."""
    name, shortcut = block.name, x
    if block.expanded != block.inputs:
        x = layers.Conv2D(block.expanded, 1, use_bias=False, name=f"{name}_expand_conv")(x)
        x = _normalised(x, f"{name}_expand")
    depthwise = partial(layers.DepthwiseConv2D, padding="same", use_bias=False, name=f"{name}_dwconv")
    x = depthwise(block.kernel, strides=block.strides)(x)
    x = _normalised(x, name)
    x = layers.Conv2D(block.outputs, 1, use_bias=False, name=f"{name}_project_conv")(x)
    x = layers.BatchNormalization(epsilon=EPSILON, momentum=MOMENTUM, name=f"{name}_project_bn")(x)
    return layers.Add(name=f"{name}_add")([x, shortcut]) if block.has_shortcut else x


def _normalised(x: Any, name: str) -> Any:
    x = layers.BatchNormalization(epsilon=EPSILON, momentum=MOMENTUM, name=f"{name}_bn")(x)
    return layers.ReLU(6.0, name=f"{name}_activation")(x)


# the five members: the same arguments and errors
efficientnet_lite0 = partial(_build, "efficientnet_lite0")
efficientnet_lite1 = partial(_build, "efficientnet_lite1")
efficientnet_lite2 = partial(_build, "efficientnet_lite2")
efficientnet_lite3 = partial(_build, "efficientnet_lite3")
efficientnet_lite4 = partial(_build, "efficientnet_lite4")
