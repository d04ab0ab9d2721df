"""Photos on a page: as JPEG inside of it, and with boxes drawn over them."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from markupsafe import Markup

from driverwatch.report.page import picture

QUALITY = 72  # of 100: a contact sheet of ten classes takes some 300 kB
WIDEST = 1100  # px of a sheet; pages show no wider
ZOOM = 2.5  # px on the page for one of a packed photo, about
DASHES = ("none", "10 4", "2 4", "12 4 2 4", "5 5")  # a second sign beside colour
COLOURS = ("c4", "c5", "c2", "c3", "c1")


class Crop(NamedTuple):
    """A box in px of a photo; `end`: which corner its name stands in, as shares of its width and height."""

    name: str
    top: int
    left: int
    height: int
    width: int
    end: tuple[float, float]


def jpeg(image: np.ndarray, widest: int = WIDEST) -> str:
    """uint8 RGB (H, W, 3) as a data URI, shrunk to at most `widest` px."""
    height, width = image.shape[:2]
    if width > widest:
        image = cv2.resize(image, (widest, round(height * widest / width)), interpolation=cv2.INTER_AREA)
    _, content = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return picture(content.tobytes(), "image/jpeg")


def boxed(photo: np.ndarray, crops: Sequence[Crop], label: str) -> Markup:
    """A photo, uint8 RGB (H, W, 3), with boxes over it: each of its own colour and dash, its name in its corner."""
    height, width = photo.shape[:2]
    zoom = max(1, round(560 / width, 2))
    lines = [_box(crop, number, zoom) for number, crop in enumerate(crops)]
    size = Markup('viewBox="0 0 {w} {h}" width="{w}" height="{h}"').format(
        w=round(width * zoom), h=round(height * zoom)
    )
    return Markup(
        '<svg {size} class="boxed" role="img" aria-label="{label}">'
        '<image href="{uri}" width="100%" height="100%"/>{lines}</svg>'
    ).format(size=size, label=label, uri=jpeg(photo), lines=Markup("").join(lines))


def _box(crop: Crop, number: int, zoom: float) -> Markup:
    left, top, width, height = (round(side * zoom, 1) for side in (crop.left, crop.top, crop.width, crop.height))
    x, y = left + 8 + crop.end[0] * (width - 16), top + 18 + crop.end[1] * (height - 26)
    anchor = "start" if crop.end[0] < 0.4 else "end" if crop.end[0] > 0.6 else "middle"
    colour = COLOURS[number % len(COLOURS)]
    return Markup(
        '<rect x="{left}" y="{top}" width="{width}" height="{height}" style="stroke: var(--{colour}); stroke-dasharray: {dash}"/>'
        '<text x="{x}" y="{y}" text-anchor="{anchor}">{name}</text>'
    ).format(
        left=left,
        top=top,
        width=width,
        height=height,
        colour=colour,
        dash=DASHES[number % len(DASHES)],
        x=round(x, 1),
        y=round(y, 1),
        anchor=anchor,
        name=crop.name,
    )
