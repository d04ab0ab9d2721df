"""The field of view: what a network is shown of a photo, and where in the photo that lies. Imports no Keras."""

from typing import NamedTuple

import numpy as np

from driverwatch.data.photos import resized
from driverwatch.settings import InputSettings, pixels
from driverwatch.vision.overlay import Box
from driverwatch.vision.views import cut, view_set

CENTRAL = 0.875  # 224 out of 256: the share of the shorter side in the published centre crops


class Seen(NamedTuple):
    """What a network is shown: uint8 (h, w, 3), and its place in the upright photo."""

    pixels: np.ndarray
    box: Box


def centre_square(photo: np.ndarray, side: int) -> Seen:
    """The published protocol of ImageNet networks (Krizhevsky et al. 2012): shorter side to `side` / 0.875, then the centre.

    Published accuracies are those of this crop, in which shapes keep their aspect; what lies outside is not seen. The square
    is cut first and resized alone, which gives the same picture for less work.

    Args:
        photo: uint8 RGB (H, W, 3).
        side: px, the network's native side.
    """
    height, width = photo.shape[:2]
    square = max(1, round(min(height, width) * CENTRAL))
    top, left = (height - square) // 2, (width - square) // 2
    box = Box(top / height, left / width, (top + square) / height, (left + square) / width)
    return Seen(resized(np.ascontiguousarray(photo[top : top + square, left : left + square]), (side, side)), box)


def centre_view(photo: np.ndarray, field: InputSettings) -> Seen:
    """What a run's centre view shows: the whole photo resized to `field.pack`, as packing does, `field.size` cut from it."""
    pack, size = pixels(field.pack), pixels(field.size)
    view = view_set("centre", pack, size)[0]
    bottom, right = view.top + view.height, view.left + view.width
    box = Box(view.top / pack[0], view.left / pack[1], bottom / pack[0], right / pack[1])
    return Seen(cut(resized(photo, pack)[None], view, size)[0], box)
