"""Rows, and pipelines of steps that are fitted on some drivers and scored on others."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.pipelines import world

from driverwatch.ensemble.blending import BLENDS
from driverwatch.ensemble.calibration import CALIBRATIONS, CLIP
from driverwatch.ensemble.transform import (
    MemberPredictions,
    Transform,
    apply_transforms,
    fit_transforms,
    nested_cross_validation,
)
from driverwatch.errors import InputError
from driverwatch.metrics import log_loss

PIPELINES: list[list[Transform]] = [
    [blend, *calibration, CLIP]
    for blend in BLENDS.values()
    for calibration in ([], *[[c] for c in CALIBRATIONS.values()])
]
every_pipeline = pytest.mark.parametrize("steps", PIPELINES, ids=lambda s: "-".join(step.name for step in s))


def uniform(names: list[str], members: int = 2, classes: int = 3) -> np.ndarray:
    return np.full((members, len(names), classes), 1 / classes)


NAMES = ["a", "b", "c"]


@pytest.mark.parametrize(
    ("names", "members", "sets", "said"),
    [
        (["a", "b", "a"], uniform(NAMES), [0, 0, 1], "named twice"),
        (NAMES, uniform(NAMES) * 2, [0, 0, 1], "must sum to 1, one is 1 off"),
        (NAMES, uniform(NAMES) * 0, [0, 0, 1], "must sum to 1"),
        (NAMES, np.where(np.eye(3) > 0, np.nan, uniform(NAMES)), [0, 0, 1], "finite"),
        (NAMES, np.array([[[1.5, -0.5, 0]] * 3]), [0, 0, 1], "not negative"),
        (NAMES[:2], uniform(NAMES), [0, 0], "as many names"),
        (NAMES, uniform(NAMES), [0, 0], "as many names"),
        (NAMES, uniform(NAMES)[0], [0, 0, 1], "expected probabilities"),
        (NAMES, np.ones((2, 3, 1)), [0, 0, 1], "expected probabilities"),
        (NAMES, np.empty((0, 3, 3)), [0, 0, 1], "expected probabilities"),
        (NAMES, uniform(NAMES), [0.0, 0.5, 1.0], "whole set numbers"),
        (NAMES, [[[1, 0, 0], [1, 0]]], [0, 0, 1], "expected arrays"),
    ],
)
def test_only_rows_are_taken(names: Any, members: Any, sets: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        MemberPredictions(names, members, sets)


@given(st.permutations(range(6)))
def test_rows_are_found_by_name(order: list[int]) -> None:
    made = world(drivers=2, each=3).rows
    found = made.at(np.array(order)).aligned_to(made.names)
    assert np.array_equal(found.members, made.members)
    assert np.array_equal(found.sets, made.sets)
    with pytest.raises(InputError, match=r"1 images missing \(img_0.jpg\), 0 not asked for"):
        made.at(np.arange(1, 6)).aligned_to(made.names)
    with pytest.raises(InputError, match=r"0 images missing .*, 2 not asked for"):
        made.aligned_to(made.names[:4])


@every_pipeline
def test_a_set_is_scored_without_its_labels(steps: list[Transform]) -> None:
    made = world()
    known = nested_cross_validation(steps, made.rows, made.labels, made.drivers)
    assert known.sum(axis=1) == pytest.approx(1)
    moved = 0.0
    for number in range(4):
        own = made.rows.sets == number
        labels = made.labels.copy()
        labels[own] = np.random.default_rng(number).permutation(3 - labels[own])
        found = nested_cross_validation(steps, made.rows, labels, made.drivers)
        assert np.array_equal(found[own], known[own])
        moved += np.abs(found[~own] - known[~own]).max()
    assert moved > 0 or len(steps[:-1]) == 1  # the others are fitted with these labels, unless nothing is


@every_pipeline
def test_the_order_of_rows_decides_nothing(steps: list[Transform]) -> None:
    made = world(1)
    order = np.random.default_rng(5).permutation(len(made.labels))
    shuffled = made.at(order)
    known = nested_cross_validation(steps, made.rows, made.labels, made.drivers)
    found = nested_cross_validation(steps, shuffled.rows, shuffled.labels, shuffled.drivers)
    assert np.allclose(found, known[order], atol=1e-5)


@every_pipeline
def test_one_member_and_one_driver_a_set(steps: list[Transform]) -> None:
    made = world(members=1, drivers=2, sets=2, each=4)
    assert nested_cross_validation(steps, made.rows, made.labels, made.drivers).shape == (8, 4)


@dataclass
class Remembers:
    """Gives each image that it was fitted on its label, and knows nothing of others; hands its rows back reversed."""

    name: str = "remembers"

    def fit(self, rows: MemberPredictions, labels: np.ndarray, drivers: np.ndarray) -> "Memory":
        return Memory(dict(zip(rows.names.tolist(), labels.tolist(), strict=True)))


@dataclass
class Memory:
    known: dict[str, int]
    facts: dict[str, Any] = field(default_factory=dict)

    def __call__(self, rows: MemberPredictions) -> MemberPredictions:
        classes = rows.members.shape[2]
        made = [
            np.eye(classes)[self.known[n]] if n in self.known else np.full(classes, 1 / classes) for n in rows.names
        ]
        return rows.changed(np.array(made)[None]).at(np.arange(len(rows.names))[::-1])


def test_what_only_remembers_is_worth_nothing() -> None:
    made = world()
    rules = fit_transforms([Remembers()], made.rows, made.labels, made.drivers)
    assert log_loss(apply_transforms(rules, made.rows).blended, made.labels) == pytest.approx(0, abs=1e-4)
    assert log_loss(
        nested_cross_validation([Remembers()], made.rows, made.labels, made.drivers), made.labels
    ) == pytest.approx(np.log(4))


def test_each_step_is_fitted_on_what_the_one_before_it_made() -> None:
    made = world()
    blend, bias = BLENDS["weighted"], CALIBRATIONS["bias"]
    rules = fit_transforms([blend, bias], made.rows, made.labels, made.drivers)
    between = apply_transforms(rules[:1], made.rows)
    assert rules[1].facts == bias.fit(between, made.labels, made.drivers).facts


def test_the_best_where_fitted_is_not_the_best_on_other_drivers() -> None:
    """Each member has learnt three of four sets by heart but for noise; only in the fourth is it what it seems."""
    made = world(3, members=6, sets=4, drivers=4, each=12)
    chance = np.random.default_rng(0)
    p = np.full((6, 48, 4), 0.25)
    for member in range(6):
        luck = chance.random((4, 4)) * 0.9  # of this member with each set's driver and class: no sign of skill
        right = luck[made.rows.sets, made.labels]
        p[member] = ((1 - right) / 3)[:, None]
        p[member, np.arange(48), made.labels] = right
    rows = MemberPredictions(made.rows.names, p, made.rows.sets)

    def losses(name: str) -> tuple[float, float]:
        steps = [BLENDS[name]]
        here = apply_transforms(fit_transforms(steps, rows, made.labels, made.drivers), rows).blended
        return log_loss(here, made.labels), log_loss(
            nested_cross_validation(steps, rows, made.labels, made.drivers), made.labels
        )

    optimistic, honest = losses("weighted")
    plain, same = losses("mean")
    assert optimistic < plain
    assert honest > same == pytest.approx(plain)


def test_labels_and_drivers_must_fit() -> None:
    made = world()
    steps = [BLENDS["mean"]]
    for labels, drivers, said in (
        (made.labels[1:], made.drivers, "expected a label and a driver for each of 120"),
        (made.labels, made.drivers[1:], "expected a label and a driver"),
        (made.labels + 1, made.drivers, "expected labels from 0 to 3, got 1 to 4"),
        (made.labels - 1, made.drivers, "expected labels from 0 to 3, got -1"),
        (made.labels.astype(float), made.drivers, "expected labels"),
        (made.labels, np.full(120, "p1"), "driver p1 is in sets 0 and 1"),
    ):
        with pytest.raises(InputError, match=said):
            nested_cross_validation(steps, made.rows, labels, drivers)
    alone = made.at(made.rows.sets == 0)
    with pytest.raises(InputError, match="at least two sets"):
        nested_cross_validation(steps, alone.rows, alone.labels, alone.drivers)
    nothing = made.at(np.array([], int))
    with pytest.raises(InputError, match="at least one"):
        fit_transforms(steps, nothing.rows, nothing.labels, nothing.drivers)


def test_calibration_asks_for_a_blend() -> None:
    made = world()
    with pytest.raises(InputError, match="got 3 members; blend first"):
        nested_cross_validation([CALIBRATIONS["bias"]], made.rows, made.labels, made.drivers)
