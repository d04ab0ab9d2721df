"""Smoothing over neighbours and clusters: what goes into a row, what never does, and when no neighbours help."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driverwatch.ensemble.embedding_index import EmbeddingIndex, Neighbours
from driverwatch.ensemble.knn_smoothing import Average, Clusters, Way, averaged, clusters, shared, weights
from driverwatch.ensemble.knn_smoothing import Smoothed as Smoothing
from driverwatch.ensemble.transform import (
    MemberPredictions,
    Transform,
    apply_transforms,
    fit_transforms,
    nested_cross_validation,
)
from driverwatch.errors import InputError
from driverwatch.metrics import log_loss

CLASSES = 4


@dataclass
class World:
    """Labelled frames of clips, in sets; predictions; and a space in which they lie."""

    rows: MemberPredictions
    labels: np.ndarray
    drivers: np.ndarray
    space: EmbeddingIndex


def world(seed: int = 0, frames: int = 10, clips: bool = True, drivers: int = 6, sets: int = 3) -> World:
    """A clip for each driver and class; noisy predictions; frames lie beside their clip's, or anywhere."""
    random = np.random.default_rng(seed)
    clip = np.repeat(np.arange(drivers * CLASSES), frames)
    labels, driver = clip % CLASSES, clip // CLASSES
    centres = random.normal(size=(drivers * CLASSES, 16))
    features = centres[clip] * clips + (0.1 if clips else 1.0) * random.normal(size=(len(clip), 16))
    scores = random.normal(size=(len(clip), CLASSES))
    scores[np.arange(len(clip)), labels] += 1.5
    p = np.exp(1.5 * scores)  # calibrated: softer rows would not be better ones
    names = np.array([f"img_{i}.jpg" for i in random.permutation(len(clip))])
    rows = MemberPredictions(names, (p / p.sum(axis=1, keepdims=True))[None], driver % sets)
    return World(rows, labels, np.char.add("p", driver.astype(str)), EmbeddingIndex(names, features.astype(np.float32)))


def every_step(space: EmbeddingIndex) -> list[Transform]:
    return [Average(space), Average(space, k=5, similar=True, geometric=True, rounds=2), Clusters(space)]


every = pytest.mark.parametrize("which", range(3), ids=["chosen", "fixed", "clusters"])


@every
def test_frames_of_clips_help_each_other(which: int) -> None:
    w = world()
    made = nested_cross_validation([every_step(w.space)[which]], w.rows, w.labels, w.drivers)
    assert log_loss(made, w.labels) < 0.75 * log_loss(w.rows.blended, w.labels)
    np.testing.assert_allclose(made.sum(axis=1), 1)


@pytest.mark.parametrize("step", [Average, Clusters])
def test_where_nearness_says_nothing_no_neighbour_comes_in(step: Any) -> None:
    w = world(clips=False)
    rule = step(w.space).fit(w.rows, w.labels, w.drivers)
    assert rule.facts["k"] == 0
    np.testing.assert_array_equal(rule(w.rows).members, w.rows.members)
    fixed = Average(w.space, k=10).fit(w.rows, w.labels, w.drivers)
    assert log_loss(fixed(w.rows).blended, w.labels) > log_loss(w.rows.blended, w.labels)


@pytest.mark.parametrize("step", [Average, Clusters])
def test_of_equal_losses_the_fewest_neighbours_win(step: Any) -> None:
    w = world()
    alike = w.rows.changed(np.full_like(w.rows.members, 1 / CLASSES))
    assert step(w.space).fit(alike, w.labels, w.drivers).facts["k"] == 0


@every
def test_the_order_of_rows_decides_nothing(which: int) -> None:
    w = world(1)
    order = np.random.default_rng(2).permutation(len(w.labels))
    step = every_step(w.space)[which]
    made = nested_cross_validation([step], w.rows, w.labels, w.drivers)
    again = nested_cross_validation([step], w.rows.at(order), w.labels[order], w.drivers[order])
    np.testing.assert_allclose(again, made[order], rtol=1e-9)
    other = EmbeddingIndex(w.space.names[order], w.space.features[order])
    np.testing.assert_allclose(
        nested_cross_validation([every_step(other)[which]], w.rows, w.labels, w.drivers), made, rtol=1e-9
    )


@every
def test_a_sets_own_labels_and_other_sets_rows_never_come_in(which: int) -> None:
    w = world(3)
    step, mine = every_step(w.space)[which], w.rows.sets == 1
    made = nested_cross_validation([step], w.rows, w.labels, w.drivers)
    labels = w.labels.copy()
    labels[mine] = np.random.default_rng(0).permutation(labels[mine])
    np.testing.assert_array_equal(nested_cross_validation([step], w.rows, labels, w.drivers)[mine], made[mine])
    rule = step.fit(w.rows, w.labels, w.drivers)
    changed = w.rows.members.copy()
    changed[:, ~mine] = changed[:, ~mine][:, ::-1]
    made = rule(w.rows).members[:, mine]
    np.testing.assert_allclose(rule(w.rows.changed(changed)).members[:, mine], made, rtol=1e-12)
    np.testing.assert_allclose(rule(w.rows.at(mine)).members, made, rtol=1e-12)


@every
def test_images_doubled_under_other_names_and_members_unblended(which: int) -> None:
    w = world(4)
    names = np.concatenate([w.rows.names, np.char.add("twin_", w.rows.names)])
    space = EmbeddingIndex(names, np.tile(w.space.features, (2, 1)))
    members = np.tile(np.concatenate([w.rows.members, w.rows.members[:, :, ::-1]]), (1, 2, 1))
    rows = MemberPredictions(names, members, np.tile(w.rows.sets, 2))
    labels, drivers = np.tile(w.labels, 2), np.tile(w.drivers, 2)
    made = every_step(space)[which].fit(rows, labels, drivers)(rows).members
    assert made.shape == members.shape
    np.testing.assert_allclose(made.sum(axis=2), 1)
    np.testing.assert_allclose(made[:, : len(w.labels)], made[:, len(w.labels) :], rtol=1e-6)


@every
@pytest.mark.parametrize("frames", [1, 2])
def test_sets_of_an_image_or_two(which: int, frames: int) -> None:
    w = world(5)
    few = np.concatenate([np.flatnonzero(w.rows.sets == s)[:frames] for s in range(3)])
    step, rows = every_step(w.space)[which], w.rows.at(few)
    made = apply_transforms(fit_transforms([step], rows, w.labels[few], w.drivers[few]), rows)
    np.testing.assert_allclose(made.members.sum(axis=2), 1)
    if frames == 1:
        np.testing.assert_allclose(made.members, rows.members, atol=1e-5)  # logarithms have a floor


@every
def test_no_images(which: int) -> None:
    w = world()
    rule = every_step(w.space)[which].fit(w.rows, w.labels, w.drivers)
    assert rule(w.rows.at(np.zeros(0, int))).members.shape == (1, 0, CLASSES)


def test_an_image_without_features_is_named() -> None:
    w = world()
    space = EmbeddingIndex(w.space.names[1:], w.space.features[1:], "mobilenet")
    with pytest.raises(InputError, match=f"mobilenet: 1 images missing .{w.space.names[0]}"):
        Average(space).fit(w.rows, w.labels, w.drivers)


@pytest.mark.parametrize(
    ("names", "features", "said"),
    [
        (["a", "a"], np.ones((2, 3)), "named twice"),
        (["a", "b"], np.ones((3, 3)), "2 names"),
        (["a", "b"], np.ones(2), "2 names"),
        (["a", "b"], np.array([[1, 1], [0, 0]]), "of b are not finite, or all zero"),
        (["a", "b"], np.array([[np.nan, 1], [0, 1]]), "of a are not finite"),
    ],
)
def test_spaces_that_are_refused(names: list[str], features: np.ndarray, said: str) -> None:
    with pytest.raises(InputError, match=said):
        EmbeddingIndex(np.array(names), features.astype(np.float32))


def test_a_space_finds_a_set_once() -> None:
    w = world()
    first = w.space.near(w.rows, 5)
    assert len(w.space._found) == 3
    again = w.space.near(w.rows.at(w.rows.sets != 1), 5)
    assert len(w.space._found) == 3
    np.testing.assert_array_equal(again.similarities, first.similarities[w.rows.sets != 1])


@st.composite
def graphs(draw: st.DrawFn) -> Neighbours:
    count, k = draw(st.integers(1, 12)), draw(st.integers(1, 5))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    indices = np.full((count, k), -1)
    similarities = np.full((count, k), -np.inf, np.float32)
    for row in range(count):
        taken = min(k, count - 1, int(random.integers(0, k + 1)))
        indices[row, :taken] = random.permutation(np.delete(np.arange(count), row))[:taken]
        similarities[row, :taken] = np.sort(random.uniform(-1, 1, taken))[::-1]
    return Neighbours(indices, similarities)


@settings(max_examples=100)
@given(graphs(), st.sampled_from([None, 1e-6, 0.1, 4.0]), st.booleans(), st.integers(1, 2), st.integers(0, 5))
def test_weights_are_shares_of_oneself_and_ones_neighbours(
    near: Neighbours, width: float | None, geometric: bool, rounds: int, k: int
) -> None:
    shares = weights(near, k, width).toarray()
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert (shares >= 0).all()
    for row, place in enumerate(shares):
        others = near.indices[row, :k]
        assert set(np.flatnonzero(place)) <= {row, *others[others >= 0]}
        assert place[row] >= place.max() - 1e-12  # no neighbour weighs more than the image itself
    p = np.random.default_rng(0).dirichlet(np.full(CLASSES, 0.1), (2, len(shares)))
    made = averaged(p, weights(near, k, width), geometric, rounds)
    assert made.shape == p.shape
    np.testing.assert_allclose(made.sum(axis=2), 1)
    if not geometric and rounds == 1:
        np.testing.assert_allclose(made, np.stack([shares @ one for one in p]))


def test_smoothing_by_hand() -> None:
    names, features = np.array(["b", "a", "c"]), np.array([[1, 0], [1, 0.1], [0, 1]], np.float32)
    p = np.array([[[0.8, 0.2], [0.4, 0.6], [0.0, 1.0]]])
    rows = MemberPredictions(names, p, np.zeros(3, int))
    space = EmbeddingIndex(names, features)
    once = Smoothing(space, Way(1), 1, {})(rows).members[0]
    np.testing.assert_allclose(once, [[0.6, 0.4], [0.6, 0.4], [0.2, 0.8]])
    twice = Smoothing(space, Way(1, rounds=2), 1, {})(rows).members[0]
    np.testing.assert_allclose(twice[2], [0.4, 0.6])
    logs = Smoothing(space, Way(1, geometric=True), 1, {})(rows).members[0]
    np.testing.assert_allclose(logs[0, 0] / logs[0, 1], np.sqrt(0.8 * 0.4 / (0.2 * 0.6)))
    assert logs[2, 0] > 0  # a rounded zero vetoes nothing


def test_clusters_by_hand() -> None:
    near = Neighbours(np.array([[1], [0], [1], [-1]]), np.array([[0.9], [0.9], [0.9], [-np.inf]], np.float32))
    found = clusters(near, 1, 0.2)
    assert found[0] == found[1]
    assert len(set(found)) == 3  # 2 is no row's nearest: not mutual
    assert len(set(clusters(near, 1, 0.05))) == 4  # too far
    p = np.array([[[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.4, 0.6]]])
    np.testing.assert_allclose(shared(p, found, 0.5)[0], [[0.8, 0.2], [0.8, 0.2], [0.2, 0.8], [0.4, 0.6]])
    quarrel = p.copy()
    quarrel[0, 1] = [0.3, 0.7]
    np.testing.assert_array_equal(shared(quarrel, found, 0.9), quarrel)  # no class has most of them
    assert not np.array_equal(shared(quarrel, found, 0.5), quarrel)
