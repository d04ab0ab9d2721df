"""Images to ask the local page about, and an answerer without a network."""

import io
from typing import Any

import numpy as np
from PIL import Image

from driverwatch.data.images import examine_content
from driverwatch.data.regions import FRAME
from driverwatch.inference.overlay import encoded, overlay_regions
from driverwatch.report.serve import Answer, ImageError

CLASSES = {"c0": "safe driving", "c1": "texting <right>", "c2": "", "c3": "radio"}
SHARES = np.array([0.1, 0.6, 0.25, 0.05])


def image(kind: str = "JPEG", mode: str = "RGB", size: tuple[int, int] = (64, 48), **options: Any) -> bytes:
    """A picture that is dark at the left and light at the right."""
    ramp = np.tile(np.linspace(0, 255, size[0]).astype(np.uint8), (size[1], 1))
    content = io.BytesIO()
    Image.fromarray(ramp).convert("RGB").convert(mode).save(content, kind, **options)
    return content.getvalue()


def animated() -> bytes:
    frames, content = [Image.new("P", (32, 32), shade) for shade in (0, 100, 200)], io.BytesIO()
    frames[0].save(content, "GIF", save_all=True, append_images=frames[1:])
    return content.getvalue()


def stand_in(content: bytes, suffix: str, label: int | None) -> Answer:
    """Says the same of every image that can be read; one of 200x20 px is unlike the camera's."""
    found = examine_content(content, suffix, None)
    if found.pixels is None:
        raise ImageError(found.problem)
    heat = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    picture = encoded(overlay_regions(found.pixels, heat, (FRAME,)), ".jpg")
    remarks = ("unlike the camera's images",) if found.shape == (20, 200) else ()
    return Answer(SHARES, 1 if label is None else label, picture, "class activation", found.traits, remarks)
