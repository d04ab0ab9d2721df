"""Predictions on disk: probabilities that know which image, folds, settings and weights they belong to."""

import hashlib
import json
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np

from driverwatch.artifacts import digest_of
from driverwatch.errors import InputError
from driverwatch.hdf5 import created
from driverwatch.inference.rows_on_disk import Words, read_rows
from driverwatch.writing import replacing


@dataclass(frozen=True)
class Predictions:
    """`names` (N,) unique, `probabilities` float32 (N, C), finite, non-negative, rows sum to 1; `origin` names its makers' digests.

    Raises:
        InputError: when built from anything else.
    """

    names: np.ndarray
    probabilities: np.ndarray
    origin: dict[str, str] = field(default_factory=dict)
    where: str = "predictions"

    def __post_init__(self) -> None:
        rows = self.probabilities
        if rows.ndim != 2 or len(rows) != len(self.names):
            raise InputError(
                f"{self.where}: {len(self.names)} names for probabilities of shape {rows.shape}; predict again"
            )
        if any(
            one == next_one for one, next_one in pairwise(sorted(self.names))
        ):  # a set would take 100 bytes per name
            raise InputError(f"{self.where}: an image is named twice; predict again")
        if not np.isfinite(rows).all() or (rows < 0).any():
            raise InputError(
                f"{self.where}: probabilities must be finite and not negative; predict again, and if that repeats, train anew at "
                "a lower learning rate: the weights have diverged"
            )
        if len(rows) and (worst := float(np.abs(rows.sum(axis=1, dtype=np.float64) - 1).max())) > 1e-4:
            raise InputError(f"{self.where}: rows must sum to 1, one is {worst:.2g} off; predict again")

    def aligned_to(self, names: list[str]) -> np.ndarray:
        """Probabilities in the order of `names`, float32 (len(names), C).

        Raises:
            InputError: an asked name is not there, or images are there that nobody asked for.
        """
        if list(self.names) == names:
            return self.probabilities
        position = {name: i for i, name in enumerate(self.names)}
        missing = [name for name in names if name not in position]
        extra = len(position) - (len(names) - len(missing))
        if missing or extra:
            raise InputError(
                f"{self.where}: {len(missing)} images missing ({', '.join(missing[:3])}), {extra} not asked for; "
                "predict again with today's pack"
            )
        return self.probabilities[[position[name] for name in names]]


def write(predictions: Predictions, path: Path) -> None:
    size = predictions.probabilities.nbytes + 200 * len(predictions.names)
    with replacing(path) as temporary, created(temporary, size) as file:
        file.create_dataset(
            "names",
            data=np.array(list(predictions.names), dtype=object),
            dtype=h5py.string_dtype(),
            shape=(len(predictions.names),),
        )
        rows = np.ascontiguousarray(predictions.probabilities, np.float32)
        file.create_dataset("probabilities", data=rows)
        file.attrs["origin"] = json.dumps(predictions.origin)
        file.attrs["contents"] = _contents(predictions.names, rows, predictions.origin)


def digest(made: Predictions) -> str:
    """Digest of names, probabilities and origin, whatever file they lie in."""
    return _contents(made.names, np.ascontiguousarray(made.probabilities, np.float32), made.origin)


def _contents(names: np.ndarray, rows: np.ndarray, origin: dict[str, str]) -> str:
    """Digest of all that a file holds, so that one edited since is found out."""
    return digest_of([names, hashlib.sha256(np.ascontiguousarray(rows).data).hexdigest(), list(rows.shape), origin])


def is_of(path: Path, origin: dict[str, str], names: np.ndarray) -> bool:
    """Whether a whole file of this origin for these images is there already."""
    try:
        return np.array_equal(read(path, origin).names, names)
    except InputError:
        return False


WORDS = Words(
    what="predictions",
    missing="run make predict with the views you want",
    whole="prediction file",
    again="predict again",
    other="run make predict again",
)


def read(path: Path, origin: dict[str, str]) -> Predictions:
    """Read a file and compare what it says of its origin with what is expected (the keys given in `origin`).

    Raises:
        InputError: no such file, not a whole one, or one of another origin.
    """
    names, probabilities, found, contents = read_rows(path, "probabilities", origin, WORDS)
    made = Predictions(names, probabilities, found, str(path))
    if contents != _contents(names, probabilities, found):
        raise InputError(f"{path}: was changed since it was written; predict again")
    return made
