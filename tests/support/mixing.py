"""Sixty images of six drivers that mixing draws partners among."""

import numpy as np

from driverwatch.config.model import AugmentSettings, InputSettings, ModelSettings
from driverwatch.config.training import TrainSettings
from driverwatch.data.mix import Mixing
from driverwatch.data.pack import ImageBlock, Pack

SIZE, COUNT, CLASSES = (12, 18), 60, 4
RANDOM = np.random.default_rng(0)
LABELS = RANDOM.integers(0, CLASSES, COUNT)
DRIVERS = np.array([f"p{i:03}" for i in RANDOM.integers(0, 6, COUNT)], dtype=object)
IMAGES = RANDOM.integers(0, 256, (COUNT, *SIZE, 3), np.uint8)
TRAINING = np.flatnonzero(DRIVERS != "p002")


def pack() -> Pack:
    block = ImageBlock("nowhere", 0, IMAGES.shape)
    return Pack(block, np.arange(COUNT).astype(str), LABELS, DRIVERS, (0.0,) * 3, (1.0,) * 3, "", "")


def mixed_image(mixing: Mixing, images: np.ndarray, row: int) -> np.ndarray:
    """What becomes of image `row` of uint8 (N, R * h, w, 3), which are cut already: uint8 (R * h, w, 3)."""
    partner = int(mixing.partners[row])
    return images[row] if partner == row else mixing.mixed(images[row], images[partner], row)


def model(**augment: object) -> ModelSettings:
    return ModelSettings.model_construct(
        input=InputSettings(pack="12x18", size="10x16"), augment=AugmentSettings(**augment), train=TrainSettings()
    )
