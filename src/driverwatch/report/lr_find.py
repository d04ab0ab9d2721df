"""A learning-rate range test as a picture: the loss of each step by the rate it was taken at."""

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

BLUE, GREY = "#0072b2", "#d9dde2"


def picture(rates: np.ndarray, losses: np.ndarray, smooth: np.ndarray, marks: dict[str, float], title: str) -> Figure:
    """Losses and their smoothed course (N,), and a vertical line at each of `marks` (label: rate)."""
    with mpl.rc_context({"font.size": 11, "text.parse_math": False}):
        figure = Figure(figsize=(7, 4.2), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(rates, losses, color=BLUE, alpha=0.35, linewidth=1, label="each step")
        axes.plot(rates, smooth, color=BLUE, linewidth=2, label="smoothed")
        for (label, rate), (colour, dash) in zip(
            marks.items(), [("#d55e00", "-"), ("#009e73", (0, (5, 3)))], strict=False
        ):
            axes.axvline(rate, color=colour, linestyle=dash, label=f"{label}: {rate:.2g}")
        first, finite = smooth[0], smooth[np.isfinite(smooth)]
        low, high = float(finite.min()), float(min(finite.max(), first + 1.5 * (first - finite.min()) + 0.5))
        room = 0.06 * (high - low)
        axes.set(
            xscale="log", xlabel="learning rate", ylabel="training loss", title=title, ylim=(low - room, high + room)
        )
        axes.grid(color=GREY, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    return figure
