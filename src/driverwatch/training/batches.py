"""Training batches: what a step sees is a function of (seed, epoch, row), whatever the number of workers."""

import os
import threading
from typing import Any

import cv2
import keras
import numpy as np

from driverwatch.settings import ModelSettings
from driverwatch.vision.augment import Augmenter


class TrainingBatches(keras.utils.PyDataset):
    """One epoch: shuffled, augmented uint8 (B, h, w, 3), one-hot float32 (B, C) and sample weights float32 (B,).

    Made anew for each epoch with the epoch's number, because PyDataset may start its workers before an epoch begins.
    """

    def __init__(
        self,
        images: np.ndarray,
        rows: np.ndarray,
        labels: np.ndarray,
        settings: ModelSettings,
        policy: list[dict[str, dict[str, Any]]],
        swap: list[int],
        epoch: int,
    ) -> None:
        """Shuffle an epoch.

        Args:
            images: uint8 (N, H, W, 3), the whole pack, mapped.
            labels: int (N,).
            rows: those to train on.
            swap: where labels of mirrored images go under `augment.mirror: swap`.
        """
        cv2.setNumThreads(1)
        cores = os.cpu_count() or 1
        super().__init__(workers=settings.train.workers or cores, max_queue_size=2 * cores + 2)
        self.images, self.labels, self.settings, self.policy = images, labels, settings, policy
        self.seed, self.epoch = settings.train.seed, epoch
        self.order = np.random.default_rng((self.seed, epoch)).permutation(rows)
        self.classes = len(swap)
        self.swap = swap if settings.augment.mirror == "swap" else list(range(len(swap)))
        self.weights = class_weights(labels[rows], self.classes, settings.train.class_weights)
        self._thread = threading.local()

    def __len__(self) -> int:
        return -(-len(self.order) // self.settings.train.batch_size)

    def __getitem__(self, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if not hasattr(self._thread, "augment"):  # one pipeline per thread: it carries random state
            self._thread.augment = Augmenter(self.policy, self.settings.augment, self.settings.input)
        size = self.settings.train.batch_size
        rows = self.order[step * size : (step + 1) * size]
        made = [self._thread.augment(self.images[row], (self.seed, self.epoch, int(row))) for row in rows]
        labels = [
            self.swap[self.labels[row]] if mirrored else self.labels[row]
            for row, (_, mirrored) in zip(rows, made, strict=True)
        ]
        targets = np.eye(self.classes, dtype=np.float32)[labels]
        return np.stack([image for image, _ in made]), targets, self.weights[labels]


def class_weights(labels: np.ndarray, classes: int, rule: str) -> np.ndarray:
    """float32 (C,): all 1, or `balanced`: N / (C * count), so that each class weighs the same in sum (0 where absent)."""
    if rule == "none":
        return np.ones(classes, np.float32)
    counts = np.bincount(labels, minlength=classes)
    return np.divide(len(labels), classes * counts, out=np.zeros(classes), where=counts > 0).astype(np.float32)
