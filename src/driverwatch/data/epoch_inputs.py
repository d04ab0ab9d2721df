"""What training shows of a pack's images: a function of (seed, epoch, row), whatever the number of workers. Imports no Keras."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from driverwatch.config.model import ModelSettings
from driverwatch.config.types import pixels
from driverwatch.data.augment import Augmenter, turned
from driverwatch.data.mix import Mixing, draw_mixing
from driverwatch.data.pack import Pack
from driverwatch.data.tta import central
from driverwatch.io.prefetch import one_opencv_thread

PARTNER = 2  # keeps the draw by which a partner is cut apart from a row's own, and from `vision.mix.STREAM`

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
