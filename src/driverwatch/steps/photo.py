"""One photo's way through the line, as far as it is built: table, fold, packs, runs, chain, submissions. Starts no Keras."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from driverwatch.data import competition, fold_file
from driverwatch.data import folds as fold_tables
from driverwatch.data.competition import ImageTable
from driverwatch.data.pack import Pack
from driverwatch.data.photos import examine
from driverwatch.errors import InputError, nearest
from driverwatch.listing import matching
from driverwatch.setting_types import pixels, regions_of
from driverwatch.steps.context import Context, open_packs, table_of
from driverwatch.steps.photo_rows import chain_lines, run_lines
from driverwatch.terminal import say


@dataclass(frozen=True)
class Photo:
    """A line of a table: `label` is -1 where it is not known; `truth` where it is because the competition is drawn."""

    name: str
    kind: str  # train or test
    driver: str
    label: int
    path: str  # below the data folder; empty where the photos are not here
    truth: bool = False


def show_photo(context: Context, asked: str, names: list[str], submission: str | None) -> None:
    """Print the way of the photo `asked` (a name, or a path whose last part is one).

    Args:
        names: runs; none: every finished one.
        submission: the name of the submission whose chain is followed; None: the one with the least out-of-fold loss.

    Raises:
        InputError: no table and no pack names it, or a named run or submission is not there.
    """
    photo = find(context, Path(asked).name)
    say(f"{photo.name}: a {'labelled' if photo.kind == 'train' else 'test'} photo of {context.dataset}")
    for title, lines in (("table", _table), ("fold", _fold), ("packs", _packs)):
        _section(title, lines, context, photo)
    rows = (photo.name, photo.kind, photo.driver, photo.label)
    _section("runs", lambda *_: run_lines(context, *rows, names), context, photo, bool(names))
    _section("submissions", lambda *_: chain_lines(context, *rows, submission), context, photo, submission is not None)


def _section(
    title: str, lines: Callable[[Context, Photo], list[str]], context: Context, photo: Photo, asked: bool = False
) -> None:
    """Print a part of the way; what is not built is said, with the command, unless it was asked for by name."""
    try:
        found = lines(context, photo)
    except InputError as error:
        if asked:
            raise
        found = [f"not yet: {error}"]
    say(f"\n{title}\n" + "\n".join(f"  {line}".rstrip() for line in found))


def find(context: Context, name: str) -> Photo:
    """The photo of this name, from the data set's tables, or where these are not here from a pack.

    Raises:
        InputError: no such photo, with the nearest name.
    """
    found = _of_tables(context) if (context.data / context.settings.table).is_file() else _of_packs(context)
    if name not in found:
        raise InputError(
            f"IMAGE={name}: none of the {len(found)} photos of {context.dataset} is called so{nearest(name, list(found))}"
        )
    return found[name]


def _of_tables(context: Context) -> dict[str, Photo]:
    truth = competition.read_truth(context.settings, context.data) or {}
    train = _photos(competition.read_train(context.settings, context.data).table, "train")
    test = _photos(competition.read_test(context.settings, context.data).table, "test")
    known = {name: replace(test[name], label=label, truth=True) for name, label in truth.items()}
    return train | test | known


def _photos(table: ImageTable, kind: str) -> dict[str, Photo]:
    columns = (table.frame[column] for column in ("image", "driver", "label", "path"))
    rows = zip(*columns, strict=True)
    return {str(name): Photo(str(name), kind, str(driver), int(label), str(path)) for name, driver, label, path in rows}


def _of_packs(context: Context) -> dict[str, Photo]:
    sizes = _sizes(context)
    if not sizes:
        raise InputError(
            f"{context.data}: holds no {context.settings.table}, and nothing is packed yet; DATA=<folder> must name the photos"
        )
    _, packs = open_packs(context, sizes[0])
    tables = {kind: table_of(pack, tuple(context.settings.classes)) for kind, pack in packs.items()}
    return _photos(tables["train"], "train") | _photos(tables["test"], "test")


def _sizes(context: Context) -> list[str]:
    """Packs that are there, by their keys."""
    return [path.parent.name for path in matching(context.places.build / "pack", "*/train.json")]


def _table(context: Context, photo: Photo) -> list[str]:
    settings = context.settings
    label = "unknown" if photo.label < 0 else "{} ({})".format(*list(settings.classes.items())[photo.label])
    if photo.kind == "train":
        lines = [f"{settings.table}: driver {photo.driver or 'not named'}, class {label}"]
    else:
        lines = [f"{settings.sample_submission}: no driver, no class"]
        lines += [f"{settings.truth}: class {label}, known because the competition is drawn"] if photo.truth else []
    if not photo.path:
        return [*lines, "the photo itself is not here (DATA=<folder>)"]
    looked = examine(context.data / photo.path, None)
    if looked.problem:
        return [*lines, f"{context.data / photo.path}: {looked.problem}"]
    height, width = looked.shape
    size = (context.data / photo.path).stat().st_size
    unusual = "".join(f", {trait}" for trait in looked.traits)
    return [*lines, f"{context.data / photo.path}: {width}x{height} px, {size:,} bytes{unusual}"]


def _fold(context: Context, photo: Photo) -> list[str]:
    path = context.places.folds
    known = fold_file.glance(path, tuple(context.settings.classes))
    if photo.kind == "test":
        return [f"none of {known.count}: its driver is in no fold, so that every fold's model may predict it"]
    sizes = _sizes(context)
    if not sizes:
        return [f"{path}: {known.count} folds of {known.drivers} drivers; make pack tells who is held out with it"]
    _, packs = open_packs(context, sizes[0])
    folds = fold_tables.read(path, table_of(packs["train"], tuple(context.settings.classes)))
    if photo.driver not in folds.of_driver:
        return ["its pack was made without it"]
    home, frame = folds.of_driver[photo.driver], folds.frame
    mine = frame[frame["fold"] == home]
    return [
        f"{path}: fold {home} of {folds.count} holds driver {photo.driver} out, with {len(mine) - 1} others and "
        f"{mine['images'].sum()} photos in all",
        f"so the models of the other {folds.count - 1} folds learn from it, and fold {home}'s alone predicts it",
    ]


def _packs(context: Context, photo: Photo) -> list[str]:
    sizes = _sizes(context)
    if not sizes:
        raise InputError(f"no pack; run make pack MODEL=<name> DATASET={context.dataset}")
    return [line for size in sizes for line in _packed(context, photo, size)]


def _packed(context: Context, photo: Photo, size: str) -> list[str]:
    """Where in the file of a pack the photo's pixels lie."""
    try:
        pack: Pack = open_packs(context, size)[1][photo.kind]
    except InputError as error:
        return [f"{size}: {error}"]
    rows = np.flatnonzero(pack.names == photo.name)
    if not len(rows):
        return [f"{size}: packed without it, as broken"]
    _, height, width, channels = pack.images.shape
    row, regions = int(rows[0]), regions_of(size)
    each = height * width * channels
    stacked = f" ({len(regions)} regions of {'x'.join(map(str, pixels(size)))})" if len(regions) > 1 else ""
    mean = " ".join(f"{value:.1f}" for value in pack.pixels[row].mean(axis=(0, 1)))
    return [
        f"{pack.images.path}: row {row} of {len(pack.names)}, uint8 ({height}, {width}, {channels}){stacked}, {each:,} bytes "
        f"from byte {pack.images.offset + row * each:,}",
        f"mean of its red, green and blue {mean}; of all {' '.join(f'{value:.1f}' for value in pack.mean)}",
    ]
