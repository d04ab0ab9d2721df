"""Pick a committed list of training photos out of a larger download, so that others can repeat a result."""

import shutil
from pathlib import Path

import pandas as pd

from driverwatch.artifacts import require_space
from driverwatch.data.tables import name_problems, read_csv
from driverwatch.dataset_settings import DatasetSettings
from driverwatch.errors import InputError, listed
from driverwatch.paths import user_path
from driverwatch.terminal import say, track
from driverwatch.writing import making, replacing_folder


def pick(settings: DatasetSettings, source: Path, data: Path) -> None:
    """Copy the listed photos and their table rows from `source` (a full download, same layout) to `data`, whole or not at all.

    The new data set has no test images: its sample submission is a header alone.

    Raises:
        InputError: no list, something in the way, or photos that the download lacks or labels otherwise (all listed).
    """
    named = settings.columns
    wanted = _wanted(settings)
    paths = [
        settings.train_images.format(label=label, image=image)
        for label, image in zip(wanted[named.label], wanted[named.image], strict=True)
    ]
    _refuse_lacking(settings, source, wanted, paths)
    with making(data):
        if data.exists():
            raise InputError(f"{data}: is there already; remove it, or name another DATA= folder")
        size = sum((source / path).stat().st_size for path in paths)
        require_space(data.parent, size, "the copy", "name a folder on a larger disk with DATA=")
        with replacing_folder(data) as partial:
            _copy(paths, source, partial)
            wanted.to_csv(partial / settings.table, index=False, lineterminator="\n")
            (partial / settings.test_images.format(image="x")).parent.mkdir(parents=True, exist_ok=True)
            header = pd.DataFrame(columns=[named.image, *settings.classes])
            header.to_csv(partial / settings.sample_submission, index=False, lineterminator="\n")
    say(f"{data}: {len(wanted)} photos" + (f" of {wanted[named.driver].nunique()} drivers" if named.driver else ""))


def _columns(settings: DatasetSettings) -> list[str]:
    named = settings.columns
    return [column for column in (named.driver, named.label, named.image) if column]


def _wanted(settings: DatasetSettings) -> pd.DataFrame:
    """The listed rows; a list that could lead out of its folder, or nowhere, is refused."""
    if settings.subset is None:
        raise InputError("subset: this dataset's YAML names no list (subset: <csv>); use DATASET=statefarm_mini")
    wanted = read_csv(user_path(settings.subset), _columns(settings))[_columns(settings)]
    problems = name_problems(wanted[settings.columns.image])[0]
    strange = set(wanted[settings.columns.label]) - set(settings.classes)
    problems += [f"unknown class {name}" for name in sorted(strange)]
    if problems or wanted.empty:
        raise InputError(f"{settings.subset}: expected a list of photos:{listed(problems or ['it names none'])}")
    return wanted


def _refuse_lacking(settings: DatasetSettings, source: Path, wanted: pd.DataFrame, paths: list[str]) -> None:
    full = read_csv(source / settings.table, _columns(settings))[_columns(settings)]
    known, asked = ({tuple(row) for row in frame.itertuples(index=False)} for frame in (full, wanted))
    missing = sorted(" ".join(row) for row in asked - known)
    missing += [f"file {path}" for path in paths if not (source / path).is_file()]
    if missing:
        raise InputError(
            f"{source}: lacks {len(missing)} of the listed photos; is it the whole download?{listed(missing)}"
        )


def _copy(paths: list[str], source: Path, target: Path) -> None:
    for path in track(paths, len(paths), "copy"):
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / path, target / path)
