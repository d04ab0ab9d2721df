"""Blends: means of members, with weights that are equal, fitted, or chosen."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.pipelines import world

from driverwatch.config.ensemble import BLEND_NAMES, CALIBRATION_NAMES
from driverwatch.ensemble import blending
from driverwatch.ensemble.blending import BLENDS, Mean
from driverwatch.ensemble.transform import MemberPredictions
from driverwatch.errors import InputError
from driverwatch.metrics import log_loss

FITTED = ["weighted", "weighted_geometric", "greedy", "per_class"]
every_blend = pytest.mark.parametrize("name", list(BLENDS))


def rows_of(*members: list[list[float]]) -> MemberPredictions:
    count = len(members[0])
    return MemberPredictions(np.array([f"{i}.jpg" for i in range(count)]), np.array(members), np.zeros(count, int))


def fit(name: str, rows: MemberPredictions, labels: np.ndarray) -> Mean:
    return BLENDS[name].fit(rows, labels, np.zeros(len(labels)))


def test_settings_name_them_all() -> None:
    assert list(BLENDS) == list(BLEND_NAMES)
    assert CALIBRATION_NAMES[0] == "none"


def test_means_by_hand() -> None:
    rows, labels = rows_of([[0.8, 0.2]], [[0.2, 0.8]], [[0.5, 0.5]]), np.array([0])
    assert fit("mean", rows, labels)(rows).blended == pytest.approx(np.array([[0.5, 0.5]]))
    two = rows_of([[0.9, 0.1]], [[0.5, 0.5]])
    assert fit("geometric", two, labels)(two).blended == pytest.approx(np.array([[0.75, 0.25]]))  # odds 9 and 1: 3
    assert Mean(np.array([0.25, 0.75]))(two).blended == pytest.approx(np.array([[0.6, 0.4]]))


def test_a_rounded_zero_is_no_veto() -> None:
    rows = rows_of([[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]])
    found = fit("geometric", rows, np.array([0]))(rows).blended
    assert found == pytest.approx(np.array([[0.5, 0.5, 0]]), abs=1e-6)


@every_blend
def test_a_doubled_member_and_certain_rows(name: str) -> None:
    """The same run twice is that run; members that are certain, of what is wrong too, break nothing."""
    made = world(members=1)
    twice = MemberPredictions(made.rows.names, np.repeat(made.rows.members, 2, axis=0), made.rows.sets)
    assert np.allclose(fit(name, twice, made.labels)(twice).blended, made.rows.members[0], atol=1e-9)
    certain = MemberPredictions(
        made.rows.names, np.eye(4)[[made.labels, (made.labels + 1) % 4, (made.labels + 2) % 4]], made.rows.sets
    )
    found = fit(name, certain, made.labels)(certain).blended
    assert np.isfinite(found).all()
    assert found.sum(axis=1) == pytest.approx(1)


@every_blend
@given(seed=st.integers(0, 2**32 - 1), members=st.integers(1, 4), count=st.integers(1, 9))
def test_rows_stay_rows(name: str, seed: int, members: int, count: int) -> None:
    chance = np.random.default_rng(seed)
    p = chance.dirichlet(np.full(3, 0.05), (members, count))
    p = np.where(p.sum(axis=2, keepdims=True) > 0.999, p, 1 / 3)
    rows, labels = (
        MemberPredictions(np.arange(count).astype(str), p, np.zeros(count, int)),
        chance.integers(3, size=count),
    )
    found = fit(name, rows, labels)(rows)
    assert found.blended.shape == (count, 3)
    assert list(found.names) == list(rows.names)


@pytest.mark.parametrize("name", ["weighted", "weighted_geometric", "greedy"])
@pytest.mark.parametrize("seed", range(4))
def test_fitted_weights_are_weights_and_do_no_worse_where_fitted(name: str, seed: int) -> None:
    made = world(seed, members=5)
    rule = fit(name, made.rows, made.labels)
    assert rule.weights.sum() == pytest.approx(1)
    assert (rule.weights >= 0).all()
    plain = fit("geometric" if "geometric" in name else "mean", made.rows, made.labels)
    assert log_loss(rule(made.rows).blended, made.labels) <= log_loss(plain(made.rows).blended, made.labels) + 1e-9


@pytest.mark.parametrize("name", ["weighted", "weighted_geometric"])
@pytest.mark.parametrize("seed", range(4))
def test_no_step_on_the_simplex_helps(name: str, seed: int) -> None:
    """The loss is convex, so what no small step betters is the best there is."""
    made = world(seed, members=4)
    rule = fit(name, made.rows, made.labels)
    best = log_loss(rule(made.rows).blended, made.labels)
    for corner in np.eye(4):
        for step in (1e-3, 1e-2, 0.3):
            near = Mean((1 - step) * rule.weights + step * corner, rule.geometric)
            assert log_loss(near(made.rows).blended, made.labels) >= best - 1e-7


def test_a_useless_member_gets_nothing() -> None:
    made = world(2, members=2)
    noise = np.random.default_rng(9).dirichlet(np.ones(4), len(made.labels))
    rows = MemberPredictions(made.rows.names, np.concatenate([made.rows.members[1:], noise[None]]), made.rows.sets)
    for name in FITTED[:3]:
        assert fit(name, rows, made.labels).weights[0] > 0.9


def test_greedy_by_hand() -> None:
    """The better member first; the other joins where the mean of both is better than either."""
    rows = rows_of([[0.9, 0.1], [0.1, 0.9]], [[0.2, 0.8], [0.8, 0.2]])
    labels = np.zeros(2, int)
    assert list(blending.greedy(rows.members, labels, 1)) == [0, 1]
    assert list(blending.greedy(rows.members, labels, 2)) == [0.5, 0.5]
    same = np.repeat(rows.members[:1], 3, axis=0)
    assert list(blending.greedy(same, labels)) == [1, 0, 0]  # ties go to the first


def test_per_class_takes_who_is_best_on_it() -> None:
    """Member k knows class k from the rest, and cannot tell the other two apart."""
    labels = np.repeat([0, 1, 2], 10)
    members = []
    for k in range(3):
        rows = np.full((30, 3), 0.05)
        rows[labels == k, k] = 0.9
        rows[labels != k] = [0.05 if c == k else 0.475 for c in range(3)]
        members.append(rows)
    rows = MemberPredictions(np.arange(30).astype(str), np.array(members), np.zeros(30, int))
    found = blending.per_class(rows.members, labels)
    assert found.shape == (3, 3)
    assert found.sum(axis=0) == pytest.approx(1)
    assert (found[np.arange(3), np.arange(3)] == 0.5).all()  # of three members the better two
    pair = blending.per_class(rows.members[:2], labels)
    assert list(pair[:, 0]) == [1, 0]
    assert list(pair[:, 1]) == [0, 1]
    crier = np.where(np.arange(3) == 0, 0.98, 0.01)[None].repeat(30, axis=0)
    both = np.stack([crier, rows.members[0]])
    assert list(blending.per_class(both, labels)[:, 0]) == [0, 1]  # crying class 0 everywhere is not being good at it


def test_per_class_leaves_a_class_without_images_to_all() -> None:
    made = world(members=4)
    seen = made.labels != 2
    found = blending.per_class(made.rows.members[:, seen], made.labels[seen])
    assert list(found[:, 2]) == [0.25] * 4
    rule = Mean(np.array([[1.0, 0.0], [0.0, 1.0]]))
    neither = rows_of([[0.0, 1.0]], [[1.0, 0.0]])  # each is asked for the class that it gives nothing
    assert rule(neither).blended == pytest.approx(np.array([[0.5, 0.5]]))


def test_weights_belong_to_their_members() -> None:
    rows = world(members=3).rows
    with pytest.raises(InputError, match="weights are of 2 members, got 3"):
        Mean(np.array([0.5, 0.5]))(rows)


def test_permuted_members_are_the_same_blend() -> None:
    made = world(members=4)
    order = [2, 0, 3, 1]
    other = MemberPredictions(made.rows.names, made.rows.members[order], made.rows.sets)
    for name in BLENDS:
        one, two = fit(name, made.rows, made.labels), fit(name, other, made.labels)
        assert np.allclose(one(made.rows).blended, two(other).blended, atol=1e-4), name
