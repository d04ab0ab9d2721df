"""CPU seconds of what `make leakage` computes from thumbnails that are read already: both classifiers on both splits."""

from typing import TYPE_CHECKING

import numpy as np
from sklearn.model_selection import KFold, PredefinedSplit

from benchmarks.result import Result
from benchmarks.timing import Side, interleaved, spread
from driverwatch.experiments.leakage import THUMBNAIL, out_of_fold

if TYPE_CHECKING:
    from benchmarks.workload import Bench

COUNT, FULL_COUNT = 4_000, 22_424  # the competition's training images
DRIVERS, CLASSES, FOLDS = 26, 10, 5
MOST_SECONDS = 30.0
NOISE = 0.3  # of a pixel, beside a clip's picture of unit deviation


def results(bench: "Bench") -> list[Result]:
    """CPU seconds of all threads; a target at full size alone."""
    count = FULL_COUNT if bench.asked.full else COUNT
    pixels, labels, drivers = frames(count)
    splits = KFold(FOLDS, shuffle=True, random_state=0), PredefinedSplit(drivers % FOLDS)

    def ours() -> None:
        for folds in splits:
            out_of_fold(pixels, labels, folds, CLASSES)

    timed = interleaved({"ours": Side(ours)}, bench.asked.repeat)
    target = MOST_SECONDS if bench.asked.full else None
    facts = {"images": count, "numbers": pixels.shape[1]}
    return [Result("leakage", "CPU seconds", "lower", target, spread(timed["ours"].cpu), timed, facts)]


def frames(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thumbnails float32 (count, F) in 0-1 that tell their clip and not their class, labels and drivers int (count,)."""
    random, width = np.random.default_rng(0), THUMBNAIL[0] * THUMBNAIL[1] * 3
    clip = np.arange(count) * DRIVERS * CLASSES // count
    pixels = random.standard_normal((DRIVERS * CLASSES, width), np.float32)[clip]
    pixels += NOISE * random.standard_normal(pixels.shape, np.float32)
    low, high = pixels.min(), pixels.max()
    return (pixels - low) / (high - low), clip % CLASSES, clip // CLASSES
