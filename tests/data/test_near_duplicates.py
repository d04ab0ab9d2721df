"""Groups of look-alike images: exact whatever the chunks, whole clips together, drivers apart."""

import tracemalloc
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.places import SHARED, needs_images

from driverwatch.data import folds, near_duplicates, synthetic
from driverwatch.data.near_duplicates import DISTANCE, group, group_names, hashes, image_hash, summary

OPTIONS = synthetic.SyntheticOptions(drivers=3, test_drivers=1, clips=2, frames=3, seed=5)


def apart(first: np.ndarray, second: np.ndarray) -> int:
    return int(np.bitwise_count(first ^ second).sum())


def brute_force(codes: np.ndarray, distance: int) -> list[int]:
    """Spread the lowest image's number over whatever a pipeline of near pairs reaches; then number by appearance."""
    found = list(range(len(codes)))
    near = [pair for pair in combinations(range(len(codes)), 2) if apart(*codes[list(pair)]) <= distance]
    for _ in codes:
        for a, b in near:
            found[a] = found[b] = min(found[a], found[b])
    return [sorted(set(found)).index(lowest) for lowest in found]


@settings(deadline=None)
@given(
    st.integers(0, 24), st.sampled_from([1, 2, 8]), st.integers(0, 12), st.integers(1, 26), st.integers(0, 2**32 - 1)
)
def test_groups_are_those_of_brute_force(count: int, words: int, distance: int, chunk: int, seed: int) -> None:
    """Whatever the chunk: one image, a part, more than there are. Few bits are set, so that there are pipelines."""
    random = np.random.default_rng(seed)
    codes = np.packbits(random.random((count, 64 * words)) < 0.06 / words, axis=1).view(np.uint64)
    assert group(codes, distance, chunk).tolist() == brute_force(codes, distance)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_the_order_of_images_does_not_matter(seed: int) -> None:
    random = np.random.default_rng(seed)
    codes = np.packbits(random.random((40, 64)) < 0.06, axis=1).view(np.uint64)
    order = random.permutation(40)
    found, mixed = group(codes, 4), group(codes[order], 4)
    assert ((mixed[:, None] == mixed) == (found[order][:, None] == found[order])).all()


def test_the_distance_itself_is_near() -> None:
    codes = np.array([[0, 0], [2**63 + 1, 1], [7, 2**40 + 2**50 + 1]], np.uint64)  # 3, 5 and 6 bits apart
    assert group(codes, 2).tolist() == [0, 1, 2]
    assert group(codes, 3).tolist() == [0, 0, 1]
    assert group(codes, 5).tolist() == [0, 0, 0]  # a pipeline


def test_memory_is_bounded_by_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where all pairs are near: 9 million pairs as a list would be 72 MB."""
    monkeypatch.setattr(near_duplicates.os, "cpu_count", lambda: 1)
    tracemalloc.start()
    found = group(np.zeros((3000, 8), np.uint64), 0, chunk=100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not found.any()
    assert peak < 4_000_000


@pytest.mark.parametrize("size", ["48x64", "120x160"])
def test_clips_stay_together_and_drivers_apart(size: str) -> None:
    options = synthetic.SyntheticOptions(**{**vars(OPTIONS), "size": size})
    shots = [shot for shot in synthetic.plan(options) if not shot.test]
    found = group(np.stack([image_hash(synthetic.picture(shot, options)) for shot in shots]))
    clips = pd.factorize(pd.Series([(s.driver, s.label, s.clip) for s in shots]))[0]
    drivers = np.array([s.driver for s in shots])
    same = found[:, None] == found
    assert same[clips[:, None] == clips].mean() >= 0.98
    assert same[drivers[:, None] != drivers].mean() <= 0.01


def altered(picture: np.ndarray) -> dict[str, np.ndarray]:
    encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 60])[1]
    return {
        "encoded": cv2.imdecode(encoded, cv2.IMREAD_COLOR),
        "brightened": np.clip(picture * 1.1 + 6, 0, 255).astype(np.uint8),
        "halved": cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
        "doubled": cv2.resize(picture, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR),
        "grey": cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB),
    }


@pytest.mark.parametrize("driver", range(4))
def test_an_altered_copy_stays_with_its_original(driver: int) -> None:
    pictures = [synthetic.picture(synthetic.Shot("", each, 0, 0, 0, False), OPTIONS) for each in (driver, driver + 1)]
    original, other = map(image_hash, pictures)
    assert (original.shape, original.dtype) == ((8,), np.uint64)
    assert apart(original, other) > DISTANCE
    for way, picture in altered(pictures[0]).items():
        assert apart(original, image_hash(picture)) <= DISTANCE, way


def test_the_hash_is_pinned() -> None:
    """Bits by hand: a ramp to the right is darker than each right neighbour, and as dark as each lower one."""
    ramp = np.repeat(np.arange(17, dtype=np.uint8)[None, :, None] * 15, 17, axis=0).repeat(3, axis=2)
    ones = 2**64 - 1
    assert image_hash(ramp).tolist() == [ones] * 4 + [0] * 4
    assert image_hash(ramp.transpose(1, 0, 2)).tolist() == [0] * 4 + [ones] * 4
    assert image_hash(ramp[:, ::-1]).tolist() == [0] * 8


def test_hashes_of_files(tmp_path: Path) -> None:
    """Odd files as the pack reads them; what cannot be read is said at once."""
    picture = synthetic.picture(synthetic.Shot("", 0, 0, 0, 0, False), OPTIONS)
    cv2.imwrite(str(tmp_path / "a.png"), picture[..., ::-1])
    cv2.imwrite(str(tmp_path / "b.png"), picture[..., ::-1].astype(np.uint16) * 257)
    cv2.imwrite(str(tmp_path / "c.png"), cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY))
    cv2.imwrite(str(tmp_path / "d.png"), np.zeros((16, 16), np.uint8))
    found, invalid = hashes(["a.png", "b.png", "c.png", "d.png"], tmp_path)
    assert not invalid  # d is flat, so its hash is 0, and whole
    assert (found.shape, found.dtype) == ((4, 8), np.uint64)
    assert (found[0] == image_hash(picture)).all()
    assert max(apart(found[0], found[1]), apart(found[0], found[2])) < 40
    (tmp_path / "e.jpg").write_bytes(b"")
    found, invalid = hashes(["a.png", "e.jpg", "f.jpg"], tmp_path)
    assert [bool(row.any()) for row in found] == [True, False, False]
    assert invalid == {1: "e.jpg: empty file", 2: "f.jpg: missing file"}


def test_names_sort_as_numbers_do() -> None:
    assert group_names(np.array([0, 2, 1, 0])) == ["g0001", "g0003", "g0002", "g0001"]
    many = group_names(np.arange(10_000))
    assert (many[0], many[-1]) == ("g00001", "g10000")
    assert many == sorted(many)
    assert group_names(group(np.empty((0, 8), np.uint64))) == []


def test_a_group_too_large_for_a_fold_is_said() -> None:
    assert summary(np.array([0, 0, 1, 2]), 2) == "4 images in 3 groups of look-alikes, the largest 50% of all"
    assert "lower group_distance" in summary(np.array([0, 0, 0, 1]), 2)


def nearest_neighbour(features: np.ndarray, labels: np.ndarray, fold: np.ndarray) -> float:
    """Share of images whose nearest neighbour in the other folds has their class."""
    right = np.empty(len(labels), bool)
    for number in range(fold.max() + 1):
        known, asked = features[fold != number], features[fold == number]
        distances = (known**2).sum(axis=1) - 2 * asked @ known.T
        right[fold == number] = labels[fold != number][distances.argmin(axis=1)] == labels[fold == number]
    return float(right.mean())


def in_folds(numbers: np.ndarray, labels: np.ndarray) -> np.ndarray:
    counts = np.zeros((numbers.max() + 1, labels.max() + 1), np.int64)
    np.add.at(counts, (numbers, labels), 1)
    return np.array(folds.assign(counts, 5))[numbers]


@pytest.mark.slow
@needs_images
def test_real_images_leak_no_more_between_groups_than_between_drivers() -> None:
    """19 drivers, every fifth frame; what `DISTANCE` is chosen by."""
    table = pd.read_csv(SHARED / "statefarm" / "driver_imgs_list.csv")
    paths = [f"imgs/train/{label}/{image}" for label, image in zip(table["classname"], table["img"], strict=True)]
    labels, drivers = (pd.factorize(table[column], sort=True)[0] for column in ("classname", "subject"))
    files = [str(SHARED / "statefarm" / path) for path in paths]
    thumbnails = [
        cv2.resize(cv2.imread(file, cv2.IMREAD_REDUCED_COLOR_4), (32, 24), interpolation=cv2.INTER_AREA)
        for file in files
    ]
    features = np.stack(thumbnails).reshape(len(files), -1).astype(np.float32)
    found = group(hashes(paths, SHARED / "statefarm")[0])
    assert len(set(zip(found, drivers, strict=True))) == found.max() + 1, "a group of two drivers"
    assert np.bincount(found).max() < 0.1 * len(found)
    random = np.random.default_rng(0).permutation(len(found)) % 5
    assert nearest_neighbour(features, labels, random) > 0.95
    assert nearest_neighbour(features, labels, in_folds(drivers, labels)) < 0.45
    assert nearest_neighbour(features, labels, in_folds(found, labels)) < 0.45
