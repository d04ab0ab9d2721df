"""Regions of an image, and mosaics: what is cut from several regions, at one size each, stacked along the height.

A mosaic is one array for packing, batches and caches; since rows lie one after another, splitting it is a change of shape.
"""

from typing import NamedTuple

import numpy as np


class Box(NamedTuple):
    """A rectangle in an image, as shares (0..1) of its height and width."""

    top: float
    left: float
    bottom: float
    right: float

    def slices(self, height: int, width: int) -> tuple[slice, slice]:
        """Its rows and columns in an image of this size, at least one px each."""
        return _inside(self.top, self.bottom, height), _inside(self.left, self.right, width)

    def within(self, inner: "Box") -> "Box":
        """A box `inner`, whose shares are of this one, in the image's."""
        height, width = self.bottom - self.top, self.right - self.left
        top, bottom = (self.top + share * height for share in (inner.top, inner.bottom))
        left, right = (self.left + share * width for share in (inner.left, inner.right))
        return Box(top, left, bottom, right)


FRAME = Box(0.0, 0.0, 1.0, 1.0)


def _inside(start: float, end: float, length: int) -> slice:
    first = min(round(start * length), length - 1)
    return slice(first, max(round(end * length), first + 1))


def split(mosaics: np.ndarray, regions: int) -> np.ndarray:
    """(B, R * h, ...) -> (B * R, h, ...): an image's regions one after another. A view of the memory, if rows lie together."""
    return mosaics.reshape(-1, mosaics.shape[1] // regions, *mosaics.shape[2:])


def join(tiles: np.ndarray, regions: int) -> np.ndarray:
    """(B * R, h, ...) -> (B, R * h, ...): `split` undone."""
    return tiles.reshape(-1, regions * tiles.shape[1], *tiles.shape[2:])
