"""Widths of the networks written here whose public weights are PyTorch's, as plain data: the networks are built from it,
and the converter names and measures their tensors by it, without Keras.
"""

from dataclasses import dataclass

# fire module: channels of the 1x1 squeeze, channels of each of the two expands
FIRES = {2: (16, 64), 3: (16, 64), 4: (32, 128), 5: (32, 128), 6: (48, 192), 7: (48, 192), 8: (64, 256), 9: (64, 256)}


@dataclass(frozen=True)
class SqueezeNetVersion:
    """Where the published versions of SqueezeNet differ; the fire modules are the same in all."""

    width: int  # channels of conv1
    kernel: int  # px, side of conv1, which is 'valid' with stride 2
    pool_after: tuple[int, int]  # fire modules; the first pool follows conv1
    top_padding: int  # px of zeros around conv10


SQUEEZENETS = {
    "squeezenet": SqueezeNetVersion(96, 7, (4, 8), 1),  # v1.0 as its authors released it for Caffe
    "squeezenet_torch": SqueezeNetVersion(96, 7, (4, 8), 0),  # v1.0 as torchvision releases it
    "squeezenet_v1_1": SqueezeNetVersion(64, 3, (3, 5), 0),
}


@dataclass(frozen=True)
class Inception:
    """Channels of an inception module's four branches (columns of table 1 of arXiv:1409.4842)."""

    one: int  # 1x1
    three: tuple[int, int]  # 1x1, then 3x3
    five: tuple[int, int]  # 1x1, then 5x5 in the paper, 3x3 in torchvision
    pooled: int  # 3x3 max-pool, then 1x1

    @property
    def width(self) -> int:
        """Channels of the module's output."""
        return self.one + self.three[1] + self.five[1] + self.pooled


INCEPTIONS = {
    "3a": Inception(64, (96, 128), (16, 32), 32),
    "3b": Inception(128, (128, 192), (32, 96), 64),
    "4a": Inception(192, (96, 208), (16, 48), 64),
    "4b": Inception(160, (112, 224), (24, 64), 64),
    "4c": Inception(128, (128, 256), (24, 64), 64),
    "4d": Inception(112, (144, 288), (32, 64), 64),
    "4e": Inception(256, (160, 320), (32, 128), 128),
    "5a": Inception(256, (160, 320), (32, 128), 128),
    "5b": Inception(384, (192, 384), (48, 128), 128),
}
