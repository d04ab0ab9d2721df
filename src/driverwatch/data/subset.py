"""Pick a committed list of training photos out of a larger download, so that others can repeat a result."""

import shutil
from pathlib import Path

import pandas as pd

from driverwatch.artifacts import locked, require_space
from driverwatch.data.tables import name_problems, read_csv
from driverwatch.errors import InputError, listed
from driverwatch.settings import DatasetSettings
from driverwatch.terminal import say, track


def pick(settings: DatasetSettings, source: Path, data: Path) -> None:
    """Copy the listed photos and their table rows from `source` (a full download, same layout) to `data`, whole or not at all.

    The new data set has no test images: its sample submission is a header alone.

    Raises:
        InputError: no list, something in the way, or photos that the download lacks or labels otherwise (all listed).
    """
    if settings.subset is None:
        raise InputError("subset: this dataset's YAML names no list (subset: <csv>); use DATASET=statefarm_mini")
    named = settings.columns
    columns = [column for column in (named.driver, named.label, named.image) if column]
    wanted, full = (
        read_csv(Path(settings.subset), columns)[columns],
        read_csv(source / settings.table, columns)[columns],
    )
    problems = name_problems(wanted[named.image])[0]
    problems += [f"unknown class {name}" for name in sorted(set(wanted[named.label]) - set(settings.classes))]
    if problems or wanted.empty:
        raise InputError(f"{settings.subset}: expected a list of photos:{listed(problems or ['it names none'])}")
    known, asked = ({tuple(row) for row in frame.itertuples(index=False)} for frame in (full, wanted))
    missing = sorted(" ".join(row) for row in asked - known)
    paths = [
        settings.train_images.format(label=label, image=image)
        for label, image in zip(wanted[named.label], wanted[named.image], strict=True)
    ]
    missing += [f"file {path}" for path in paths if not (source / path).is_file()]
    if missing:
        raise InputError(
            f"{source}: lacks {len(missing)} of the listed photos; is it the whole download?{listed(missing)}"
        )
    if data.exists():
        raise InputError(f"{data}: is there already; remove it, or name another DATA= folder")
    with locked(data.parent, f".{data.name}.lock", sweep=()):
        require_space(data.parent, sum((source / path).stat().st_size for path in paths))
        partial = data.with_name(f".{data.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        _copy(paths, source, partial)
        wanted.to_csv(partial / settings.table, index=False, lineterminator="\n")
        (partial / settings.test_images.format(image="x")).parent.mkdir(parents=True)
        header = pd.DataFrame(columns=[settings.columns.image, *settings.classes])
        header.to_csv(partial / settings.sample_submission, index=False, lineterminator="\n")
        partial.rename(data)
    say(f"{data}: {len(wanted)} photos" + (f" of {wanted[named.driver].nunique()} drivers" if named.driver else ""))


def _copy(paths: list[str], source: Path, target: Path) -> None:
    for path in track(paths, len(paths), "copy"):
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / path, target / path)
