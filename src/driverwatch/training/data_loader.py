"""Training batches: inputs, label shares and weights of each step.

Accuracy in training counts an image as right where its largest share is what the network finds likeliest: of mixed images, the
larger part's class; it may then stay below the validation accuracy.
"""

import os

import keras
import numpy as np

from driverwatch.config.model import ModelSettings
from driverwatch.data.augment import Inputs
from driverwatch.io.prefetch import MadeAhead

Batch = tuple[np.ndarray, np.ndarray, np.ndarray]


class TrainingBatches(keras.utils.PyDataset):
    """One epoch: shuffled inputs (B, ...), label shares float32 (B, C), rows summing to 1, and sample weights float32 (B,).

    Made again for each epoch with the epoch's number. Its own threads work ahead, not PyDataset's workers: these may start
    before an epoch begins, end a tenth of a second after it, make the first two batches twice, and under JAX and PyTorch
    resume after the batch that building took (Keras 3.15: the first epoch saw batches 1, 2, ..., 0). Close it at the end.
    """

    def __init__(
        self,
        inputs: Inputs,
        indices: np.ndarray,
        targets: np.ndarray,
        settings: ModelSettings,
        swap: list[int],
        epoch: int,
        is_pseudo_label: np.ndarray | None = None,
        threads: int = 0,
        sample_weights: np.ndarray | None = None,
    ) -> None:
        """Shuffle an epoch.

        Args:
            indices: those to train on.
            targets: label shares float32 (N, C), each row summing to 1, by number of the row; `one_hot` where it has one class.
            swap: where labels of flipped images go under `augment.hflip: swap_left_right`.
            is_pseudo_label: bool (N,), rows with pseudo-labels (None: there are none). Class weights are the others'.
            threads: that ask for inputs (0: `train.workers`, or one per core).
            sample_weights: float32 (N,), factors on the loss of each row (None: all 1), as of a list of label issues.
        """
        threads = threads or settings.train.workers or os.cpu_count() or 1
        super().__init__(workers=1)
        self.inputs, self.targets, self.batch = inputs, targets, settings.train.batch_size
        self.order = np.random.default_rng((settings.train.seed, epoch)).permutation(indices)
        self.swap, self.hflip = swap, settings.augment.hflip
        self.is_pseudo_label = np.zeros(len(targets), bool) if is_pseudo_label is None else is_pseudo_label
        self.pseudo = settings.train.pseudo
        self.weights = class_weights(targets[indices[~self.is_pseudo_label[indices]]], settings.train.class_weights)
        self.sample_weights = np.ones(len(targets), np.float32) if sample_weights is None else sample_weights
        self.steps = -(-len(indices) // self.batch)
        self.weight_sums = np.zeros(self.steps)  # sums of sample weights, of batches that were made
        self.made = MadeAhead(self._made, self.steps, threads)

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        return self.made(step)

    def close(self) -> None:
        """End the threads, for example when an epoch is interrupted."""
        self.made.close()

    def _made(self, step: int) -> Batch:
        rows = self.order[step * self.batch : (step + 1) * self.batch]
        made, flipped = self.inputs(rows)
        targets = flip_targets(self.targets[rows], flipped, self.hflip, self.swap)
        weights = (targets @ self.weights) * self.sample_weights[rows]
        if self.pseudo is not None:
            weights[self.is_pseudo_label[rows]] *= self.pseudo.weight
        self.weight_sums[step] = weights.sum()
        return made, targets, weights


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """One-hot label shares: int (N,) -> float32 (N, C)."""
    return np.eye(classes, dtype=np.float32)[labels]


def flip_targets(targets: np.ndarray, flipped: np.ndarray, hflip: str, swap: list[int]) -> np.ndarray:
    """Label shares (B, C) after flipping: under `augment.hflip: swap_left_right` those of flipped images go where `swap` says."""
    return np.where((flipped & (hflip == "swap_left_right"))[:, None], targets[:, np.argsort(swap)], targets)


def class_weights(targets: np.ndarray, rule: str) -> np.ndarray:
    """float32 (C,): all 1, or `balanced`: N / (C * count), so that each class weighs the same in sum (0 where absent).

    `targets`: label shares (N, C), whose sums are the counts; a row of several classes weighs as their weighted mean.
    """
    rows, classes = targets.shape
    if rule == "none":
        return np.ones(classes, np.float32)
    counts = targets.sum(axis=0, dtype=np.float64)
    return np.divide(rows, classes * counts, out=np.zeros(classes), where=counts > 0).astype(np.float32)
