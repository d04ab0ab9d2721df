"""A competition's tables in Kaggle's layout, read and checked before anything else happens."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from driverwatch.errors import InputError, listed
from driverwatch.settings import DatasetSettings

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png"}


@dataclass(frozen=True)
class ImageTable:
    """Images of one kind (training or test), sorted by name.

    `frame` has the columns `image` (str, unique), `driver` (str, empty in test), `label` (int, 0..C-1; -1 in test) and
    `path` (str, below the data folder).
    """

    frame: pd.DataFrame
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def names(self) -> list[str]:
        return list(self.frame["image"])


def read_csv(path: Path, expected: list[str]) -> pd.DataFrame:
    """Read a CSV as text with at least the `expected` columns, none of them blank; else one sentence."""
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file; DATA=<folder> must name the unpacked competition (make sample draws one)"
        ) from None
    except (ValueError, OSError) as error:  # pandas' parser and decoding errors are ValueErrors
        raise InputError(f"{path}: expected a UTF-8 CSV with columns {', '.join(expected)}, got {error}") from error
    if missing := [column for column in expected if column not in frame]:
        raise InputError(f"{path}: missing column {', '.join(missing)}; got {', '.join(map(str, frame.columns))}")
    for column in expected:
        blank = (frame[column].str.strip() == "").to_numpy()
        if blank.any():
            raise InputError(
                f"{path}: {blank.sum()} blank values in column {column}, first in line {blank.argmax() + 2}"
            )
    return frame


def read_train(settings: DatasetSettings, data: Path) -> ImageTable:
    """Read the table of labelled images and hold it against the image folders.

    Raises:
        InputError: unknown classes, repeated names, missing or extra files, unsafe names; all of them at once.
    """
    columns = settings.columns
    table = data / settings.table
    raw = read_csv(table, [columns.driver, columns.label, columns.image])
    classes = tuple(settings.classes)
    unknown = sorted(set(raw[columns.label]) - set(classes))
    problems = [
        f"unknown class {name} ({(raw[columns.label] == name).sum()} rows); expected {', '.join(classes)}"
        for name in unknown
    ]
    problems += _name_problems(raw[columns.image])
    paths = [
        settings.train_images.format(label=label, image=image)
        for label, image in zip(raw[columns.label], raw[columns.image], strict=True)
    ]
    problems += _file_problems(data, paths, settings.train_images)
    if problems:
        raise InputError(
            f"{table} and {data}: {len(problems)} problems; mend the folder or the table:{listed(problems)}"
        )
    if raw.empty:
        raise InputError(f"{table}: expected labelled images, got none")
    frame = pd.DataFrame(
        {
            "image": raw[columns.image],
            "driver": raw[columns.driver],
            "label": raw[columns.label].map(classes.index).astype("int64"),
            "path": paths,
        }
    )
    return ImageTable(frame.sort_values("image", ignore_index=True), classes)


def read_sample_submission(settings: DatasetSettings, data: Path) -> list[str]:
    """The test images' names in the order of the sample submission.

    Raises:
        InputError: other columns than `img` and the classes in order, or repeated names.
    """
    path = data / settings.sample_submission
    expected = [settings.columns.image, *settings.classes]
    raw = read_csv(path, expected)
    if list(raw.columns) != expected:
        raise InputError(f"{path}: expected the columns {','.join(expected)}, got {','.join(raw.columns)}")
    if problems := _name_problems(raw[settings.columns.image]):
        raise InputError(f"{path}: {len(problems)} problems; fetch the file again:{listed(problems)}")
    return list(raw[settings.columns.image])


def read_test(settings: DatasetSettings, data: Path) -> ImageTable:
    """Read the test images that the sample submission asks for; they may be none. Raises as `read_train`."""
    names = sorted(read_sample_submission(settings, data))
    paths = [settings.test_images.format(image=name) for name in names]
    if problems := _file_problems(data, paths, settings.test_images):
        raise InputError(
            f"{data / settings.sample_submission} and {data}: {len(problems)} problems; "
            f"fetch the data again:{listed(problems)}"
        )
    frame = pd.DataFrame({"image": names, "driver": [""] * len(names), "label": [-1] * len(names), "path": paths})
    return ImageTable(frame.astype({"label": "int64"}), tuple(settings.classes))


def read_both(settings: DatasetSettings, data: Path) -> tuple[ImageTable, ImageTable]:
    """Read training and test images; what is wrong with either is said at once. Raises as `read_train`."""
    found, problems = [], []
    for reader in (read_train, read_test):
        try:
            found.append(reader(settings, data))
        except InputError as error:
            problems.append(str(error))
    if problems:
        raise InputError("\n".join(problems))
    train, test = found
    if both := sorted(set(train.names) & set(test.names)):
        raise InputError(
            f"{data}: {len(both)} names are training and test images at once; fetch the data again:{listed(both)}"
        )
    return train, test


def read_truth(settings: DatasetSettings, data: Path) -> dict[str, int] | None:
    """Labels of the test images by name, for competitions that have them (drawn ones); otherwise None."""
    if settings.truth is None or not (data / settings.truth).is_file():
        return None
    raw = read_csv(data / settings.truth, [settings.columns.image, settings.columns.label])
    classes = list(settings.classes)
    if unknown := sorted(set(raw[settings.columns.label]) - set(classes)):
        raise InputError(
            f"{data / settings.truth}: unknown classes {', '.join(unknown)}; expected {', '.join(classes)}"
        )
    labels = map(classes.index, raw[settings.columns.label])
    return dict(zip(raw[settings.columns.image], labels, strict=True))


def _name_problems(names: "pd.Series[str]") -> list[str]:
    repeated = sorted(names[names.duplicated()].unique())
    unsafe = sorted({name for name in names if not re.fullmatch(r"[^/\\\0]+", name) or name in (".", "..")})
    return [f"repeated name {name}" for name in repeated] + [
        f"name is not a plain file name: {name!r}" for name in unsafe
    ]


def _file_problems(data: Path, paths: Iterable[str], template: str) -> list[str]:
    """Files that the table names and that are not there, and images below the template's folder that no table names."""
    root = Path(template.split("{")[0])
    named = set(paths)
    present = {
        file.relative_to(data).as_posix()
        for file in (data / root).rglob("*")
        if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")
    }
    missing = [f"missing file {path}" for path in sorted(named - present)]
    extra = [f"extra file {path} (in no table)" for path in sorted(present - named)]
    return missing + extra
