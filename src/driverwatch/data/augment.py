"""Augmentation: `(image, seed) -> image` by named presets, the one module that touches albumentations; and an epoch's images.

What training shows of a pack's images is a function of (seed, epoch, row), whatever the number of workers. Imports no Keras.

A preset is a YAML list, in `configs/presets/` or in a model's settings: one albumentations transform with its keywords each.
Flipping is not among them: left and right are classes here, so `augment.hflip` says how labels follow.
"""

import os
import random
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from driverwatch.config.model import AugmentSettings, InputSettings, ModelSettings, Transforms, read_preset
from driverwatch.config.types import pixels
from driverwatch.data.mix import Mixing, draw_mixing
from driverwatch.data.pack import Pack
from driverwatch.data.regions import join, split
from driverwatch.data.tta import central
from driverwatch.errors import InputError, nearest, words
from driverwatch.io.prefetch import one_opencv_thread

UPDATE = "NO_ALBUMENTATIONS_UPDATE"
GIVEN = os.environ.get(UPDATE)
os.environ[UPDATE] = "1"  # it calls home on import otherwise
TENSORS = "albumentations.pytorch"
sys.modules[TENSORS] = None  # type: ignore[assignment]  # unused; it imports PyTorch wherever that is installed: seconds
import albumentations as A  # noqa: E402

del sys.modules[TENSORS]
if GIVEN is None:
    del os.environ[UPDATE]
else:
    os.environ[UPDATE] = GIVEN

TRANSFORMS = {n: k for n, k in vars(A).items() if isinstance(k, type) and issubclass(k, A.BasicTransform)}
FOREIGN = {"Lambda", "TextImage", "OverlayElements"}  # they take code or files
FLIP_INSTEAD = "use augment.hflip: keep_labels or swap_left_right"
DRAWS = 2  # how a seed becomes a picture; another number where the same seed gives another
FLIPPING = {"HorizontalFlip", "VerticalFlip", "Flip", "Transpose", "D4", "RandomRotate90", "SquareSymmetry"}


def load_preset(folder: Path, preset: str | Transforms | None) -> Transforms:
    """Read a preset as plain data, so that it can be recorded and compared, and try it.

    Args:
        preset: a file's name in `folder`, the transforms themselves, or None, the empty preset.

    Raises:
        InputError: no such file, no such transform or keyword, or a transform that does not give an image of the same size.
    """
    where, made = read_preset(folder, preset)
    with warnings.catch_warnings():  # the library only warns about a wrong keyword
        warnings.simplefilter("error", UserWarning)
        build(made, where)
        _probe(made, where)
    return made


def _probe(preset: Transforms, where: str) -> None:
    """Try each transform on its own, for certain: it must take an image and give one of the same shape and type."""
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    for name, keywords in ((n, k) for transform in preset for n, k in transform.items()):
        try:
            made = build([{name: {**keywords, "p": 1.0}}], where)(image=image.copy())["image"]
        except InputError:
            raise
        except Exception as error:  # whatever a transform that asks for more than an image raises
            raise InputError(f"{where}: {name} does not take an image alone ({words(error)})") from error
        if isinstance(keywords.get("scale"), dict | list) and _has_negative(keywords["scale"]):
            raise InputError(
                f"{where}: {name} flips by a negative scale, without moving left/right labels; {FLIP_INSTEAD}"
            )
        if made.shape != image.shape or made.dtype != image.dtype:
            raise InputError(
                f"{where}: {name} makes {made.dtype} {made.shape} of uint8 {image.shape}; augmentation must keep size and type "
                "(input.size and input.crop cut, the network scales)"
            )


def _has_negative(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(_has_negative(part) for part in (value.values() if isinstance(value, dict) else value))
    return isinstance(value, int | float) and value < 0


def build(preset: Transforms, where: str = "preset") -> A.Compose:
    """Make an albumentations pipeline. Build one per thread: a pipeline carries its random state."""
    made = []
    for name, keywords in ((n, k) for transform in preset for n, k in transform.items()):
        if name not in TRANSFORMS:
            raise InputError(f"{where}: {name} is no albumentations transform{nearest(str(name), list(TRANSFORMS))}")
        if name in FLIPPING:
            raise InputError(f"{where}: {name} flips without moving left/right labels; {FLIP_INSTEAD}")
        if name in FOREIGN or not isinstance(keywords, dict):
            expected = "keywords that are numbers, names and lists, nothing that loads or runs"
            raise InputError(f"{where}: {name}: expected {expected}")
        try:
            made.append(TRANSFORMS[name](**keywords))
        except Exception as error:  # whatever a transform finds wrong with its keywords
            raise InputError(f"{where}: {name}: {' '.join(str(error).split())}") from error
    return A.Compose(made)


class Augmenter:
    """Cut, flip and change one training image; a pure function of image and seed. One per thread.

    The regions of a mosaic are changed alike, by the same draw each: they show one moment of one camera.
    """

    def __init__(self, preset: Transforms, augment: AugmentSettings, field: InputSettings):
        self.pipeline = build(preset) if preset else None
        self.hflip = augment.hflip
        self.crop = field.crop
        self.size, self.regions = pixels(field.size), len(field.regions)

    def __call__(self, image: np.ndarray, seed: tuple[int, ...]) -> tuple[np.ndarray, bool]:
        """Augment one image.

        Args:
            image: uint8 RGB (R * H, W, 3), each region at least the input size.
            seed: for example (run seed, epoch, row); the same seed gives the same result.

        Returns:
            uint8 (R * h, w, 3) and whether it was flipped.
        """
        patch, flipped = self.patch(image, seed)
        return turned(patch, flipped), flipped

    def patch(self, image: np.ndarray, seed: tuple[int, ...]) -> tuple[np.ndarray, bool]:
        """The same before it is flipped, and whether it is to be."""
        generator = np.random.default_rng(seed)
        tiles = [image] if self.regions == 1 else list(split(image[None], self.regions))
        if self.pipeline is not None:
            drawn = int(generator.integers(2**32))
            tiles = [_changed(self.pipeline, tile, drawn) for tile in tiles]
        y, x = self._corner(tiles[0].shape, generator)
        patches = [tile[y : y + self.size[0], x : x + self.size[1]] for tile in tiles]
        patch = patches[0] if self.regions == 1 else join(np.stack(patches), self.regions)[0]
        return patch, self.hflip != "none" and bool(generator.random() < 0.5)

    def _corner(self, shape: tuple[int, ...], generator: np.random.Generator) -> tuple[int, int]:
        """Of the random patch of the HDF5 guides (227 out of 256 there), or of the centre, in an image of a shape (H, W, 3)."""
        spare_y, spare_x = shape[0] - self.size[0], shape[1] - self.size[1]
        if self.crop == "random":
            return int(generator.integers(spare_y + 1)), int(generator.integers(spare_x + 1))
        return central(shape[0], self.size[0]), central(shape[1], self.size[1])


def turned(image: np.ndarray, flipped: bool) -> np.ndarray:
    """An image uint8 (H, W, 3), flipped if it is to be."""
    return cv2.flip(image, 1) if flipped else image


def _changed(pipeline: A.Compose, tile: np.ndarray, drawn: int) -> np.ndarray:
    """One region, by the draw that all of an image share.

    One pair of generators goes through all transforms. `set_random_seed` would start each transform's own at the same
    state, so that all of them decide and draw alike: gamma at 0.3 only where an affine at 0.8 acts, bright where turned right.
    """
    pipeline.set_random_state(np.random.default_rng(drawn), random.Random(drawn))
    return np.asarray(pipeline(image=tile)["image"])


PARTNER = 2  # keeps the draw by which a partner is cut apart from a row's own, and from `mix.STREAM`

Inputs = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Rows of a pack (B,) -> what the network takes (B, ...), and which of them are flipped, bool (B,). Called by many threads."""


class AugmentedInputs:
    """One epoch's augmentation: rows -> uint8 (B, R * h, w, 3); seeded by (run seed, epoch, first + row)."""

    def __init__(
        self,
        images: Any,
        settings: ModelSettings,
        preset: list[dict[str, dict[str, Any]]],
        epoch: int,
        mixing: Mixing | None = None,
        first: int = 0,
    ) -> None:
        """Augment `images`, uint8 (N, R * H, W, 3), the whole pack, mapped; `mixing` (the epoch's) mixes them once they are cut."""
        # a mapped file's own class does work of its own at every index; streamed images stay what they are
        self.images = np.asarray(images) if isinstance(images, np.ndarray) else images
        self.settings, self.preset, self.epoch = settings, preset, epoch
        self.first, self.mixing = first, mixing
        self._thread = threading.local()

    def __call__(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self.is_plain:
            return self._centres(indices), np.zeros(len(indices), bool)
        if not hasattr(self._thread, "augment"):  # one pipeline per thread: it carries random state
            self._thread.augment = Augmenter(self.preset, self.settings.augment, self.settings.input)
        with one_opencv_thread():
            made = [self._made(self._thread.augment, row) for row in map(int, indices)]
        return np.stack([image for image, _ in made]), np.array([flipped for _, flipped in made])

    @property
    def is_plain(self) -> bool:
        """Whether every image is shown as its centre view, which needs no draw."""
        field, augment = self.settings.input, self.settings.augment
        drawn = self.preset or self.mixing or augment.hflip != "none" or field.crop == "random"
        return not drawn and len(field.regions) == 1

    def _centres(self, indices: np.ndarray) -> np.ndarray:
        """Centre views, copied once: uint8 (B, h, w, 3)."""
        (height, width), (tall, wide) = pixels(self.settings.input.size), self.images.shape[1:3]
        y, x = central(tall, height), central(wide, width)
        if isinstance(self.images, np.ndarray):
            return self.images[:, y : y + height, x : x + width][indices]  # copies once, without a step per image
        return self.images[indices][:, y : y + height, x : x + width]

    def _made(self, augment: Augmenter, row: int) -> tuple[np.ndarray, bool]:
        seed = (self.settings.train.seed, self.epoch, self.first + row)
        partner = row if self.mixing is None else int(self.mixing.partners[row])
        patch, flipped = augment.patch(self.images[row], seed)
        if self.mixing is not None and partner != row:
            other, _ = augment.patch(self.images[partner], (*seed, PARTNER))
            patch = self.mixing.mixed(patch, other, row)
        return turned(patch, flipped), flipped


@dataclass(frozen=True)
class Joined:
    """Two packs' inputs as one: rows 0..count-1 are the first's, and the second's follow."""

    first: Inputs
    second: Inputs
    count: int

    def __call__(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        late = indices >= self.count
        if late.all() or not late.any():
            return self.second(indices - self.count) if late.any() else self.first(indices)
        parts = [self.first(indices[~late]), self.second(indices[late] - self.count)]
        made, flipped = (np.concatenate(both) for both in zip(*parts, strict=True))
        back = np.argsort(np.argsort(late, kind="stable"))
        return made[back], flipped[back]


def epoch_mixing(settings: ModelSettings, pack: Pack, indices: np.ndarray, epoch: int) -> Mixing | None:
    """An epoch's mixing of the fold's training `indices` with one another."""
    seed = (settings.train.seed, epoch)
    size, regions = pixels(settings.input.size), len(settings.input.regions)
    return draw_mixing(settings.augment, size, indices, pack.labels, pack.drivers, seed, regions)


def augmentation_epochs(settings: ModelSettings) -> list[int]:
    """The epochs, from 0, whose augmentation training shows, in their order; with `train.augmentation_passes` its draws, each once.

    Logistic regression takes the centre view, or every draw.
    """
    found: list[int] = []
    train, start = settings.train, 0
    for stage, planned in zip(train.stages, train.planned, strict=True):
        epochs = range(start, start + planned)
        start = epochs.stop
        if stage.fit == "linear_probe":
            found += range(train.augmentation_passes or 0)
        else:
            cached = train.augmentation_passes if stage.freeze_until not in (None, 0) else None
            found += [epoch % cached if cached else epoch for epoch in epochs]
    return list(dict.fromkeys(found))
