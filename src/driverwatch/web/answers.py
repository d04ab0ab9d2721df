"""A photo's bytes to what the page shows of it: probabilities, and a heat map over the photo."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from driverwatch.data.photos import examine_content, resized
from driverwatch.inference.field import Seen
from driverwatch.vision.mosaic import split
from driverwatch.vision.overlay import encoded, overlay_regions

LONGEST = 1280  # px of the picture's longer side: no page shows more, and a camera's 50 million px would travel back
PATIENCE = 120.0  # seconds: a heat map by occlusion takes five fold models a minute on two cores


class PhotoError(Exception):
    """A photo that cannot be answered for: what is wrong with it, without its name."""


class BusyError(Exception):
    """Others' photos took longer than `PATIENCE`."""


@dataclass(frozen=True)
class Answer:
    """What is said of one photo."""

    probabilities: np.ndarray  # float64 (C,)
    label: int  # the class of the heat map
    picture: bytes  # JPEG: the heat map over the upright photo
    method: str  # how the map was made
    traits: tuple[str, ...]  # what is unusual of the photo


class Answers:
    """Answers with networks that stay loaded, one photo at a time: networks and decoded photos both want memory and cores."""

    def __init__(self, networks: Any, see: Callable[[np.ndarray], Seen], patience: float = PATIENCE) -> None:
        """Keep what answers.

        Args:
            networks: `inference.classify.Networks`.
            see: cuts from an upright photo what they take.
        """
        self.networks, self.see, self.patience = networks, see, patience
        self.lock = threading.Lock()

    def __call__(self, content: bytes, suffix: str, label: int | None) -> Answer:
        """Answer for a file's bytes; `suffix` is how its name ends, `label` the heat map's class (None: the likeliest).

        Raises:
            PhotoError: not a whole JPEG or PNG, too small, too large.
            BusyError: others' photos took too long.
        """
        if not self.lock.acquire(timeout=self.patience):
            raise BusyError
        try:
            return self._answer(content, suffix, label)
        finally:
            self.lock.release()

    def _answer(self, content: bytes, suffix: str, label: int | None) -> Answer:
        photo = examine_content(content, suffix, None)
        if photo.pixels is None:
            raise PhotoError(photo.problem)
        from driverwatch.inference.classify import heat_map, probabilities

        seen = self.see(photo.pixels)
        row = probabilities(self.networks, seen.pixels[None])[0]
        shown = int(row.argmax()) if label is None else label
        heat, method = heat_map(self.networks, seen.pixels, shown)
        picture = overlay_regions(_bounded(photo.pixels), split(heat[None], len(seen.boxes)), seen.boxes)
        return Answer(row, shown, encoded(picture, ".jpg"), method, photo.traits)


def _bounded(photo: np.ndarray) -> np.ndarray:
    """A photo whose longer side has at most `LONGEST` px."""
    scale = min(1.0, LONGEST / max(photo.shape[:2]))
    height, width = (max(1, round(side * scale)) for side in photo.shape[:2])
    return resized(np.ascontiguousarray(photo), (height, width))
