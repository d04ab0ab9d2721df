"""Packs whose classes are bright quadrants of noise: learnt in seconds, and left differs from right."""

from pathlib import Path

import h5py
import numpy as np

from driverwatch.data.pack import ImageBlock, Pack

SIZE, COUNT, CLASSES = (36, 44), 48, 4
SWAP = [1, 0, 3, 2]  # top left and top right change places in a flip, and so below


def pack_of(folder: Path, count: int, kind: str) -> Pack:
    """Images whose class is a bright quadrant: learnable in seconds, and left differs from right."""
    random = np.random.default_rng(len(kind))
    labels = np.arange(count) % CLASSES
    images = random.integers(0, 90, (count, *SIZE, 3), np.uint8)
    for image, label in zip(images, labels, strict=True):
        y, x = [(3, 3), (3, 25), (20, 3), (20, 25)][label]
        image[y : y + 12, x : x + 14] += 150
    path = folder / f"{kind}.h5"
    with h5py.File(path, "w") as file:
        offset = file.create_dataset("images", data=images).id.get_offset()
    names = np.array([f"{kind}{i}.jpg" for i in range(count)])
    drivers = np.array([f"p{i // 8}" for i in range(count)])
    return Pack(
        ImageBlock(str(path), offset, images.shape), names, labels, drivers, (80.0,) * 3, (60.0,) * 3, kind, "folds"
    )
