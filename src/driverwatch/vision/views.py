"""Test-time views: where each is cut and which are mirrored, as data; and cutting them from an array.

Order of `ten_crop`: centre, top left, top right, bottom left, bottom right, then the mirrors of these five in the same
order. `five_crop` is its first five, `centre` its first: a ten-crop pass holds the smaller view sets.
"""

from typing import NamedTuple

import numpy as np

from driverwatch.settings import ViewSet
from driverwatch.vision.mosaic import join, split


class View(NamedTuple):
    """One crop, of each region alike: its upper left corner in px, and whether it is mirrored after cutting."""

    top: int
    left: int
    mirrored: bool


def view_set(name: ViewSet, image: tuple[int, int], size: tuple[int, int]) -> list[View]:
    """The views of `size` (height, width) cut from images of `image` (height, width)."""
    bottom, right = image[0] - size[0], image[1] - size[1]
    if bottom < 0 or right < 0:
        raise ValueError(f"views of {size} do not fit into images of {image}")
    centre = [View(bottom // 2, right // 2, False)]
    corners = [View(top, left, False) for top in (0, bottom) for left in (0, right)]
    if name == "centre":
        return centre
    return (
        centre + corners
        if name == "five_crop"
        else [v._replace(mirrored=m) for m in (False, True) for v in centre + corners]
    )


def cut(images: np.ndarray, view: View, size: tuple[int, int], regions: int = 1) -> np.ndarray:
    """(B, R * H, W, 3) -> (B, R * h, w, 3)."""
    crop = split(images, regions)[:, view.top : view.top + size[0], view.left : view.left + size[1]]
    return join(crop[:, :, ::-1] if view.mirrored else crop, regions)


def cut_all(images: np.ndarray, name: ViewSet, size: tuple[int, int]) -> np.ndarray:
    """(B, H, W, 3) -> (V, B, h, w, 3), in the order above."""
    return np.stack([cut(images, view, size) for view in view_set(name, images.shape[1:3], size)])
