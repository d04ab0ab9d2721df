"""Training batches: inputs, label shares and weights of each step.

Accuracy in training counts an image as right where its largest share is what the network finds likeliest: of mixed images, the
larger part's class; it may then stay below the held-out accuracy.
"""

import os

import keras
import numpy as np

from driverwatch.settings import ModelSettings
from driverwatch.training.inputs import Inputs


class TrainingBatches(keras.utils.PyDataset):
    """One epoch: shuffled inputs (B, ...), label shares float32 (B, C), rows summing to 1, and sample weights float32 (B,).

    Made anew for each epoch with the epoch's number, because PyDataset may start its workers before an epoch begins.
    """

    def __init__(
        self,
        inputs: Inputs,
        rows: np.ndarray,
        targets: np.ndarray,
        settings: ModelSettings,
        swap: list[int],
        epoch: int,
        labelled: int | None = None,
    ) -> None:
        """Shuffle an epoch.

        Args:
            rows: those to train on.
            targets: label shares float32 (N, C), each row summing to 1, by number of the row; `one_hot` where it has one class.
            swap: where labels of mirrored images go under `augment.mirror: swap`.
            labelled: the row that pseudo-labelled ones begin at (None: there are none). Class weights are the others'.
        """
        cores = os.cpu_count() or 1
        super().__init__(workers=settings.train.workers or cores, max_queue_size=2 * cores + 2)
        self.inputs, self.targets, self.batch = inputs, targets, settings.train.batch_size
        self.order = np.random.default_rng((settings.train.seed, epoch)).permutation(rows)
        self.swap, self.mirror = swap, settings.augment.mirror
        self.labelled, self.pseudo = len(targets) if labelled is None else labelled, settings.train.pseudo
        self.weights = class_weights(targets[rows[rows < self.labelled]], settings.train.class_weights)

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch)

    def __getitem__(self, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows = self.order[step * self.batch : (step + 1) * self.batch]
        made, mirrored = self.inputs(rows)
        targets = followed(self.targets[rows], mirrored, self.mirror, self.swap)
        weights = targets @ self.weights
        if self.pseudo is not None:
            weights[rows >= self.labelled] *= self.pseudo.weight
        return made, targets, weights


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """int (N,) -> float32 (N, C)."""
    return np.eye(classes, dtype=np.float32)[labels]


def followed(targets: np.ndarray, mirrored: np.ndarray, mirror: str, swap: list[int]) -> np.ndarray:
    """Label shares (B, C) after mirroring: under `augment.mirror: swap` those of mirrored images go where `swap` says."""
    return np.where((mirrored & (mirror == "swap"))[:, None], targets[:, np.argsort(swap)], targets)


def class_weights(targets: np.ndarray, rule: str) -> np.ndarray:
    """float32 (C,): all 1, or `balanced`: N / (C * count), so that each class weighs the same in sum (0 where absent).

    Args:
        targets: label shares (N, C), whose sums are the counts; a row of several classes weighs as their weighted mean.
    """
    rows, classes = targets.shape
    if rule == "none":
        return np.ones(classes, np.float32)
    counts = targets.sum(axis=0, dtype=np.float64)
    return np.divide(rows, classes * counts, out=np.zeros(classes), where=counts > 0).astype(np.float32)
