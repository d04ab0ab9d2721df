"""A pipeline as its settings name it: its steps, fitted on all labelled images, and scored by nested driver folds."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from driverwatch.config.ensemble import KnnSettings, PipelineSettings
from driverwatch.ensemble.blending import BLENDS
from driverwatch.ensemble.calibration import CALIBRATIONS, CLIP, LEVELS
from driverwatch.ensemble.class_balance import ClassBalance
from driverwatch.ensemble.embedding_index import EmbeddingIndex
from driverwatch.ensemble.knn_smoothing import Average, Clusters
from driverwatch.ensemble.transform import (
    FittedTransform,
    MemberPredictions,
    Transform,
    fit_transforms,
    nested_cross_validation,
)
from driverwatch.errors import InputError
from driverwatch.metrics import interval, limited, log_losses, oof_score


def steps_of(settings: PipelineSettings, spaces: Mapping[str, EmbeddingIndex]) -> list[Transform]:
    """Blend, balance with neighbours around it, calibration, clip, as far as asked for; a clip that is a number is not fitted.

    `spaces`: where images are compared, by the name of their features: those in `settings.embeddings`.
    """
    steps: list[Transform] = [BLENDS[settings.blend]]
    near = settings.knn
    for number in range(near.passes if near else 1):
        suffix = f" {number + 1}" if number else ""
        if near and near.smooth_before_balancing:
            steps.append(smoothing(near, spaces[near.embeddings], f" before{suffix}"))
        if near and near.passes > 1:
            steps.append(replace(CALIBRATIONS["temperature"], name=f"temperature before{suffix}"))
        if settings.class_balance:
            steps.append(ClassBalance(spaces[settings.class_balance], f"class_balance{suffix}"))
    steps += [smoothing(near, spaces[near.embeddings])] if near else []
    steps += [CALIBRATIONS[settings.calibrate]] if settings.calibrate != "none" else []
    return steps + ([CLIP] if settings.clip == "fitted" else [])


def smoothing(settings: KnnSettings, space: EmbeddingIndex, suffix: str = "") -> Transform:
    """The step that the settings name; `suffix` tells two in one pipeline apart."""
    if settings.method == "clusters":
        return Clusters(space, settings.k, f"clusters{suffix}")
    similar = None if settings.weights is None else settings.weights == "similar"
    geometric = None if settings.mean is None else settings.mean == "geometric"
    return Average(space, settings.k, similar, geometric, settings.rounds, f"knn{suffix}")


@dataclass(frozen=True, eq=False)
class Pipeline:
    """A fitted pipeline: its rules by step, and what they are worth on drivers that they were not fitted on."""

    rules: dict[str, FittedTransform]
    level: float  # of the clip that every row ends with
    clip: float  # what the settings asked for, or what was fitted
    probabilities: np.ndarray  # float64 (N, C), nested
    losses: np.ndarray  # (N,), of these
    standard_error: float  # of their mean, over drivers
    score: dict[str, Any]

    @property
    def facts(self) -> dict[str, Any]:
        """What was fitted, by step, and the clip, as JSON-able data."""
        return {"steps": {name: rule.facts for name, rule in self.rules.items()}, "clip": self.clip}


def fit(
    settings: PipelineSettings,
    predictions: MemberPredictions,
    labels: np.ndarray,
    drivers: np.ndarray,
    spaces: Mapping[str, EmbeddingIndex] = MappingProxyType({}),
) -> Pipeline:
    """Fit on all rows for a submission; score by nested folds, beside the plain mean clipped as ever.

    Args:
        labels: int (N,), in the order of `predictions`.
        drivers: (N,), in the same order.
        spaces: as for `steps_of`.
    """
    steps = steps_of(settings, spaces)
    rules = dict(zip([step.name for step in steps], fit_transforms(steps, predictions, labels, drivers), strict=True))
    level = float(settings.clip) if settings.clip != "fitted" else LEVELS[0]
    made = nested_cross_validation(steps, predictions, labels, drivers)
    losses, loss, error, right = oof_score(made, labels, drivers, level)
    plain = log_losses(predictions.members.mean(axis=0), labels)
    low, high = interval(losses - plain, drivers)
    score = {
        "out_of_fold_log_loss": round(loss, 4),
        "out_of_fold_accuracy": round(right, 4),
        "plain_mean_log_loss": round(float(plain.mean()), 4),
        "against_plain_mean": {"difference": _short(loss - plain.mean()), "95%": [_short(low), _short(high)]},
    }
    clip = rules["clip"].facts["level"] if "clip" in rules else level
    return Pipeline(rules, level, clip, limited(made, level), losses, error, score)


@dataclass(frozen=True, eq=False)
class Unfitted:
    """The plain mean, where no out-of-fold rows are there to fit anything to."""

    level: float
    rules: dict[str, FittedTransform]
    facts: dict[str, Any]


def unfitted(settings: PipelineSettings) -> Unfitted:
    """A pipeline without steps. Raises `InputError`: the settings ask for more than a plain mean."""
    if settings != PipelineSettings(clip=settings.clip) or settings.clip == "fitted":
        raise InputError(
            "ensemble: none of its runs was trained on folds, so nothing can be fitted to out-of-fold rows; leave BLEND, "
            "CLASS_BALANCE, KNN, CALIBRATE and CLIP at their defaults, or add a run that was"
        )
    return Unfitted(float(settings.clip), {}, {"steps": {}, "clip": settings.clip})


def _short(value: float) -> float:
    return round(float(value), 4) + 0.0  # no -0.0
