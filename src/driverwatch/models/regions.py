"""Mosaics inside of a network: regions stacked along the height become images of their own, and features beside each other."""

from typing import Any

from keras import ops


def split(x: Any, regions: int) -> Any:
    """(B, R * n, ...) -> (B * R, n, ...): each region of each image for itself; as `vision.mosaic.split`, on the device."""
    return x if regions == 1 else ops.reshape(x, (-1, x.shape[1] // regions, *x.shape[2:]))


def join(x: Any, regions: int) -> Any:
    """(B * R, n, ...) -> (B, R * n, ...): `split` undone. Features (B * R, F) come to lie side by side, (B, R * F)."""
    return x if regions == 1 else ops.reshape(x, (-1, regions * x.shape[1], *x.shape[2:]))
