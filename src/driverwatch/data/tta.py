"""Test-time augmentation (TTA): views as data (place, scale, flip, what becomes of the columns), and cutting them.

In order, the views of each set:

- `centre`: the centre crop.
- `multi_scale`: the centre crop, the whole packed frame shrunk to the input (squashed where its shape is another), and a
  smaller centre crop enlarged to it (`CLOSER`).
- `five_crop`: centre, top left, top right, bottom left, bottom right.
- `shifts`: these five, then the middles of the top, left, right and bottom edge: a grid of 3 x 3 crops.
- `ten_crop`: the five, then their flips. Of flipped views the columns follow as labels did in training (`augment.hflip`);
  `ten_crop_keep` keeps them and `ten_crop_swap` swaps them, whatever training did.

Every set holds `centre`; which others a set holds is read off the views (`held_by`), so that one pass gives all of them.
"""

from collections.abc import Collection, Sequence
from functools import cache
from typing import Literal, NamedTuple

import numpy as np

from driverwatch.config.model import InputSettings
from driverwatch.config.types import TTA_SETS, TtaSet, pixels
from driverwatch.data import images as image_files
from driverwatch.data.regions import FRAME, Box, join, split
from driverwatch.errors import InputError

CENTRAL = 0.875  # 224 out of 256: the share of the shorter side in the published centre crops
CLOSER = CENTRAL  # the side of `multi_scale`'s smaller crop
EXAMPLE = (80, 120), (64, 96)  # an image and an input in which no two crops coincide


def central(length: int, part: int) -> int:
    """Where a centre crop of `part` px starts in `length` px: half of what is left over, a half rounded to the even number.

    As torchvision's `center_crop`, `int(round((image_height - crop_height) / 2.0))`: margins of 1, 3, 5, 7 px start at 0, 2, 2, 4.
    Keras' `CenterCrop` (`h_diff // 2`) cuts the same at even margins, and at 3, 7, 11 ... one px further up or left.
    The one place that decides it, for training, test-time views, exported models, `classify` and `serve`.
    """
    return round((length - part) / 2)


class View(NamedTuple):
    """One crop in px of each region, and whether it is flipped; where its size is not the network's it is resized to that."""

    top: int
    left: int
    flipped: bool
    height: int
    width: int

    @property
    def size(self) -> tuple[int, int]:
        return self.height, self.width


class Columns(NamedTuple):
    """What becomes of the columns of flipped views."""

    swap: Sequence[int] = ()  # the class that each becomes in a flip; each itself where no flipped pairs are named
    hflip: Literal["none", "keep_labels", "swap_left_right"] = "none"  # what became of labels in training

    @property
    def can_swap(self) -> bool:
        return any(after != before for before, after in enumerate(self.swap))

    def of(self, name: TtaSet) -> list[int] | None:
        """Column order for a set's flipped views, or None where columns stay.

        Raises:
            InputError: `ten_crop_swap` of a data set without flipped pairs.
        """
        if name == "ten_crop_swap" and not self.can_swap:
            raise InputError(
                "TTA=ten_crop_swap: the data set names no left_right_pairs whose columns could be swapped; "
                "take ten_crop_keep, or name them in its YAML"
            )
        follows = name == "ten_crop_swap" or (name == "ten_crop" and self.hflip == "swap_left_right")
        return list(self.swap) if follows else None

    def sets_of(self, asked: Sequence[TtaSet]) -> list[TtaSet]:
        """The sets that a pass under `asked` gives. Raises as `of` if one was asked for that cannot be had."""
        for name in asked:
            self.of(name)
        return [name for name in held_by(*asked) if name != "ten_crop_swap" or self.can_swap]


KEPT = Columns()


def tta_set(name: TtaSet, image: tuple[int, int], size: tuple[int, int]) -> list[View]:
    """The views of a set, cut from images of `image` (height, width) for inputs of `size` (height, width)."""
    bottom, right = image[0] - size[0], image[1] - size[1]
    if bottom < 0 or right < 0:
        raise ValueError(f"views of {size} do not fit into images of {image}")

    def crops(*corners: tuple[int, int], flipped: bool = False) -> list[View]:
        return [View(top, left, flipped, *size) for top, left in corners]

    middle = central(image[0], size[0]), central(image[1], size[1])
    centre = crops(middle)
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right)]
    match name:
        case "centre":
            return centre
        case "multi_scale":  # where the pack is the input, the whole frame is the centre crop and counts once
            return list(dict.fromkeys([*centre, View(0, 0, False, *image), _closer(image, size)]))
        case "five_crop":
            return centre + crops(*corners)
        case "shifts":
            return centre + crops(*corners, (0, middle[1]), (middle[0], 0), (middle[0], right), (bottom, middle[1]))
        case _:
            return [*centre, *crops(*corners), *crops(middle, *corners, flipped=True)]


def _closer(image: tuple[int, int], size: tuple[int, int]) -> View:
    height, width = (max(1, round(CLOSER * side)) for side in size)
    return View(central(image[0], height), central(image[1], width), False, height, width)


@cache
def held_by(*names: TtaSet) -> tuple[TtaSet, ...]:
    """The sets, smallest first, that are made of views which the named sets hold together; they themselves among them."""
    held = {view for name in names for view in tta_set(name, *EXAMPLE)}
    return tuple(name for name in TTA_SETS if held.issuperset(tta_set(name, *EXAMPLE)))


def best_of(there: Collection[TtaSet], honest: TtaSet) -> TtaSet:
    """Of the sets that are there, `honest`, or else the one that averages most views; `honest` where none is there.

    Args:
        honest: the set that is taken of a model whose every set is there. A flipped set is the last choice of a model for
            which this one is not flipped.
    """
    if honest in there or not there:
        return honest
    sets = [name for name in TTA_SETS if name in there]
    return ([name for name in sets if flips(honest) or not flips(name)] or sets)[-1]


def flips(name: TtaSet) -> bool:
    """Whether a set holds flipped views."""
    return any(view.flipped for view in tta_set(name, *EXAMPLE))


def unique(names: Sequence[TtaSet], image: tuple[int, int], size: tuple[int, int]) -> list[View]:
    """The views of several sets, each once: the forward passes that an image costs. Of a whole frame all crops are one view."""
    return list(dict.fromkeys(view for name in names for view in tta_set(name, image, size)))


def cut(images: np.ndarray, view: View, size: tuple[int, int], regions: int = 1) -> np.ndarray:
    """uint8 (B, R * H, W, 3) -> (B, R * h, w, 3), each region of `size` (height, width).

    Of one region a view of the same memory, unless it is resized.
    """
    crop = split(images, regions)[:, view.top : view.top + view.height, view.left : view.left + view.width]
    crop = crop if view.size == size else resized(crop, size)
    return join(crop[:, :, ::-1] if view.flipped else crop, regions)


def resized(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 (B, H, W, C) -> (B, h, w, C) of `size` (height, width), on the host as `inference.predict` does it on the device."""
    count, height, width, channels = images.shape
    lines = resampling(height, size[0]) @ images.reshape(count, height, width * channels)
    made = resampling(width, size[1]) @ lines.reshape(count, size[0], width, channels)
    return np.rint(made).astype(images.dtype)


def cut_all(images: np.ndarray, name: TtaSet, size: tuple[int, int], regions: int = 1) -> np.ndarray:
    """uint8 (B, R * H, W, 3) -> (V, B, R * h, w, 3), in the order above."""
    one = images.shape[1] // regions, images.shape[2]
    return np.stack([cut(images, view, size, regions) for view in tta_set(name, one, size)])


def resampling(length: int, to: int) -> np.ndarray:
    """Weights float32 (to, length), rows sum to 1, by which the pixels of an axis are averaged into fewer or more.

    Bilinear, pixel centres at halves, the triangle widened by the factor that shrinks: what Pillow's BILINEAR and the
    `antialias` of TensorFlow, JAX and PyTorch do. As matrices they give the same on the host and on every device;
    TensorFlow's own operation has no kernel for GPUs and none for XLA.
    """
    scale = length / to
    centres = (np.arange(to) + 0.5) * scale - 0.5
    distances = np.abs(np.arange(length) - centres[:, None]) / max(scale, 1)
    weights = np.maximum(1 - distances, 0)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


class Preprocessed(NamedTuple):
    """What a network is shown: uint8 (R * h, w, 3), and where in the upright image each region of it lies."""

    pixels: np.ndarray
    boxes: tuple[Box, ...]


def centre_square(image: np.ndarray, side: int) -> Preprocessed:
    """The published protocol of ImageNet networks (Krizhevsky et al. 2012): shorter side to `side` / 0.875, then the centre.

    Published accuracies are those of this crop, in which shapes keep their aspect; what lies outside is not seen. The square
    is cut first and resized alone, which gives the same picture for less work.

    Args:
        image: uint8 RGB (H, W, 3).
        side: px, the network's native side.
    """
    height, width = image.shape[:2]
    square = max(1, round(min(height, width) * CENTRAL))
    top, left = central(height, square), central(width, square)
    box = Box(top / height, left / width, (top + square) / height, (left + square) / width)
    return Preprocessed(
        image_files.resized(np.ascontiguousarray(image[top : top + square, left : left + square]), (side, side)), (box,)
    )


def centre_view(image: np.ndarray, field: InputSettings, boxes: tuple[Box, ...] = (FRAME,)) -> Preprocessed:
    """What a run's centre view shows: each box resized to `field.pack`, as packing does, `field.size` cut from it."""
    pack, size = pixels(field.pack), pixels(field.size)
    view = tta_set("centre", pack, size)[0]
    bottom, right = view.top + view.height, view.left + view.width
    part = Box(view.top / pack[0], view.left / pack[1], bottom / pack[0], right / pack[1])
    shown = cut(image_files.cut_out(image, boxes, pack)[None], view, size, len(boxes))[0]
    return Preprocessed(shown, tuple(box.within(part) for box in boxes))
