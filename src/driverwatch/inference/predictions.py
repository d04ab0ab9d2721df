"""Predictions on disk, and what their files and those of embeddings have in common: an array by image name, with its origin."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from driverwatch.config.types import TTA_SETS, TtaSet
from driverwatch.data.tta import best_of
from driverwatch.errors import InputError
from driverwatch.io.atomic import replacing
from driverwatch.io.hdf5 import UNREADABLE, column, created, opened, text, texts
from driverwatch.io.manifests import checksum_of
from driverwatch.run import Run

PIECE_ROWS = 4096  # that are written at once
TOLERANCE = 1e-4  # of a row's sum: float32 rows of some thousand classes may miss by as much


class NamedArrays(NamedTuple):
    """Names (N,), the array float32 (N, D), checksums of what made it by kind, and the checksum of all of this."""

    names: np.ndarray
    array: np.ndarray
    origin: dict[str, str]
    contents: str


def read_named_arrays(path: Path, name: str, origin: dict[str, str], what: str, again: str) -> NamedArrays:
    """Read names and the float32 array called `name`, if the file's origin is what is expected (the keys given in `origin`).

    Sentences speak of a `what` file, and say `again` to have it made.

    Raises `InputError`: no such file, not a whole one, made from something else, or changed since it was written.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such {what}s; {again}")
    try:
        with opened(path) as file:
            found = json.loads(text(file, "origin"))
            if other := [key for key, value in origin.items() if found.get(key) != value]:
                raise InputError(f"{path}: made from other {', '.join(other)} than today's; {again}")
            names = column(file, "names", str, (None,))
            rows = column(file, name, np.float32, (None, None))
            if len(rows) != len(names):
                raise InputError(f"{path}: {len(names)} names for {name} of shape {rows.shape}; {again}")
            made = NamedArrays(texts(names), rows[...], found, text(file, "contents"))
    except UNREADABLE as error:
        said = " ".join(str(error).split())[:150]
        raise InputError(f"{path}: not a whole {what} file ({said}); {again}") from error
    if made.contents != _contents(made.names, made.array, found):
        raise InputError(f"{path}: was changed since it was written; {again}")
    return made


def write_named_arrays(
    path: Path, name: str, names: np.ndarray, parts: Sequence[np.ndarray], origin: dict[str, str]
) -> None:
    """Write what `read_named_arrays` reads, whole or not at all.

    Args:
        name: of the data set.
        names: (N,).
        parts: float32 (n, D) each, mapped or not, N rows in all.
    """
    shape, contents = (sum(map(len, parts)), parts[0].shape[1]), hashlib.sha256()
    with replacing(path) as temporary, created(temporary, bytes_of(parts)) as file:
        file.create_dataset("names", data=np.array(list(names), object), dtype=h5py.string_dtype(), shape=(len(names),))
        array, at = file.create_dataset(name, shape, np.float32), 0
        for part in parts:
            for start in range(0, len(part), PIECE_ROWS):
                piece = np.ascontiguousarray(part[start : start + PIECE_ROWS], np.float32)
                array[at : at + len(piece)], at = piece, at + len(piece)
                contents.update(piece.data)
        file.attrs["origin"] = json.dumps(origin)
        file.attrs["contents"] = checksum_of([names, contents.hexdigest(), list(shape), origin])


def bytes_of(parts: Sequence[np.ndarray]) -> int:
    """About how many bytes a file of these parts (n, D) takes."""
    return sum(4 * part.size + 200 * len(part) for part in parts)


@dataclass(frozen=True)
class Predictions:
    """`names` (N,) unique, `probabilities` float32 (N, C), finite, non-negative, rows sum to 1; `origin`: its makers' checksums.

    Raises `InputError`: when built from anything else.
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
        refuse_invalid(self.where, self.names, rows)

    def aligned_to(self, names: list[str]) -> np.ndarray:
        """Probabilities in the order of `names`, float32 (len(names), C).

        Raises `InputError`: an asked name is not there, or images are there that were not asked for.
        """
        if list(self.names) == names:
            return self.probabilities
        return self.probabilities[positions(self.where, self.names, names)]


def refuse_invalid(where: str, names: np.ndarray, rows: np.ndarray) -> None:
    """Raise `InputError` unless names (N,) are unique, and probabilities (..., C) finite, not negative and sum to 1."""
    if any(one == following for one, following in pairwise(sorted(names))):  # a set would take 100 bytes per name
        raise InputError(f"{where}: an image is named twice; predict again")
    if not np.isfinite(rows).all() or (rows < 0).any():
        raise InputError(
            f"{where}: probabilities must be finite and not negative; predict again, and if that repeats, train again at "
            "a lower learning rate: the weights have diverged"
        )
    if rows.size and (worst := float(np.abs(rows.sum(axis=-1, dtype=np.float64) - 1).max())) > TOLERANCE:
        raise InputError(f"{where}: rows must sum to 1, one is {worst:.2g} off; predict again")


def positions(where: str, there: np.ndarray, names: Sequence[str] | np.ndarray) -> np.ndarray:
    """Where `names` (K,) are among those of the images `there` (N,): int64 (K,).

    Raises `InputError`: an asked name is not there, or images are there that were not asked for.
    """
    position = {name: i for i, name in enumerate(there)}
    missing = [str(name) for name in names if name not in position]
    extra = len(position) - (len(names) - len(missing))
    if missing or extra:
        raise InputError(
            f"{where}: {len(missing)} images missing ({', '.join(missing[:3])}), {extra} not asked for; "
            "predict again with today's pack"
        )
    return np.array([position[name] for name in names], np.int64)


def write(predictions: Predictions, path: Path) -> None:
    """Write predictions, whole or not at all."""
    write_named_arrays(path, "probabilities", predictions.names, [predictions.probabilities], predictions.origin)


def checksum(made: Predictions) -> str:
    """Checksum of names, probabilities and origin, whatever file they are in."""
    return _contents(made.names, np.ascontiguousarray(made.probabilities, np.float32), made.origin)


def _contents(names: np.ndarray, rows: np.ndarray, origin: dict[str, str]) -> str:
    """Checksum of all that a file holds, so that one edited since is found out."""
    return checksum_of([names, hashlib.sha256(np.ascontiguousarray(rows).data).hexdigest(), list(rows.shape), origin])


def is_of(path: Path, origin: dict[str, str], names: np.ndarray) -> bool:
    """Whether a whole file of this origin for these images is there already."""
    try:
        return np.array_equal(read(path, origin).names, names)
    except InputError:
        return False


def read(path: Path, origin: dict[str, str]) -> Predictions:
    """Read a file and compare what it says of its origin with what is expected (the keys given in `origin`).

    Raises `InputError`: no such file, not a whole one, or one of another origin.
    """
    again = 'run make predict RUN=<run> TTA="<sets>"'
    names, probabilities, found, _ = read_named_arrays(path, "probabilities", origin, "prediction", again)
    return Predictions(names, probabilities, found, str(path))


def prediction_path(fold: Path, kind: str, tta: str) -> Path:
    """`<fold folder>/<validation|test>-<TTA set>.h5`."""
    return fold / f"{kind}-{tta}.h5"


KINDS = ("validation", "test")


def predicted_tta(run: Run, folds: int, kinds: tuple[str, ...] = KINDS) -> list[TtaSet]:
    """TTA sets that every fold of a finished run has predicted, smallest first, where the data set has so many folds."""
    numbers = range(run.settings.train.splits.models(folds))
    return [tta for tta in TTA_SETS if all(_is_there(run, fold, tta, kinds) for fold in numbers)]


def default_tta_of(run: Run) -> TtaSet:
    """The best set that all finished folds of a run have: `default_tta` if it is among them, else as `best_of` has it.

    A set whose loss a fold's manifest states counts, even where its file was lost: it is missed when it is read, and no other
    set takes its place in silence.
    """
    folds = [int(path.parent.name[4:]) for path in run.folder.glob("fold[0-9]*/manifest.json")]
    known = [v for v in TTA_SETS if folds and all(_is_there(run, k, v, KINDS) or v in _stated(run, k) for k in folds)]
    return best_of(known, run.settings.default_tta)


def _is_there(run: Run, fold: int, tta: TtaSet, kinds: tuple[str, ...]) -> bool:
    kinds = tuple(kind for kind in kinds if kind == "test" or run.settings.train.splits.kind != "all")
    return all(prediction_path(run.fold(fold), kind, tta).is_file() for kind in kinds)


def _stated(run: Run, fold: int) -> dict[str, float]:
    """Loss on the validation drivers by TTA set, as far as a fold's manifest can be read."""
    with suppress(InputError):
        return run.manifest(fold).get("log_loss") or {}  # a dictionary, or `manifest` refuses it
    return {}
