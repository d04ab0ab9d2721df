"""A competition's tables and image folders: found in a folder, read, and held against each other."""

from __future__ import annotations  # pandas, half a second, is imported only where a frame is made

import shutil
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from driverwatch.config.dataset import DatasetSettings, folder_of
from driverwatch.errors import InputError, counted, listed, printable
from driverwatch.io.csv_tables import cell_problems, name_problems, read_csv, read_text
from driverwatch.io.paths import walk

if TYPE_CHECKING:
    import pandas as pd

DEEPEST = 6  # folders below the one that is searched
MOST = 2000  # folders that are looked into: DATA may be a whole home folder


def layout_parts(settings: DatasetSettings) -> dict[str, bool]:
    """Tables and image folders by their paths below the data folder, and whether each is a folder."""
    folders = (folder_of(template) for template in (settings.train_images, settings.test_images))
    tables = (settings.table, settings.sample_submission)
    return dict.fromkeys(tables, False) | {folder.as_posix(): True for folder in folders if folder.parts}


def absent_parts(settings: DatasetSettings, folder: Path) -> list[str]:
    """Parts that are not where the settings say."""
    return [part for part, is_folder in layout_parts(settings).items() if not _is_there(folder / part, is_folder)]


def _is_there(path: Path, is_folder: bool) -> bool:
    if not is_folder:
        return path.is_file()
    return path.is_dir() and [each.name for each in _inside(path)] != [path.name]  # train/train holds the classes


def _inside(folder: Path) -> list[Path]:
    """What is in a folder but for hidden things and those that a Mac adds."""
    return [each for each in folder.iterdir() if not each.name.startswith((".", "__MACOSX"))]


def top_folder(settings: DatasetSettings, folder: Path) -> Path:
    """The folder itself, or the one below it that everything is in."""
    wanted = {PurePosixPath(part).parts[0] for part in layout_parts(settings)}
    for _ in range(DEEPEST):
        inside = _inside(folder)
        if len(inside) != 1 or not inside[0].is_dir() or inside[0].name in wanted:
            break
        folder = inside[0]
    return folder


def find_parts(settings: DatasetSettings, folder: Path) -> dict[str, Path]:
    """Each part's place below a folder, in its own place or in another, where there is one.

    Raises:
        InputError: two places that are as good.
    """
    places = {}
    for part, is_folder in layout_parts(settings).items():
        if _is_there(folder / part, is_folder):
            places[part] = folder / part
        elif (nearest := _nearest(folder, PurePosixPath(part).parts, is_folder)) is not None:
            places[part] = nearest
    return places


def _nearest(folder: Path, wanted: tuple[str, ...], is_folder: bool) -> Path | None:
    """The least deep place of these last names, or else of the last name alone."""
    for names in (wanted, wanted[-1:]):
        places = [path for path in _below(folder, is_folder) if path.parts[-len(names) :] == names]
        best = [path for path in places if len(path.parts) == len(places[0].parts)]
        if len(best) > 1:
            both = " and ".join(printable(str(path.relative_to(folder))) for path in best[:4])
            raise InputError(f"{folder}: holds {'/'.join(names)} at {both}; name one in the data set's YAML")
        if best:
            return best[0]
    return None


def _below(folder: Path, is_folder: bool) -> Iterator[Path]:
    """Folders, or files, below a folder, the least deep first."""
    left, seen = deque([(folder, 0)]), 0
    while left and seen < MOST:
        place, depth = left.popleft()
        seen += 1
        try:
            inside = [(path, path.is_dir() and not path.is_symlink()) for path in sorted(_inside(place))]
        except OSError:  # somebody else's
            continue
        for path, is_one in inside:
            if is_one == is_folder and (not is_folder or _is_there(path, True)):
                yield path
            if is_one and depth < DEEPEST:
                left.append((path, depth + 1))


def arranged_parts(settings: DatasetSettings, unpacked: Path, target: Path) -> Path:
    """The folder that has every part in its place: below `unpacked`, or where parts lie elsewhere `target`, moved there.

    Whatever a kill left in `target` is made again: what was moved is missing in `unpacked`, and is unpacked again.

    Raises:
        InputError: a part that is nowhere, or in two places; nothing was moved.
    """
    source = top_folder(settings, unpacked)
    if not absent_parts(settings, source):
        return source
    places = find_parts(settings, source)
    if missing := [part for part in layout_parts(settings) if part not in places]:
        held = ", ".join(sorted(printable(each.name) for each in _inside(source))[:8]) or "nothing"
        raise InputError(f"{source}: holds no {' and no '.join(missing)}; it holds {held}")
    shutil.rmtree(target, ignore_errors=True)
    for part, place in sorted(places.items(), key=lambda pair: -len(pair[1].parts)):  # one may are in another
        (target / part).parent.mkdir(parents=True, exist_ok=True)
        place.rename(target / part)
    for each in _inside(source):
        if each.is_file() and not (target / each.name).exists():
            each.rename(target / each.name)
    return target


def layout_hint(settings: DatasetSettings, data: Path) -> str:
    """Where the parts are that `data` lacks: another folder that has them all, or each with its place; empty where none is."""
    lacking = absent_parts(settings, data) if data.is_dir() else []
    if not lacking:
        return ""
    try:
        source = top_folder(settings, data)
        if source != data and not absent_parts(settings, source):
            return f"the competition lies deeper: use DATA={source}"
        places = find_parts(settings, data)
    except (InputError, OSError) as error:
        return str(error)
    moves = [f"{places[part]} belongs to {data / part}" for part in lacking if part in places]
    return f"parts lie elsewhere: {'; '.join(moves)}" if moves else ""


IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png"}


@dataclass(frozen=True)
class ImageTable:
    """Images of one kind (training or test), sorted by name.

    `frame` has the columns `image` (str, unique), `driver` (str; empty in test, and where the table names no group),
    `label` (int, 0..C-1; -1 in test) and `path` (str, below the data folder).
    """

    frame: pd.DataFrame
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def names(self) -> list[str]:
        return list(self.frame["image"])

    def where(self, rows: np.ndarray) -> ImageTable:
        """Some of its rows, by mask."""
        return ImageTable(self.frame[rows].reset_index(drop=True), self.classes)


class Sound(NamedTuple):
    """The sound rows of one table, what is wrong with the others, and the names of these."""

    table: ImageTable
    problems: list[str]
    dropped: set[str]


@dataclass(frozen=True)
class Tables:
    """Both tables and what is wrong around them.

    `problems` are of table rows and files that are in neither table; `missing` are paths in a table that do not exist.
    """

    train: ImageTable
    test: ImageTable
    problems: list[str]
    missing: list[str]


def read_both(settings: DatasetSettings, data: Path) -> Tables:
    """Read the tables of labelled and of test images and hold them against the image folders.

    Raises:
        InputError: a table that cannot be read at all; both are tried, and what is wrong with either is said at once.
    """
    found, fatal = [], []
    for reader in (read_train, read_test):
        try:
            found.append(reader(settings, data))
        except InputError as error:
            fatal.append(str(error))
    if fatal:
        raise InputError("\n".join([*fatal, *filter(None, [layout_hint(settings, data)])]))
    (train, problems, dropped), (test, _, _) = found
    both = train.frame["image"].isin(test.names).to_numpy(bool)
    twice = [f"{name} is a training and a test image at once" for name in train.frame["image"][both]]
    dropped = dropped | set(train.frame["image"][both])
    train = train.where(~both)
    absent, there = {*train.frame["path"], *test.frame["path"]}, set(present(settings, data))
    strange = sorted(path for path in there - absent if Path(path).name not in dropped)
    extra, absent = [f"extra file {printable(path)} (in no table)" for path in strange], absent - there
    missing = sorted(path for path in absent if not (data / path).exists())
    elsewhere = [layout_hint(settings, data)] if missing else []
    return Tables(train, test, [*filter(None, elsewhere), *problems, *twice, *extra], missing)


def read_train(settings: DatasetSettings, data: Path) -> Sound:
    """The labelled images whose rows are sound, and what is wrong with the others.

    Raises:
        InputError: no readable table, or no row in it.
    """
    import pandas as pd

    columns, classes = settings.columns, tuple(settings.classes)
    table = data / settings.table
    if not table.is_file():
        way_out = "DATA=<folder> must name the unpacked competition (make data fetches it, make synthetic draws one)"
        raise InputError(f"{table}: no such file; {way_out}")
    raw = read_text(table, columns.named)
    problems, bad = _row_problems(raw, columns.named, columns.label, classes)
    more, misnamed = name_problems(raw[columns.image])
    sound = raw[~(bad | misnamed)]
    if raw.empty:
        raise InputError(f"{table}: expected labelled images, got none")
    both = zip(sound[columns.label], sound[columns.image], strict=True)
    drivers, labels = sound[columns.driver] if columns.driver else "", sound[columns.label].map(classes.index)
    frame = pd.DataFrame({"image": sound[columns.image], "driver": drivers, "label": labels.astype("int64")})
    frame["path"] = [settings.train_images.format(label=label, image=image) for label, image in both]
    said = [f"{settings.table}: {problem}" for problem in problems + more]
    sorted_table = ImageTable(frame.sort_values("image", ignore_index=True), classes)
    return Sound(sorted_table, said, set(raw[columns.image]) - set(sound[columns.image]))


def _row_problems(
    raw: pd.DataFrame, columns: list[str], label: str, classes: tuple[str, ...]
) -> tuple[list[str], np.ndarray]:
    """Blank cells and unknown classes, and which rows."""
    problems, bad = [], np.zeros(len(raw), bool)
    for column in columns:
        more, rows = cell_problems(raw[column])
        problems += more
        bad |= rows
    unknown = (~raw[label].isin(classes)).to_numpy(bool) & ~bad
    problems += [
        f"unknown class {name} ({(raw[label] == name).sum()} rows); expected {', '.join(classes)}"
        for name in sorted(set(raw[label][unknown]))
    ]
    return problems, bad | unknown


def read_sample_submission(settings: DatasetSettings, data: Path) -> list[str]:
    """The test images' names in the order of the sample submission.

    Raises:
        InputError: other columns than `img` and the classes in order, or repeated or unsafe names.
    """
    path = data / settings.sample_submission
    expected = [settings.columns.image, *settings.classes]
    raw = read_csv(path, expected)
    if list(raw.columns) != expected:
        raise InputError(f"{path}: expected the columns {','.join(expected)}, got {','.join(raw.columns)}")
    if problems := name_problems(raw[settings.columns.image])[0]:
        raise InputError(f"{path}: {counted(problems)}; fetch the file again:{listed(problems)}")
    return list(raw[settings.columns.image])


def read_test(settings: DatasetSettings, data: Path) -> Sound:
    """The test images that the sample submission asks for; they may be none. Raises as `read_sample_submission`."""
    import pandas as pd

    names = sorted(read_sample_submission(settings, data))
    paths = [settings.test_images.format(image=name) for name in names]
    frame = pd.DataFrame({"image": names, "driver": [""] * len(names), "label": [-1] * len(names), "path": paths})
    return Sound(ImageTable(frame.astype({"label": "int64"}), tuple(settings.classes)), [], set())


def read_test_labels(settings: DatasetSettings, data: Path) -> dict[str, int] | None:
    """Labels of the test images by name, for competitions that have them (drawn ones); otherwise None."""
    if settings.test_labels is None or not (data / settings.test_labels).is_file():
        return None
    path, columns, classes = data / settings.test_labels, settings.columns, list(settings.classes)
    raw = read_csv(path, [columns.image, columns.label])
    if sorted(raw[columns.image]) != sorted(read_sample_submission(settings, data)):
        raise InputError(f"{path}: names other images than {settings.sample_submission}; draw again")
    if unknown := sorted(set(raw[columns.label]) - set(classes)):
        raise InputError(f"{path}: unknown classes {', '.join(unknown)}; expected {', '.join(classes)}")
    return dict(zip(raw[columns.image], map(classes.index, raw[columns.label]), strict=True))


def present(settings: DatasetSettings, data: Path) -> Iterator[str]:
    """Image files below the folders of both templates, linked ones too, each once, as paths below the data folder."""
    templates = settings.train_images, settings.test_images
    roots = {folder_of(template) for template in templates}
    prefixes = tuple(Path(f"{template.split('{')[0]}x").as_posix()[:-1] for template in templates)
    for root in (root for root in roots if roots.isdisjoint(root.parents)):
        for path in walk(data / root, settings.classes):
            below = path.relative_to(data).as_posix()
            if path.suffix.lower() in IMAGE_SUFFIXES and below.startswith(prefixes):
                yield below
