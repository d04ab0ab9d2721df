"""Packs: every pixel where it belongs, contiguous, checked."""

import json
import os
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
from support.places import SHARED, needs_images

from driverwatch.config.dataset import DatasetSettings
from driverwatch.data import competition, pack, pack_writer
from driverwatch.data.competition import ImageTable
from driverwatch.data.images import examine
from driverwatch.data.pack_writer import InvalidImagesError, Job
from driverwatch.errors import InputError

SIZE = "24x32"


@pytest.fixture
def table(data: Path, demo_settings: DatasetSettings) -> ImageTable:
    return competition.read_train(demo_settings, data).table


def packed(table: ImageTable, data: Path, folder: Path, force: bool = False, **job: Any) -> pack.Pack:
    pack_writer.write(Job(table, data, folder, "train", SIZE, "folds", **job), force)
    return pack.read(folder, "train", "folds", SIZE)


def test_a_pack_holds_what_the_images_show(table: ImageTable, data: Path, tmp_path: Path) -> None:
    made = packed(table, data, tmp_path / "pack")
    images = made.images.open()
    assert list(made.names) == table.names
    assert list(made.labels) == list(table.frame["label"])
    assert list(made.drivers) == list(table.frame["driver"])
    for row in (0, 57, 119):
        image = cv2.cvtColor(cv2.imread(str(data / table.frame["path"][row])), cv2.COLOR_BGR2RGB)
        assert np.array_equal(images[row], cv2.resize(image, (32, 24), interpolation=cv2.INTER_AREA))
    assert np.allclose(made.mean, images.reshape(-1, 3).mean(axis=0))
    assert np.allclose(made.std, images.reshape(-1, 3).std(axis=0))


def test_readers_map_it_and_pass_only_where_it_lies(table: ImageTable, data: Path, tmp_path: Path) -> None:
    made = packed(table, data, tmp_path / "pack")
    message = pickle.dumps(made.images)
    assert len(message) < 500
    mapped = pickle.loads(message).open()
    assert isinstance(mapped, np.memmap)
    with h5py.File(made.images.path) as file:
        assert file["images"].chunks is None
        assert np.array_equal(mapped, file["images"][...])


def test_packing_is_parallel_but_ordered(
    table: ImageTable, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = packed(table, data, tmp_path / "a")
    monkeypatch.setattr(pack_writer, "TOGETHER", 7)
    pieces = packed(table, data, tmp_path / "b")
    assert whole.checksum == pieces.checksum
    assert np.array_equal(whole.images.open(), pieces.images.open())


def test_no_test_images(demo_settings: DatasetSettings, tmp_path: Path, table: ImageTable) -> None:
    none = ImageTable(table.frame.iloc[:0], table.classes)
    pack_writer.write(Job(none, tmp_path, tmp_path / "pack", "test", SIZE, "folds"))
    assert pack.read(tmp_path / "pack", "test", "folds", SIZE).images.open().shape == (0, 24, 32, 3)


def test_invalid_images_are_all_listed(table: ImageTable, data: Path, tmp_path: Path) -> None:
    paths = [data / path for path in table.frame["path"]]
    whole = paths[5].read_bytes()
    paths[3].write_bytes(b"")
    paths[5].write_bytes(whole[: len(whole) // 2])
    paths[9].write_bytes(b"<html>not found</html>")
    with pytest.raises(InvalidImagesError) as error:
        packed(table, data, tmp_path / "pack")
    assert [problem.split(": ")[1].split(" (")[0] for problem in error.value.problems] == [
        "empty file", "damaged or cut short", "is neither JPEG nor PNG but an HTML or XML page"
    ]  # fmt: skip
    assert not list((tmp_path / "pack").glob("*.h5*"))


def test_exif_turns_and_grey_becomes_rgb(tmp_path: Path) -> None:
    grey = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (48, 1))
    cv2.imwrite(str(tmp_path / "grey.jpg"), grey)
    decoded = examine(tmp_path / "grey.jpg", (48, 64))
    assert decoded.pixels is not None
    assert decoded.pixels.shape == (48, 64, 3)
    content = (tmp_path / "grey.jpg").read_bytes()
    turned = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # orientation 6: turn right
    header = b"\xff\xe1" + (len(turned) + 2).to_bytes(2, "big") + turned
    (tmp_path / "turned.jpg").write_bytes(content[:2] + header + content[2:])
    upright = examine(tmp_path / "turned.jpg", (64, 48))
    assert upright.pixels is not None
    assert np.array_equal(upright.pixels, np.rot90(decoded.pixels, -1))


@needs_images
def test_real_images_decode_to_the_pixels_of_opencv() -> None:
    for path in sorted((SHARED / "statefarm").rglob("*.jpg"))[::20]:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
        found = examine(path, image.shape[:2])
        assert np.array_equal(found.pixels, image)
        assert found.traits == ()


def test_the_same_again_changes_nothing(table: ImageTable, data: Path, tmp_path: Path) -> None:
    first = packed(table, data, tmp_path / "pack")
    time = Path(first.images.path).stat().st_mtime_ns
    packed(table, data, tmp_path / "pack")
    pack_writer.write(Job(table, data, tmp_path / "pack", "train", SIZE, "other folds"))  # new folds keep the pixels
    assert Path(first.images.path).stat().st_mtime_ns == time
    with pytest.raises(InputError, match="packed under other folds"):
        pack.read(tmp_path / "pack", "train", "folds", SIZE)


def test_copied_images_are_the_same_images(table: ImageTable, data: Path, tmp_path: Path) -> None:
    first = packed(table, data, tmp_path / "pack")
    for path in table.frame["path"]:
        os.utime(data / path, (1, 1))  # unpacked again: other times, the same bytes
    assert packed(table, data, tmp_path / "pack").checksum == first.checksum


def test_bytes_after_the_end_of_a_jpeg_do_no_harm(table: ImageTable, data: Path, tmp_path: Path) -> None:
    path = data / table.frame["path"][0]
    path.write_bytes(path.read_bytes() + b"x" * 5000)
    assert len(packed(table, data, tmp_path / "pack").names) == 120


def test_other_images_are_refused_until_forced(table: ImageTable, data: Path, tmp_path: Path) -> None:
    first = packed(table, data, tmp_path / "pack")
    path = data / table.frame["path"][0]
    cv2.imwrite(str(path), np.zeros((48, 64, 3), np.uint8))
    with pytest.raises(InputError, match="packed from other files"):
        packed(table, data, tmp_path / "pack")
    assert packed(table, data, tmp_path / "pack", force=True).checksum != first.checksum


def test_damaged_packs_are_refused_and_packed_again(table: ImageTable, data: Path, tmp_path: Path) -> None:
    made = packed(table, data, tmp_path / "pack")
    path = Path(made.images.path)
    content = path.read_bytes()

    def refused(said: str) -> None:
        with pytest.raises(InputError, match=said):
            pack.read(tmp_path / "pack", "train", "folds", SIZE)
        assert packed(table, data, tmp_path / "pack").checksum == made.checksum

    path.write_bytes(content[:5000])
    refused("cut short|not a whole pack")
    path.write_bytes(b"no HDF5")
    refused("not a whole pack")
    manifest = path.with_suffix(".json")
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "checksum": "0" * 64}))
    refused("is not the pack that train.json describes")
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=np.zeros((4, 24, 32, 3), np.uint8), chunks=True)
    refused("expected contiguous uint8 images")
    with h5py.File(path, "r+") as file:
        file["images"][7, 3, 4, 0] ^= 1
    refused(r"image img_\d+\.jpg was changed since it was packed")
    for column in ("names", "drivers", "labels"):
        with h5py.File(path, "r+") as file:
            file[column][...] = file[column][...][::-1]
        refused("names, drivers, labels or means were changed")
    path.unlink()
    refused("no pack; run make pack")


def test_a_copied_pack_is_the_same_pack(table: ImageTable, data: Path, tmp_path: Path) -> None:
    made = packed(table, data, tmp_path / "pack")
    os.utime(made.images.path, (1, 1))
    assert pack.read(tmp_path / "pack", "train", "folds", SIZE).checksum == made.checksum


def test_space_is_asked_before_anything_is_written(
    table: ImageTable, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("driverwatch.io.manifests.shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(InputError, match="GB are free"):
        packed(table, data, tmp_path / "pack")


@pytest.mark.parametrize(
    "image",
    [
        np.full((1500, 2000, 3), 255, np.uint8),
        np.full((1, 1, 3), 7, np.uint8),
        np.random.default_rng(0).integers(250, 256, (3000, 4000, 3), np.uint8),
        np.random.default_rng(0).integers(0, 256, (301, 203, 3), np.uint8),
    ],
)
def test_channel_sums_are_exact(image: np.ndarray) -> None:
    wide = image.astype(np.int64)
    assert np.array_equal(pack_writer.sums(image), np.stack([wide.sum((0, 1)), (wide**2).sum((0, 1))]))
