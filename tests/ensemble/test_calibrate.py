"""Calibration: temperature, class biases, floor; reliability and its error."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driverwatch.config.ensemble import CALIBRATION_NAMES
from driverwatch.ensemble import calibration
from driverwatch.ensemble.calibration import CALIBRATIONS, LEVELS, SHARPNESS, Floor, Softmax, clip
from driverwatch.ensemble.transform import MemberPredictions
from driverwatch.metrics import log_loss


def softmax(scores: np.ndarray) -> np.ndarray:
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def drawn(p: np.ndarray, seed: int = 0) -> np.ndarray:
    """A label for each row, drawn from it: so the rows are calibrated."""
    return (np.random.default_rng(seed).random((len(p), 1)) > p.cumsum(axis=1)).sum(axis=1).clip(max=p.shape[1] - 1)


def rows_of(p: np.ndarray) -> MemberPredictions:
    return MemberPredictions(np.arange(len(p)).astype(str), p[None], np.zeros(len(p), int))


@pytest.fixture(scope="module")
def true() -> np.ndarray:
    return softmax(2 * np.random.default_rng(1).normal(size=(20_000, 4)))


DRIVERS = np.repeat(np.arange(2000), 10)


def test_settings_name_them_all() -> None:
    assert ["none", *CALIBRATIONS] == list(CALIBRATION_NAMES)


@pytest.mark.parametrize("heat", [0.4, 1.0, 3.0])
def test_a_temperature_is_found_again(true: np.ndarray, heat: float) -> None:
    labels, spoilt = drawn(true), rows_of(softmax(np.log(true) / heat))  # undone by softening with 1 / heat
    rule = CALIBRATIONS["temperature"].fit(spoilt, labels, DRIVERS)
    assert rule.temperature == pytest.approx(1 / heat, rel=0.03)
    assert list(rule.facts) == ["temperature"]
    assert np.allclose(rule(spoilt).blended, softmax(np.log(true) / heat / rule.temperature), atol=1e-5)
    assert (rule(spoilt).blended.argmax(axis=1) == true.argmax(axis=1)).all()


def test_biases_are_found_again(true: np.ndarray) -> None:
    shift = np.array([1.0, -0.5, 0.0, -0.5])
    labels, spoilt = drawn(true), rows_of(softmax(np.log(true) - shift))
    rule = CALIBRATIONS["bias"].fit(spoilt, labels, DRIVERS)
    assert rule.bias - rule.bias.mean() == pytest.approx(shift, abs=0.06)
    assert rule.temperature == pytest.approx(1, rel=0.05)
    one = CALIBRATIONS["bias"].fit(spoilt, labels, np.zeros(len(labels)))
    assert np.abs(one.bias).max() < 0.5 * np.abs(rule.bias).max()  # one driver says little of others


@pytest.mark.parametrize("name", list(CALIBRATIONS))
@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 12), sure=st.sampled_from([0.0, 0.5, 1.0]))
def test_any_rows_can_be_calibrated(name: str, seed: int, count: int, sure: float) -> None:
    """Certain rows, all right or all wrong, one row alone, classes that no image shows; no loss rises where it is fitted."""
    chance = np.random.default_rng(seed)
    labels = chance.integers(3, size=count)
    other = (labels + chance.integers(3, size=count)) % 3
    rows = rows_of(sure * np.eye(3)[other] + (1 - sure) * chance.dirichlet(np.ones(3), count))
    rule = CALIBRATIONS[name].fit(rows, labels, np.arange(count))
    assert 1 / SHARPNESS[1] - 1e-9 <= rule.temperature <= 1 / SHARPNESS[0] + 1e-9
    found = rule(rows).blended
    assert np.isfinite(found).all()
    assert log_loss(found, labels) <= log_loss(rows.blended, labels) + 1e-6


def test_a_softmax_by_hand() -> None:
    rule = Softmax(0.5, np.log([1.0, 3.0]))
    assert rule(rows_of(np.array([[0.75, 0.25]]))).blended == pytest.approx(np.array([[9, 3]]) / 12)
    assert rule.facts == {"temperature": 0.5, "bias": [0.0, 1.098612]}


def test_the_floor_is_as_high_as_the_mistakes_are_frequent() -> None:
    p = np.tile([1.0, 0.0, 0.0], (1000, 1))
    labels = np.zeros(1000, int)
    assert clip(rows_of(p), labels, labels).level == LEVELS[0]  # never wrong
    labels[:20] = 1
    found = clip(rows_of(p), labels, labels)
    best = min(LEVELS, key=lambda level: log_loss(Floor(level)(rows_of(p)).blended, labels))
    assert found.level == best == 0.01
    assert Floor(0.1)(rows_of(p)).blended[0] == pytest.approx(np.array([1, 0.1, 0.1]) / 1.2)
    assert clip(rows_of(np.full((4, 2), 0.5)), np.zeros(4, int), np.zeros(4)).level == LEVELS[0]  # all the same: ties


def test_averaging_calibrated_folds_beats_softening_their_average() -> None:
    """Overconfident fold models with errors of their own: the temperature of one is too much for their average."""
    chance = np.random.default_rng(4)
    labels = chance.integers(4, size=4000)
    scores = 2.0 * np.eye(4)[labels] + chance.normal(size=(4000, 4))
    folds = [softmax(1.5 * (scores + 1.5 * chance.normal(size=scores.shape))) for _ in range(5)]
    rule = CALIBRATIONS["temperature"].fit(rows_of(folds[0]), labels, labels)
    assert rule.temperature > 1
    first = np.mean([rule(rows_of(p)).blended for p in folds], axis=0)
    last = rule(rows_of(np.mean(folds, axis=0))).blended
    assert log_loss(first, labels) < log_loss(last, labels)
    assert log_loss(first, labels) < np.mean([log_loss(rule(rows_of(p)).blended, labels) for p in folds])


def test_calibrated_rows_have_a_small_error(true: np.ndarray) -> None:
    labels = drawn(true)
    table = calibration.table(true, labels, DRIVERS)
    assert len(table) == 15
    assert table["images"].sum() == len(labels)
    assert np.ptp(table["images"]) <= 2
    assert calibration.calibration_error(table) < 0.01
    assert (table["error"] < 0.03).all()
    surer = calibration.table(softmax(3 * np.log(true)), labels, DRIVERS)
    assert calibration.calibration_error(surer) > 0.1


def test_the_calibration_error_by_hand() -> None:
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    table = calibration.table(p, np.array([0, 1, 1, 1]), np.array(list("aabb")), bins=2)
    assert list(table["accuracy"]) == [1.0, 0.5]
    assert list(table["confidence"]) == pytest.approx([0.6, 0.9])
    assert calibration.calibration_error(table) == pytest.approx((0.4 + 0.4) / 2)


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 40))
def test_reliability_asks_for_no_order(seed: int, count: int) -> None:
    chance = np.random.default_rng(seed)
    p = np.eye(3)[chance.integers(3, size=count)] * 0.5 + 0.5 / 3  # all equally sure: one bin
    p[: count // 2] = chance.dirichlet(np.ones(3), count // 2)
    labels, drivers = chance.integers(3, size=count), chance.integers(2, size=count)
    order = chance.permutation(count)
    one = calibration.table(p, labels, drivers)
    two = calibration.table(p[order], labels[order], drivers[order])
    pd.testing.assert_frame_equal(one, two)
    assert 0 <= calibration.calibration_error(one) <= 1


def test_a_curve_is_drawn_the_same_each_time(true: np.ndarray, tmp_path: Path) -> None:
    labels = drawn(true)
    alone = calibration.table(true, labels, np.zeros(len(labels)))  # a driver alone: no error bars
    curves = {"none": alone, "temperature": calibration.table(true, labels, DRIVERS)}
    for name in ("one", "two"):
        calibration.draw(curves, "demo", tmp_path / "calibration" / f"{name}.png")
    made = [(tmp_path / "calibration" / f"{name}.png").read_bytes() for name in ("one", "two")]
    assert made[0] == made[1]
    assert made[0].startswith(b"\x89PNG")
