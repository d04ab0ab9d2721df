"""HDF5 files: made only where there is room for them, and read only if all that they hold lies in them."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np


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
        with h5py.File(path, "w", **options) as file:
            yield file
    except RuntimeError as error:
        raise OSError(errno.EIO, " ".join(str(error).split())) from error


def contiguous(file: h5py.File, name: str, shape: tuple[int, ...]) -> int:
    """Make a uint8 data set that lies in one piece, and say where: `write_at` fills it from many threads at once.

    Writing through HDF5 keeps Python's interpreter lock, so that threads that decode wait for the one that writes.
    """
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_layout(h5py.h5d.CONTIGUOUS)
    plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plan.set_obj_track_times(False)  # or the same photos would not give the same file
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
    """Open `path` for reading.

    Raises:
        OSError: not a whole HDF5 file.
        ValueError: something in it points into another file of this machine (links, external storage, virtual datasets).
    """
    with h5py.File(path, "r") as file:
        outside: list[str] = []
        file.visititems_links(lambda name, link: None if isinstance(link, h5py.HardLink) else outside.append(name))
        file.visititems(lambda name, item: outside.append(name) if _is_elsewhere(item) else None)
        if outside:
            raise ValueError(f"{outside[0]} points into another file")
        yield file


def attributes(path: Path) -> dict[str, Any]:
    """What a file says of itself at its root; nothing that it holds is read. Raises `OSError` where it is no whole HDF5 file."""
    with h5py.File(path, "r") as file:
        return dict(file.attrs)


def _is_elsewhere(item: h5py.HLObject) -> bool:
    return isinstance(item, h5py.Dataset) and (item.is_virtual or bool(item.external))
