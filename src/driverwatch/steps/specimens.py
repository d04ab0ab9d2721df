"""Pictures for a report: what a run's training sees, and where its views are cut, from one photo of a training driver."""

import numpy as np

from driverwatch.data.folds import FoldTable
from driverwatch.data.pack import Pack
from driverwatch.errors import InputError
from driverwatch.report.blocks import Missing, Picture
from driverwatch.report.photos import Crop, boxed, jpeg
from driverwatch.setting_types import WHOLE, pixels
from driverwatch.steps.context import Context
from driverwatch.steps.preview import chosen_rows, run_sheet
from driverwatch.training.run import Run
from driverwatch.vision.mosaic import split
from driverwatch.vision.sheet import Caption, Cell, Line, contact_sheet
from driverwatch.vision.views import cut_all, view_set

PLACES = (
    "centre",
    "top left",
    "top right",
    "bottom left",
    "bottom right",
)  # of `ten_crop`, as vision/views.py orders it
ENDS = ((0.5, 0.5), (0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0))


def specimens(context: Context, run: Run, folds: FoldTable, pack: Pack) -> tuple[list[Picture], list[Missing]]:
    """A contact sheet of augmentation and the ten-crop of one training photo of fold 0; what cannot be drawn, and why."""
    pictures, missing = list[Picture](), list[Missing]()
    for draw in (_augmentation, _views):
        try:
            pictures += draw(context, run, folds, pack)
        except (InputError, OSError) as error:
            missing.append(Missing(f"{run.name}: {error}", f"make preview DATASET={context.dataset} RUN={run.name}"))
    return pictures, missing


def _augmentation(context: Context, run: Run, folds: FoldTable, pack: Pack) -> list[Picture]:
    said = f"What training sees of one photo per class, epoch by epoch: {run.name}, fold 0."
    return [Picture(said, f"contact sheet: {said}", jpeg(run_sheet(context, run, folds, pack)))]


def _views(context: Context, run: Run, folds: FoldTable, pack: Pack) -> list[Picture]:
    """Boxes over a photo, and the ten crops."""
    field = run.settings.input
    training, _ = folds.rows(pack.drivers, 0)
    row = int(chosen_rows(pack.labels, pack.drivers, training)[0])
    photos, size = pack.pixels[row : row + 1], pixels(field.size)
    photo = split(photos, len(field.regions))[0]
    where = f"of region {field.regions[0]}, " if field.regions != [WHOLE] else ""
    found = view_set("ten_crop", pixels(field.pack), size)[: len(PLACES)]
    if len(set(found)) == 1:
        return [_whole(run, photo, where)]
    crops = [Crop(name, *view[:2], *view.size, end) for name, view, end in zip(PLACES, found, ENDS, strict=True)]
    cut = f"{field.size} out of {field.pack}"
    said = (
        f"Where ten_crop looks, {where}{cut} px: these five, then each of them mirrored ({run.name}, a training photo)."
    )
    images = split(cut_all(photos, "ten_crop", size, len(field.regions))[:, 0], len(field.regions))[
        :: len(field.regions)
    ]
    return [
        Picture(said, "", svg=boxed(photo, crops, said)),
        Picture(
            f"The ten crops of it, {where}as the network is given them.", "ten crops of one photo", jpeg(_ten(images))
        ),
    ]


def _whole(run: Run, photo: np.ndarray, where: str) -> Picture:
    said = f"{run.name} takes the whole packed frame, {where}so all crops of ten_crop are this one, and its mirror."
    return Picture(said, "a training photo", jpeg(photo))


def _ten(images: np.ndarray) -> np.ndarray:
    """Crops (10, h, w, 3) as a sheet of two lines."""
    half = len(PLACES)
    lines = [
        Line([Caption(kind)], [Cell(image, []) for image in images[start : start + half]])
        for kind, start in (("as it is", 0), ("mirrored", half))
    ]
    return contact_sheet([], list(PLACES), lines)
