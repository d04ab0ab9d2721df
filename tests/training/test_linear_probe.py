"""The softmax solved for: a minimum, chosen by driver, whatever the classes and features."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from driverwatch.training.linear_probe import Sample, fit_linear_probe


def sample_of(count: int, features: int, classes: int = 3, seed: int = 0) -> tuple[Sample, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count)
    values = random.normal(size=(count, features)) + 1.5 * np.eye(classes, features)[labels]
    return Sample((5 + 3 * values).astype("float32"), labels, np.ones(count)), np.arange(count) // 10


def objective(found: object, sample: Sample, l2: float) -> float:
    """What `solve` says it minimises, from its answer alone."""
    deviation = sample.features.std(axis=0, dtype=np.float64)
    loss = -np.log(found(sample.features)[np.arange(len(sample.labels)), sample.labels]).mean()
    return float(loss + l2 / 2 * ((found.kernel * deviation[:, None]) ** 2).sum())


@pytest.mark.parametrize("features", [5, 300])
def test_the_solution_is_a_minimum(features: int) -> None:
    """Also where there are more features than rows."""
    sample, drivers = sample_of(120, features)
    found = fit_linear_probe(sample, drivers, 3, [0.1])
    best = objective(found, sample, 0.1)
    random = np.random.default_rng(1)
    for size in (1e-2, 1e-1):
        for _ in range(5):
            step = random.normal(size=found.kernel.shape) * size / found.kernel.shape[0] ** 0.5
            other = type(found)(found.kernel + step.astype("float32"), found.bias, 0.1, {})
            assert objective(other, sample, 0.1) > best - 1e-4
    standard = (sample.features - sample.features.mean(axis=0)) / sample.features.std(axis=0)
    model = LogisticRegression(C=1 / (0.1 * 120), max_iter=5000, tol=1e-8).fit(standard, sample.labels)
    assert np.allclose(found(sample.features), model.predict_proba(standard), atol=5e-3)


def test_the_penalty_is_chosen_on_drivers() -> None:
    """Features that name the driver help on rows of known drivers and mislead on others: only inner folds by driver see it."""
    random = np.random.default_rng(0)
    drivers = np.repeat(np.arange(12), 10)
    labels = random.integers(0, 3, 12)[drivers]  # each driver shows one class only
    names = np.eye(12)[drivers] * 4
    sample = Sample(np.hstack([names, random.normal(size=(120, 4))]).astype("float32"), labels, np.ones(120))
    found = fit_linear_probe(sample, drivers, 3, [0.001, 30.0])
    assert found.l2 == 30.0
    assert found.inner[30.0] < found.inner[0.001]


def test_classes_without_rows_and_two_classes() -> None:
    sample, drivers = sample_of(60, 4, classes=2)
    found = fit_linear_probe(sample, drivers, 4, [0.1])
    rows = found(sample.features)
    assert rows.shape == (60, 4)
    assert (rows[:, 2:] < 1e-4).all()
    assert (rows.argmax(axis=1) == sample.labels).mean() > 0.8
    alone = fit_linear_probe(Sample(sample.features, np.zeros(60, int), sample.weights), drivers, 3, [0.1, 1.0])
    assert (alone(sample.features)[:, 0] > 0.99).all()


def test_constant_features_and_weights() -> None:
    sample, drivers = sample_of(90, 4)
    constant = np.hstack([sample.features, np.full((90, 1), 7, "float32")])
    with_it = fit_linear_probe(Sample(constant, sample.labels, sample.weights), drivers, 3, [0.1])
    assert np.allclose(with_it(constant), fit_linear_probe(sample, drivers, 3, [0.1])(sample.features), atol=1e-3)
    heavy = np.where(sample.labels == 0, 50.0, 1.0)
    leaning = fit_linear_probe(Sample(sample.features, sample.labels, heavy), drivers, 3, [0.1])(sample.features)
    assert (leaning.argmax(axis=1) == 0).mean() > (sample.labels == 0).mean() + 0.1
