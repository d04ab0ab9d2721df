"""A downloaded zip is unpacked inside its folder alone, whole, within limits, and after a kill only the rest of it."""

import shutil
import stat
import struct
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

from driverwatch.errors import InputError
from driverwatch.submission.download import BLOCK_BYTES, is_whole_zip, unpack


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


HONEST = {"table.csv": b"a,b\n", "imgs/train/c0/1.jpg": b"x" * 5000, "imgs/test/2.jpg": b"", "imgs/test/ä 3.jpg": b"z"}


def test_every_file_arrives_and_nothing_else(tmp_path: Path) -> None:
    unpack(zipped(tmp_path / "a.zip", HONEST), tmp_path / "data")
    assert files(tmp_path / "data") == HONEST
    assert is_whole_zip(tmp_path / "a.zip")


def test_zips_at_the_top_level_are_unpacked_too_as_the_older_layout_needs(tmp_path: Path) -> None:
    images = zipped(
        tmp_path / "imgs.zip", {"train/c0/1.jpg": b"x", "test/2.jpg": b"y", "test/deep.zip": b"kept as it is"}
    )
    table = zipped(tmp_path / "table.csv.zip", {"table.csv": b"a\n"})
    outer = {"imgs.zip": images.read_bytes(), "table.csv.zip": table.read_bytes(), "notes.txt": b"n"}
    expected = {"imgs/train/c0/1.jpg": b"x", "imgs/test/2.jpg": b"y", "imgs/test/deep.zip": b"kept as it is"}
    for _ in range(2):
        unpack(zipped(tmp_path / "a.zip", outer), tmp_path / "data")
        assert files(tmp_path / "data") == {"table.csv": b"a\n", "notes.txt": b"n", **expected}
    clash = {"imgs.zip": images.read_bytes(), "imgs/test/2.jpg": b"other"}
    with pytest.raises(InputError, match="is there twice"):
        unpack(zipped(tmp_path / "b.zip", clash), tmp_path / "clash")


def test_what_is_there_and_right_is_kept_and_what_is_half_or_rotten_is_written_again(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", HONEST)
    unpack(archive, tmp_path / "data")
    kept, rotten, half = (tmp_path / "data" / name for name in list(HONEST)[:3])
    before = kept.stat().st_ino
    rotten.write_bytes(b"y" * 5000)
    half.unlink()
    half.with_name(".2.jpg.partial").write_bytes(b"half")
    unpack(archive, tmp_path / "data")
    assert files(tmp_path / "data") == HONEST
    assert kept.stat().st_ino == before


@pytest.mark.parametrize("name", ["../out", "a/../../out", "/etc/out", "C:/out", "a\\..\\out", "a/\n", ".", "a/.."])
def test_names_that_lead_elsewhere_are_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"a\.zip: 1 members that no honest archive holds.*download it again"):
        unpack(zipped(tmp_path / "a.zip", {"first": b"1", name: b"x"}), tmp_path / "in" / "data")
    assert [p.name for p in tmp_path.rglob("*")] == ["a.zip"]


@pytest.mark.parametrize("names", [("a", "A"), ("a", "a/b"), ("a/b", "a"), ("é", "e\u0301")])
def test_one_name_twice_is_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    with pytest.raises(InputError, match="is there twice"):
        unpack(zipped(tmp_path / "a.zip", dict.fromkeys(names, b"x")), tmp_path / "data")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_are_refused(tmp_path: Path, kind: int) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = (kind | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(InputError, match="is a link or a device"):
        unpack(tmp_path / "a.zip", tmp_path / "data")


def test_more_files_or_bytes_than_allowed_are_refused(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {f"{i}": bytes(1000) for i in range(5)})
    with pytest.raises(
        InputError, match=r"expected at most .* GB unpacked, got 0\.0 GB; this is not the competition's"
    ):
        unpack(archive, tmp_path / "data", 5 * (1000 + BLOCK_BYTES) - 1)
    assert not (tmp_path / "data").exists()
    unpack(archive, tmp_path / "data", 5 * (1000 + BLOCK_BYTES))
    assert len(files(tmp_path / "data")) == 5


class Field(NamedTuple):
    """Where a number is in a zip's directory entry (APPNOTE 4.3.12), and as what."""

    offset: int
    form: str


def doctored(path: Path, field: Field, value: int) -> Path:
    content = bytearray(path.read_bytes())
    struct.pack_into(field.form, content, content.index(b"PK\x01\x02") + field.offset, value)
    path.write_bytes(content)
    return path


def test_a_directory_that_lies_about_sizes_writes_no_more_than_it_says(tmp_path: Path) -> None:
    bomb = zipped(tmp_path / "a.zip", {"bomb": bytes(10_000_000)})
    doctored(bomb, Field(24, "<I"), 1000)  # the uncompressed size
    with pytest.raises(InputError, match="is damaged"):
        unpack(bomb, tmp_path / "data")
    assert not (tmp_path / "data" / "bomb").exists()
    assert sum(map(len, files(tmp_path / "data").values())) <= 1000


def test_encryption_and_other_compressions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is encrypted"):
        unpack(doctored(zipped(tmp_path / "a.zip", {"a": b"x"}), Field(8, "<H"), 1), tmp_path / "data")
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("b", b"x")
    with pytest.raises(InputError, match="compressed by method 12"):
        unpack(tmp_path / "b.zip", tmp_path / "data")


def test_damage_is_one_sentence_and_leaves_no_file_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", b"hello world")
    whole = path.read_bytes()
    for content in (whole.replace(b"hello", b"jello"), whole[: len(whole) // 2], b"<html>not found</html>", b""):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"a\.zip: is damaged or no zip .*; remove it and run"):
            unpack(path, tmp_path / "data")
        assert not (tmp_path / "data" / "a").exists()
    assert not is_whole_zip(path)


def test_a_small_disk_is_refused_before_and_a_full_one_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = zipped(tmp_path / "a.zip", HONEST)
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda _: usage._replace(free=5000))
        with pytest.raises(InputError, match=r"unpacking a\.zip needs 0\.0 GB.*free space.*DATA="):
            unpack(archive, tmp_path / "data")
    assert not (tmp_path / "data").exists()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "x.jpg")

    with monkeypatch.context() as patched:
        patched.setattr("driverwatch.submission.download._write", full)
        with pytest.raises(InputError, match=r"x\.jpg: cannot be written or read \(No space left on device\).*resumes"):
            unpack(archive, tmp_path / "data")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot be written"):
        unpack(archive, tmp_path / "file" / "data")
