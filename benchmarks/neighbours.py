"""Exact nearest neighbours, beside the bare matrix product."""

import subprocess
import sys

import numpy as np

from benchmarks.memory_sampler import watched
from benchmarks.result import Line
from benchmarks.scratch_project import environment
from benchmarks.timing import Side, Spread, interleaved, over_rounds
from benchmarks.workload import Bench
from driverwatch.blend.nearest import nearest
from driverwatch.errors import InputError

COUNT, FULL_COUNT = 10_000, 79_726  # the competition's test images
WIDTH, K, CLIP = 512, 20, 120  # features, neighbours, frames of a clip
HELD = (
    2**27
)  # similarities that the bare product holds at a time, 512 MB: more would not fit under the limit beside the rows
APART = 0.3  # of a frame from its clip's centre, whose length is 1


def lines(bench: Bench) -> list[Line]:
    """Time beside the product, and memory."""
    count = FULL_COUNT if bench.asked.full else COUNT
    features, sets = clips(count), np.zeros(count, np.int64)
    sides = {"ours": Side(lambda: nearest(features, sets, K)), "product": Side(lambda: product(features))}
    timed = interleaved(sides, bench.asked.repeat)
    facts = {"rows": count, "width": WIDTH, "k": K}
    cost = over_rounds(lambda mine, bare: mine / bare, timed["ours"].seconds, timed["product"].seconds)
    what = (
        f"Both multiply {count:,} x {WIDTH} float32 rows with themselves; ours finds each row's {K} nearest others, "
        "exact, the rival drops the products; the figure is our seconds over theirs."
    )
    left_out = "The rival's blocks are as large as memory allows; ours are smaller, and rows are divided by their norm."
    memory = memory_of(count)
    said = (
        f"A process that does nothing but make {count:,} x {WIDTH} float32 rows and find their {K} nearest; the figure "
        "is its peak GB."
    )
    return [
        Line("neighbours", "the bare matrix product", what, left_out, "lower", 2.5, cost, timed, facts),
        Line(
            "neighbours",
            "2 GB of private memory",
            said,
            "Time.",
            "lower",
            2.0 if bench.asked.full else None,
            Spread(memory, memory, memory),
            facts=facts,
        ),
    ]


def clips(count: int) -> np.ndarray:
    """Rows float32 (count, WIDTH) as frames of clips have them: near their clip's centre, far from other clips'."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((-(-count // CLIP), WIDTH), np.float32)
    rows = np.repeat(centres, CLIP, axis=0)[:count]
    rows += APART * random.standard_normal(rows.shape, np.float32)
    return rows


def product(rows: np.ndarray) -> None:
    """All products of rows, a block of rows at a time, written over the last."""
    height = max(1, min(len(rows), HELD // len(rows)))
    held = np.empty((height, len(rows)), np.float32)
    for start in range(0, len(rows), height):
        part = rows[start : start + height]
        np.matmul(part, rows.T, out=held[: len(part)])


def memory_of(count: int) -> float:
    """Peak of private memory, GB (10^9 bytes), of a process that finds neighbours among `count` rows."""
    code = (
        f"import numpy as np; from benchmarks.neighbours import K, clips, nearest; nearest(clips({count}), "
        f"np.zeros({count}, np.int64), K)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], env=environment())
    memory, _ = watched(process)
    if process.returncode:
        raise InputError(
            f"bench: finding neighbours among {count} rows ended with status {process.returncode}; free memory"
        )
    return memory * 1024 / 1e9
