"""Prediction interval for the log loss on unseen drivers, and what averaging may save."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driverwatch.ensemble.prediction_interval import averaging_gain, prediction_interval
from driverwatch.errors import InputError
from driverwatch.metrics import log_loss


def losses(
    seed: int, drivers: int, spread: float = 0.8, least: int = 20, most: int = 60
) -> tuple[np.ndarray, np.ndarray]:
    """Log-normal losses of drivers, and frames around them."""
    chance = np.random.default_rng(seed)
    names = np.repeat(np.arange(drivers), chance.integers(least, most, drivers))
    return np.exp(chance.normal(-1, spread, drivers))[names] * chance.uniform(0.5, 1.5, len(names)), names


def test_the_expected_loss_is_the_mean_over_images() -> None:
    values, drivers = losses(0, 19)
    found = prediction_interval(values, drivers, 7)
    assert found.expected == pytest.approx(values.mean())
    assert found.low < found.drawn[0] < found.expected < found.drawn[1] < found.high
    assert (found.unseen, found.known, found.level) == (7, 19, 0.9)
    assert prediction_interval(values, drivers).unseen == 19


def test_the_interval_holds_as_often_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 150 worlds of 19 drivers, the seven new ones lie within most of the time; by drawing known ones, less often."""
    monkeypatch.setattr("driverwatch.ensemble.prediction_interval.RESAMPLES", 1000)
    kept, drawn = 0, 0
    for seed in range(150):
        values, drivers = losses(seed, 26, 0.6)
        old, new = drivers < 19, values[drivers >= 19].mean()
        found = prediction_interval(values[old], drivers[old], 7)
        kept += found.low <= new <= found.high
        drawn += found.drawn[0] <= new <= found.drawn[1]
    assert 0.8 <= kept / 150 <= 0.97
    assert drawn < kept


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1))
def test_the_order_of_images_and_the_unit_decide_nothing(seed: int) -> None:
    values, drivers = losses(seed, 5, most=30)
    order = np.random.default_rng(seed).permutation(len(values))
    one, two, large = (
        prediction_interval(values, drivers),
        prediction_interval(values[order], drivers[order]),
        prediction_interval(10 * values, drivers),
    )
    assert (one.low, one.high) == pytest.approx((two.low, two.high), rel=1e-6)
    assert (10 * one.low, 10 * one.high) == pytest.approx((large.low, large.high), rel=1e-6)


def test_fewer_unseen_drivers_are_less_sure() -> None:
    values, drivers = losses(1, 19)
    few, many = prediction_interval(values, drivers, 3), prediction_interval(values, drivers, 100)
    assert few.high - few.low > many.high - many.low


def test_near_duplicate_frames_teach_nothing() -> None:
    values, drivers = losses(2, 8)
    once, often = (
        prediction_interval(values, drivers, 7),
        prediction_interval(np.repeat(values, 5), np.repeat(drivers, 5), 7),
    )
    assert (once.low, once.high) == pytest.approx((often.low, often.high))


@pytest.mark.parametrize(
    ("values", "drivers"),
    [
        ([0.5, 0.7, 0.6], ["a", "a", "a"]),
        ([0.5, 0.5, 0.5], ["a", "b", "c"]),
        ([0.0, 0.0], ["a", "b"]),
        ([0.3], ["a"]),
    ],
)
def test_one_driver_or_equal_ones_leave_no_width(values: list[float], drivers: list[str]) -> None:
    found = prediction_interval(np.array(values), np.array(drivers), 7)
    assert found.low == found.high == pytest.approx(np.mean(values))


def test_drivers_without_loss_break_nothing() -> None:
    found = prediction_interval(np.array([0.0, 0.0, 2.0]), np.array(["a", "b", "c"]), 1)
    assert 0 <= found.low <= found.expected <= found.high < np.inf


@pytest.mark.parametrize(
    ("values", "drivers", "unseen"),
    [
        ([], [], 7),
        ([1.0], ["a", "b"], 7),
        ([np.nan], ["a"], 7),
        ([-1.0], ["a"], 7),
        ([1.0], ["a"], 0),
        ([[1.0]], [["a"]], 7),
    ],
)
def test_only_losses_are_taken(values: list[float], drivers: list[str], unseen: int) -> None:
    with pytest.raises(InputError, match="prediction interval: expected"):
        prediction_interval(np.array(values), np.array(drivers), unseen)


def test_the_gain_is_the_saving_when_the_average_is_calibrated() -> None:
    """Labels drawn from the average of the folds: what it saves is what was said before any label was there."""
    chance = np.random.default_rng(0)
    folds = chance.dirichlet(np.full(5, 0.5), (4, 30_000))
    average = folds.mean(axis=0)
    labels = (chance.random((30_000, 1)) > average.cumsum(axis=1)).sum(axis=1).clip(max=4)
    saved = np.mean([log_loss(np.maximum(fold, 1e-5), labels) for fold in folds]) - log_loss(average, labels)
    assert averaging_gain(folds, 1e-5) == pytest.approx(saved, rel=0.02)


def test_folds_that_agree_save_nothing() -> None:
    rows = np.random.default_rng(0).dirichlet(np.ones(3), 10)
    assert averaging_gain(np.stack([rows] * 5), 1e-5) == pytest.approx(0, abs=1e-12)
    assert averaging_gain(rows[None], 1e-5) == pytest.approx(0, abs=1e-12)
    assert averaging_gain(np.empty((5, 0, 3)), 1e-5) == 0
    certain = np.stack([np.eye(2)[[0]], np.eye(2)[[1]]])
    assert averaging_gain(certain, 1e-5) == pytest.approx(np.log(1e5) / 2 - np.log(2), rel=1e-3)  # of a coin
