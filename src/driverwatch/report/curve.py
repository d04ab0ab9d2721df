"""The loss of new drivers by the number of drivers learnt from, both on logarithmic axes."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure


def picture(points: Sequence[tuple[float, float, float, float]], line: np.ndarray) -> Figure:
    """Points with their intervals, and a fitted line with its 90 % interval.

    Args:
        points: drivers, loss, least, most; by drivers.
        line: (M, 4), the same of the line.
    """
    with mpl.rc_context({"font.size": 11, "text.parse_math": False}):
        figure = Figure(figsize=(7, 4.2), layout="constrained")
        axes = figure.add_subplot()
        amounts, fitted, least, most = line.T
        axes.fill_between(amounts, least, most, color="#0072b2", alpha=0.15, label="its 90 % interval")
        axes.plot(amounts, fitted, color="#0072b2", linestyle=(0, (5, 3)), label="power law fitted to the points")
        drivers, losses, lows, highs = np.array(points).T
        bars = np.stack([losses - lows, highs - losses])
        axes.errorbar(drivers, losses, bars, fmt="o", color="#16191d", capsize=4, label="out of fold, 95 % interval")
        axes.set(
            xscale="log", yscale="log", xlabel="drivers that each fold learns from", ylabel="log loss, new drivers"
        )
        ticks = sorted({round(count) for count in drivers} | {round(amounts[-1])})
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        low, high = axes.get_ylim()
        marks = [mark for mark in (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5) if low <= mark <= high]
        if len(marks) < 2:  # a narrow range
            marks = [float(f"{mark:.3g}") for mark in np.geomspace(low, high, 5)[1:-1]]
        axes.set_yticks(marks, [f"{mark:g}" for mark in marks])
        axes.minorticks_off()
        axes.grid(color="#d9dde2", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    return figure
