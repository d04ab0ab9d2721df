"""Contact sheets: `make preview` of what training sees, and the report's figures of augmentation and of the ten crops."""

from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from driverwatch.config.model import ModelSettings
from driverwatch.config.types import WHOLE, pixels
from driverwatch.data import splits
from driverwatch.data.augment import AugmentedInputs, augmentation_epochs, epoch_mixing
from driverwatch.data.context import Context, open_packs
from driverwatch.data.folds import FoldTable
from driverwatch.data.mix import Mixing
from driverwatch.data.pack import Pack
from driverwatch.data.regions import split
from driverwatch.data.tta import View, cut_all, tta_set
from driverwatch.errors import InputError
from driverwatch.inference.overlay import write_picture
from driverwatch.io.console import close
from driverwatch.io.html import PALETTE, Missing, jpeg_uri
from driverwatch.run import Run, open_run, refuse_fold
from driverwatch.training.train import read_augmentation

WIDTH, GAP, TEXT, TITLE = 240, 12, 15, 19  # px: of a picture, between them, heights of letters
INK = {"plain": PALETTE["ink"], "quiet": PALETTE["soft"], "mixed": PALETTE["accent"], "flipped": PALETTE["bad"]}


class Caption(NamedTuple):
    """A line of text, and its ink: one of `INK`."""

    text: str
    ink: str = "plain"


class Cell(NamedTuple):
    """A picture, uint8 RGB (H, W, 3), and the captions under it."""

    picture: np.ndarray
    captions: list[Caption]


class Line(NamedTuple):
    """A row of the sheet: what stands before it, and its cells."""

    name: list[Caption]
    cells: list[Cell]


def contact_sheet(title: list[str], columns: list[str], lines: list[Line]) -> np.ndarray:
    """Lay out a sheet: uint8 RGB (H, W, 3). All pictures are shown `WIDTH` px wide, in their own shape.

    Args:
        title: lines above all, the first one larger.
        columns: what stands above each column.
        lines: at least one, all pictures of one shape, as many in each as there are columns.
    """
    high, wide = lines[0].cells[0].picture.shape[:2]
    picture = WIDTH, max(1, round(WIDTH * high / wide))
    below = (TEXT + 4) * max(len(cell.captions) for line in lines for cell in line.cells)
    margin = max([0, *(int(_font(TEXT).getlength(c.text)) for line in lines for c in line.name)]) + 2 * GAP
    top = GAP + TITLE + 6 + (TEXT + 5) * len(title) + GAP
    size = margin + len(columns) * (WIDTH + GAP), top + len(lines) * (picture[1] + below + GAP) + GAP
    sheet = Image.new("RGB", size, "white")
    for number, text in enumerate(title):
        y = GAP if number == 0 else GAP + TITLE + 6 + (number - 1) * (TEXT + 5)
        ink, letters = ("quiet", TEXT) if number else ("plain", TITLE)
        _write_line(sheet, (GAP, y), Caption(text, ink), size[0] - 2 * GAP, letters)
    for number, text in enumerate(columns):
        _write_line(sheet, (margin + number * (WIDTH + GAP), top - TEXT - 7), Caption(text, "quiet"), WIDTH)
    for number, line in enumerate(lines):
        y = top + number * (picture[1] + below + GAP)
        _write_all(sheet, (GAP, y), line.name, margin)
        for place, cell in enumerate(line.cells):
            x = margin + place * (WIDTH + GAP)
            sheet.paste(Image.fromarray(cell.picture).resize(picture, Image.Resampling.LANCZOS), (x, y))
            _write_all(sheet, (x, y + picture[1] + 2), cell.captions, WIDTH)
    return np.array(sheet)


def _write_all(sheet: Image.Image, place: tuple[int, int], captions: list[Caption], room: int) -> None:
    for number, caption in enumerate(captions):
        _write_line(sheet, (place[0], place[1] + number * (TEXT + 4)), caption, room)


def _write_line(sheet: Image.Image, place: tuple[int, int], caption: Caption, room: int, height: int = TEXT) -> None:
    """Write a line of text, cut short where it is longer than `room` px."""
    font, text = _font(height), caption.text
    while text and font.getlength(text + "…" * (text != caption.text)) > room:
        text = text[:-1]
    text += "…" * (text != caption.text)
    ImageDraw.Draw(sheet).text(place, text, fill=INK[caption.ink], font=font)


@cache
def _font(height: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(height)  # Pillow's own, so that every machine has it


EPOCHS = 5  # columns beside the centre view


class Shown(NamedTuple):
    """What a sheet is about."""

    settings: ModelSettings
    preset: list[dict[str, dict[str, object]]]
    pack: Pack
    training: np.ndarray  # rows of the fold
    classes: tuple[str, ...]
    swap: list[int]

    def who(self, row: int) -> str:
        """Class and driver of a packed image."""
        return f"{self.classes[self.pack.labels[row]]} {self.pack.drivers[row]}"


def preview_model(context: Context, settings: ModelSettings, name: str, fold: int) -> Path:
    """Draw what training by these settings would see, into `<build>/preview/<name>.png`."""
    preset = read_augmentation(context, settings)
    folds, packs = open_packs(context, settings.input.key)
    classes, swap = tuple(context.settings.classes), context.settings.swap()
    shown = Shown(settings, preset, packs["train"], _training(settings, folds, packs["train"], fold), classes, swap)
    return _write(context, shown, name, fold)


def preview_run(context: Context, name: str, fold: int) -> Path:
    """Draw what a run that was started sees or saw, whatever today's YAML says."""
    run, folds, packs = open_run(context, name)
    return _write(context, _of_run(run, folds, packs["train"], fold), name, fold)


def _of_run(run: Run, folds: FoldTable, pack: Pack, fold: int) -> Shown:
    return Shown(run.settings, run.preset, pack, _training(run.settings, folds, pack, fold), run.classes, run.swap)


def _training(settings: ModelSettings, folds: FoldTable, pack: Pack, fold: int) -> np.ndarray:
    split = splits.of(settings.train, folds)
    refuse_fold(fold, split.count)
    rows = split.indices(pack.drivers, fold)[0]
    if not len(rows):
        raise InputError(f"FOLD={fold}: every packed image is held out there; expected images of drivers to train on")
    return rows


def _write(context: Context, shown: Shown, name: str, fold: int) -> Path:
    path = context.places.preview(name)
    picture, what = _drawn(context, shown, name, fold)
    write_picture(picture, path)
    close(path, what)
    return path


def _drawn(context: Context, shown: Shown, name: str, fold: int) -> tuple[np.ndarray, str]:
    """The sheet, and how many images in which columns it shows."""
    title = [f"{name} on {context.dataset}, fold {fold}: what training sees", *_said(shown)]
    columns, lines = _sheet(shown, list(context.settings.classes.values()))
    return contact_sheet(title, columns, lines), f"{len(lines)} images, {' | '.join(columns)}"


def _said(shown: Shown) -> list[str]:
    augment, field = shown.settings.augment, shown.settings.input
    names = ", ".join(name for transform in shown.preset for name in transform)
    preset = f"preset {augment.preset} ({names})" if isinstance(augment.preset, str) else f"preset {names or 'none'}"
    mixed = f"mix {augment.mix}" + (f" of {augment.mix_prob:.0%}" if augment.mix != "none" else "")
    seen = f"{' above '.join(field.regions)}: " if field.regions != [WHOLE] else ""
    return [preset, f"flip {augment.hflip}; {mixed}; {seen}{field.pack} cut to {field.size}, {field.crop}"]


def _sheet(shown: Shown, meanings: list[str]) -> tuple[list[str], list[Line]]:
    """Heads of the columns, and a line per class: the centre view, then what each epoch shows."""
    rows = chosen_rows(shown.pack.labels, shown.pack.drivers, shown.training)
    field = shown.settings.input
    centres = cut_all(shown.pack.pixels[rows], "centre", pixels(field.size), len(field.regions))[0]
    cells = [[Cell(view, [Caption(shown.who(row))]) for row, view in zip(rows, centres, strict=True)]]
    epochs = augmentation_epochs(shown.settings)[:EPOCHS]
    cells += [_epoch(shown, rows, epoch) for epoch in epochs]
    unit = "epoch" if shown.settings.train.augmentation_passes is None else "cached draw"
    columns = ["centre view", *(f"{unit} {epoch + 1}" for epoch in epochs)]
    labels = shown.pack.labels[rows]
    names = [[Caption(shown.classes[label]), Caption(meanings[label], "quiet")] for label in labels]
    return columns, [Line(name, list(line)) for name, line in zip(names, zip(*cells, strict=True), strict=True)]


def _epoch(shown: Shown, rows: np.ndarray, epoch: int) -> list[Cell]:
    """What an epoch makes of these rows, by training's own code."""
    mixing = epoch_mixing(shown.settings, shown.pack, shown.training, epoch)
    images, flipped = AugmentedInputs(shown.pack.pixels, shown.settings, shown.preset, epoch, mixing)(rows)
    below = [captions(shown, int(row), bool(flag), mixing) for row, flag in zip(rows, flipped, strict=True)]
    return list(map(Cell, images, below))


def captions(shown: Shown, row: int, flipped: bool, mixing: Mixing | None) -> list[Caption]:
    """Class and driver of an image; its partner's with the shares of the label; flipping, and what it does to the label."""
    mixed = mixing is not None and mixing.partners[row] != row
    if mixing is None or not mixed:
        partner, said = row, [Caption(shown.who(row))]
    else:
        partner, share = int(mixing.partners[row]), float(mixing.shares[row])
        shares = (" left", " right") if mixing.kind == "same_class_halves" else (f" {share:.0%}", f" {1 - share:.0%}")
        said = [Caption(shown.who(row) + shares[0]), Caption(f"+ {shown.who(partner)}{shares[1]}", "mixed")]
    if flipped:
        labels = dict.fromkeys(int(shown.pack.labels[one]) for one in (row, partner))
        moved = shown.settings.augment.hflip == "swap_left_right" and any(
            shown.swap[label] != label for label in labels
        )
        learnt = " + ".join(shown.classes[shown.swap[label]] for label in labels)
        said.append(Caption(f"flipped, learnt as {learnt}" if moved else "flipped", "flipped"))
    return said


def chosen_rows(labels: np.ndarray, drivers: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """One of `rows` int (n,) per class, by class, int (K,): the first, of a driver not shown yet where there is one."""
    found: list[int] = []
    for label in np.unique(labels[rows]):
        of_class = rows[labels[rows] == label]
        fresh = of_class[~np.isin(drivers[of_class], drivers[found])]
        found.append(int((fresh if len(fresh) else of_class)[0]))
    return np.array(found, dtype=int)


QUALITY = 72  # of JPEGs: a contact sheet of ten classes takes some 300 kB
MAX_WIDTH_PX = 1100  # of a sheet; pages show no wider
BOXED_WIDTH_PX = 560  # of an image with crops drawn over it
# of `ten_crop`, as data/tta.py orders it: each crop's corner that has its name (shares of width and height), colour, dash
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
    sheet, _ = _drawn(context, _of_run(run, folds, pack, 0), run.name, 0)
    return [Figure(caption, f"contact sheet: {caption}", _jpeg(sheet))]


def _ten_crop(context: Context, run: Run, folds: FoldTable, pack: Pack) -> list[Figure]:
    """The crops as boxes over an image, and as the network is given them."""
    field = run.settings.input
    index = int(chosen_rows(pack.labels, pack.drivers, folds.indices(pack.drivers, 0)[0])[0])
    images, size = pack.pixels[index : index + 1], pixels(field.size)
    image = split(images, len(field.regions))[0]
    region = f"of region {field.regions[0]}, " if field.regions != [WHOLE] else ""
    crops = tta_set("ten_crop", pixels(field.pack), size)[: len(CROPS)]
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


_jpeg = partial(jpeg_uri, widest=MAX_WIDTH_PX, quality=QUALITY)


def _box(crop: View, name: str, zoom: float) -> dict[str, Any]:
    top, left, height, width = (round(side * zoom, 1) for side in (*crop[:2], *crop.size))
    right, down, colour, dash = CROPS[name]
    place = {"left": left, "top": top, "width": width, "height": height, "colour": colour, "dash": dash}
    x, y = round(left + 8 + right * (width - 16), 1), round(top + 18 + down * (height - 26), 1)
    return {**place, "name": name, "x": x, "y": y, "anchor": {0.0: "start", 0.5: "middle", 1.0: "end"}[right]}
