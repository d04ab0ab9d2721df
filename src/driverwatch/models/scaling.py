"""Preprocessing as a layer: it belongs to the weights, sits in the graph, and never touches the caller's array."""

from typing import Any

import keras
from keras import ops

from driverwatch.backbones import Scaling


@keras.saving.register_keras_serializable(package="driverwatch")
class ChannelScaling(keras.layers.Layer):
    """`(channels - mean) / std` with channels in RGB or BGR order: one layer for every mode of the published weights.

    Takes uint8 or float RGB (B, H, W, 3) in 0-255; gives float32 where it is made by `of`, whatever the layers above compute in.
    `mean` and `std` are in the output's order, in 0-255.
    """

    def __init__(self, order: str, mean: tuple[float, ...], std: tuple[float, ...], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.order, self.mean, self.std = order, tuple(mean), tuple(std)

    @classmethod
    def of(cls, scaling: Scaling, mean: tuple[float, ...] | None = None) -> "ChannelScaling":
        """The weights' own scaling, or with `mean` (RGB, 0-255) the data set's mean in place of theirs."""
        if mean is not None:
            mean = tuple(mean) if scaling.order == "rgb" else tuple(mean[::-1])
        return cls(scaling.order, mean or scaling.mean, scaling.std, name="scaling", trainable=False, dtype="float32")

    def call(self, images: Any) -> Any:
        images = ops.cast(images, self.compute_dtype)
        if self.order == "bgr":
            images = ops.flip(images, axis=-1)
        return (images - ops.convert_to_tensor(self.mean, self.compute_dtype)) / ops.convert_to_tensor(
            self.std, self.compute_dtype
        )

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "order": self.order, "mean": self.mean, "std": self.std}
