"""Pooling that rounds up, as Caffe and PyTorch's `ceil_mode` do and Keras does not."""

from typing import Any

from keras import layers


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
