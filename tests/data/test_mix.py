"""Mixed training images: whom with, how much of whom, and that nobody held out takes part."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.mixing import CLASSES, COUNT, DRIVERS, IMAGES, LABELS, SIZE, TRAINING, mixed_image, model, pack

from driverwatch.config.model import AugmentSettings, ModelSettings
from driverwatch.data.augment import AugmentedInputs, augmentation_epochs, epoch_mixing
from driverwatch.data.mix import Mixing, blended, cut_box, draw_mixing, pasted, seam_box
from driverwatch.data.pack import ImageBlock, Pack
from driverwatch.data.regions import join, split

KINDS = ("mixup", "cutmix", "same_class_halves")
TARGETS = np.eye(CLASSES, dtype=np.float32)[LABELS]


def drawn(kind: str, rows: np.ndarray = TRAINING, seed: tuple[int, int] = (0, 0), **more: object) -> Mixing:
    made = draw_mixing(AugmentSettings(mix=kind, **more), SIZE, rows, LABELS, DRIVERS, seed)
    assert made is not None
    return made


def mixed(mixing: Mixing) -> np.ndarray:
    return np.flatnonzero(mixing.partners != np.arange(len(mixing.partners)))


def same(one: Mixing, other: Mixing) -> bool:
    names = ("partners", "shares", "boxes")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)


def test_nothing_is_mixed_unless_asked_for() -> None:
    assert draw_mixing(AugmentSettings(), SIZE, TRAINING, LABELS, DRIVERS, (0, 0)) is None


@pytest.mark.parametrize("kind", KINDS)
@given(st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=COUNT), st.integers(0, 2**32 - 1), st.integers(0, 99))
@settings(max_examples=40)
def test_partners_are_training_rows_alone(kind: str, chosen: list[int], seed: int, epoch: int) -> None:
    """Whatever rows a fold trains on: no other row is a partner, and none of the others is touched."""
    rows = np.array(chosen)
    mixing = drawn(kind, rows, (seed, epoch), mix_prob=1.0)
    others = np.setdiff1d(np.arange(COUNT), rows)
    assert set(mixing.partners[rows]) <= set(chosen)
    assert np.array_equal(mixing.partners[others], others)
    assert (mixing.shares[others] == 1).all()
    assert not mixing.boxes[others].any()
    assert (mixing.shares >= 0).all()
    assert (mixing.shares <= 1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_no_held_out_pixel_reaches_training(kind: str) -> None:
    """Other pixels, labels and drivers of validation rows change nothing that training is given."""
    validation = np.setdiff1d(np.arange(COUNT), TRAINING)
    mine = drawn(kind, mix_prob=1.0)
    images, labels, drivers = IMAGES.copy(), LABELS.copy(), DRIVERS.copy()
    images[validation], labels[validation], drivers[validation] = 7, (labels[validation] + 1) % CLASSES, "p999"
    theirs = draw_mixing(AugmentSettings(mix=kind, mix_prob=1.0), SIZE, TRAINING, labels, drivers, (0, 0))
    assert theirs is not None
    assert same(mine, theirs)
    for row in TRAINING:
        assert np.array_equal(mixed_image(mine, IMAGES, row), mixed_image(theirs, images, row))
    targets = np.eye(CLASSES, dtype=np.float32)[labels]
    assert np.array_equal(mine.targets(TARGETS)[TRAINING], theirs.targets(targets)[TRAINING])


@pytest.mark.parametrize("kind", KINDS)
def test_a_draw_is_a_function_of_seed_epoch_and_row(kind: str) -> None:
    shuffled = np.random.default_rng(1).permutation(np.concatenate([TRAINING, TRAINING[:9]]))
    assert same(drawn(kind), drawn(kind, shuffled))
    assert not same(drawn(kind), drawn(kind, seed=(1, 0)))
    assert not same(drawn(kind), drawn(kind, seed=(0, 1)))
    assert not same(drawn(kind, seed=(1, 0)), drawn(kind, seed=(0, 1)))


@pytest.mark.parametrize("kind", KINDS)
def test_workers_and_batches_change_nothing(kind: str) -> None:
    wanted, rows = model(mix=kind, hflip="keep_labels"), np.array([5, 2, 40, 33])
    inputs = AugmentedInputs(IMAGES, wanted, [], 3, epoch_mixing(wanted, pack(), TRAINING, 3))
    whole, flags = inputs(rows)
    again = AugmentedInputs(IMAGES, wanted, [], 3, epoch_mixing(wanted, pack(), TRAINING[::-1], 3))
    alone = [again(rows[i : i + 1]) for i in reversed(range(4))][::-1]
    assert np.array_equal(whole, np.concatenate([image for image, _ in alone]))
    assert np.array_equal(flags, np.concatenate([flag for _, flag in alone]))


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_the_share_of_mixed_images_is_the_settings(share: float) -> None:
    rows = np.arange(4000)
    labels, drivers = rows % 10, np.array([f"p{i % 26}" for i in rows])
    for kind in KINDS:
        settings = AugmentSettings(mix=kind, mix_prob=share)
        mixing = draw_mixing(settings, SIZE, rows, labels, drivers, (0, 0))
        assert mixing is not None
        assert abs(len(mixed(mixing)) / 4000 - share) < 0.03
        partners = mixing.partners[mixed(mixing)]
        assert len(np.unique(partners)) > 0.9 * len(partners) * (1 - share / 2)  # spread over all, none preferred


@pytest.mark.parametrize("kind", KINDS)
def test_labels_are_shares_that_sum_to_one(kind: str) -> None:
    made = drawn(kind, mix_prob=1.0).targets(TARGETS)
    assert made.dtype == np.float32
    assert np.allclose(made.sum(axis=1), 1, atol=1e-6)
    assert (made >= 0).all()


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_labels_have_the_shares_of_the_pixels(kind: str) -> None:
    """A pack whose images are 255 in the channel of their class shows its label shares in its mean."""
    images = np.zeros((COUNT, *SIZE, CLASSES), np.uint8)
    images[np.arange(COUNT), :, :, LABELS] = 255
    mixing = drawn(kind, mix_prob=1.0)
    seen = np.stack([mixed_image(mixing, images, row).mean(axis=(0, 1)) / 255 for row in range(COUNT)])
    assert len(mixed(mixing)) == len(TRAINING)
    assert np.allclose(seen, mixing.targets(TARGETS), atol=0.5 / 255 + 1e-6 if kind == "mixup" else 1e-6)


def test_mixup_keeps_the_larger_part() -> None:
    mixing = drawn("mixup", mix_prob=1.0, mix_alpha=1.0)
    assert (mixing.shares >= 0.5).all()
    assert 0.65 < mixing.shares[TRAINING].mean() < 0.85
    assert drawn("mixup", mix_prob=1.0, mix_alpha=0.05).shares[TRAINING].mean() > 0.9


def test_splices_join_two_drivers_of_one_class() -> None:
    mixing = drawn("same_class_halves", mix_prob=1.0)
    rows = mixed(mixing)
    assert len(rows) == len(TRAINING)
    assert np.array_equal(LABELS[mixing.partners[rows]], LABELS[rows])
    assert (DRIVERS[mixing.partners[rows]] != DRIVERS[rows]).all()
    assert np.array_equal(mixing.targets(TARGETS), TARGETS)
    for row in rows:
        made, seam = mixed_image(mixing, IMAGES, row), mixing.boxes[row][1]
        assert SIZE[1] / 3 <= seam <= 2 * SIZE[1] / 3
        assert np.array_equal(made[:, :seam], IMAGES[row][:, :seam])
        assert np.array_equal(made[:, seam:], IMAGES[mixing.partners[row]][:, seam:])


def test_a_class_of_one_driver_is_same_class_half_mixed_within_him_and_of_one_image_not_at_all() -> None:
    labels, drivers = np.array([0, 0, 0, 1, 2, 2]), np.array(["a", "a", "a", "b", "a", "b"])
    settings = AugmentSettings(mix="same_class_halves", mix_prob=1.0)
    mixing = draw_mixing(settings, SIZE, np.arange(6), labels, drivers, (0, 0))
    assert mixing is not None
    assert set(mixing.partners[:3]) <= {0, 1, 2}
    assert (mixing.partners[:3] != np.arange(3)).all()
    assert mixing.partners[3] == 3
    assert mixing.partners[4:].tolist() == [5, 4]


@pytest.mark.parametrize("kind", KINDS)
def test_one_training_row_stays_as_it_is(kind: str) -> None:
    mixing = drawn(kind, np.array([4]), mix_prob=1.0)
    assert not len(mixed(mixing))
    assert np.array_equal(mixed_image(mixing, IMAGES, 4), IMAGES[4])


@given(st.integers(1, 60), st.integers(1, 60), st.floats(0, 1), st.integers(0, 999))
def test_boxes_are_in_the_frame(height: int, width: int, share: float, seed: int) -> None:
    for box in (
        cut_box(np.random.default_rng(seed), (height, width), share),
        seam_box(np.random.default_rng(seed), (height, width)),
    ):
        assert 0 <= box[0] <= box[2] <= height
        assert 0 <= box[1] <= box[3] <= width


def test_boxes_have_their_area_where_no_edge_cuts_them() -> None:
    areas = []
    for seed in range(400):
        top, left, bottom, right = cut_box(np.random.default_rng(seed), (300, 400), 0.9)
        if top > 0 and left > 0 and bottom < 300 and right < 400:
            areas.append((bottom - top) * (right - left) / 120_000)
    assert len(areas) > 100
    assert np.allclose(areas, 0.1, atol=0.002)


def test_the_whole_box_and_none() -> None:
    one, other = IMAGES[:2]
    assert np.array_equal(pasted(one, other, (0, 0, *SIZE)), other)
    assert np.array_equal(pasted(one, other, (3, 4, 3, 9)), one)
    assert np.array_equal(blended(one, other, 1.0), one)
    assert np.array_equal(blended(one, other, 0.0), other)
    assert blended(np.uint8([[[3]]]), np.uint8([[[250]]]), 0.5)[0, 0, 0] in (126, 127)


def test_a_packs_images_are_never_written_to() -> None:
    images = IMAGES.copy()
    images.setflags(write=False)  # as a mapped pack's
    for kind in KINDS:
        mixing = drawn(kind, mix_prob=1.0)
        assert any(not np.array_equal(mixed_image(mixing, images, row), IMAGES[row]) for row in TRAINING)


@pytest.mark.parametrize("kind", KINDS)
def test_images_are_cut_before_they_are_mixed_and_flipped_as_one(kind: str) -> None:
    """Outside its box a mixed image is what its own augmentation makes of it alone; the flags of flipping are its own."""
    wanted = model(mix=kind, mix_prob=1.0, hflip="swap_left_right")
    preset = [{"Affine": {"rotate": [-20, 20], "p": 1.0}}]
    mixing = epoch_mixing(wanted, pack(), TRAINING, 2)
    assert mixing is not None
    alone, flags = AugmentedInputs(IMAGES, wanted, preset, 2)(TRAINING)
    found, flipped = AugmentedInputs(IMAGES, wanted, preset, 2, mixing)(TRAINING)
    assert np.array_equal(flipped, flags)
    assert flipped.any()
    for row, one, plain, flag in zip(TRAINING, found, alone, flags, strict=True):
        assert not np.array_equal(one, plain) or not mixing.boxes[row].any() or mixing.shares[row] > 0.99
        top, left, bottom, right = mixing.boxes[row]
        outside = np.ones(one.shape[:2], bool)
        outside[top:bottom, left:right] = False
        outside = outside[:, ::-1] if flag else outside
        assert np.array_equal(one[outside], plain[outside])


@pytest.mark.parametrize("kind", KINDS)
def test_regions_of_a_mosaic_are_mixed_alike(kind: str) -> None:
    """Each region is what mixing would make of a pack of that region alone, so that each shows the label's share."""
    regions = np.stack([IMAGES, IMAGES[..., ::-1], 255 - IMAGES])
    mosaics = np.concatenate(list(regions), axis=1)
    one = model(mix=kind, mix_prob=1.0)
    three = one.model_copy(update={"input": one.input.model_copy(update={"regions": ["whole", "head", "wheel"]})})
    held = Pack(**{**vars(pack()), "images": ImageBlock("nowhere", 0, mosaics.shape)})
    alone, together = epoch_mixing(one, pack(), TRAINING, 1), epoch_mixing(three, held, TRAINING, 1)
    assert alone is not None
    assert together is not None
    assert same(alone, together)
    inputs = AugmentedInputs(mosaics, three, [], 1, together)
    for row in TRAINING:
        tiles = split(mixed_image(together, mosaics, row)[None], 3)
        assert np.array_equal(tiles, np.stack([mixed_image(alone, region, row) for region in regions]))
    tiles = np.stack([AugmentedInputs(region, one, [], 1, alone)(TRAINING)[0] for region in regions], axis=1)
    made = join(tiles.reshape(-1, 10, 16, 3), 3)
    assert np.array_equal(inputs(TRAINING)[0], made)


def test_mixing_leaves_the_augmentation_of_others_alone() -> None:
    wanted = model(mix="mixup", hflip="keep_labels")
    mixing = epoch_mixing(wanted, pack(), TRAINING, 0)
    assert mixing is not None
    rest = np.setdiff1d(TRAINING, mixed(mixing))
    assert 0 < len(rest) < len(TRAINING)
    one, other = AugmentedInputs(IMAGES, wanted, [], 0, mixing)(rest), AugmentedInputs(IMAGES, wanted, [], 0)(rest)
    assert np.array_equal(one[0], other[0])


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        ({"epochs": 3}, [0, 1, 2]),
        ({"epochs": 2, "stages": [{"freeze_until": "head", "epochs": 1}, {}]}, [0, 1, 2]),
        ({"epochs": 5, "augmentation_passes": 2, "stages": [{"freeze_until": "head"}]}, [0, 1]),
        ({"epochs": 2, "augmentation_passes": 2, "stages": [{"freeze_until": "head", "epochs": 3}, {}]}, [0, 1, 3, 4]),
        ({"epochs": 2, "stages": [{"freeze_until": "head", "fit": "linear_probe"}, {}]}, [1, 2]),
        ({"stages": [{"freeze_until": "head", "fit": "linear_probe"}]}, []),
        ({"augmentation_passes": 3, "stages": [{"freeze_until": "head", "fit": "linear_probe"}]}, [0, 1, 2]),
    ],
)
def test_epochs_whose_augmentation_is_shown(train: dict, expected: list[int]) -> None:
    settings = ModelSettings.model_validate(
        {"backbone": "tiny", "input": {"pack": "40x40", "size": "36x36"}, "train": train}
    )
    assert augmentation_epochs(settings) == expected


@pytest.mark.keras
@pytest.mark.parametrize("hflip", ["none", "keep_labels", "swap_left_right"])
def test_batches_of_mixed_images(tmp_path: Path, hflip: str) -> None:
    """Label shares follow flipping, and an image weighs as the weighted mean of its classes."""
    from driverwatch.training.data_loader import TrainingBatches, class_weights

    swap = [1, 0, 3, 2]
    wanted = model(mix="mixup", mix_prob=1.0, hflip=hflip, mix_alpha=1.0)
    train = wanted.train.model_copy(update={"class_weights": "balanced", "batch_size": 11})
    wanted = wanted.model_copy(update={"train": train})
    mixing = epoch_mixing(wanted, replace(pack(), checksum="x"), TRAINING, 1)
    assert mixing is not None
    targets, inputs = mixing.targets(TARGETS), AugmentedInputs(IMAGES, wanted, [], 1, mixing)
    batches = TrainingBatches(inputs, TRAINING, targets, wanted, swap, 1)
    flags = inputs(batches.order)[1]
    _, labels, weights = (
        np.concatenate(parts) for parts in zip(*(batches[i] for i in range(len(batches))), strict=True)
    )
    own = targets[batches.order]
    expected = np.where((flags & (hflip == "swap_left_right"))[:, None], own[:, swap], own)
    assert flags.any() == (hflip != "none")
    assert np.array_equal(labels, expected)
    assert labels.dtype == np.float32
    assert np.allclose(labels.sum(axis=1), 1, atol=1e-6)
    assert np.allclose(weights, labels @ class_weights(targets[TRAINING], "balanced"))
