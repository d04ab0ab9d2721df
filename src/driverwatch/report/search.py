"""A search as a picture: losses in the order of the trials, and against each setting that was varied."""

import json
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

ACROSS = 3  # panels in a row
LARGEST = 11  # settings that get a panel
BLUE, ORANGE, INK, GREY = "#0072b2", "#d55e00", "#16191d", "#d9dde2"


@dataclass(frozen=True)
class Point:
    """A trial: its loss, of all folds or (cut short) of those it had."""

    number: int
    state: str
    loss: float
    values: dict[str, Any]

    @property
    def whole(self) -> bool:
        return self.state == "complete"


def picture(points: list[Point], own: float, logarithmic: set[str]) -> Figure:
    """Panels: the trials in their order with the best so far, then one for each setting.

    Args:
        own: loss of the model's own settings, a dashed line in every panel.
        logarithmic: settings whose axis is one.
    """
    keys = list(points[0].values)[:LARGEST] if points else []
    rows = -(-(len(keys) + 1) // ACROSS)
    columns = min(ACROSS, len(keys) + 1)
    with mpl.rc_context({"font.size": 10, "text.parse_math": False}):
        figure = Figure(figsize=(4 * columns, 3.2 * rows), layout="constrained")
        top = _top(points, own)
        panels = [figure.add_subplot(rows, columns, place + 1) for place in range(len(keys) + 1)]
        _scatter(panels[0], [point.number for point in points], points, own, top)
        _best_so_far(panels[0], points)
        panels[0].set(xlabel="trial", ylabel="log loss, held-out drivers")
        panels[0].xaxis.set_major_locator(MaxNLocator(integer=True))
        for panel, key in zip(panels[1:], keys, strict=True):
            _against(panel, key, points, own, top, key in logarithmic)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def _top(points: list[Point], own: float) -> float:
    """Where the axis ends: one trial that learnt nothing would press all others together."""
    whole = [point.loss for point in points if point.whole]
    losses = sorted([own, *(point.loss for point in points)])
    least = losses[0]
    return least + 1.2 * max(max([own, *whole]) - least, losses[len(losses) // 2] - least, 0.05)


def _scatter(panel: Axes, across: list[float], points: list[Point], own: float, top: float) -> None:
    """Filled: complete; hollow: cut short, at the mean of the folds it had; a triangle at the edge: above it."""
    kinds = {(True, "o"): "all folds", (False, "o"): "cut short: the folds it had", (False, "^"): "cut short, above"}
    for (whole, sign), label in kinds.items():
        chosen = [
            (x, min(point.loss, top))
            for x, point in zip(across, points, strict=True)
            if point.whole == whole and (point.loss > top) == (sign == "^")
        ]
        if chosen:
            xs, ys = zip(*chosen, strict=True)
            face = BLUE if whole else "none"
            panel.scatter(xs, ys, s=28, marker=sign, facecolors=face, edgecolors=BLUE, label=label, zorder=3)
    room = 0.06 * (top - min([own, *(point.loss for point in points)]))
    panel.set_ylim(min([own, *(point.loss for point in points)]) - room, top + room)
    panel.axhline(own, color=INK, linestyle=(0, (5, 3)), linewidth=1, label="the model's own settings")
    panel.grid(color=GREY, linewidth=0.8)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


def _best_so_far(panel: Axes, points: list[Point]) -> None:
    whole = [point for point in points if point.whole]
    if whole:
        best = np.minimum.accumulate([point.loss for point in whole])
        panel.step([point.number for point in whole], best, where="post", color=ORANGE, label="best so far")


def _against(panel: Axes, key: str, points: list[Point], own: float, top: float, logarithmic: bool) -> None:
    values = [point.values[key] for point in points]
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if numeric:
        _scatter(panel, values, points, own, top)
        panel.set_xscale("log" if logarithmic else "linear")
        if not logarithmic and all(isinstance(value, int) for value in values):
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    else:
        words = [value if isinstance(value, str) else json.dumps(value) for value in values]
        names = sorted(set(words))
        _scatter(panel, [names.index(word) for word in words], points, own, top)
        panel.set_xticks(range(len(names)), [name[:24] for name in names])
        panel.set_xlim(-0.5, len(names) - 0.5)
    panel.set_xlabel(key)
