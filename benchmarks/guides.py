"""The HDF5 guides' generator and ten-crop, as they show them: one handle, one image at a time, one `predict` per image."""

from collections.abc import Iterator
from typing import Any

import cv2
import h5py
import numpy as np

from benchmarks.workload import Bench
from driverwatch.setting_types import pixels
from driverwatch.vision.augment import build
from driverwatch.vision.views import central


class ClassicGenerator:
    """Batches float32 (B, h, w, 3), mean subtracted, and one-hot labels, forever: augmented and cut one image at a time."""

    def __init__(self, bench: Bench, policy: list[dict[str, dict[str, Any]]]) -> None:
        self.file, self.pipeline = h5py.File(bench.pack.images.path, "r"), build(policy)
        self.batch, self.size = bench.batch, pixels(bench.settings.input.size)
        self.mean = np.array(bench.pack.mean, np.float32)
        self.classes, self.random = len(bench.context.settings.classes), np.random.default_rng(0)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        count = self.file["images"].shape[0]
        while True:
            for start in range(0, count, self.batch):
                rows = range(start, min(start + self.batch, count))
                labels = np.eye(self.classes, dtype=np.float32)[self.file["labels"][rows.start : rows.stop]]
                yield np.array([self._image(row) for row in rows]), labels

    def _image(self, row: int) -> np.ndarray:
        image = self.pipeline(image=self.file["images"][row])["image"]
        height, width = self.size
        top = int(self.random.integers(image.shape[0] - height + 1))
        left = int(self.random.integers(image.shape[1] - width + 1))
        return image[top : top + height, left : left + width].astype(np.float32) - self.mean


def ten_crops(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 (H, W, 3) -> (10, h, w, 3): the centre, four corners, and their mirrors, on the host."""
    (height, width), (rows, columns) = size, image.shape[:2]
    bottom, right = rows - height, columns - width
    corners = [(central(rows, height), central(columns, width)), (0, 0), (0, right), (bottom, 0), (bottom, right)]
    crops = [image[top : top + height, left : left + width] for top, left in corners]
    return np.array([*crops, *(cv2.flip(crop, 1) for crop in crops)])


def predicted(model: Any, path: str, rows: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Mean probabilities (len(rows), C): one handle, one image at a time, one `predict` of its ten crops."""
    with h5py.File(path, "r") as file:
        return np.array([model.predict(ten_crops(file["images"][row], size), verbose=0).mean(axis=0) for row in rows])
