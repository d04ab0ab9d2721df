"""Class balance within drivers reaches its marginals, or says that it does not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driverwatch.ensemble import class_balance
from driverwatch.ensemble.class_balance import shift


def gap(rows: np.ndarray, factors: np.ndarray, prior: np.ndarray) -> float:
    """How far the class means of shifted rows are from the prior."""
    scaled = rows * factors
    return float(np.abs((scaled / scaled.sum(axis=1, keepdims=True)).mean(axis=0) - prior).max())


@given(st.integers(0, 2**32 - 1), st.integers(1, 120), st.integers(2, 12), st.floats(-2.5, 0.5))
def test_class_means_are_the_priors_to_a_millionth(seed: int, count: int, classes: int, sure: float) -> None:
    random = np.random.default_rng(seed)
    rows = np.maximum(random.dirichlet(np.full(classes, 10**sure), count), class_balance.FLOOR)
    prior = np.maximum(random.dirichlet(np.full(classes, 2.0)), 1e-4)
    prior /= prior.sum()
    assert gap(rows, shift(rows, prior), prior) < 1e-6


def test_sure_rows_are_reached_too(capsys: pytest.CaptureFixture[str]) -> None:
    """51 images surely of one class and 49 of the other: columns and rows scaled in turn a hundred times end 0.01 from a half."""
    rows = np.maximum(np.eye(2)[np.repeat([0, 1], [51, 49])], class_balance.FLOOR)
    prior = np.full(2, 0.5)
    assert gap(rows, shift(rows, prior), prior) < 1e-6
    assert capsys.readouterr().out == ""


def test_two_rows_by_hand() -> None:
    """With odds x the class means are (4x / (1 + 4x) + x / (4 + x)) / 2: of 2/3 where 8x^2 - 17x - 16 = 0."""
    rows, prior = np.array([[0.8, 0.2], [0.2, 0.8]]), np.array([2 / 3, 1 / 3])
    factors = shift(rows, prior)
    assert factors[0] / factors[1] == pytest.approx((17 + 801**0.5) / 16, rel=1e-5)


def test_what_is_not_reached_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(class_balance, "ROUNDS", 1)
    rows = np.maximum(np.eye(2)[np.repeat([0, 1], [51, 49])], class_balance.FLOOR)
    shift(rows, np.full(2, 0.5))
    said = capsys.readouterr().out
    assert "balance: the class means of a driver with 100 images end" in said
    assert "1e-06 is meant" in said
