"""Regions: cut where the data set's YAML says, packed as mosaics, changed and cut alike; a pack of whole frames as it was."""

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.places import ROOT

from driverwatch.config.dataset import DatasetSettings
from driverwatch.config.loading import load, parse
from driverwatch.config.model import AugmentSettings, InputSettings, ModelSettings
from driverwatch.config.types import key_of, pixels, regions_of
from driverwatch.data import pack, pack_writer
from driverwatch.data.augment import Augmenter, build, load_preset
from driverwatch.data.competition import ImageTable
from driverwatch.data.images import examine
from driverwatch.data.pack_writer import InvalidImagesError, Job
from driverwatch.data.regions import FRAME, Box, join, split
from driverwatch.data.tta import View, centre_view, cut, cut_all, unique
from driverwatch.errors import InputError
from driverwatch.inference.overlay import overlay, overlay_regions
from driverwatch.io.manifests import checksum_of, read_json

HEAD, LOW = Box(0, 0, 0.5, 0.5), Box(0.25, 0.5, 1, 1)
REGIONS = {"whole": FRAME, "head": HEAD, "low": LOW}
KEY = "12x16-whole+head+low"


def image(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def album(folder: Path, pictures: list[np.ndarray], labels: list[int] | None = None) -> ImageTable:
    """PNG images, one driver each, and their table."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for i, picture in enumerate(pictures):
        cv2.imwrite(str(folder / f"img{i}.png"), picture[..., ::-1])
        label = labels[i] if labels else i % 2
        rows.append({"image": f"img{i}.png", "driver": f"p{i}", "label": label, "path": f"img{i}.png"})
    return ImageTable(pd.DataFrame(rows), ("a", "b"))


def job(folder: Path, table: ImageTable, key: str = KEY, regions: pack.Boxes = REGIONS, **more: Any) -> Job:
    kind = more.pop("kind", "train")
    return Job(table, folder, folder / "pack" / kind, kind, key, "folds", regions=regions, **more)


def opened(one: Job) -> pack.Pack:
    return pack.read(one.folder, one.kind, "folds", one.size, one.regions)


@given(st.integers(0, 4), st.integers(1, 5), st.integers(1, 6))
def test_splitting_a_mosaic_is_undone_by_joining(count: int, regions: int, rows: int) -> None:
    mosaics = np.arange(count * regions * rows * 3).reshape(count, regions * rows, 3)
    tiles = split(mosaics, regions)
    assert tiles.shape == (count * regions, rows, 3)
    assert np.array_equal(join(tiles, regions), mosaics)
    for i in range(count):
        assert np.array_equal(np.concatenate(tiles[i * regions : (i + 1) * regions]), mosaics[i])


shares = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted)


@given(shares, shares, st.integers(1, 700), st.integers(1, 700))
def test_a_box_is_never_empty_and_never_outside(rows: list[float], columns: list[float], h: int, w: int) -> None:
    found = np.zeros((h, w), bool)
    found[Box(rows[0], columns[0], rows[1], columns[1]).slices(h, w)] = True
    assert found.any()
    assert found.sum() <= (h * (rows[1] - rows[0]) + 2) * (w * (columns[1] - columns[0]) + 2)
    assert np.array_equal(Box(*FRAME).slices(h, w), (slice(0, h), slice(0, w)))


def test_a_key_names_size_and_regions() -> None:
    assert key_of("12x16", ["whole"]) == "12x16"
    for regions in (["whole"], ["head"], ["whole", "head", "wheel"], ["head", "whole"]):
        assert regions_of(key_of("12x16", regions)) == regions
        assert pixels(key_of("12x16", regions)) == (12, 16)
        assert InputSettings(pack="12x16", size="12x16", regions=regions).key == key_of("12x16", regions)


TINY = {"backbone": "tiny", "weights": "none", "input": {"pack": "36x48", "size": "32x40"}}
DATASET = {"title": "Cars", "data": "d", "classes": {"a": "", "b": ""}, "regions": {"head": [0, 0.2, 0.5, 1]}}


@pytest.mark.parametrize(
    ("regions", "said"),
    [
        ([], "input.regions: list should have at least 1 item"),
        (["head", "head"], "input.regions: must name each region once"),
        (["the head"], r"input.regions.0: string should match pattern .*, got 'the head'"),
        ("head", "input.regions: input should be a valid list, got 'head'"),
    ],
)
def test_wrong_regions_of_a_model(regions: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse(ModelSettings, {**TINY, "input": {**TINY["input"], "regions": regions}}, "test")  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("regions", "said"),
    [
        ({"head": [0, 0, 1]}, "regions.head: list should have at least 4 items"),
        ({"head": [0.5, 0, 0.5, 1]}, r"regions.head: must be \[top, left, bottom, right\] as shares of the frame"),
        ({"head": [0, 0, 240, 320]}, r"regions.head: must be \[top, left, bottom, right\] as shares of the frame"),
        ({"whole": [0, 0, 1, 1]}, "regions: whole is the frame itself and always there"),
        ({"Head": [0, 0, 1, 1]}, "should match pattern"),
    ],
)
def test_wrong_regions_of_a_data_set(regions: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse(DatasetSettings, {**DATASET, "regions": regions}, "test")


def test_a_region_that_the_data_set_does_not_have() -> None:
    dataset = parse(DatasetSettings, DATASET, "test")
    assert dataset.boxes(["whole", "head"]) == {"whole": [0, 0, 1, 1], "head": [0, 0.2, 0.5, 1]}
    with pytest.raises(InputError, match=r"heads is no region of this data set \(Cars\).*did you mean head"):
        dataset.boxes(["whole", "heads"])


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "datasets").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_model_looks_at_regions_that_every_data_set_has(path: Path) -> None:
    dataset = load(DatasetSettings, path.parent, path.stem)
    for model in (ROOT / "configs" / "models").glob("*.yaml"):
        dataset.boxes(load(ModelSettings, model.parent, model.stem).input.regions)


def test_a_pack_of_regions_is_cut_and_resized_by_hand(tmp_path: Path) -> None:
    pictures = [image(i) for i in range(5)] + [image(5, 96, 128)]
    one = job(tmp_path, album(tmp_path, pictures))
    pack_writer.write(one)
    made = opened(one)
    assert made.pixels.shape == (6, 36, 16, 3)
    for name, packed in zip(made.names, made.pixels, strict=True):
        picture = pictures[int(name[3])]
        h, w = picture.shape[:2]
        parts = [picture, picture[: h // 2, : w // 2], picture[h // 4 :, w // 2 :]]
        by_hand = [cv2.resize(np.ascontiguousarray(p), (16, 12), interpolation=cv2.INTER_AREA) for p in parts]
        assert np.array_equal(packed, np.concatenate(by_hand))
    assert np.allclose(made.mean, made.pixels.reshape(-1, 3).mean(axis=0))
    manifest = read_json(one.manifest)
    assert manifest["regions"] == {name: list(box) for name, box in REGIONS.items()}
    pack_writer.write(one)
    assert read_json(one.manifest) == manifest  # up to date


def test_one_region_alone_is_that_region(tmp_path: Path) -> None:
    one = job(tmp_path, album(tmp_path, [image(0)]), "12x16-low", {"low": LOW})
    pack_writer.write(one)
    by_hand = cv2.resize(np.ascontiguousarray(image(0)[12:, 32:]), (16, 12), interpolation=cv2.INTER_AREA)
    assert np.array_equal(opened(one).pixels[0], by_hand)


def test_a_pack_of_whole_frames_is_what_it_was(tmp_path: Path) -> None:
    """Bytes, checksum and manifest, so that packs and runs from before there were regions count as they did."""
    table = album(tmp_path, [image(i) for i in range(4)])
    one = job(tmp_path, table, "12x16", {"whole": FRAME})
    pack_writer.write(one)
    made = opened(one)
    for i, packed in enumerate(made.pixels):
        assert np.array_equal(packed, cv2.resize(image(i), (16, 12), interpolation=cv2.INTER_AREA))
    rows = checksum_of(["12x16", [[f"img{i}.png", f"p{i}", str(i % 2)] for i in range(4)]])
    sources = b"".join(hashlib.sha256((tmp_path / f"img{i}.png").read_bytes()).hexdigest().encode() for i in range(4))
    assert made.checksum == hashlib.sha256(checksum_of([rows, []]).encode() + sources).hexdigest()
    assert "regions" not in read_json(one.manifest)
    with h5py.File(one.path) as file:
        assert set(file) == {"images", "names", "labels", "drivers", "looks", "left_out"}
        looks = [bytes(look) for look in file["looks"]]
    assert looks == [hashlib.sha256(packed.tobytes()).digest()[:16] for packed in made.pixels]


def test_moved_boxes_are_noticed(tmp_path: Path) -> None:
    table = album(tmp_path, [image(i) for i in range(3)])
    one = job(tmp_path, table)
    pack_writer.write(one)
    before = opened(one).checksum
    moved = job(tmp_path, table, regions={**REGIONS, "low": Box(0.3, 0.5, 1, 1)})
    for notices in (lambda: pack_writer.write(moved), lambda: opened(moved)):
        with pytest.raises(InputError, match=r"regions.low.0: 0.25 -> 0.3\); restore the boxes, .* FORCE=1"):
            notices()
    assert opened(one).checksum == before
    pack_writer.write(moved, force=True)
    assert opened(moved).checksum != before
    with pytest.raises(InputError, match="cut where the data set's YAML no longer has it"):
        opened(one)


def test_alike_in_a_dark_corner_is_no_copy_and_a_copy_is_one(tmp_path: Path) -> None:
    """Images are told apart by their frames; what a region shows of two of them may be the same black."""
    dark = [image(0), image(1)]
    for picture in dark:
        picture[:24, :32] = 0
    one = job(tmp_path, album(tmp_path, dark), "12x16-head", {"head": HEAD})
    pack_writer.write(one)
    assert len({image.tobytes() for image in opened(one).pixels}) == 1
    other = tmp_path / "copies"
    with pytest.raises(
        InvalidImagesError, match=r"img1\.png: the same image as img0.png, under another class and driver"
    ):
        pack_writer.write(job(other, album(other, [image(0), image(0)]), "12x16-head", {"head": HEAD}))


def test_a_test_image_among_the_training_images_is_found_by_its_frame(tmp_path: Path) -> None:
    a, b = tmp_path / "test", tmp_path / "train"
    tests = job(a, album(a, [image(7), image(8)]), "12x16-head", {"head": HEAD}, kind="test")
    pack_writer.write(tests)
    strange = image(8)
    strange[30:, 40:] = 9  # the same head, another image
    pack_writer.write(job(b, album(b, [image(1), strange]), "12x16-head", {"head": HEAD}, test_pack=tests.path))
    c = tmp_path / "leak"
    with pytest.raises(InvalidImagesError, match=r"img0\.png: the same image as the test image img1\.png"):
        pack_writer.write(job(c, album(c, [image(8), image(1)]), "12x16-head", {"head": HEAD}, test_pack=tests.path))


@pytest.mark.parametrize("column", ["images", "looks", "frames"])
def test_an_edited_pack_of_regions_is_found_out(tmp_path: Path, column: str) -> None:
    one = job(tmp_path, album(tmp_path, [image(i) for i in range(3)]))
    pack_writer.write(one)
    one.path.touch()
    assert opened(one).pixels.shape == (3, 36, 16, 3)
    with h5py.File(one.path, "r+") as file:
        file[column][1] = file[column][1] ^ 255
    with pytest.raises(InputError, match=r"(was|were) changed since"):
        opened(one)


def before_regions(
    preset: list, augment: AugmentSettings, field: InputSettings, image: np.ndarray, seed: tuple
) -> tuple[np.ndarray, bool]:
    """Augmentation as it was before there were regions."""
    generator, (h, w) = np.random.default_rng(seed), pixels(field.size)
    if preset:
        pipeline, drawn = build(preset), int(generator.integers(2**32))
        pipeline.set_random_state(np.random.default_rng(drawn), random.Random(drawn))
        image = pipeline(image=image)["image"]
    y, x = (image.shape[0] - h) // 2, (image.shape[1] - w) // 2
    if field.crop == "random":
        y, x = int(generator.integers(image.shape[0] - h + 1)), int(generator.integers(image.shape[1] - w + 1))
    flipped = augment.hflip != "none" and bool(generator.random() < 0.5)
    patch = image[y : y + h, x : x + w]
    return (patch[:, ::-1] if flipped else patch), flipped


@pytest.mark.parametrize("hflip", ["none", "swap_left_right"])
@pytest.mark.parametrize("crop", ["random", "centre"])
@pytest.mark.parametrize("preset", [None, "light"])
def test_regions_are_augmented_alike_and_one_alone_as_before(hflip: Any, crop: Any, preset: str | None) -> None:
    transforms = load_preset(ROOT / "configs" / "presets", preset)
    augment = AugmentSettings(preset=preset, hflip=hflip)
    field = InputSettings(pack="40x56", size="32x48", crop=crop)
    three = field.model_copy(update={"regions": ["whole", "head", "low"]})
    alone, together = Augmenter(transforms, augment, field), Augmenter(transforms, augment, three)
    tiles = np.stack([image(i, 40, 56) for i in range(3)])
    flags = set()
    for seed in ((0, 1, row) for row in range(12)):
        made, flipped = together(np.concatenate(list(tiles)), seed)
        assert made.shape == (96, 48, 3)
        for tile, found in zip(tiles, split(made[None], 3), strict=True):
            expected, flag = before_regions(transforms, augment, field, tile, seed)
            single, flag_alone = alone(tile, seed)
            assert np.array_equal(single, expected)
            assert np.array_equal(found, expected)
            assert flipped == flag == flag_alone
        flags.add(flipped)
    assert flags == ({False, True} if hflip == "swap_left_right" else {False})


def test_views_cut_each_region_alike() -> None:
    tiles = np.stack([image(i, 20, 28) for i in range(6)])
    for view in unique(["ten_crop", "multi_scale"], (20, 28), (16, 24)):
        found = cut(join(tiles, 3), view, (16, 24), 3)
        assert found.shape == (2, 48, 24, 3)
        assert np.array_equal(split(found, 3), cut(tiles, view, (16, 24)))
    assert np.array_equal(
        cut_all(join(tiles, 3), "multi_scale", (16, 24), 3),
        np.stack([join(crops, 3) for crops in cut_all(tiles, "multi_scale", (16, 24))]),
    )
    memory = cut(tiles, View(1, 2, True, 16, 24), (16, 24))
    assert np.shares_memory(memory, tiles)  # one region costs no copy


def test_the_centre_view_of_regions_is_cut_from_what_packing_keeps(tmp_path: Path) -> None:
    album(tmp_path, [image(3)])
    field = InputSettings(pack="20x24", size="10x12", regions=["whole", "low"])
    packed = examine(tmp_path / "img0.png", (20, 24), (FRAME, LOW)).pixels
    assert packed is not None
    seen = centre_view(image(3), field, (FRAME, LOW))
    assert np.array_equal(seen.pixels, np.concatenate([packed[5:15, 6:18], packed[25:35, 6:18]]))
    assert seen.boxes == (Box(0.25, 0.25, 0.75, 0.75), Box(0.4375, 0.625, 0.8125, 0.875))


def test_an_overlay_of_regions_lies_where_they_lie() -> None:
    picture = image(1)
    boxes = (HEAD, LOW)
    maps = np.zeros((2, 4, 4), np.float32)
    maps[1, 3, 3] = 5.0
    made = overlay_regions(picture, maps, boxes)
    seen = np.zeros((48, 64), bool)
    for box in boxes:
        seen[box.slices(48, 64)] = True
    assert np.array_equal(made[~seen], picture[~seen])
    assert (made[seen] != picture[seen]).any(axis=1).mean() > 0.9
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None].astype(int)
    warmth = np.where(seen, (made - 0.5 * grey)[..., 0], -np.inf)
    y, x = np.unravel_index(warmth.argmax(), warmth.shape)
    assert y >= 39
    assert x >= 56
    assert np.array_equal(overlay_regions(picture, maps[1:], (LOW,)), overlay(picture, maps[1], LOW))


def test_a_map_counts_per_area_of_the_image() -> None:
    """The same contribution from a small region is more to each spot of it."""
    grey = np.full((40, 40, 3), 128, np.uint8)
    boxes = (Box(0, 0, 1, 0.5), Box(0, 0.5, 0.25, 0.75), Box(0.5, 0.5, 1, 1))

    def drawn(*levels: float) -> np.ndarray:
        maps = np.stack([np.full((2, 2), level, np.float32) for level in levels])
        return overlay_regions(grey, maps, boxes)

    left, top, bottom = (5, 5), (5, 25), (35, 35)
    even = drawn(8, 1, 10)  # 8 / 0.5 = 1 / 0.0625 = 16, and 10 / 0.25 = 40
    assert np.array_equal(even[left], even[top])
    assert not np.array_equal(even[left], even[bottom])
    uneven = drawn(1, 1, 10)
    assert not np.array_equal(uneven[left], uneven[top])


def test_a_manifest_of_regions_is_json(tmp_path: Path) -> None:
    one = job(tmp_path, album(tmp_path, [image(0)]))
    pack_writer.write(one)
    assert list(json.loads(one.manifest.read_text())["regions"]) == ["whole", "head", "low"]
