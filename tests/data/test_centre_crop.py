"""Where a centre crop starts, by literal numbers: one convention, torchvision's, in every place that cuts one."""

import numpy as np
import pytest

from benchmarks.baselines import ten_crops
from driverwatch.config.loading import parse
from driverwatch.config.model import AugmentSettings, InputSettings, ModelSettings
from driverwatch.data.augment import AugmentedInputs, Augmenter
from driverwatch.data.tta import central, centre_square, centre_view, cut_all, tta_set

STARTS = {0: 0, 1: 0, 2: 1, 3: 2, 4: 2, 5: 2, 6: 3, 7: 4, 8: 4, 9: 4, 10: 5, 11: 6, 15: 8, 32: 16, 43: 22}  # by margin
MARGINS = [(0, 0), (2, 4), (3, 1), (7, 5), (11, 15), (32, 43)]
SIZE = 40, 48


def numbered(height: int, width: int) -> np.ndarray:
    """An image whose red is its row and whose green is its column: uint8 (1, height, width, 3)."""
    rows, columns = np.indices((height, width))
    return np.stack([rows, columns, 0 * rows], axis=-1).astype(np.uint8)[None]


def start(crop: np.ndarray) -> tuple[int, int]:
    """The row and column of the packed image that a crop begins with."""
    return int(crop[0, 0, 0]), int(crop[0, 0, 1])


def test_half_margins_go_to_the_even_number() -> None:
    assert {margin: central(20 + margin, 20) for margin in STARTS} == STARTS


@pytest.mark.parametrize(("above", "beside"), MARGINS)
def test_every_place_cuts_the_same_centre(above: int, beside: int) -> None:
    expected = STARTS[above], STARTS[beside]
    (height, width), shape = SIZE, (SIZE[0] + above, SIZE[1] + beside)
    images = numbered(*shape)
    pack, size = f"{shape[0]}x{shape[1]}", f"{height}x{width}"
    field = InputSettings(pack=pack, size=size, crop="centre")
    found = {
        "centre": cut_all(images, "centre", SIZE)[0, 0],
        "five_crop": cut_all(images, "five_crop", SIZE)[0, 0],
        "ten_crop": cut_all(images, "ten_crop", SIZE)[0, 0],
        "ten_crop, flipped": cut_all(images, "ten_crop", SIZE)[5, 0, :, ::-1],
        "the guides' ten crops": ten_crops(images[0], SIZE)[0],
        "training, by the augmenter": Augmenter([], AugmentSettings(), field)(images[0], (0,))[0],
        "classify": centre_view(images[0], field).pixels,
    }
    assert {place: start(crop) for place, crop in found.items()} == dict.fromkeys(found, expected)
    middles = tta_set("shifts", shape, SIZE)[5:]
    assert [(view.top, view.left) for view in middles] == [
        (0, expected[1]), (expected[0], 0), (expected[0], beside), (above, expected[1]),
    ]  # fmt: skip


@pytest.mark.parametrize(("above", "beside"), MARGINS)
def test_training_without_draws_shows_the_same_centre(above: int, beside: int) -> None:
    shape = SIZE[0] + above, SIZE[1] + beside
    field = {"pack": f"{shape[0]}x{shape[1]}", "size": f"{SIZE[0]}x{SIZE[1]}", "crop": "centre"}
    settings = parse(ModelSettings, {"backbone": "tiny", "weights": "none", "input": field}, "x")
    shown, flipped = AugmentedInputs(numbered(*shape), settings, [], 0)(np.array([0]))
    assert start(shown[0]) == (STARTS[above], STARTS[beside])
    assert not flipped.any()


def test_the_closer_crop_of_several_scales_is_centred_alike() -> None:
    """Of an input of 8x12 the smaller crop is 7x10 (0.875 of 8 and of 12, rounded), in 14x21 px."""
    closer = tta_set("multi_scale", (14, 21), (8, 12))[2]
    assert closer == (4, 6, False, 7, 10)


def test_the_centre_square_of_an_image_starts_where_torchvision_cuts_it() -> None:
    """Of 40x61 px: 35 px (0.875 of 40); margins of 5 and 26 px start at 2 and 13."""
    box = centre_square(numbered(40, 61)[0], 35).boxes[0]
    assert box == pytest.approx((2 / 40, 13 / 61, 37 / 40, 48 / 61))
    box = centre_square(numbered(56, 59)[0], 49).boxes[0]  # margins of 7 and 10
    assert box == pytest.approx((4 / 56, 5 / 59, 53 / 56, 54 / 59))


@pytest.mark.parametrize(("above", "beside"), MARGINS)
def test_an_exported_model_cuts_the_same_centre(above: int, beside: int) -> None:
    keras = pytest.importorskip("keras")
    from driverwatch.inference.exported_model import _cropped

    (height, width), shape = SIZE, (SIZE[0] + above, SIZE[1] + beside)
    field = InputSettings(pack=f"{shape[0]}x{shape[1]}", size=f"{height}x{width}")
    frames = keras.Input((*shape, 3))
    shown = keras.Model(frames, _cropped(frames, field, 0, 1))(numbered(*shape).astype(np.float32))
    assert start(np.asarray(shown)[0]) == (STARTS[above], STARTS[beside])
