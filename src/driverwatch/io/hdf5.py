"""HDF5 files: made only where there is room for them, and read only if all that they hold is in them.

No file is locked: who writes holds its folder, and puts whole files into their places. HDF5 itself would fail where the file
system has no locks.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from driverwatch.errors import InputError

DEEPEST = 32  # groups in groups; Keras' files of nested networks have ten
MOST = 100_000  # groups and data sets in a file
AT_ONCE = 64  # texts; any of them may be as long as the file
# all that HDF5 and h5py raise on files that are damaged, edited or another program's, and our own checks of them
UNREADABLE = (OSError, LookupError, ValueError, TypeError, AttributeError, RuntimeError, OverflowError)


@contextmanager
def created(path: Path, size: int, **options: str) -> Iterator[h5py.File]:
    """Make an HDF5 file of about `size` bytes.

    HDF5 does not survive a full disk: it fails while closing, with tracebacks from destructors. So the space is taken
    first, and given back to be filled; should somebody else take it meanwhile, that is an `OSError` too.

    Raises:
        OSError: no space, or no file as large as this may be written.
    """
    if hasattr(os, "posix_fallocate"):  # not on macOS
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size + 2**16)
    try:
        with h5py.File(path, "w", locking=False, **options) as file:
            yield file
    except RuntimeError as error:
        raise OSError(errno.EIO, " ".join(str(error).split())) from error


def contiguous(file: h5py.File, name: str, shape: tuple[int, ...]) -> int:
    """Make a uint8 data set that is in one piece, and say where: `write_at` fills it from many threads at once.

    Writing through HDF5 keeps Python's interpreter lock, so that threads that decode wait for the one that writes.
    """
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_layout(h5py.h5d.CONTIGUOUS)
    plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plan.set_obj_track_times(False)  # or the same images would not give the same file
    space = h5py.h5s.create_simple(shape)
    made = h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(np.dtype(np.uint8)), space, plan)
    return made.get_offset() or 0  # none, where there is nothing to write


def write_at(descriptor: int, data: np.ndarray, offset: int) -> None:
    """Write an array's bytes, all of them, at a place in a file."""
    left = memoryview(np.ascontiguousarray(data).reshape(-1).data)
    while left:
        written = os.pwrite(descriptor, left, offset)
        left, offset = left[written:], offset + written


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """Open `path` for reading, if what it holds is no more than its size, and nothing in it points into another file.

    Raises:
        OSError: not a whole HDF5 file.
        ValueError: links, external storage or virtual data sets; data sets that claim more bytes than the file has; groups
            in groups without end.
        InputError: `HDF5_USE_FILE_LOCKING` asks HDF5 to lock files, and it cannot.
    """
    with _bare(path) as file:
        _examine(file, path.stat().st_size)
        yield file


def attributes(path: Path) -> dict[str, Any]:
    """What a file says of itself at its root; nothing that it holds is read. Raises `OSError` where it is no whole HDF5 file."""
    with _bare(path) as file:
        return dict(file.attrs)


@contextmanager
def _bare(path: Path) -> Iterator[h5py.File]:
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        if "unable to lock file" not in str(error):
            raise
        asked = os.environ.get("HDF5_USE_FILE_LOCKING", "")
        raise InputError(
            f"{path}: HDF5 cannot lock it, as HDF5_USE_FILE_LOCKING={asked} asks; unset HDF5_USE_FILE_LOCKING, and run again"
        ) from error
    with file:
        yield file


def _examine(file: h5py.File, size: int) -> None:
    """Look at every group and data set, at each once however often it is linked, without reading any."""
    waiting, claimed = [(file["/"], 0)], 0
    known = {_address(file["/"])}
    while waiting:
        group, depth = waiting.pop()
        if depth > DEEPEST or len(known) + len(group) > MOST:
            raise ValueError(f"holds groups more than {DEEPEST} deep, or more than {MOST:,} things")
        for name in group:
            where = f"{group.name}/{name}".lstrip("/")
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"{where} points into another file")
            item = group[name]
            if (address := _address(item)) in known:
                continue
            known.add(address)
            if isinstance(item, h5py.Group):
                waiting.append((item, depth + 1))
            elif isinstance(item, h5py.Dataset):
                claimed += _stored(item, where)
    if claimed > size:
        raise ValueError(f"claims {claimed:,} bytes of data in a file of {size:,}")


def _address(item: h5py.HLObject) -> int:
    return int(h5py.h5o.get_info(item.id).addr)


def _stored(item: h5py.Dataset, where: str) -> int:
    """Bytes that a data set takes in its file; unless it is compressed, they are all that it is said to hold."""
    if item.is_virtual or item.external:
        raise ValueError(f"{where} points into another file")
    stored = int(item.id.get_storage_size())
    needed = int(item.size or 0) * int(item.id.get_type().get_size())  # no size: a data set of nothing
    if needed > stored and not _compressed(item):
        raise ValueError(f"{where} {item.shape} claims {needed:,} bytes, of which the file has {stored:,}")
    return stored


def _compressed(item: h5py.Dataset) -> bool:
    return bool(item.id.get_create_plist().get_nfilters())


def column(place: h5py.Group, name: str, kind: type, shape: tuple[int | None, ...]) -> h5py.Dataset:
    """A data set of ours that is of `kind` (`str`, or a NumPy type) and `shape` (None: any length), to be read then.

    Raises:
        KeyError: no such data set.
        ValueError: another one.
    """
    found = place[name]
    if not isinstance(found, h5py.Dataset) or _compressed(found):
        raise ValueError(f"{name}: expected a data set that is not compressed")
    right = h5py.check_string_dtype(found.dtype) is not None if kind is str else found.dtype == np.dtype(kind)
    fits = found.shape is not None and len(found.shape) == len(shape)
    if not right or not fits or any(want not in (None, got) for want, got in zip(shape, found.shape, strict=True)):
        wanted = "(" + ", ".join("any" if length is None else str(length) for length in shape) + ")"
        kinds = "text" if kind is str else np.dtype(kind).name
        raise ValueError(f"{name}: expected {kinds} {wanted}, got {found.dtype} {found.shape}")
    return found


def text(place: h5py.HLObject, name: str) -> str:
    """An attribute that is one text; KeyError where there is none, ValueError where it is something else."""
    found = place.attrs[name]
    if not isinstance(found, str):
        raise ValueError(f"{name}: expected text, got {type(found).__name__}")
    return found


def texts(column: h5py.Dataset) -> np.ndarray:
    """A column of text, object (N,), read in pieces: HDF5's own copy of each string is gone before the next piece.

    Raises:
        ValueError: more text than the file has bytes, as when all are one long one.
    """
    found, left = np.empty(column.shape, object), column.file.id.get_filesize()
    for start in range(0, len(found), AT_ONCE):
        found[start : start + AT_ONCE] = column.asstr()[start : start + AT_ONCE]
        left -= sum(map(len, found[start : start + AT_ONCE]))
        if left < 0:
            raise ValueError(f"{column.name}: more text than the file has bytes")
    return found
