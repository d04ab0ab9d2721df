"""HDF5 files from anywhere: opened for reading, and only if all they hold lies in them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py


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


def _is_elsewhere(item: h5py.HLObject) -> bool:
    return isinstance(item, h5py.Dataset) and (item.is_virtual or bool(item.external))
