"""Rows by image name on disk, with what made them: what prediction files and feature files have in common in reading."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from driverwatch.errors import InputError
from driverwatch.hdf5 import UNREADABLE, column, opened, text, texts


class Words(NamedTuple):
    """How sentences speak of a kind of file."""

    what: str  # no such ...
    missing: str  # what to do then
    whole: str  # not a whole ...
    again: str  # what to do then
    other: str  # made from other ... than today's: what to do then


class Kept(NamedTuple):
    """Names (N,), the array (N, ...), what the file says of its origin, and its digest, which the caller compares."""

    names: np.ndarray
    array: np.ndarray
    origin: dict[str, str]
    contents: str


def read_rows(path: Path, name: str, origin: dict[str, str], words: Words) -> Kept:
    """Read names and the float32 rows called `name`, if the file's origin is what is expected (the keys given in `origin`).

    Raises:
        InputError: no such file, not a whole one, or made from something else.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such {words.what}; {words.missing}")
    try:
        with opened(path) as file:
            found = json.loads(text(file, "origin"))
            if other := [key for key, value in origin.items() if found.get(key) != value]:
                raise InputError(f"{path}: made from other {', '.join(other)} than today's; {words.other}")
            names = column(file, "names", str, (None,))
            rows = column(file, name, np.float32, (None, None))
            if len(rows) != len(names):
                raise InputError(f"{path}: {len(names)} names for {name} of shape {rows.shape}; {words.again}")
            return Kept(texts(names), rows[...], found, text(file, "contents"))
    except UNREADABLE as error:
        said = " ".join(str(error).split())[:150]
        raise InputError(f"{path}: not a whole {words.whole} ({said}); {words.again}") from error
