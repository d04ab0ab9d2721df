"""Temporary files: a killed writer's are removed, a living one's and other programs' stay; permissions are the umask's."""

import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from driverwatch.io import atomic
from driverwatch.io.atomic import (
    locked,
    making,
    replacing,
    replacing_folder,
    scratch_beside,
    sweep_partials,
    write_text,
)

HANG = "; print('there', flush=True); time.sleep(60)"
OPEN = {
    "file": "with replacing(path) as t: t.write_text('half')",
    "folder": "with replacing_folder(path) as t: (t / 'half').write_text('half')",
    "scratch": "with scratch_beside(path) as t: (t / 'half').write_text('half')",
}


@contextmanager
def writing(path: Path, kind: str) -> Iterator["subprocess.Popen[str]"]:
    """A process in the midst of writing `path`."""
    code = f"import time\nfrom pathlib import Path\nfrom driverwatch.io.atomic import *\npath = Path({str(path)!r})\n{OPEN[kind]}"
    with subprocess.Popen([sys.executable, "-c", code + HANG], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "there\n"
        try:
            yield process
        finally:
            process.kill()


def partials(folder: Path) -> list[Path]:
    return sorted(folder.glob(".*.partial"))


def again(path: Path, kind: str) -> None:
    """The same command once more."""
    if kind == "file":
        write_text(path, "whole")
    elif kind == "folder":
        with making(path), replacing_folder(path):
            pass
    else:
        with scratch_beside(path):
            pass


def lock_folder(path: Path, kind: str) -> None:
    with locked(path.parent):
        pass


def sweep(path: Path, kind: str) -> None:
    sweep_partials(path.parent)


@pytest.mark.parametrize("kind", OPEN)
@pytest.mark.parametrize("swept", [again, lock_folder, sweep])
def test_a_living_writers_stay_and_a_killed_ones_go(
    tmp_path: Path, kind: str, swept: Callable[[Path, str], None]
) -> None:
    path = tmp_path / "made"
    with writing(path, kind) as process:
        left = partials(tmp_path)
        assert len(left) == 1
        swept(path, kind)
        assert partials(tmp_path) == left
        process.kill()
        process.wait()
        swept(path, kind)
        assert partials(tmp_path) == []


@pytest.mark.parametrize(
    "name", [".film.mkv.partial", ".x.keras.partial", ".weights.h5.x.partial", "film.partial", ".partial",
             ".a.0123456-12.01234567.partial", ".a.01234567-x.01234567.partial"],
)  # fmt: skip
def test_other_programs_files_stay(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.keras"
    (tmp_path / name).write_text("theirs")
    (tmp_path / f".folder{name}").mkdir()
    with locked(tmp_path), making(path), scratch_beside(path):
        write_text(path, "ours")
    sweep_partials(tmp_path)
    assert (tmp_path / name).read_text() == "theirs"
    assert (tmp_path / f".folder{name}").is_dir()


def test_a_name_sweeps_its_own_alone(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    names = [f".{name}.{atomic.machine()}-{ended.pid}.01234567.partial" for name in ("a.csv", "b.csv")]
    for name in names:
        (tmp_path / name).write_text("half")
    write_text(tmp_path / "a.csv", "whole")
    assert [path.name for path in partials(tmp_path)] == names[1:]


def test_another_machines_go_after_a_day_without_a_change(tmp_path: Path) -> None:
    young, old = (tmp_path / f".a.{'0' * 8}-1.{n * 8}.partial" for n in "01")
    for path in (young, old):
        path.write_text("half")
    os.utime(old, times=(time.time() - 90_000,) * 2)
    sweep_partials(tmp_path)
    assert partials(tmp_path) == [young]


@pytest.mark.parametrize("name", ["a" * 255, "ä" * 127])
def test_the_longest_names_are_written(tmp_path: Path, name: str) -> None:
    write_text(tmp_path / name, "whole")
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("mask", "file", "folder"), [(0o077, 0o600, 0o700), (0o027, 0o640, 0o750), (0o022, 0o644, 0o755)]
)
def test_permissions_are_the_umasks(tmp_path: Path, mask: int, file: int, folder: int) -> None:
    before = os.umask(mask)
    try:
        write_text(tmp_path / "new" / "a.csv", "whole")
        write_text(tmp_path / "new" / "a.csv", "again")
        with making(tmp_path / "made"), replacing_folder(tmp_path / "made") as made:
            (made / "b").write_text("whole")
        with replacing(tmp_path / "c.h5") as temporary:
            assert stat.S_IMODE(temporary.stat().st_mode) == file, "not even for a moment"
            temporary.write_bytes(b"whole")
    finally:
        os.umask(before)
    found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path.name[0] != "."}
    assert found == {"new": folder, "a.csv": file, "made": folder, "b": file, "c.h5": file}
