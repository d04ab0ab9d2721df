"""Calibration of blended probabilities: temperature, class biases and a floor, each fitted on out-of-fold ones.

Out-of-fold probabilities come from single fold models, and an average of folds is softer: a temperature put on that average would
soften twice. A fitted pipeline is therefore applied to each fold's models, and its results are averaged. As -log is convex, the
average's loss is at most the mean of the folds' losses (Jensen), whose estimate is what was fitted. The average is a little
underconfident (Rahaman & Thiery 2021, arXiv:2007.08792), which costs less than that bound gains.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize

from driverwatch.ensemble.blending import softmax_loss
from driverwatch.ensemble.transform import MemberPredictions, Step
from driverwatch.io.atomic import replacing
from driverwatch.io.html import DATA_COLOURS, PALETTE, PLOT_STYLE
from driverwatch.metrics import TINY, limited, log_loss, standard_error

SHARPNESS = (0.05, 20.0)  # bounds of 1 / temperature: rows that are all right or all wrong would resume without end
STARTS = (1.0, *np.geomspace(*SHARPNESS, 17).tolist())
CURVES = tuple(zip(DATA_COLOURS, "os^Dv", strict=False))  # colour, marker
LEVELS = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)  # of the floor; no printed loss tells lower ones apart


@dataclass(frozen=True, eq=False)
class Softmax:
    """Rows become softmax(log(p) / temperature + bias). `bias`: float (C,)."""

    temperature: float
    bias: np.ndarray

    @property
    def facts(self) -> dict[str, Any]:
        """Temperature, and the biases in the order of the classes, unless all are 0."""
        shift = {"bias": np.round(self.bias, 6).tolist()} if self.bias.any() else {}
        return {"temperature": round(self.temperature, 6), **shift}

    def __call__(self, predictions: MemberPredictions) -> MemberPredictions:
        scores = np.log(np.maximum(predictions.members, TINY)) / self.temperature + self.bias
        return predictions.changed(np.exp(scores - scores.max(axis=2, keepdims=True)))


def temperature(predictions: MemberPredictions, labels: np.ndarray, drivers: np.ndarray) -> Softmax:
    """The one temperature (Guo et al. 2017, arXiv:1706.04599) with the least log loss for labels int (N,), of any drivers."""
    return _fit(predictions.blended, labels, np.inf)


def bias(predictions: MemberPredictions, labels: np.ndarray, drivers: np.ndarray) -> Softmax:
    """A temperature, and a bias for each class (vector scaling with one scale, Guo et al. 2017), drawn towards 0.

    The ridge on biases is that of a normal prior with standard deviation 1 (a factor e in odds) when each driver, not each
    frame, is an observation: mean log loss + sum(bias ** 2) / (2 D) for D drivers. Classes are drawn alike in training and
    test, so a bias corrects the models, not the mix. Labels are int (N,), drivers (N,).
    """
    return _fit(predictions.blended, labels, 1 / len(np.unique(drivers)))


def _fit(probabilities: np.ndarray, labels: np.ndarray, ridge: float) -> Softmax:
    """Minimise the log loss of softmax(z) + ridge/2 |b|^2 for z = log(p) / T + b, by L-BFGS with its gradient in (1/T, b).

    But for the floor of the log loss it is convex. A few temperatures are tried first, and it goes down from the best; with an
    infinite ridge b stays 0.
    """
    logs, classes = np.log(np.maximum(probabilities, TINY)), probabilities.shape[1]
    pull = ridge if np.isfinite(ridge) else 0.0

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = softmax_loss(x[0] * logs + x[1:], labels)
        value += pull / 2 * float((x[1:] ** 2).sum())
        return value, np.concatenate([[(slope * logs).sum()], slope.sum(axis=0) + pull * x[1:]])

    limit = (None, None) if np.isfinite(ridge) else (0.0, 0.0)
    starts = [np.concatenate([[sharpness], np.zeros(classes)]) for sharpness in STARTS]
    start = min(starts, key=lambda x: loss(x)[0])
    options = {"ftol": 1e-13, "gtol": 1e-8, "maxiter": 500}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[SHARPNESS] + [limit] * classes, options=options)
    best = found.x if found.fun < loss(start)[0] else start
    return Softmax(float(1 / best[0]), best[1:])


@dataclass(frozen=True)
class Floor:
    """Rows limited to [level, 1] and divided by their sum."""

    level: float

    @property
    def facts(self) -> dict[str, Any]:
        return {"level": self.level}

    def __call__(self, predictions: MemberPredictions) -> MemberPredictions:
        return predictions.changed(limited(predictions.members, self.level))


def clip(predictions: MemberPredictions, labels: np.ndarray, drivers: np.ndarray) -> Floor:
    """The floor of the grid `LEVELS` with the lowest log loss for labels int (N,), of any drivers; the lowest of equals."""
    losses = [log_loss(predictions.blended, labels, level) for level in LEVELS]
    return Floor(LEVELS[int(np.argmin(losses))])


CALIBRATIONS = {step.name: step for step in (Step("temperature", temperature), Step("bias", bias))}
CLIP = Step("clip", clip)

BINS = 15  # as in Guo et al. 2017


def table(probabilities: np.ndarray, labels: np.ndarray, drivers: np.ndarray, bins: int = BINS) -> pd.DataFrame:
    """A line per bin of images that the rows are about equally sure of: `images`, `confidence`, `accuracy`, `error`.

    Bins hold about equally many images each (Naeini et al. 2015 cut the sorted predictions so): most images are sure
    ones, and bins of equal width would leave most of them in one. Equal confidences share a bin, so that no order of rows
    matters; there may be fewer bins then.

    Args:
        probabilities: float (N, C), rows sum to 1.
        drivers: (N,); `error` is the standard error of `accuracy` over drivers, NaN for a single one in the bin.
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
    return pd.DataFrame(lines, columns=["images", "confidence", "accuracy", "error"])


def calibration_error(reliability: pd.DataFrame) -> float:
    """Expected calibration error of the likeliest class: mean over images of |right - confidence| of their bin."""
    gaps = (reliability["accuracy"] - reliability["confidence"]).abs()
    return float((gaps * reliability["images"]).sum() / reliability["images"].sum())


def draw(curves: Mapping[Any, pd.DataFrame], title: str, path: Path) -> None:
    """Write the curves (name: table) as a PNG: accuracy over confidence, with the standard error over drivers.

    Each colour comes with a marker of its own. The file's `Description` says in words what is drawn.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(PLOT_STYLE):
        figure = Figure(figsize=(6, 5.5), layout="constrained")
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=PALETTE["soft"], linewidth=1, linestyle="--", label="perfect calibration")
        for (name, curve), (colour, marker) in zip(curves.items(), CURVES, strict=False):
            label = f"{name} (calibration error {calibration_error(curve):.3f})"
            axes.errorbar(curve["confidence"], curve["accuracy"], curve["error"].fillna(0), color=colour, marker=marker,
                          markersize=5, elinewidth=1, label=label)  # fmt: skip
        axes.set(xlim=(0, 1.01), ylim=(0, 1.03), xlabel="confidence in the likeliest class", ylabel="accuracy")
        axes.set_title(title)
        axes.legend(loc="upper left")
    errors = ", ".join(f"{name} {calibration_error(curve):.3f}" for name, curve in curves.items())
    words = f"{title}: accuracy over confidence in the likeliest class; calibration error: {errors}"
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120, metadata={"Software": None, "Description": words})
