"""Private memory of packing, training and prediction, at two sizes."""

from benchmarks.result import Line
from benchmarks.scratch_project import Project
from benchmarks.timing import Spread
from benchmarks.workload import Bench

SIZES, FULL_SIZES = (1_000, 10_000), (10_000, 102_150)  # images
MEASURED = ("pack", "train", "predict")
BEFORE = ("sample", "folds")
LEFT_OUT = (
    "Photos and networks of real size: photos are 32x40 and the network tiny, so that what grows with their number is "
    "most of what is seen; each verb was run once."
)


def lines(bench: Bench) -> list[Line]:
    """How much more each verb holds of ten times as many images."""
    small, large = FULL_SIZES if bench.asked.full else SIZES
    costs = {images: _costs(bench, images) for images in (small, large)}
    return [_line(step, small, large, costs[small][step], costs[large][step]) for step in MEASURED]


def _costs(bench: Bench, images: int) -> dict[str, float]:
    """MiB by verb."""
    project = Project(bench.place / f"project-{images}", images)
    project.begin()
    for step in BEFORE:
        project.run(step)
    return {step: project.run(step).memory for step in MEASURED}


def _line(step: str, small: int, large: int, before: float, after: float) -> Line:
    ratio = after / before
    what = (
        f"`{step}` of {large:,} images and of {small:,}, drawn alike, private (anonymous) memory of all its processes, "
        "sampled every 20 ms; the figure is the larger peak over the smaller."
    )
    facts = {
        "MiB": {small: round(before, 1), large: round(after, 1)},
        "bytes_per_image": (after - before) * 2**20 / (large - small),
    }
    return Line(
        "memory", f"{step} of fewer images", what, LEFT_OUT, "lower", 1.10, Spread(ratio, ratio, ratio), facts=facts
    )
