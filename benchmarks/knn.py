"""Exact nearest neighbours, beside the bare matrix product."""

import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.memory_sampler import watched
from benchmarks.result import Result, once
from benchmarks.scratch_project import environment
from benchmarks.timing import Side, interleaved, over_rounds
from driverwatch.ensemble.embedding_index import nearest_neighbours
from driverwatch.errors import InputError

if TYPE_CHECKING:  # else it would add to the memory of the process that is measured
    from benchmarks.workload import Bench

COUNT, FULL_COUNT = 10_000, 79_726  # the competition's test images
WIDTH, K, CLIP = 512, 20, 120  # features, neighbours, frames of a clip
HELD = 2**27  # similarities that the bare product holds at a time, 512 MB: more would not fit under the limit
APART = 0.3  # of a frame from its clip's centre, whose length is 1


def results(bench: "Bench") -> list[Result]:
    """Our seconds over the product's, which keeps nothing of the same pairs, and the peak GB of a process that does only this."""
    count = FULL_COUNT if bench.asked.full else COUNT
    features, sets = clips(count), np.zeros(count, np.int64)
    sides = {"ours": Side(lambda: nearest_neighbours(features, sets, K)), "product": Side(lambda: product(features))}
    timed = interleaved(sides, bench.asked.repeat)
    facts = {"rows": count, "width": WIDTH, "k": K}
    cost = over_rounds(lambda mine, bare: mine / bare, timed["ours"].seconds, timed["product"].seconds)
    memory, limit = once(memory_of(count) / 1e9), 2.0 if bench.asked.full else None
    return [
        Result("knn", "the bare matrix product", "lower", 2.5, cost, timed, facts),
        Result("knn", "2 GB of private memory", "lower", limit, memory, facts=facts),
    ]


def clips(count: int) -> np.ndarray:
    """Features float32 (count, WIDTH) as frames of clips have them: near their clip's centre, far from other clips'."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((-(-count // CLIP), WIDTH), np.float32)
    features = np.repeat(centres, CLIP, axis=0)[:count]
    features += APART * random.standard_normal(features.shape, np.float32)
    return features


def product(features: np.ndarray) -> None:
    """All products of the features (N, F) with themselves, in blocks as large as memory allows, each written over the last."""
    height = max(1, min(len(features), HELD // len(features)))
    held = np.empty((height, len(features)), np.float32)
    for start in range(0, len(features), height):
        part = features[start : start + height]
        np.matmul(part, features.T, out=held[: len(part)])


def memory_of(count: int) -> int:
    """Peak private memory, bytes, of a process that finds neighbours among `count` images."""
    sets = f"np.zeros({count}, np.int64)"
    code = f"import numpy as np; from benchmarks.knn import *; nearest_neighbours(clips({count}), {sets}, K)"
    process = subprocess.Popen([sys.executable, "-c", code], env=environment())
    memory, _ = watched(process)
    if process.returncode:
        raise InputError(
            f"bench: finding neighbours among {count} images ended with status {process.returncode}; free memory"
        )
    return memory
