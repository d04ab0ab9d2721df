"""The report's first pictures: the images of most loss, one per clip, and the most frequent confusions as strips."""

from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import numpy as np
import pandas as pd

from driverwatch.config.types import WHOLE
from driverwatch.data.context import Context
from driverwatch.data.images import examine
from driverwatch.data.pack import Pack
from driverwatch.io.html import jpeg_uri
from driverwatch.report.score_runs import RunScores
from driverwatch.report.verdict import confusions, in_words

WORST = 9  # images
STRIPS, OF_EACH = 3, 6  # confusions, and images of each
WIDTHS_PX = 480, 320  # of the worst image, and of the others
JPEG_QUALITY = 78


class Thumbnail(NamedTuple):
    """An image of the data set as a data URI, what to say of it in words, and its fragment of the review page's address."""

    source: str
    alt: str
    says: str
    true: str
    fragment: str


class Strip(NamedTuple):
    """Images of one confusion."""

    title: str
    fragment: str
    thumbnails: list[Thumbnail]


def fragment(**asked: str) -> str:
    """The review page's address of what is asked."""
    return f"#{urlencode(asked, quote_via=quote)}"


def worst_images(
    context: Context, made: RunScores, pack: Pack, regions: list[str]
) -> tuple[list[Thumbnail], list[Strip]]:
    """A run's worst images and confusions.

    Raises:
        InputError, OSError: the pack's images cannot be read, where the data folder has none.
    """
    classes, thumbnails = context.settings.classes, _Thumbnails(context, made, pack, regions)
    worst = one_per_clip(made.each.sort_values("loss", ascending=False, kind="stable")).head(WORST)
    strips = []
    for pair in confusions(made)[:STRIPS]:
        mistaken = made.each[(made.each["class"] == pair.true) & (made.each["says"] == pair.says)]
        chosen = one_per_clip(mistaken.sort_values("sure", ascending=False, kind="stable")).head(OF_EACH)
        where = fragment(run=made.name, true=pair.true, says=pair.says, view="grid", **{"from": "verdict"})
        strips.append(Strip(in_words(pair, classes), where, list(thumbnails.of(chosen, WIDTHS_PX[1]))))
    return [*thumbnails.of(worst.head(1), WIDTHS_PX[0]), *thumbnails.of(worst.tail(-1), WIDTHS_PX[1])], strips


def one_per_clip(rows: pd.DataFrame) -> pd.DataFrame:
    """The first line of each driver and class: frames of one clip are nearly the same image."""
    return rows[~rows.duplicated(["driver", "class"])]


class _Thumbnails:
    """Pictures of a pack's images: the data folder's own where they are there, they are larger."""

    def __init__(self, context: Context, made: RunScores, pack: Pack, regions: list[str]) -> None:
        self.context, self.made, self.pack, self.regions = context, made, pack, regions
        self.index = {str(name): place for place, name in enumerate(pack.names)}

    def of(self, rows: pd.DataFrame, width: int) -> Iterator[Thumbnail]:
        classes = self.context.settings.classes
        for name, row in zip(rows.index, rows.to_dict("records"), strict=True):
            says, true = (classes[row[key]] or row[key] for key in ("says", "class"))
            where = fragment(run=self.made.name, image=name, **{"from": "verdict"})
            words = f"says {says} {row['sure']:.0%}", f"is {true} {row['true']:.0%}"
            yield Thumbnail(
                jpeg_uri(self._pixels(name, row), width, JPEG_QUALITY), f"{row['driver']}, {name}", *words, where
            )

    def _pixels(self, name: str, row: dict[Any, Any]) -> np.ndarray:
        template = self.context.settings.train_images
        found = examine(self.context.data / template.format(label=row["class"], image=name), None).pixels
        return whole_frame(self.pack.pixels[self.index[name]], self.regions) if found is None else found


def whole_frame(image: np.ndarray, regions: list[str]) -> np.ndarray:
    """Of a packed image, uint8 (R * H, W, 3), the whole frame, or where it holds none the first region: uint8 (H, W, 3)."""
    height = image.shape[0] // len(regions)
    top = regions.index(WHOLE) * height if WHOLE in regions else 0
    return image[top : top + height]
