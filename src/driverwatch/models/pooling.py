"""Pooling that Keras does not have: rounding up, as Caffe and PyTorch's `ceil_mode` do, and to a grid of places."""

from itertools import pairwise
from typing import Any

import keras
from keras import layers, ops

from driverwatch.errors import InputError


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


class GridPooling(keras.layers.Layer):
    """Averages over a grid of places, so that features keep where things are: (B, h, w, C) -> (B, rows * columns * C).

    Places are as even as whole cells of the map allow, row by row; of one place it is global average pooling.
    """

    def __init__(self, rows: int, columns: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rows, self.columns = rows, columns

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Raises InputError where the map has fewer cells than places."""
        if len(input_shape) != 4 or any(
            (n or 0) < k for n, k in zip(input_shape[1:3], (self.rows, self.columns), strict=True)
        ):
            raise InputError(
                f"features: expected a map of at least {self.rows}x{self.columns} cells, got {input_shape[1:]}; choose a "
                "coarser grid, or cut the network earlier"
            )

    def call(self, x: Any) -> Any:
        height, width = x.shape[1:3]
        down = list(pairwise(height * i // self.rows for i in range(self.rows + 1)))
        across = list(pairwise(width * i // self.columns for i in range(self.columns + 1)))
        places = [ops.mean(x[:, top:bottom, left:right], axis=(1, 2)) for top, bottom in down for left, right in across]
        return ops.concatenate(places, axis=1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape[0], self.rows * self.columns * (input_shape[3] or 0)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rows": self.rows, "columns": self.columns}
