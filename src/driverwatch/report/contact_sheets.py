"""Figures of what a network sees of one image per class, or of one image: augmentation, and test-time augmentation."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from driverwatch.data.folds import FoldTable
from driverwatch.data.pack import Pack
from driverwatch.errors import InputError
from driverwatch.io.html import jpeg_uri
from driverwatch.report.report_tables import Missing
from driverwatch.setting_types import WHOLE, pixels
from driverwatch.steps.context import Context
from driverwatch.steps.preview import chosen_rows, run_sheet
from driverwatch.training.run import Run
from driverwatch.vision.mosaic import split
from driverwatch.vision.sheet import Caption, Cell, Line, contact_sheet
from driverwatch.vision.views import View, cut_all, view_set

QUALITY = 72  # of JPEGs: a contact sheet of ten classes takes some 300 kB
MAX_WIDTH_PX = 1100  # of a sheet; pages show no wider
BOXED_WIDTH_PX = 560  # of an image with crops drawn over it
# of `ten_crop`, as vision/views.py orders it: each crop's corner that has its name (shares of width and height), colour, dash
CROPS = {
    "centre": (0.5, 0.5, "c4", "none"),
    "top left": (0.0, 0.0, "c5", "10 4"),
    "top right": (1.0, 0.0, "c2", "2 4"),
    "bottom left": (0.0, 1.0, "c3", "12 4 2 4"),
    "bottom right": (1.0, 1.0, "c1", "5 5"),
}


@dataclass(frozen=True)
class Figure:
    """An image as a data URI; crops drawn over it in px of the page: attributes of SVG by name, its width and height."""

    caption: str
    alt: str
    source: str
    boxes: tuple[dict[str, Any], ...] = ()
    width: int = 0
    height: int = 0


def example_figures(context: Context, run: Run, folds: FoldTable, pack: Pack) -> tuple[list[Figure], list[Missing]]:
    """Augmentation, and the ten crops of a training image of fold 0; what cannot be drawn, and why."""
    figures, missing = list[Figure](), list[Missing]()
    for draw in (_augmentation, _ten_crop):
        try:
            figures += draw(context, run, folds, pack)
        except (InputError, OSError) as error:
            missing.append(Missing(f"{run.name}: {error}", f"make preview DATASET={context.dataset} RUN={run.name}"))
    return figures, missing


def _augmentation(context: Context, run: Run, folds: FoldTable, pack: Pack) -> list[Figure]:
    caption = f"What training sees of one image per class, epoch by epoch: {run.name}, fold 0."
    return [Figure(caption, f"contact sheet: {caption}", _jpeg(run_sheet(context, run, folds, pack)))]


def _ten_crop(context: Context, run: Run, folds: FoldTable, pack: Pack) -> list[Figure]:
    """The crops as boxes over an image, and as the network is given them."""
    field = run.settings.input
    index = int(chosen_rows(pack.labels, pack.drivers, folds.rows(pack.drivers, 0)[0])[0])
    images, size = pack.pixels[index : index + 1], pixels(field.size)
    image = split(images, len(field.regions))[0]
    region = f"of region {field.regions[0]}, " if field.regions != [WHOLE] else ""
    crops = view_set("ten_crop", pixels(field.pack), size)[: len(CROPS)]
    if len(set(crops)) == 1:
        caption = (
            f"{run.name} takes the whole packed frame, {region}so all crops of ten_crop are this one, and its flip."
        )
        return [Figure(caption, "a training image", _jpeg(image))]
    caption = (
        f"The crops of ten_crop, {region}{field.size} out of {field.pack} px: these five, then each of them flipped "
        f"horizontally ({run.name}, a training image)."
    )
    cut = split(cut_all(images, "ten_crop", size, len(field.regions))[:, 0], len(field.regions))[:: len(field.regions)]
    lines = [
        Line([Caption(kind)], [Cell(crop, []) for crop in cut[start : start + len(CROPS)]])
        for kind, start in (("as it is", 0), ("flipped", len(CROPS)))
    ]
    ten = f"The ten crops of it, {region}as the network is given them."
    sheet = contact_sheet([], list(CROPS), lines)
    zoom = max(1, round(BOXED_WIDTH_PX / image.shape[1], 2))
    boxes = tuple(_box(crop, name, zoom) for crop, name in zip(crops, CROPS, strict=True))
    height, width = (round(side * zoom) for side in image.shape[:2])
    boxed = Figure(caption, caption, _jpeg(image), boxes, width, height)
    return [boxed, Figure(ten, "ten crops of one image", _jpeg(sheet))]


def _jpeg(image: np.ndarray) -> str:
    return jpeg_uri(image, MAX_WIDTH_PX, QUALITY)


def _box(crop: View, name: str, zoom: float) -> dict[str, Any]:
    top, left, height, width = (round(side * zoom, 1) for side in (*crop[:2], *crop.size))
    right, down, colour, dash = CROPS[name]
    place = {"left": left, "top": top, "width": width, "height": height, "colour": colour, "dash": dash}
    x, y = round(left + 8 + right * (width - 16), 1), round(top + 18 + down * (height - 26), 1)
    return {**place, "name": name, "x": x, "y": y, "anchor": {0.0: "start", 0.5: "middle", 1.0: "end"}[right]}
