"""File systems that have no locks: one writer at a time all the same, and HDF5 files that are read and written."""

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

from driverwatch.errors import InputError
from driverwatch.io import atomic
from driverwatch.io.atomic import locked, writer_of
from driverwatch.io.hdf5 import attributes, created, opened

NONE = [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.EPERM]
SCRIPT = """
import errno, fcntl, sys, time
from pathlib import Path
def flock(*_): raise OSError(int(sys.argv[2]), "none here")
fcntl.flock = flock
from driverwatch.io.atomic import locked
with locked(Path(sys.argv[1]), patience=0.2):
    print("holds", flush=True)
    time.sleep(float(sys.argv[3]))
"""


@pytest.fixture(params=NONE, ids=lambda number: errno.errorcode[number])
def number(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """No locks here, for this reason."""

    def flock(*_: object) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", flock)
    return int(request.param)


def writer(folder: Path, number: int, seconds: float) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", SCRIPT, str(folder), str(number), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_one_writer_at_a_time_and_a_killed_one_holds_nothing(tmp_path: Path, number: int) -> None:
    with locked(tmp_path):
        assert writer_of(tmp_path) == str(os.getpid())
        with writer(tmp_path, number, 0) as second:
            assert "holds" not in (second.stdout.read() if second.stdout else "")
            assert "another command is writing here" in (said := second.stderr.read() if second.stderr else "")
            assert str(os.getpid()) in said and str(tmp_path) in said
    assert writer_of(tmp_path) is None
    with writer(tmp_path, number, 60) as killed:
        assert killed.stdout and "no locks" in killed.stdout.readline()
        assert killed.stdout.readline() == "holds\n"
        with pytest.raises(InputError, match=f"process {killed.pid}"), locked(tmp_path, patience=0.1):
            pass
        killed.kill()
    assert writer_of(tmp_path) is None
    with locked(tmp_path, patience=0):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_who_has_locks_respects_who_has_none(tmp_path: Path) -> None:
    with writer(tmp_path, errno.ENOLCK, 60) as other:
        assert other.stdout and other.stdout.readline() and other.stdout.readline() == "holds\n"
        with pytest.raises(InputError, match=f"process {other.pid}"), locked(tmp_path, patience=0.1):
            pass
        other.kill()


def test_another_machines_claim_names_the_way_out(tmp_path: Path, number: int) -> None:
    (tmp_path / ".lock.holder").write_text(f"{'0' * 8} 12 ? node7\n")
    with pytest.raises(InputError, match=r"process 12 on node7.*remove .*\.lock\.holder"), locked(tmp_path, patience=0):
        pass
    (tmp_path / ".lock.holder").unlink()
    with locked(tmp_path, patience=0):
        pass


def test_a_number_that_another_process_has_now_holds_nothing(tmp_path: Path, number: int) -> None:
    (tmp_path / ".lock.holder").write_text(f"{atomic.machine()} {os.getpid()} 1 here\n")
    with locked(tmp_path, patience=0):
        pass


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
