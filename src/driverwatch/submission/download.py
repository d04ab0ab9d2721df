"""From Kaggle to the data folder: download, unpack, verify, and only then move into place."""

import os
import shutil
import time
from pathlib import Path

from driverwatch.artifacts import require_space
from driverwatch.data import competition, layout
from driverwatch.errors import InputError, counted, listed
from driverwatch.steps.context import Context
from driverwatch.submission import archive
from driverwatch.submission.kaggle_client import Client
from driverwatch.terminal import say
from driverwatch.wording import close
from driverwatch.writing import making


def fetch(context: Context, command: str) -> None:
    """Fetch a data set that is not there yet; after a kill at any moment the same command goes on.

    Everything happens in `<DATA>.download` until all counts are right, so `DATA` is whole or not there.

    Raises:
        InputError: no such competition, something else in `DATA`, or whatever stops the client or the archive.
    """
    slug, start, after = slug_of(context), time.monotonic(), f"make folds DATASET={context.dataset}"
    data = context.data.resolve()  # a link to a larger disk is followed before anything is written
    if data.exists() and not data.is_dir():
        raise InputError(f"{context.data}: is a file; move it away or name a folder with DATA=")
    folder = data.with_name(f"{data.name}.download")
    with making(data) as lock:
        if data.is_dir() and any(data.iterdir()):
            way_out = "this folder is no whole competition; move it away, or name another with DATA="
            said = _verified(context, data, way_out)
            shutil.rmtree(folder, ignore_errors=True)  # a kill may have come between the last two lines below
            return close(context.data, f"up to date, {said}", then=[after])
        _download(context, Client(command, slug, lock), folder)
        unpacked = folder / "data"
        archive.unpack(folder / f"{slug}.zip", unpacked)
        whole = _arranged(context, unpacked, folder / "arranged")
        said = _verified(context, whole, f"remove {folder} and run the same command again")
        os.sync()  # once, instead of for each of 100,000 files
        _put_in_place(whole, data)
        shutil.rmtree(folder, ignore_errors=True)
    return close(context.data, said, time.monotonic() - start, then=[after])


def slug_of(context: Context) -> str:
    """The competition of a data set that is one, whole."""
    settings, where = context.settings, f"configs/datasets/{context.dataset}.yaml"
    if settings.slug is None:
        raise InputError(f"{where}: names no competition (slug:), so Kaggle has nothing of it; use DATASET=statefarm")
    if settings.subset is not None:
        raise InputError(
            f"{where}: is a part of {settings.slug}; make data fetches the whole, make subset SOURCE=<its folder> "
            f"DATASET={context.dataset} picks the part, and Kaggle takes submissions for the whole alone"
        )
    return settings.slug


def _arranged(context: Context, unpacked: Path, target: Path) -> Path:
    """The competition in an unpacked archive, however that was packed; a strange one is no reason to fetch it again."""
    try:
        return layout.arranged(context.settings, unpacked, target)
    except InputError as error:
        raise InputError(
            f"{error}. The archive is whole, and fetching it again would bring the same: name its files in "
            f"configs/datasets/{context.dataset}.yaml, then run the same command again: it goes on"
        ) from error


def _verified(context: Context, data: Path, way_out: str) -> str:
    """Hold tables, folders and counts against each other; say what is there."""
    try:
        tables = competition.read_both(context.settings, data)
    except InputError as error:
        raise InputError(f"{error}\n{way_out}") from error
    if problems := [*tables.problems, *(f"missing file {path}" for path in tables.missing)]:
        raise InputError(f"{data}: {counted(problems)}; {way_out}:{listed(problems)}")
    train, test, expected = tables.train, tables.test, context.settings.expected
    if expected is not None and (len(train), len(test)) != (expected.train, expected.test):
        raise InputError(
            f"{data}: expected {expected.train:,} labelled and {expected.test:,} test images, got {len(train):,} and "
            f"{len(test):,}; {way_out}"
        )
    return f"{len(train):,} labelled and {len(test):,} test images" + (
        "" if expected else " (no counts to compare with)"
    )


def _download(context: Context, client: Client, folder: Path) -> None:
    """Have the archive in `folder`: kept if it is whole, else fetched or gone on with."""
    path = folder / f"{client.slug}.zip"
    broken_off = path.with_name(f"{path.name}.kaggle-partial").exists()  # the client's note beside an unfinished file
    if archive.readable(path) and not broken_off:
        return say(f"{path}: kept")
    if context.settings.expected is not None:
        there = path.stat().st_size if path.is_file() else 0
        needed = int(context.settings.expected.gigabytes * 2e9) - there  # the archive, and as much again unpacked
        require_space(folder, needed, "the download and its unpacking", archive.LARGER)
    folder.mkdir(parents=True, exist_ok=True)
    say(f"{path}: downloading")
    client.download(folder)
    if not archive.readable(path):
        raise InputError(f"{path}: expected a whole zip from the client, got none; remove {folder} and run again")
    return None


def _put_in_place(unpacked: Path, data: Path) -> None:
    try:
        unpacked.rename(data)  # over an empty folder too
    except OSError as error:
        raise InputError(
            f"{data}: {unpacked} cannot be moved here ({error.strerror}); mend that, then run the same command again: "
            "it goes on"
        ) from error
