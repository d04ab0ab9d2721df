"""Features on disk: what a pretrained network makes of every image, by name, with what made them."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from driverwatch.artifacts import digest_of, require_space
from driverwatch.errors import InputError
from driverwatch.hdf5 import created, opened
from driverwatch.inference.rows_on_disk import Words, read_rows
from driverwatch.writing import replacing

PIECE = 4096  # rows


@dataclass(frozen=True, eq=False)
class Features:
    """`names` (N,) of the training and the test images, `array` float32 (N, F), digests of what made them and of it all."""

    names: np.ndarray
    array: np.ndarray
    origin: dict[str, str]
    contents: str


def write(path: Path, names: np.ndarray, parts: Sequence[np.ndarray], origin: dict[str, str]) -> None:
    """Write features, whole or not at all.

    Args:
        names: (N,).
        parts: float32 (n, F) each, mapped or not, N rows in all.
    """
    count, length = sum(map(len, parts)), parts[0].shape[1]
    size = 4 * count * length + 200 * len(names)
    require_space(path.parent, size, path.name, "choose a coarser grid")
    contents = hashlib.sha256()
    with replacing(path) as temporary, created(temporary, size) as file:
        file.create_dataset("names", data=np.array(list(names), object), dtype=h5py.string_dtype(), shape=(count,))
        array, at = file.create_dataset("features", (count, length), np.float32), 0
        for part in parts:
            for start in range(0, len(part), PIECE):
                piece = np.ascontiguousarray(part[start : start + PIECE], np.float32)
                array[at : at + len(piece)], at = piece, at + len(piece)
                contents.update(piece.data)
        file.attrs["origin"] = json.dumps(origin)
        file.attrs["contents"] = digest_of([names, contents.hexdigest(), [count, length], origin])


WORDS = Words(
    what="features",
    missing="make neighbours FEATURES=... computes them",
    whole="file of features",
    again="remove it, run make neighbours",
    other="run make neighbours",
)


def checksum(path: Path) -> str | None:
    """The digest of a file of features as it states it, without reading them; None where there is no whole one."""
    try:
        with opened(path) as file:
            return str(file.attrs["contents"])
    except (OSError, LookupError, ValueError, TypeError, AttributeError):
        return None


def read(path: Path, origin: dict[str, str]) -> Features:
    """Read features made from what is expected (the keys given in `origin`).

    Raises:
        InputError: no such file, not a whole one, or made from something else.
    """
    names, array, found, contents = read_rows(path, "features", origin, WORDS)
    digest = hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
    if array.dtype != np.float32 or contents != digest_of([names, digest, list(array.shape), found]):
        raise InputError(f"{path}: was changed since it was written; remove it, run make neighbours")
    return Features(names, array, found, contents)
