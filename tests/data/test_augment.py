"""Augmentation and tta: pure functions of image and seed, pinned order, left and right never silently."""

from pathlib import Path
from textwrap import indent

import cv2
import numpy as np
import pytest
import yaml
from support.places import ROOT

from driverwatch.config.loading import load, parse
from driverwatch.config.model import AugmentSettings, InputSettings, ModelSettings
from driverwatch.data.augment import Augmenter, build, load_preset
from driverwatch.data.tta import View, cut_all, tta_set
from driverwatch.errors import InputError

FIELD = InputSettings(pack="40x56", size="36x48")
IMAGE = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
PRESETS = sorted(p.stem for p in (ROOT / "configs" / "presets").glob("*.yaml"))


def test_transforms_are_drawn_independently() -> None:
    """Two transforms of one kind, each with p = 0.5, act on their own, and their strengths have nothing to do with one another."""
    darker = {"RandomBrightnessContrast": {"brightness_limit": [-0.4, -0.4], "contrast_limit": 0.0, "p": 0.5}}
    field, grey = InputSettings(pack="16x16", size="16x16", crop="centre"), np.full((16, 16, 3), 200, np.uint8)
    twice = Augmenter([darker, darker], AugmentSettings(), field)
    levels = [int(twice(grey, (0, 0, row))[0].mean()) for row in range(400)]
    once = sum(level not in (min(levels), max(levels)) for level in levels)
    assert len(set(levels)) == 3
    assert 150 < once < 250  # half of the images get exactly one of the two; alike, none would
    spread = {"RandomBrightnessContrast": {"brightness_limit": [-0.2, 0.2], "contrast_limit": 0.0, "p": 1.0}}
    first = Augmenter([spread], AugmentSettings(), field)
    both = Augmenter([spread, spread], AugmentSettings(), field)
    alone = np.array([first(grey, (0, 0, row))[0].mean() for row in range(400)])
    added = np.array([both(grey, (0, 0, row))[0].mean() for row in range(400)]) - alone
    unclipped = alone + added < 255
    assert abs(np.corrcoef(alone[unclipped], added[unclipped])[0, 1]) < 0.2


@pytest.mark.parametrize("name", PRESETS)
def test_an_augmented_image_is_a_function_of_image_and_seed(name: str) -> None:
    preset = load_preset(ROOT / "configs" / "presets", name)
    settings = AugmentSettings(preset=name, hflip="swap_left_right")
    one, other = Augmenter(preset, settings, FIELD), Augmenter(preset, settings, FIELD)
    before = IMAGE.copy()
    seeds = [(0, 1, row) for row in range(20)]
    forth = [one(IMAGE, seed) for seed in seeds]
    back = [other(IMAGE, seed) for seed in reversed(seeds)][::-1]
    assert all(np.array_equal(a, b) and m == n for (a, m), (b, n) in zip(forth, back, strict=True))
    assert len({image.tobytes() for image, _ in forth}) > 15
    assert forth[0][0].shape == (36, 48, 3)
    assert forth[0][0].dtype == np.uint8
    assert np.array_equal(IMAGE, before)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_changes_images_and_keeps_their_size(name: str) -> None:
    """By itself: no patch, no flip. An image is smooth here, so that blur has something to leave."""
    image = cv2.resize(np.random.default_rng(1).integers(30, 220, (9, 12, 3), np.uint8), (160, 120))
    field = InputSettings(pack="120x160", size="120x160")
    augment = Augmenter(load_preset(ROOT / "configs" / "presets", name), AugmentSettings(), field)
    made = [augment(image, (0, i))[0] for i in range(60)]
    assert all(one.shape == image.shape and one.dtype == np.uint8 for one in made)
    apart = np.array([np.abs(one.astype(int) - image).mean() for one in made])
    assert (apart > 0).mean() > 0.4
    assert 0.3 < apart.mean() < 80, "something is to be seen of it, and of the image"


def test_a_preset_in_the_settings_is_the_same_as_in_a_file(tmp_path: Path) -> None:
    text = (ROOT / "configs" / "presets" / "strong.yaml").read_text()
    (tmp_path / "m.yaml").write_text(
        "base: none\nbackbone: tiny\nweights: none\ninput: {pack: 40x40, size: 36x36}\n"
        f"augment:\n  preset:\n{indent(text, '    ')}"
    )
    inline = load(ModelSettings, tmp_path, "m").augment.preset
    assert isinstance(inline, list)
    assert load_preset(tmp_path, inline) == load_preset(ROOT / "configs" / "presets", "strong")
    assert load_preset(tmp_path, []) == []


def test_random_patch_reaches_every_offset_and_centre_stays() -> None:
    image = np.arange(5 * 6 * 3, dtype=np.uint8).reshape(5, 6, 3)
    field = InputSettings(pack="5x6", size="4x4")
    found = {Augmenter([], AugmentSettings(), field)(image, (0, i))[0][0, 0, 0] for i in range(200)}
    assert found == {image[y, x, 0] for y in range(2) for x in range(3)}
    centre = Augmenter([], AugmentSettings(), field.model_copy(update={"crop": "centre"}))(image, (0,))[0]
    assert np.array_equal(centre, image[0:4, 1:5])


def test_flipping_says_so() -> None:
    augment = Augmenter([], AugmentSettings(hflip="keep_labels"), InputSettings(pack="40x56", size="40x56"))
    made = [augment(IMAGE, (0, i)) for i in range(100)]
    assert 30 < sum(flipped for _, flipped in made) < 70
    assert all(np.array_equal(image, IMAGE[:, ::-1] if flipped else IMAGE) for image, flipped in made)


@pytest.mark.parametrize(
    ("preset", "said"),
    [
        ([{"HorizontalFlip": {}}], "flips without moving left/right labels"),
        ([{"Afine": {}}], "no albumentations transform; did you mean Affine"),
        ([{"Affine": {"rotat": 3}}], "Affine"),
        ([{"Affine": {"rotate": "far"}}], "Affine"),
        ({"Affine": {}}, "expected a list"),
        (["Affine"], "expected a list"),
        ([{"Affine": {}, "Blur": {}}], "expected a list of one transform each"),
        ([{"Affine": [3]}], "expected a list of one transform each"),
        ([{"Resize": {"height": 9, "width": 9}}], "must keep size and type"),
    ],
)
def test_wrong_presets_are_refused(tmp_path: Path, preset: object, said: str) -> None:
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(preset))
    with pytest.raises(InputError, match=f"p.yaml: .*{said}"):
        load_preset(tmp_path, "p")
    with pytest.raises(InputError, match=f"augment.preset: .*{said}"):
        inline = {"backbone": "tiny", "input": {"pack": "40x40", "size": "36x36"}, "augment": {"preset": preset}}
        load_preset(tmp_path, parse(ModelSettings, inline, "m.yaml").augment.preset)


def test_unknown_preset(tmp_path: Path) -> None:
    (tmp_path / "light.yaml").write_text("[]")
    with pytest.raises(InputError, match=r"does not exist; did you mean light\? \(expected one of light"):
        load_preset(tmp_path, "ligt")


def test_empty_preset_builds() -> None:
    assert load_preset(Path("nowhere"), None) == []
    assert len(build([]).transforms) == 0


def test_ten_crop_order_is_pinned() -> None:
    tta = tta_set("ten_crop", (5, 7), (3, 4))
    upright = [View(top, left, False, 3, 4) for top, left in ((1, 2), (0, 0), (0, 3), (2, 0), (2, 3))]
    assert tta == upright + [view._replace(flipped=True) for view in upright]
    assert tta_set("five_crop", (5, 7), (3, 4)) == upright
    assert tta_set("centre", (5, 7), (3, 4)) == upright[:1]


def test_ten_crop_pixels_on_an_arange_image() -> None:
    images = np.arange(2 * 5 * 7 * 3).reshape(2, 5, 7, 3)
    crops = cut_all(images, "ten_crop", (3, 4))
    assert crops.shape == (10, 2, 3, 4, 3)
    assert np.array_equal(crops[0], images[:, 1:4, 2:6])
    assert np.array_equal(crops[2], images[:, :3, 3:])
    assert np.array_equal(crops[3], images[:, 2:, :4])
    assert np.array_equal(crops[5:], crops[:5, :, :, ::-1])


def test_views_must_fit() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        tta_set("centre", (5, 7), (6, 4))
