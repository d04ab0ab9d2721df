"""Folders that are costly to make: made once for all workers of a test session, and copies of them that are put back."""

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from driverwatch.io.atomic import locked

PATIENCE_SECONDS = 1800.0


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The folder `name` that `make` has filled: by this worker of pytest-xdist or by another one, which this one waits for."""
    base = factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    place, partial = shared / name, shared / f"{name}.partial"
    with locked(shared, f".{name}.lock", sweep=(), patience=PATIENCE_SECONDS):
        if not place.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
            make(partial)
            partial.rename(place)
    return place


Traits = tuple[int, int, int]  # mode, size and time of a file; of a folder its mode


class WorkingCopy:
    """A copy of a folder that tests may change, put back at the cost of what they have changed."""

    def __init__(self, source: Path, place: Path) -> None:
        self.source, self.place = source, Path(shutil.copytree(source, place, symlinks=True))
        self.was = traits(place)

    def put_back(self) -> None:
        """Make the copy equal to its source again: what was written has another time than the source's, which copies keep."""
        now = traits(self.place)
        for name in sorted(name for name in now if now[name] != self.was.get(name)):
            remove(self.place / name)
        for name in sorted(self.was):
            if not os.path.lexists(self.place / name):
                copy(self.source / name, self.place / name)
        assert traits(self.place) == self.was


def traits(folder: Path) -> dict[str, Traits]:
    """Mode, size and time of everything below `folder`, by relative path."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            its = path.lstat()
            apart = (0, 0) if stat.S_ISDIR(its.st_mode) else (its.st_size, its.st_mtime_ns)
            found[str(path.relative_to(folder))] = (its.st_mode, *apart)
    return found


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def copy(source: Path, target: Path) -> None:
    if source.is_dir() and not source.is_symlink():
        target.mkdir()
        shutil.copymode(source, target)
    else:
        shutil.copy2(source, target, follow_symlinks=False)
