"""The linear probe: a softmax by multinomial logistic regression on features.

A converged head before the backbone is touched distorts pretrained features least (Kumar et al. 2022, arXiv:2202.10054).
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from driverwatch.config.loading import parse
from driverwatch.config.model import ModelSettings
from driverwatch.errors import InputError, nearest
from driverwatch.metrics import log_loss

INNER_FOLDS = 3


@dataclass(frozen=True)
class Sample:
    """Features float (N, F), labels int (N,), weights in the mean float (N,)."""

    features: np.ndarray
    labels: np.ndarray
    weights: np.ndarray

    def __getitem__(self, chosen: np.ndarray) -> "Sample":
        return Sample(self.features[chosen], self.labels[chosen], self.weights[chosen])


@dataclass(frozen=True)
class LinearProbe:
    """A softmax layer: `kernel` float32 (F, C), `bias` float32 (C,); `l2` that was chosen, and the inner folds' loss by l2."""

    kernel: np.ndarray
    bias: np.ndarray
    l2: float
    inner: dict[float, float]

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Probabilities (N, C)."""
        return softmax(features @ self.kernel + self.bias, axis=1)


def fit_linear_probe(sample: Sample, drivers: np.ndarray, classes: int, l2: list[float]) -> LinearProbe:
    """Minimise mean cross-entropy + l2/2 |kernel|^2 over standardised features.

    With several `l2`, the one with the least log loss on inner folds by driver (N,) is taken, so that no validation driver of
    the outer fold has a say. Where there are more features than rows, the solution is in the rows' span and is sought
    there. A class without rows gets no kernel and a bias below all others'.
    """
    mean = np.asarray(sample.features.mean(axis=0, dtype=np.float64))
    deviation = np.asarray(sample.features.std(axis=0, dtype=np.float64))
    deviation[deviation <= 1e-6 * max(float(deviation.max()), 1e-12)] = np.inf  # a constant feature says nothing
    standard = sample.features.astype(np.float32) - mean.astype(np.float32)
    standard /= deviation.astype(np.float32)
    basis = None
    if standard.shape[1] > standard.shape[0]:
        basis, triangle = np.linalg.qr(standard.T)
        standard = np.ascontiguousarray(triangle.T)
    sample = Sample(standard, sample.labels, sample.weights)
    inner = _inner_losses(sample, drivers, classes, l2) if len(l2) > 1 else {}
    chosen = min(inner, key=inner.__getitem__) if inner else max(l2)
    *_, (_, kernel, bias) = _path(sample, classes, [one for one in l2 if one >= chosen])
    kernel = (kernel if basis is None else basis @ kernel) / deviation[:, None]
    return LinearProbe(kernel.astype(np.float32), (bias - mean @ kernel).astype(np.float32), chosen, inner)


def _inner_losses(sample: Sample, drivers: np.ndarray, classes: int, l2: list[float]) -> dict[float, float]:
    """Log loss on inner validation drivers by l2; empty where there is one driver."""
    count = min(INNER_FOLDS, len(np.unique(drivers)))
    if count < 2:
        return {}
    found = {strength: np.zeros((len(drivers), classes)) for strength in l2}
    for train, validation in GroupKFold(count).split(drivers, groups=drivers):
        for strength, kernel, bias in _path(sample[train], classes, l2):
            found[strength][validation] = softmax(sample.features[validation] @ kernel + bias, axis=1)
    return {strength: log_loss(p, sample.labels) for strength, p in found.items()}


def _path(sample: Sample, classes: int, l2: list[float]) -> Iterator[tuple[float, np.ndarray, np.ndarray]]:
    """Strength, kernel (F, C) and bias (C,), from the strongest penalty down, each started at the one before.

    Scikit-learn's C multiplies a sum over rows, so it is 1 / (l2 * sum of weights).
    """
    there = np.unique(sample.labels)
    model = LogisticRegression(warm_start=True, max_iter=500, tol=3e-4)
    for strength in sorted(l2, reverse=True):
        kernel, bias = np.zeros((sample.features.shape[1], classes)), np.full(classes, -20.0)
        if len(there) == 1:
            bias[there] = 0.0
            yield strength, kernel, bias
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # after 500 iterations it is as good as it gets
            kernels = 2 if len(there) == 2 else 1  # of two classes it fits the difference, which both kernels share
            model.set_params(C=kernels / (strength * sample.weights.sum()))
            model.fit(sample.features, sample.labels, sample_weight=sample.weights)
        weights, biases = model.coef_.astype(np.float64), model.intercept_.astype(np.float64)
        if len(there) == 2:  # one row says it for both
            weights, biases = np.concatenate([-weights, weights]) / 2, np.concatenate([-biases, biases]) / 2
        bias[:] = biases.min() - 10
        kernel[:, there], bias[there] = weights.T, biases
        yield strength, kernel, bias


HEADS = ("linear_probe", "dense")
UNITS, DRAWS = [256], 4  # of the dense head, where the model's own settings do not say


def linear_probe_settings(settings: ModelSettings, head: str, cut: str | None) -> ModelSettings:
    """A model's settings with its backbone frozen throughout.

    Raises `InputError`: another head, or settings that do not fit together.

    Args:
        head: `linear_probe` solves for the softmax; `dense` trains a small dense head (`head.dense`, else 256 units) on cached
            augmentation draws (`train.augmentation_passes`, else 4).
        cut: last layer kept of the backbone; None: as the model has it.
    """
    if head not in HEADS:
        raise InputError(f"HEAD={head}: expected {' or '.join(HEADS)}{nearest(head, list(HEADS))}")
    if settings.weights == "none":
        raise InputError(
            f"features of {settings.backbone}: expected pretrained weights, the model says weights: none; random layers give "
            "no features worth the name, train it instead"
        )
    content = settings.model_dump()
    content["truncate_at"] = cut or settings.truncate_at
    content["train"]["stages"] = [{"freeze_until": "head", "fit": "linear_probe"}]
    if head == "dense":
        content["head"]["dense"] = settings.head.dense or UNITS
        content["train"] |= {"augmentation_passes": settings.train.augmentation_passes or DRAWS, "optimizer": "adam"}
        content["train"]["stages"] = [{"freeze_until": "head", "epochs": 20, "learning_rate": 1e-3}]
    return parse(ModelSettings, content, f"features of {settings.backbone}")
