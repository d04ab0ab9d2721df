"""Heat maps drawn over the photos that they explain."""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from driverwatch.errors import InputError
from driverwatch.writing import replacing

STRENGTH = 0.5  # share of the colour in the blend


class Box(NamedTuple):
    """A rectangle in a photo, as shares (0..1) of its height and width."""

    top: float
    left: float
    bottom: float
    right: float


def normalized(heat: np.ndarray) -> np.ndarray:
    """A map between its own minimum and maximum, as 0..1 (as Zhou et al. 2016 show theirs); a constant one is 0."""
    low, high = float(heat.min()), float(heat.max())
    return np.zeros(heat.shape, np.float32) if high <= low else ((heat - low) / (high - low)).astype(np.float32)


def overlay(photo: np.ndarray, heat: np.ndarray, box: Box) -> np.ndarray:
    """Blend a map into the part of a photo that the network saw, made grey there; the rest of the photo stays as it is.

    The colours are viridis: even steps look even, lightness alone tells them, and on grey none is the photo's own.

    Args:
        photo: uint8 RGB (H, W, 3).
        heat: (h, w), any range, any size: it is stretched over `box`, dark blue for its minimum, yellow for its maximum.
        box: where the network's input lies in the photo.

    Returns:
        uint8 RGB (H, W, 3).
    """
    rows, columns = _inside(box.top, box.bottom, photo.shape[0]), _inside(box.left, box.right, photo.shape[1])
    part = cv2.cvtColor(np.ascontiguousarray(photo[rows, columns]), cv2.COLOR_RGB2GRAY)
    stretched = cv2.resize(normalized(heat), part.shape[::-1], interpolation=cv2.INTER_CUBIC)
    levels = np.round(np.clip(stretched, 0, 1) * 255).astype(np.uint8)
    colours = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)
    made = photo.copy()
    made[rows, columns] = cv2.addWeighted(cv2.cvtColor(part, cv2.COLOR_GRAY2RGB), 1 - STRENGTH, colours, STRENGTH, 0)
    return made


def _inside(start: float, end: float, length: int) -> slice:
    """Shares of an axis in px, at least one px."""
    first = min(round(start * length), length - 1)
    return slice(first, max(round(end * length), first + 1))


def write_picture(picture: np.ndarray, path: Path) -> None:
    """Write uint8 RGB (H, W, 3) as PNG or JPEG, by the file's name; whole or not at all."""
    made, content = cv2.imencode(path.suffix.lower(), picture[..., ::-1])
    if not made:
        raise InputError(
            f"{path}: a picture of {picture.shape[1]}x{picture.shape[0]} px cannot be written as {path.suffix}"
        )
    with replacing(path) as temporary:
        temporary.write_bytes(content.tobytes())
