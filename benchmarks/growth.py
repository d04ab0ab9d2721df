"""How time and memory of verbs grow with the number of images: a table, exponents, a plot. Only when asked for by name."""

import math
import time

import numpy as np

from benchmarks import neighbours
from benchmarks.result import Line
from benchmarks.scratch_project import Cost, Project
from benchmarks.timing import Spread
from benchmarks.workload import Bench
from driverwatch.terminal import say
from driverwatch.writing import replacing

SIZES, FULL_SIZES = (500, 2_000, 8_000), (1_000, 10_000, 100_000)
BEFORE = ("sample", "folds")
MEASURED = ("pack", "train", "predict", "ensemble")  # `train` is one epoch of two folds and their centre view
WHAT = (
    "{step} of {sizes} images, once each; the figure is the exponent of the seconds between the last two sizes: 1 is "
    "linear, less has a start that still counts."
)
LEFT_OUT = (
    "Photos and networks of real size: photos are 32x40 and the network tiny. Starting Python and Keras is counted."
)


def lines(bench: Bench) -> list[Line]:
    """A line for each verb; writes `growth.png` beside the JSON."""
    sizes = FULL_SIZES if bench.asked.full else SIZES
    costs: dict[str, list[Cost]] = {step: [] for step in (*MEASURED, "neighbours")}
    for images in sizes:
        say(f"growth: {images} images")
        project = Project(bench.place / f"project-{images}", images)
        project.begin()
        for step in (*BEFORE, *MEASURED):
            cost = project.run(step)
            if step in costs:
                costs[step].append(cost)
        costs["neighbours"].append(_neighbours(images))
    draw(bench, sizes, costs)
    return [_line(step, sizes, found) for step, found in costs.items()]


def _neighbours(images: int) -> Cost:
    """Seconds and private MiB of a process that finds the neighbours of the test images among so many images."""
    start = time.monotonic()
    memory = neighbours.memory_of(images)
    return Cost(time.monotonic() - start, memory * 1e9 / 2**20)


def exponent(sizes: tuple[int, ...], values: list[float]) -> float:
    """b of a x^b through the last two points."""
    return math.log(values[-1] / values[-2]) / math.log(sizes[-1] / sizes[-2])


def _line(step: str, sizes: tuple[int, ...], costs: list[Cost]) -> Line:
    seconds, memory = [cost.seconds for cost in costs], [cost.memory for cost in costs]
    figure = exponent(sizes, seconds)
    facts = {
        "images": list(sizes),
        "seconds": [round(value, 1) for value in seconds],
        "MiB": [round(value, 1) for value in memory],
        "exponent_of_memory": exponent(sizes, memory),
    }
    told = ", ".join(f"{images:,}" for images in sizes)
    return Line(
        "growth",
        step,
        WHAT.format(step=step, sizes=told),
        LEFT_OUT,
        "lower",
        None,
        Spread(figure, figure, figure),
        facts=facts,
    )


def draw(bench: Bench, sizes: tuple[int, ...], costs: dict[str, list[Cost]]) -> None:
    """Seconds and memory over images, both axes logarithmic, a line and a mark of its own for each verb."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.8), layout="constrained")
    for axes, what in zip(figure.subplots(1, 2), ("seconds", "memory"), strict=True):
        for (step, found), mark in zip(costs.items(), "os^Dv", strict=True):
            values = np.array([getattr(cost, what) for cost in found])
            axes.loglog(sizes, values, marker=mark, label=f"{step}: {exponent(sizes, list(values)):.2f}")
        axes.set(xlabel="images", ylabel="seconds" if what == "seconds" else "private memory, MiB")
        axes.legend(
            title="exponent of the last step", fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.14)
        )
        axes.grid(True, alpha=0.3)
    with replacing(bench.context.places.build / "growth.png") as temporary:
        figure.savefig(temporary, format="png", dpi=110)
