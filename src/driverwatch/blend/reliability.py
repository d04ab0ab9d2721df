"""Whether probabilities mean what they say: reliability tables, expected calibration error, and the curve as a picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from driverwatch.metrics import standard_error
from driverwatch.writing import replacing

BINS = 15  # as in Guo et al. 2017


def table(probabilities: np.ndarray, labels: np.ndarray, drivers: np.ndarray, bins: int = BINS) -> pd.DataFrame:
    """A line per bin of images that the rows are about equally sure of: `images`, `confidence`, `right`, `error`.

    Bins hold about equally many images each (Naeini et al. 2015 cut the sorted predictions so): most images are sure
    ones, and bins of equal width would leave most of them in one. Equal confidences share a bin, so that no order of rows
    matters; there may be fewer bins then.

    Args:
        probabilities: float (N, C), rows sum to 1.
        drivers: (N,); `error` is the standard error of `right` over drivers, NaN for a single one in the bin.
    """
    rows = np.asarray(probabilities, np.float64)
    sure, right = rows.max(axis=1), rows.argmax(axis=1) == labels
    edges = np.unique(np.quantile(sure, np.linspace(0, 1, bins + 1)[1:-1], method="lower"))
    index = np.searchsorted(edges, sure, side="left")
    lines = []
    for number in np.unique(index):
        chosen = index == number
        error = standard_error(right[chosen].astype(np.float64), drivers[chosen])
        lines.append((int(chosen.sum()), sure[chosen].mean(), right[chosen].mean(), error))
    return pd.DataFrame(lines, columns=["images", "confidence", "right", "error"])


def calibration_error(reliability: pd.DataFrame) -> float:
    """Expected calibration error of the likeliest class: mean over images of |right - confidence| of their bin."""
    gaps = (reliability["right"] - reliability["confidence"]).abs()
    return float((gaps * reliability["images"]).sum() / reliability["images"].sum())


def draw(curves: Mapping[Any, pd.DataFrame], title: str, path: Path) -> None:
    """Write the curves (name: table) as a PNG: share right over confidence, with the standard error over drivers."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--", label="as it says")
    for name, curve in curves.items():
        label = f"{name} (error {calibration_error(curve):.3f})"
        error = curve["error"].fillna(0)
        axes.errorbar(curve["confidence"], curve["right"], error, marker="o", markersize=4, linewidth=1, label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="confidence in the likeliest class", ylabel="share right", title=title)
    axes.legend(loc="upper left")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120, metadata={"Software": None})
