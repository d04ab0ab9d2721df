"""Working copies of tests: whatever a test does to one, the next gets it as it was."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.once import WorkingCopy, once


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "x").write_bytes(b"first")
    (folder / "a" / "b" / "y").write_bytes(b"second")
    (folder / "link").symlink_to("a/x")
    return folder


def contents(folder: Path) -> dict[str, object]:
    paths = sorted(folder.rglob("*"))
    return {str(p.relative_to(folder)): p.readlink() if p.is_symlink() else p.is_dir() or p.read_bytes() for p in paths}


def folder_for_file(place: Path) -> None:
    (place / "a" / "x").unlink()
    (place / "a" / "x").mkdir()
    (place / "a" / "x" / "z").write_bytes(b"")


def pipe_for_folder(place: Path) -> None:
    (place / "a" / "b" / "y").unlink()
    (place / "a" / "b").rmdir()
    os.mkfifo(place / "a" / "b")


@pytest.mark.parametrize(
    "change",
    [
        lambda place: (place / "a" / "x").write_bytes(b"third"),  # as long as it was
        lambda place: (place / "a" / "b" / "y").unlink(),
        lambda place: (place / "new" / "deep").mkdir(parents=True),
        lambda place: (place / "link").rename(place / "elsewhere"),
        lambda place: (place / "a" / "x").chmod(0o600),
        folder_for_file,
        pipe_for_folder,
    ],
)
def test_a_copy_is_put_back(source: Path, tmp_path: Path, change: Callable[[Path], object]) -> None:
    made = WorkingCopy(source, tmp_path / "copy")
    before = contents(source)
    change(made.place)
    if not (made.place / "a" / "b").is_fifo():
        assert contents(made.place) != before or (made.place / "a" / "x").stat().st_mode & 0o777 == 0o600
    made.put_back()
    assert contents(made.place) == before == contents(source)


def test_a_folder_is_made_once_and_whole(tmp_path_factory: pytest.TempPathFactory) -> None:
    made = []

    def make(folder: Path) -> None:
        folder.mkdir()
        made.append(folder)
        if len(made) == 1:
            raise OSError("killed")

    with pytest.raises(OSError, match="killed"):
        once(tmp_path_factory, "test-once", make)
    places = {once(tmp_path_factory, "test-once", make) for _ in range(2)}
    assert len(made) == 2
    assert [place.is_dir() for place in places] == [True]
