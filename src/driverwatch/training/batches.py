"""Training batches: what a step sees is a function of (seed, epoch, row), whatever the number of workers."""

import os
import threading
from collections.abc import Callable
from typing import Any

import cv2
import keras
import numpy as np

from driverwatch.settings import ModelSettings
from driverwatch.vision.augment import Augmenter

Inputs = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Rows of a pack (B,) -> what the network takes (B, ...), and which of them are mirrored, bool (B,). Called by many threads."""


class AugmentedInputs:
    """One epoch's augmentation: rows -> uint8 (B, R * h, w, 3); seeded by (run seed, epoch, row)."""

    def __init__(
        self, images: np.ndarray, settings: ModelSettings, policy: list[dict[str, dict[str, Any]]], epoch: int
    ) -> None:
        """Augment `images`, uint8 (N, R * H, W, 3), the whole pack, mapped."""
        cv2.setNumThreads(1)
        self.images, self.settings, self.policy, self.epoch = images, settings, policy, epoch
        self._thread = threading.local()

    def __call__(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if not hasattr(self._thread, "augment"):  # one pipeline per thread: it carries random state
            self._thread.augment = Augmenter(self.policy, self.settings.augment, self.settings.input)
        seed = self.settings.train.seed
        made = [self._thread.augment(self.images[row], (seed, self.epoch, int(row))) for row in rows]
        return np.stack([image for image, _ in made]), np.array([mirrored for _, mirrored in made])


class TrainingBatches(keras.utils.PyDataset):
    """One epoch: shuffled inputs (B, ...), one-hot float32 (B, C) and sample weights float32 (B,).

    Made anew for each epoch with the epoch's number, because PyDataset may start its workers before an epoch begins.
    """

    def __init__(
        self, inputs: Inputs, rows: np.ndarray, labels: np.ndarray, settings: ModelSettings, swap: list[int], epoch: int
    ) -> None:
        """Shuffle an epoch.

        Args:
            rows: those to train on.
            labels: int (N,), of the whole pack.
            swap: where labels of mirrored images go under `augment.mirror: swap`.
        """
        cores = os.cpu_count() or 1
        super().__init__(workers=settings.train.workers or cores, max_queue_size=2 * cores + 2)
        self.inputs, self.labels, self.batch = inputs, labels, settings.train.batch_size
        self.order = np.random.default_rng((settings.train.seed, epoch)).permutation(rows)
        self.swap, self.mirror = swap, settings.augment.mirror
        self.weights = class_weights(labels[rows], len(swap), settings.train.class_weights)

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch)

    def __getitem__(self, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows = self.order[step * self.batch : (step + 1) * self.batch]
        made, mirrored = self.inputs(rows)
        labels = followed(self.labels[rows], mirrored, self.mirror, self.swap)
        return made, np.eye(len(self.swap), dtype=np.float32)[labels], self.weights[labels]


def followed(labels: np.ndarray, mirrored: np.ndarray, mirror: str, swap: list[int]) -> np.ndarray:
    """Labels (B,) after mirroring: under `augment.mirror: swap` those of mirrored images go where `swap` says."""
    return np.where(mirrored & (mirror == "swap"), np.array(swap)[labels], labels)


def class_weights(labels: np.ndarray, classes: int, rule: str) -> np.ndarray:
    """float32 (C,): all 1, or `balanced`: N / (C * count), so that each class weighs the same in sum (0 where absent)."""
    if rule == "none":
        return np.ones(classes, np.float32)
    counts = np.bincount(labels, minlength=classes)
    return np.divide(len(labels), classes * counts, out=np.zeros(classes), where=counts > 0).astype(np.float32)
