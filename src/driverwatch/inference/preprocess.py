"""The field of view: what a network is shown of an image, and where in the image that lies. Imports no Keras."""

from typing import NamedTuple

import numpy as np

from driverwatch.config.model import InputSettings
from driverwatch.config.types import pixels
from driverwatch.data.images import cut_out, resized
from driverwatch.data.regions import FRAME, Box
from driverwatch.data.tta import central, cut, tta_set

CENTRAL = 0.875  # 224 out of 256: the share of the shorter side in the published centre crops


class Preprocessed(NamedTuple):
    """What a network is shown: uint8 (R * h, w, 3), and where in the upright image each region of it lies."""

    pixels: np.ndarray
    boxes: tuple[Box, ...]


def centre_square(image: np.ndarray, side: int) -> Preprocessed:
    """The published protocol of ImageNet networks (Krizhevsky et al. 2012): shorter side to `side` / 0.875, then the centre.

    Published accuracies are those of this crop, in which shapes keep their aspect; what lies outside is not seen. The square
    is cut first and resized alone, which gives the same picture for less work.

    Args:
        image: uint8 RGB (H, W, 3).
        side: px, the network's native side.
    """
    height, width = image.shape[:2]
    square = max(1, round(min(height, width) * CENTRAL))
    top, left = central(height, square), central(width, square)
    box = Box(top / height, left / width, (top + square) / height, (left + square) / width)
    return Preprocessed(
        resized(np.ascontiguousarray(image[top : top + square, left : left + square]), (side, side)), (box,)
    )


def centre_view(image: np.ndarray, field: InputSettings, boxes: tuple[Box, ...] = (FRAME,)) -> Preprocessed:
    """What a run's centre view shows: each box resized to `field.pack`, as packing does, `field.size` cut from it."""
    pack, size = pixels(field.pack), pixels(field.size)
    view = tta_set("centre", pack, size)[0]
    bottom, right = view.top + view.height, view.left + view.width
    part = Box(view.top / pack[0], view.left / pack[1], bottom / pack[0], right / pack[1])
    shown = cut(cut_out(image, boxes, pack)[None], view, size, len(boxes))[0]
    return Preprocessed(shown, tuple(box.within(part) for box in boxes))
