"""How time and memory of commands grow with the number of images: the rows memory (two sizes) and growth (three, and a plot)."""

import math
import time

import numpy as np

from benchmarks import knn
from benchmarks.result import Result, once
from benchmarks.scratch_project import Cost, Project
from benchmarks.workload import Bench
from driverwatch.io.atomic import replacing
from driverwatch.io.console import say
from driverwatch.io.html import DATA_COLOURS

MEMORY_SIZES, FULL_MEMORY_SIZES = (1_000, 10_000), (10_000, 102_150)  # images
SIZES, FULL_SIZES = (500, 2_000, 8_000), (1_000, 10_000, 100_000)  # images
MEASURED = ("pack", "train", "predict")  # `train` is one epoch of two folds and their centre view


def memory_results(bench: Bench) -> list[Result]:
    """How much more private memory each command holds of ten times as many images, peak over peak."""
    small, large = FULL_MEMORY_SIZES if bench.asked.full else MEMORY_SIZES
    costs = {images: _costs(bench, images, MEASURED) for images in (small, large)}
    return [
        memory_result(step, small, large, costs[small][step].memory, costs[large][step].memory) for step in MEASURED
    ]


def memory_result(step: str, small: int, large: int, before: float, after: float) -> Result:
    """The ratio of peaks (MiB) at two numbers of images."""
    facts = {
        "MiB": {small: round(before, 1), large: round(after, 1)},
        "bytes_per_image": (after - before) * 2**20 / (large - small),
    }
    return Result("memory", f"{step} of fewer images", "lower", 1.10, once(after / before), facts=facts)


def _costs(bench: Bench, images: int, steps: tuple[str, ...]) -> dict[str, Cost]:
    """What each step takes in a project of so many images."""
    project = Project(bench.place / f"project-{images}", images)
    project.start()
    costs = {step: project.run(step) for step in ("synthetic", "folds", *steps)}
    return {step: costs[step] for step in steps}


def results(bench: Bench) -> list[Result]:
    """The exponent of the seconds of each command between the last two sizes; writes `growth.png` beside the JSON."""
    sizes = FULL_SIZES if bench.asked.full else SIZES
    found = []
    for images in sizes:
        say(f"growth: {images} images")
        found.append({**_costs(bench, images, (*MEASURED, "ensemble")), "knn": _knn(images)})
    costs = {step: [each[step] for each in found] for step in found[0]}
    _draw(bench, sizes, costs)
    return [_result(step, sizes, taken) for step, taken in costs.items()]


def _knn(images: int) -> Cost:
    """The cost of a process that finds the neighbours of the test images among so many images."""
    start = time.monotonic()
    memory = knn.memory_of(images)
    return Cost(time.monotonic() - start, memory / 2**20)


def exponent(sizes: tuple[int, ...], values: list[float]) -> float:
    """b of a x^b through the last two points."""
    return math.log(values[-1] / values[-2]) / math.log(sizes[-1] / sizes[-2])


def _result(step: str, sizes: tuple[int, ...], costs: list[Cost]) -> Result:
    seconds, memory = [cost.seconds for cost in costs], [cost.memory for cost in costs]
    facts = {
        "images": list(sizes),
        "seconds": [round(value, 1) for value in seconds],
        "MiB": [round(value, 1) for value in memory],
        "exponent_of_memory": exponent(sizes, memory),
    }
    return Result("growth", step, "lower", None, once(exponent(sizes, seconds)), facts=facts)


def _draw(bench: Bench, sizes: tuple[int, ...], costs: dict[str, list[Cost]]) -> None:
    """Seconds and memory over images, both axes logarithmic, a line and a mark of its own for each command."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.8), layout="constrained")
    for axes, what in zip(figure.subplots(1, 2), ("seconds", "memory"), strict=True):
        for (step, found), mark, colour in zip(costs.items(), "os^Dv", DATA_COLOURS[:5], strict=True):
            values = np.array([getattr(cost, what) for cost in found])
            axes.loglog(sizes, values, marker=mark, color=colour, label=f"{step}: {exponent(sizes, list(values)):.2f}")
        axes.set(xlabel="images", ylabel="seconds" if what == "seconds" else "private memory, MiB")
        place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.14)}
        axes.legend(title="exponent of the last step", fontsize=8, ncols=3, **place)
        axes.grid(True, alpha=0.3)
    with replacing(bench.context.places.build / "growth.png") as temporary:
        figure.savefig(temporary, format="png", dpi=110)
