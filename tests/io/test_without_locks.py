"""File systems that have no locks: folders and HDF5 files are written all the same."""

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from driverwatch.io import atomic
from driverwatch.io.atomic import locked, writer_of
from driverwatch.io.hdf5 import attributes, created, opened

NONE = [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.EPERM]


@pytest.fixture(params=NONE, ids=lambda number: errno.errorcode[number])
def number(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """No locks here, for this reason."""

    def flock(*_: object) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", flock)
    return int(request.param)


def test_a_folder_without_locks_is_written_all_the_same_and_named_once(
    tmp_path: Path, number: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic, "_UNLOCKED", set())
    with locked(tmp_path), locked(tmp_path, patience=0):
        assert writer_of(tmp_path) is None
    assert capsys.readouterr().out.count("this file system has no locks") == 1
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def write(path: Path) -> None:
    with created(path, 100) as file:
        file["a"] = np.arange(3)


def read(path: Path) -> None:
    with opened(path) as file:
        assert list(file["a"]) == [0, 1, 2]


def look(path: Path) -> None:
    assert attributes(path) == {}


@pytest.mark.parametrize("use", [write, read, look])
def test_hdf5_files_need_no_locks(tmp_path: Path, use: Callable[[Path], None]) -> None:
    """A lock that somebody else holds would stop HDF5, if it asked for one."""
    path = tmp_path / "a.h5"
    write(path)
    with path.open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        use(path)


def test_hdf5_that_must_lock_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["a"] = np.arange(3)
    code = (
        "import fcntl, sys\nfrom pathlib import Path\nfrom driverwatch.io.hdf5 import opened\n"
        "held = open(sys.argv[1], 'r+'); fcntl.flock(held, fcntl.LOCK_EX)\n"
        "with opened(Path(sys.argv[1])): pass"
    )
    environment = os.environ | {"HDF5_USE_FILE_LOCKING": "TRUE"}
    made = subprocess.run(
        [sys.executable, "-c", code, str(path)], env=environment, capture_output=True, text=True, check=False
    )
    last = made.stderr.strip().splitlines()[-1]
    assert str(path) in last and "unset HDF5_USE_FILE_LOCKING" in last
