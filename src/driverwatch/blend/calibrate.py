"""Calibration of blended rows: temperature, class biases and a floor, each fitted on out-of-fold rows.

Out-of-fold rows come from single fold models; a submission averages the folds, which is softer already, so a temperature
fitted out of fold and put on that average would soften twice. A fitted chain is therefore applied to each fold's models as it
was fitted, and its results are averaged. As -log is convex, the average's loss is at most the mean of the folds' losses
(Jensen), whose estimate is what was fitted; no such bound holds the other way round. The average of calibrated rows is a little
underconfident (Rahaman & Thiery 2021, arXiv:2007.08792), which costs less than that bound gains; by how much nobody knows
before labels of the test set do.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize

from driverwatch.blend.chain import Rows
from driverwatch.metrics import CLIP, limited, log_loss

SHARPNESS = (0.05, 20.0)  # bounds of 1 / temperature: rows that are all right or all wrong would go on without end
LEVELS = (1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)  # of the floor; a submission has seven decimals


@dataclass(frozen=True, eq=False)
class Softmax:
    """Rows become softmax(log(p) / temperature + bias).

    Args:
        bias: float (C,).
    """

    temperature: float
    bias: np.ndarray

    @property
    def facts(self) -> dict[str, Any]:
        shift = {"bias": np.round(self.bias, 6).tolist()} if self.bias.any() else {}
        return {"temperature": round(self.temperature, 6), **shift}

    def __call__(self, rows: Rows) -> Rows:
        scores = np.log(np.maximum(rows.members, CLIP)) / self.temperature + self.bias
        return rows.changed(np.exp(scores - scores.max(axis=2, keepdims=True)))


@dataclass(frozen=True)
class Temperature:
    """One temperature for all (Guo et al. 2017, arXiv:1706.04599), on log probabilities, where the log loss is least."""

    name: str = "temperature"

    def fit(self, rows: Rows, labels: np.ndarray, drivers: np.ndarray) -> Softmax:
        return _fit(rows.blended, labels, np.inf)


@dataclass(frozen=True)
class Bias:
    """A temperature, and a bias for each class (vector scaling with one scale, Guo et al. 2017), drawn towards 0.

    The ridge on biases is that of a normal prior with standard deviation 1 (a factor e in odds) when each driver, not each
    frame, is an observation: mean log loss + sum(bias ** 2) / (2 D) for D drivers. Classes are drawn alike in training and
    test, so a bias corrects the models, not the mix.
    """

    name: str = "bias"

    def fit(self, rows: Rows, labels: np.ndarray, drivers: np.ndarray) -> Softmax:
        return _fit(rows.blended, labels, 1 / len(np.unique(drivers)))


def _fit(rows: np.ndarray, labels: np.ndarray, ridge: float) -> Softmax:
    """Minimise mean(logsumexp(z) - z_y) + ridge/2 |b|^2 for z = log(p) / T + b, convex in (1/T, b), by L-BFGS with its gradient.

    With an infinite ridge b stays 0.
    """
    logs, classes = np.log(np.maximum(rows, CLIP)), rows.shape[1]
    taken = np.bincount(labels, minlength=classes) / len(labels)
    chosen = logs[np.arange(len(labels)), labels].mean()
    pull = ridge if np.isfinite(ridge) else 0.0

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        scores = x[0] * logs + x[1:]
        top = scores.max(axis=1, keepdims=True)
        p = np.exp(scores - top)
        total = p.sum(axis=1, keepdims=True)
        value = (np.log(total) + top).mean() - x[0] * chosen - taken @ x[1:] + pull / 2 * (x[1:] ** 2).sum()
        p /= total
        slope = (p * logs).sum(axis=1).mean() - chosen
        return float(value), np.concatenate([[slope], p.mean(axis=0) - taken + pull * x[1:]])

    limit = (None, None) if np.isfinite(ridge) else (0.0, 0.0)
    start = np.concatenate([[1.0], np.zeros(classes)])
    options = {"ftol": 1e-13, "gtol": 1e-8, "maxiter": 500}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[SHARPNESS] + [limit] * classes, options=options)
    return Softmax(float(1 / found.x[0]), found.x[1:])


@dataclass(frozen=True)
class Floor:
    """Rows limited to [level, 1] and divided by their sum."""

    level: float

    @property
    def facts(self) -> dict[str, Any]:
        return {"level": self.level}

    def __call__(self, rows: Rows) -> Rows:
        return rows.changed(limited(rows.members, self.level))


@dataclass(frozen=True)
class Clip:
    """The floor of the grid `LEVELS` with the lowest log loss; ties go to the lowest floor."""

    name: str = "clip"

    def fit(self, rows: Rows, labels: np.ndarray, drivers: np.ndarray) -> Floor:
        losses = [log_loss(limited(rows.blended, level), labels) for level in LEVELS]
        return Floor(LEVELS[int(np.argmin(losses))])


CALIBRATIONS = {step.name: step for step in (Temperature(), Bias())}
