"""Class activation maps drawn over the images that they explain."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from driverwatch.data.regions import Box
from driverwatch.errors import InputError, printable
from driverwatch.io.atomic import replacing

STRENGTH = 0.5  # share of the colour in the blend
SHOWN_PX, GAP_PX, TEXT_PX, CAPTION_PX = 640, 16, 20, 40  # longer side of a picture, white between, letters, their line


def normalized(heat: np.ndarray) -> np.ndarray:
    """A map between its own minimum and maximum, as 0..1 (as Zhou et al. 2016 show theirs); a constant one is 0."""
    low, high = float(heat.min()), float(heat.max())
    return np.zeros(heat.shape, np.float32) if high <= low else ((heat - low) / (high - low)).astype(np.float32)


def overlay(image: np.ndarray, heat: np.ndarray, box: Box) -> np.ndarray:
    """Blend a map into the part of an image that the network saw, made grey there; the rest of the image stays as it is.

    The colours are viridis: even steps look even, lightness alone tells them, and on grey none is the image's own.

    Args:
        image: uint8 RGB (H, W, 3).
        heat: (h, w), any range, any size: it is stretched over `box`, dark blue for its minimum, yellow for its maximum.
        box: where the network's input is in the image.

    Returns:
        uint8 RGB (H, W, 3).
    """
    made, inside = image.copy(), box.slices(*image.shape[:2])
    made[inside] = _coloured(image[inside], _stretched(normalized(heat), image[inside]))
    return made


def overlay_regions(image: np.ndarray, maps: np.ndarray, boxes: tuple[Box, ...]) -> np.ndarray:
    """The same of several regions: their maps added where they overlap, the image left as it is where none lies.

    Each map is divided by its region's share of the image first. A class-activation map so becomes logit per area: what the
    colours say of a spot does not depend on how many px its region gave it.

    Args:
        maps: (R, h, w), as `overlay` takes one.
    """
    if len(boxes) == 1:
        return overlay(image, maps[0], boxes[0])
    total, seen = np.zeros(image.shape[:2], np.float32), np.zeros(image.shape[:2], bool)
    for heat, box in zip(maps, boxes, strict=True):
        inside = box.slices(*image.shape[:2])
        area = (box.bottom - box.top) * (box.right - box.left)
        total[inside] += _stretched(np.asarray(heat, np.float32), total[inside]) / area
        seen[inside] = True
    total[~seen] = total[seen].min()
    return np.where(seen[..., None], _coloured(image, normalized(total)), image)


def _stretched(heat: np.ndarray, over: np.ndarray) -> np.ndarray:
    """A map at the height and width of `over`."""
    return np.asarray(cv2.resize(heat, over.shape[1::-1], interpolation=cv2.INTER_CUBIC))


def _coloured(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A map in 0..1 (H, W) blended over an image, uint8 (H, W, 3), that is made grey."""
    levels = np.round(np.clip(heat, 0, 1) * 255).astype(np.uint8)
    colours = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)
    grey = cv2.cvtColor(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return np.asarray(cv2.addWeighted(grey, 1 - STRENGTH, colours, STRENGTH, 0))


def side_by_side(pictures: Sequence[np.ndarray], captions: Sequence[str]) -> np.ndarray:
    """Pictures on white, the longer side of each `SHOWN_PX`, with its caption below, cut where it is wider.

    Args:
        pictures: uint8 RGB (H, W, 3), all of one shape.

    Returns:
        uint8 RGB (H', W', 3).
    """
    height, width = pictures[0].shape[:2]
    scale = SHOWN_PX / max(height, width)
    size = max(1, round(scale * width)), max(1, round(scale * height))
    whole = len(pictures) * (size[0] + GAP_PX) + GAP_PX, GAP_PX + size[1] + CAPTION_PX
    sheet, font = Image.new("RGB", whole, "white"), ImageFont.load_default(TEXT_PX)
    draw = ImageDraw.Draw(sheet)
    for place, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        left, words = GAP_PX + place * (size[0] + GAP_PX), printable(caption, 100)
        while len(words) > 1 and draw.textlength(words, font) > size[0]:
            words = words[:-2] + "…"
        sheet.paste(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS), (left, GAP_PX))
        draw.text((left, GAP_PX + size[1] + CAPTION_PX // 2), words, "black", font, anchor="lm")
    return np.asarray(sheet)


def encoded(picture: np.ndarray, kind: str) -> bytes:
    """uint8 RGB (H, W, 3) as a file's bytes; `kind` is .png or .jpg. Raises `ValueError` where it cannot be one."""
    made, content = cv2.imencode(kind, picture[..., ::-1])
    if not made:
        raise ValueError(f"a picture of {picture.shape[1]}x{picture.shape[0]} px cannot be written as {kind}")
    return content.tobytes()


def write_picture(picture: np.ndarray, path: Path) -> None:
    """Write uint8 RGB (H, W, 3) as PNG or JPEG, by the file's name; whole or not at all."""
    try:
        content = encoded(picture, path.suffix.lower())
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    with replacing(path) as temporary:
        temporary.write_bytes(content)
