"""Drivers found by clustering embeddings, and their classes balanced: no label of the images that are changed is asked."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from driverwatch.config.ensemble import KnnSettings, PipelineSettings
from driverwatch.config.loading import parse
from driverwatch.ensemble import embedding_index as by_looks
from driverwatch.ensemble import post_processing
from driverwatch.ensemble.class_balance import ClassBalance, balanced, shift
from driverwatch.ensemble.embedding_index import EmbeddingIndex, best_reach, tree
from driverwatch.ensemble.post_processing import steps_of
from driverwatch.ensemble.transform import MemberPredictions, fit_transforms, nested_cross_validation
from driverwatch.errors import InputError
from driverwatch.metrics import FLOOR, limited, log_loss

CLASSES, EACH = 4, 15  # images of a driver in each class


class World:
    """Drivers with looks of their own, and a model that favours one class per driver by `bias` (in nats)."""

    def __init__(self, bias: float, sets: int = 4, drivers: int = 4, seed: int = 0, only: int | None = None) -> None:
        random = np.random.default_rng(seed)
        count = sets * drivers
        self.drivers = np.repeat([f"p{i:03d}" for i in range(count)], CLASSES * EACH)
        self.labels = np.tile(np.repeat(np.arange(CLASSES), EACH), count)
        if only is not None:  # each driver does one thing alone
            self.labels = np.repeat(np.arange(count) % CLASSES, CLASSES * EACH)
        self.sets = np.repeat(np.arange(sets), drivers * CLASSES * EACH)
        self.names = np.array([f"{i:05d}.jpg" for i in random.permutation(len(self.labels))])
        looks = np.repeat(random.normal(size=(count, 16)), CLASSES * EACH, axis=0)
        self.features = looks + 0.25 * random.normal(size=looks.shape)
        logits = random.normal(size=(len(self.labels), CLASSES))
        logits[np.arange(len(logits)), self.labels] += 2.5
        logits += np.repeat(bias * np.eye(CLASSES)[np.arange(count) % CLASSES], CLASSES * EACH, axis=0)
        self.rows = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

    @property
    def step(self) -> ClassBalance:
        return ClassBalance(EmbeddingIndex(self.names, self.features.astype(np.float32)))

    def asked(self, order: np.ndarray | None = None) -> MemberPredictions:
        order = np.arange(len(self.names)) if order is None else order
        return MemberPredictions(self.names[order], self.rows[None, order], self.sets[order])


def test_drivers_are_found_by_clustering() -> None:
    world = World(0)
    grown = tree(world.features)
    assert adjusted_rand_score(world.drivers, grown.cut(best_reach([grown], [world.drivers]))) == 1


def test_many_images_are_gathered_first(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(0)
    few = tree(world.features)
    reach = best_reach([few], [world.drivers])
    monkeypatch.setattr(by_looks, "MOST", 200)
    grown = tree(world.features)
    assert len(grown.merges) < 200 < len(few.merges)
    assert adjusted_rand_score(world.drivers, grown.cut(reach)) > 0.95


@pytest.mark.parametrize("count", [1, 2])
def test_few_images_are_clusters_too(count: int) -> None:
    found = tree(np.eye(3)[:count]).cut(0.1)
    assert found.tolist() == list(range(count))


@pytest.mark.parametrize("wrong", [0.0, np.nan, np.inf])
def test_features_without_length_are_refused(wrong: float) -> None:
    features = np.ones((5, 3))
    features[2] = wrong
    with pytest.raises(InputError, match="features of c are not finite, or all zero"):
        EmbeddingIndex(np.array(list("abcde")), features)


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(2, 12))
def test_means_become_the_prior(seed: int, count: int, classes: int) -> None:
    random = np.random.default_rng(seed)
    rows, prior = random.dirichlet(np.ones(classes), count) + 1e-6, random.dirichlet(np.full(classes, 5.0))
    scaled = rows * shift(rows, prior)
    found = (scaled / scaled.sum(axis=1, keepdims=True)).mean(axis=0)
    assert np.abs(found - prior).max() < 0.05
    assert (
        np.abs(found - prior).max()
        <= np.abs((rows / rows.sum(axis=1, keepdims=True)).mean(axis=0) - prior).max() + 1e-9
    )


@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_rows_stay_distributions_and_follow_their_images(seed: int, strength: float) -> None:
    random = np.random.default_rng(seed)
    rows, clusters = random.dirichlet(np.full(5, 0.3), 40), random.integers(3, size=40)
    prior, order = np.full(5, 0.2), random.permutation(40)
    found = balanced(rows, clusters, prior, strength)
    assert np.allclose(found.sum(axis=1), 1) and (found >= 0).all()
    assert np.allclose(balanced(rows[order], clusters[order], prior, strength), found[order])


def test_a_lone_image_is_hardly_changed_and_no_strength_changes_nothing() -> None:
    rows = np.array([[0.97, 0.01, 0.01, 0.01]])
    assert balanced(rows, np.zeros(1, int), np.full(4, 0.25), 1.0)[0, 0] > 0.9
    assert np.allclose(balanced(rows, np.zeros(1, int), np.full(4, 0.25), 0.0), rows)


def test_a_model_that_favours_a_class_per_driver_is_fixed() -> None:
    world = World(bias=3)
    found = nested_cross_validation([world.step], world.asked(), world.labels, world.drivers)
    assert log_loss(found, world.labels) < log_loss(world.rows, world.labels) - 0.3


def test_where_drivers_do_one_thing_alone_nothing_is_done() -> None:
    world = World(bias=0, only=1)
    (rule,) = fit_transforms([world.step], world.asked(), world.labels, world.drivers)
    assert rule.facts["strength"] == 0
    assert np.allclose(rule(world.asked()).blended, world.rows)


def test_the_order_of_rows_decides_nothing() -> None:
    world, order = World(bias=2), np.random.default_rng(5).permutation(960)
    straight = nested_cross_validation([world.step], world.asked(), world.labels, world.drivers)
    mixed = nested_cross_validation([world.step], world.asked(order), world.labels[order], world.drivers[order])
    assert np.allclose(mixed, straight[order])


def test_labels_of_what_is_scored_are_never_seen() -> None:
    world = World(bias=2)
    before = nested_cross_validation([world.step], world.asked(), world.labels, world.drivers)
    labels, own = world.labels.copy(), world.sets == 2
    labels[own] = np.random.default_rng(1).permutation(labels[own])
    assert np.array_equal(nested_cross_validation([world.step], world.asked(), labels, world.drivers)[own], before[own])


def test_smoothing_goes_around_balance_where_asked() -> None:
    """Each step is fitted on what the one before made, and nothing else is in between."""
    world = World(2.0)
    looks = EmbeddingIndex(world.names, world.features.astype(np.float32))
    asked = {"class_balance": "looks", "knn": {"embeddings": "clips"}}
    spaces = {"looks": looks, "clips": looks}
    once = steps_of(parse(PipelineSettings, asked, "x"), spaces)
    both = steps_of(
        parse(PipelineSettings, {**asked, "knn": {"embeddings": "clips", "smooth_before_balancing": True}}, "x"), spaces
    )
    assert [step.name for step in once] == ["mean", "class_balance", "knn"]
    assert [step.name for step in both] == ["mean", "knn before", "class_balance", "knn"]
    made = post_processing.fit(
        parse(PipelineSettings, {**asked, "knn": {"embeddings": "clips", "smooth_before_balancing": True}}, "x"),
        world.asked(), world.labels, world.drivers, spaces,
    )  # fmt: skip
    by_hand = nested_cross_validation([once[0], once[2], once[1], once[2]], world.asked(), world.labels, world.drivers)
    assert np.allclose(made.probabilities, limited(by_hand, FLOOR))
    assert list(made.rules) == ["mean", "knn before", "class_balance", "knn"]


def test_smoothing_and_balance_are_gone_through_as_often_as_asked() -> None:
    """With a temperature after each smoothing: it says how far an average of neighbours can be believed."""
    world = World(2.0)
    looks = EmbeddingIndex(world.names, world.features.astype(np.float32))
    near = {"embeddings": "clips", "smooth_before_balancing": True, "passes": 2}
    asked = parse(PipelineSettings, {"class_balance": "looks", "knn": near, "calibrate": "temperature"}, "x")
    mean, smooth, warm, balance, *rest = steps_of(asked, {"looks": looks, "clips": looks})
    names = ["knn before", "temperature before", "class_balance"]
    names += ["knn before 2", "temperature before 2", "class_balance 2", "knn", "temperature"]
    assert [step.name for step in (mean, smooth, warm, balance, *rest)] == ["mean", *names]
    made = post_processing.fit(asked, world.asked(), world.labels, world.drivers, {"looks": looks, "clips": looks})
    each = [mean, smooth, warm, balance, smooth, warm, balance, smooth, warm]
    assert np.allclose(
        made.probabilities, limited(nested_cross_validation(each, world.asked(), world.labels, world.drivers), FLOOR)
    )
    assert list(made.rules) == ["mean", *names]
    with pytest.raises(InputError, match=r"passes of 2 or more need smooth_before_balancing"):
        parse(PipelineSettings, {"class_balance": "looks", "knn": {"embeddings": "clips", "passes": 2}}, "x")


def test_what_was_put_together_before_that_setting_came_has_the_checksum_it_had() -> None:
    plain, around = KnnSettings(embeddings="m"), KnnSettings(embeddings="m", smooth_before_balancing=True)
    assert plain.model_dump() == {
        "embeddings": "m", "method": "average", "k": None, "weights": None, "mean": None, "rounds": None,
    }  # fmt: skip
    assert around.model_dump()["smooth_before_balancing"] is True
    assert "passes" not in around.model_dump()
    assert KnnSettings(**around.model_dump()) == around
    with pytest.raises(InputError, match=r"smooth_before_balancing needs class_balance"):
        parse(PipelineSettings, {"knn": around.model_dump()}, "x")
