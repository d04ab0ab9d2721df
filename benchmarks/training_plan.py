"""What every side of the row end_to_end trains: images, driver folds, stages, as plain data for a process of its own.

    PYTHONPATH=src:. python -m benchmarks.keras_baselines directory <plan>.json <predictions>.npz

reads it; so does `benchmarks.torch_baseline`.
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

# layers of Keras that `benchmarks.torch_baseline` has in PyTorch
PORTED = (
    "InputLayer", "Conv2D", "DepthwiseConv2D", "BatchNormalization", "Activation", "ReLU", "MaxPooling2D",
    "AveragePooling2D", "ZeroPadding2D", "Add", "Concatenate",
)  # fmt: skip


@dataclass(frozen=True)
class PlannedStage:
    """Epochs with the first `frozen` layers of the backbone frozen, at a learning rate."""

    frozen: int
    epochs: int
    learning_rate: float


@dataclass(frozen=True)
class Plan:
    """A training of every fold.

    Args:
        folder: of links to the images, `fold<k>/<training|validation>/<class>/<image>`.
        paths: of N images.
        labels: of each, 0..C-1.
        folds: of each, the one that it validates.
        packed: height and width (px) that images are resized to; `size` is cut from that.
        network: the backbone with its initial weights: `.keras`, and beside it `.json` and `.npz` for PyTorch.
        order: of the channels that it takes, rgb or bgr; they are scaled by `mean` and `std`, in that order.
        statistics: whether its normalisation uses batch statistics in training.
    """

    folder: str
    paths: list[str]
    labels: list[int]
    folds: list[int]
    classes: int
    packed: tuple[int, int]
    size: tuple[int, int]
    crop: str
    network: str
    order: str
    mean: list[float]
    std: list[float]
    statistics: bool
    dropout: float
    stages: list[PlannedStage]
    batch: int
    optimizer: str
    momentum: float
    label_smoothing: float
    schedule: str
    warmup: float
    preset: list[dict[str, dict[str, Any]]]
    hflip: bool
    seed: int

    def write(self, path: Path) -> None:
        """Keep it as JSON."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "Plan":
        """What `write` has written."""
        made = json.loads(path.read_text(encoding="utf-8"))
        made |= {name: tuple(made[name]) for name in ("packed", "size")}
        return cls(**{**made, "stages": [PlannedStage(**stage) for stage in made["stages"]]})

    @property
    def count(self) -> int:
        """How many folds there are."""
        return max(self.folds) + 1

    def split(self, fold: int) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the images that a fold trains on, and of those that it predicts, in the order of their paths."""
        held = np.array(self.folds) == fold
        return np.flatnonzero(~held), np.flatnonzero(held)

    def rise(self, steps: int) -> int:
        """Steps of a stage until its learning rate is reached, at least 1."""
        return max(1, round(self.warmup * steps))

    def factor(self, step: int, steps: int) -> float:
        """On the learning rate at a step of a stage, counted from 0: a linear rise, then a cosine, or nothing."""
        rise = self.rise(steps)
        if step < rise - 1:
            return (step + 1) / rise
        if self.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - rise + 1) / (steps - rise + 1)))
