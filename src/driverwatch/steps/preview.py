"""What training sees, as a picture: one photo per class, cut and augmented by the code that training itself runs."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from driverwatch.data import splits
from driverwatch.data.folds import FoldTable
from driverwatch.data.pack import Pack
from driverwatch.errors import InputError
from driverwatch.setting_types import WHOLE, pixels
from driverwatch.settings import ModelSettings
from driverwatch.steps.context import Context, open_packs
from driverwatch.steps.train import open_run, read_augmentation, refuse_fold
from driverwatch.training.inputs import AugmentedInputs, augmentation_epochs, epoch_mixing
from driverwatch.training.run import Run
from driverwatch.vision.mix import Mixing
from driverwatch.vision.overlay import write_picture
from driverwatch.vision.sheet import Caption, Cell, Line, contact_sheet
from driverwatch.vision.views import cut_all
from driverwatch.wording import close

EPOCHS = 5  # columns beside the centre view


class Shown(NamedTuple):
    """What a sheet is about."""

    settings: ModelSettings
    policy: list[dict[str, dict[str, object]]]
    pack: Pack
    training: np.ndarray  # rows of the fold
    classes: tuple[str, ...]
    swap: list[int]

    def who(self, row: int) -> str:
        return f"{self.classes[self.pack.labels[row]]} {self.pack.drivers[row]}"


def preview_model(context: Context, settings: ModelSettings, name: str, fold: int) -> Path:
    """Draw what training by these settings would see, into `<build>/preview/<name>.png`."""
    policy = read_augmentation(context, settings)
    folds, packs = open_packs(context, settings.input.key)
    classes, swap = tuple(context.settings.classes), context.settings.swap()
    shown = Shown(settings, policy, packs["train"], _training(settings, folds, packs["train"], fold), classes, swap)
    return _write(context, shown, name, fold)


def preview_run(context: Context, name: str, fold: int) -> Path:
    """Draw what a run that was begun sees or saw, whatever today's YAML says."""
    run, folds, packs = open_run(context, name)
    rows = _training(run.settings, folds, packs["train"], fold)
    return _write(context, _of_run(run, packs["train"], rows), name, fold)


def _of_run(run: Run, pack: Pack, rows: np.ndarray) -> Shown:
    return Shown(run.settings, run.policy, pack, rows, run.classes, run.swap)


def _training(settings: ModelSettings, folds: FoldTable, pack: Pack, fold: int) -> np.ndarray:
    split = splits.of(settings.train, folds)
    refuse_fold(fold, split.count)
    rows = split.rows(pack.drivers, fold)[0]
    if not len(rows):
        raise InputError(f"FOLD={fold}: every packed photo is held out there; expected photos of drivers to train on")
    return rows


def run_sheet(context: Context, run: Run, folds: FoldTable, pack: Pack, fold: int = 0) -> np.ndarray:
    """The sheet of a run whose folds and training pack are open: uint8 RGB (H, W, 3)."""
    return _drawn(context, _of_run(run, pack, _training(run.settings, folds, pack, fold)), run.name, fold)[0]


def _write(context: Context, shown: Shown, name: str, fold: int) -> Path:
    path = context.places.preview(name)
    picture, columns, count = _drawn(context, shown, name, fold)
    write_picture(picture, path)
    close(path, f"{count} photos, {' | '.join(columns)}")
    return path


def _drawn(context: Context, shown: Shown, name: str, fold: int) -> tuple[np.ndarray, list[str], int]:
    """The sheet, the heads of its columns, and how many photos it shows."""
    title = [f"{name} on {context.dataset}, fold {fold}: what training sees", *_said(shown)]
    columns, lines = _sheet(shown, list(context.settings.classes.values()))
    return contact_sheet(title, columns, lines), columns, len(lines)


def _said(shown: Shown) -> list[str]:
    augment, field = shown.settings.augment, shown.settings.input
    names = ", ".join(name for transform in shown.policy for name in transform)
    policy = f"policy {augment.policy} ({names})" if isinstance(augment.policy, str) else f"policy {names or 'none'}"
    mixed = f"mix {augment.mix}" + (f" of {augment.mix_share:.0%}" if augment.mix != "none" else "")
    seen = f"{' above '.join(field.regions)}: " if field.regions != [WHOLE] else ""
    return [policy, f"mirror {augment.mirror}; {mixed}; {seen}{field.pack} cut to {field.size}, {field.crop}"]


def _sheet(shown: Shown, meanings: list[str]) -> tuple[list[str], list[Line]]:
    """Heads of the columns, and a line per class: the centre view, then what each epoch shows."""
    rows = chosen_rows(shown.pack.labels, shown.pack.drivers, shown.training)
    field = shown.settings.input
    centres = cut_all(shown.pack.pixels[rows], "centre", pixels(field.size), len(field.regions))[0]
    cells = [[Cell(view, [Caption(shown.who(row))]) for row, view in zip(rows, centres, strict=True)]]
    epochs = augmentation_epochs(shown.settings)[:EPOCHS]
    cells += [_epoch(shown, rows, epoch) for epoch in epochs]
    unit = "epoch" if shown.settings.train.cache_trunk is None else "cached draw"
    columns = ["centre view", *(f"{unit} {epoch + 1}" for epoch in epochs)]
    labels = shown.pack.labels[rows]
    names = [[Caption(shown.classes[label]), Caption(meanings[label], "quiet")] for label in labels]
    return columns, [Line(name, list(line)) for name, line in zip(names, zip(*cells, strict=True), strict=True)]


def _epoch(shown: Shown, rows: np.ndarray, epoch: int) -> list[Cell]:
    """What an epoch makes of these rows, by training's own code."""
    mixing = epoch_mixing(shown.settings, shown.pack, shown.training, epoch)
    images, mirrored = AugmentedInputs(shown.pack.pixels, shown.settings, shown.policy, epoch, mixing)(rows)
    return [
        Cell(image, captions(shown, int(row), bool(flag), mixing))
        for image, row, flag in zip(images, rows, mirrored, strict=True)
    ]


def captions(shown: Shown, row: int, mirrored: bool, mixing: Mixing | None) -> list[Caption]:
    """Class and driver of an image; its partner's with the shares of the label; mirroring, and what it does to the label."""
    mixed = mixing is not None and mixing.partners[row] != row
    if mixing is None or not mixed:
        partner, said = row, [Caption(shown.who(row))]
    else:
        partner, share = int(mixing.partners[row]), float(mixing.shares[row])
        shares = (" left", " right") if mixing.kind == "splice" else (f" {share:.0%}", f" {1 - share:.0%}")
        said = [Caption(shown.who(row) + shares[0]), Caption(f"+ {shown.who(partner)}{shares[1]}", "mixed")]
    if mirrored:
        labels = dict.fromkeys(int(shown.pack.labels[one]) for one in (row, partner))
        moved = shown.settings.augment.mirror == "swap" and any(shown.swap[label] != label for label in labels)
        learnt = " + ".join(shown.classes[shown.swap[label]] for label in labels)
        said.append(Caption(f"mirrored, learnt as {learnt}" if moved else "mirrored", "mirrored"))
    return said


def chosen_rows(labels: np.ndarray, drivers: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """One of `rows` per class that is among them, by class: the first one, of a driver not shown yet where there is one."""
    found: list[int] = []
    for label in np.unique(labels[rows]):
        of_class = rows[labels[rows] == label]
        fresh = of_class[~np.isin(drivers[of_class], drivers[found])]
        found.append(int((fresh if len(fresh) else of_class)[0]))
    return np.array(found, dtype=int)
