"""A mixed image's label has exactly the shares of the pixels that the network sees, wherever the random patch was cut."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driverwatch.config.model import AugmentSettings, InputSettings, ModelSettings
from driverwatch.config.training import TrainSettings
from driverwatch.data.augment import AugmentedInputs, epoch_mixing
from driverwatch.data.mix import SEAM
from driverwatch.data.pack import ImageBlock, Pack
from driverwatch.training.augment_workers import TrainingSource, WorkerPool

COUNT, CLASSES = 24, 3
LABELS = np.arange(COUNT) % CLASSES
DRIVERS = np.array([f"p{i // 4}" for i in range(COUNT)], object)
TARGETS = np.eye(CLASSES, dtype=np.float32)[LABELS]
SIDES = st.integers(6, 30)


def images_of(height: int, width: int, regions: int = 1) -> np.ndarray:
    """Every pixel is 255 in the channel of its image's class."""
    images = np.zeros((COUNT, regions * height, width, CLASSES), np.uint8)
    images[np.arange(COUNT), :, :, LABELS] = 255
    return images


def pack_of(images: np.ndarray, path: str = "nowhere") -> Pack:
    block = ImageBlock(path, 0, images.shape)
    return Pack(block, np.arange(COUNT).astype(str), LABELS, DRIVERS, (0.0,) * 3, (1.0,) * 3, "", "")


def model(packed: tuple[int, int], seen: tuple[int, int], regions: int = 1, **augment: Any) -> ModelSettings:
    named = {"regions": ["whole", "head", "wheel"][:regions]}
    field = InputSettings(pack="{}x{}".format(*packed), size="{}x{}".format(*seen), **named)
    return ModelSettings.model_construct(input=field, augment=AugmentSettings(**augment), train=TrainSettings())


REFLECTED = [{"Affine": {"rotate": [-30, 30], "translate_percent": 0.2, "p": 1.0, "border_mode": 4}}]


@pytest.mark.parametrize("preset", [[], REFLECTED], ids=["crops", "affine"])
@pytest.mark.parametrize("hflip", ["none", "keep_labels"])
@pytest.mark.parametrize("kind", ["cutmix", "mixup", "same_class_halves"])
@given(SIDES, SIDES, st.integers(0, 40), st.integers(0, 40), st.integers(0, 99), st.integers(0, 9))
@settings(max_examples=15)
def test_label_shares_are_pixel_shares(
    kind: str, hflip: str, preset: list, height: int, width: int, more: int, wider: int, seed: int, epoch: int
) -> None:
    """Of an image that shows nothing but its class, the network sees the label: to a rounding of mixup's pixels."""
    packed = height + more, width + wider
    wanted = model(packed, (height, width), mix=kind, mix_prob=1.0, hflip=hflip)
    wanted = wanted.model_copy(update={"train": TrainSettings(seed=seed)})
    images = images_of(*packed)
    mixing = epoch_mixing(wanted, pack_of(images), np.arange(COUNT), epoch)
    assert mixing is not None
    found, _ = AugmentedInputs(images, wanted, preset, epoch, mixing)(np.arange(COUNT))
    seen = found.mean(axis=(1, 2), dtype=np.float64) / 255
    exact = 1e-6 if kind != "mixup" else 0.5 / 255 + 1e-6
    assert np.abs(seen - mixing.targets(TARGETS)).max() <= exact


@pytest.mark.parametrize("kind", ["cutmix", "same_class_halves"])
def test_every_region_shows_the_shares(kind: str) -> None:
    wanted = model((20, 30), (14, 18), 3, mix=kind, mix_prob=1.0)
    images = images_of(20, 30, 3)
    mixing = epoch_mixing(wanted, pack_of(images), np.arange(COUNT), 0)
    assert mixing is not None
    found, _ = AugmentedInputs(images, wanted, [], 0, mixing)(np.arange(COUNT))
    for region in np.split(found, 3, axis=1):
        assert np.allclose(region.mean(axis=(1, 2)) / 255, mixing.targets(TARGETS), atol=1e-6)


def test_the_seam_of_a_same_class_halves_is_in_the_middle_of_what_is_seen() -> None:
    """Cut after it, a seam in the middle of a wide pack could lie at the edge of a narrow patch."""
    wanted = model((20, 60), (20, 24), mix="same_class_halves", mix_prob=1.0)
    images = np.broadcast_to(np.arange(COUNT, dtype=np.uint8)[:, None, None, None], (COUNT, 20, 60, 3))
    mixing = epoch_mixing(wanted, pack_of(images), np.arange(COUNT), 0)
    assert mixing is not None
    found, _ = AugmentedInputs(images, wanted, [], 0, mixing)(np.arange(COUNT))
    for row in range(COUNT):
        own = (found[row, 0, :, 0] == row).sum()
        assert SEAM[0] * 24 - 1e-9 <= own <= SEAM[1] * 24 + 1e-9
        assert (found[row, :, own:] == mixing.partners[row]).all()


def test_partners_are_cut_elsewhere_and_alike_in_every_epoch_s_repetition() -> None:
    """A partner has a draw of its own, a function of (seed, epoch, row): where an image is mixed, its own patch stays."""
    wanted = model((30, 30), (12, 12), mix="same_class_halves", mix_prob=1.0)
    images = np.random.default_rng(0).integers(0, 256, (COUNT, 30, 30, 3), np.uint8)
    mixing = epoch_mixing(wanted, pack_of(images), np.arange(COUNT), 3)
    assert mixing is not None
    made = [AugmentedInputs(images, wanted, [], 3, mixing)(np.arange(COUNT))[0] for _ in range(2)]
    assert np.array_equal(*made)
    alone, _ = AugmentedInputs(images, wanted, [], 3)(np.arange(COUNT))
    same = 0
    for row in range(COUNT):
        seam, partner = int(mixing.boxes[row][1]), int(mixing.partners[row])
        assert np.array_equal(made[0][row][:, :seam], alone[row][:, :seam])
        same += np.array_equal(made[0][row][:, seam:], alone[partner][:, seam:])
    assert same < COUNT / 2


@pytest.mark.slow
def test_processes_mix_as_threads_do(tmp_path: Any) -> None:
    images = np.random.default_rng(0).integers(0, 256, (COUNT, 30, 34, 3), np.uint8)
    (tmp_path / "images.raw").write_bytes(images.tobytes())
    pack = pack_of(images, str(tmp_path / "images.raw"))
    wanted = model((30, 34), (20, 24), mix="cutmix", mix_prob=0.7, hflip="keep_labels")
    shown = TrainingSource((pack,), wanted, [{"RandomBrightnessContrast": {"p": 0.5}}], np.arange(COUNT))
    worker_pool = WorkerPool(shown, shown.stamps(), 2)
    try:
        theirs = worker_pool.inputs(1)(np.arange(COUNT))
    finally:
        worker_pool.close()
    for mine, other in zip(shown.inputs(1)(np.arange(COUNT)), theirs, strict=True):
        assert np.array_equal(mine, other)
