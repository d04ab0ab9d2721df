"""Exact nearest neighbours against brute force, whatever the rows, sets and blocks."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driverwatch.ensemble import embedding_index as module
from driverwatch.ensemble.embedding_index import nearest_neighbours
from driverwatch.errors import InputError


def brute_force(features: np.ndarray, sets: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Row by row, in float64 throughout, rounded once."""
    rows = features.astype(np.float64)
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32).astype(np.float64)
    indices, similarities = np.full((len(rows), k), -1), np.full((len(rows), k), -np.inf, np.float32)
    for row in range(len(rows)):
        others = [other for other in range(len(rows)) if other != row and sets[other] == sets[row]]
        near = {other: np.float32((rows[row] * rows[other]).sum()) for other in others}
        best = sorted(others, key=lambda other: (-near[other], other))[:k]
        indices[row, : len(best)] = best
        similarities[row, : len(best)] = [near[other] for other in best]
    return indices, similarities


@st.composite
def worlds(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int, int]:
    """Features with doubled rows, and rows that are nearly the same; sets; k; numbers held at a time."""
    count, width = draw(st.integers(1, 40)), draw(st.integers(1, 7))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kinds = random.standard_normal((draw(st.integers(1, 12)), width)) * 10.0 ** random.integers(-3, 4)
    features = kinds[random.integers(len(kinds), size=count)]
    features = features + draw(st.sampled_from([0.0, 1e-7, 1e-3, 1.0])) * random.standard_normal((count, width))
    sets = random.integers(draw(st.integers(1, 4)), size=count)
    return features.astype(np.float32), sets, draw(st.integers(0, 12)), draw(st.sampled_from([1, 50, 333, 2**20]))


@settings(deadline=None, max_examples=150)
@given(worlds())
def test_as_brute_force_finds_them(world: tuple[np.ndarray, np.ndarray, int, int]) -> None:
    features, sets, k, block = world
    indices, similarities = nearest_neighbours(features, sets, k, block)
    expected, near = brute_force(features, sets, k)
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_array_equal(similarities, near)
    assert similarities.dtype == np.float32


def clips(count: int, width: int = 32, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    centres = np.abs(random.standard_normal((count // 20 + 1, width)))
    return (centres[np.arange(count) // 20] + 0.1 * random.standard_normal((count, width))).astype(np.float32)


def test_more_columns_than_groups_of_the_first_look() -> None:
    features = clips(3000)
    indices, similarities = nearest_neighbours(features, np.zeros(3000, int), 5)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    product = unit @ unit.T
    np.fill_diagonal(product, -2)
    np.testing.assert_allclose(np.sort(product, axis=1)[:, :-6:-1], similarities, atol=1e-6)
    assert (indices != np.arange(3000)[:, None]).all()


def test_the_order_of_rows_decides_nothing_but_ties() -> None:
    features, sets = clips(300), np.arange(300) % 3
    order = np.random.default_rng(1).permutation(300)
    indices, near = nearest_neighbours(features, sets, 7)
    shuffled, again = nearest_neighbours(features[order], sets[order], 7)
    np.testing.assert_array_equal(order[shuffled], indices[order])
    np.testing.assert_array_equal(again, near[order])


def test_neither_the_block_nor_the_length_of_rows_decides() -> None:
    features, sets = clips(200), np.zeros(200, int)
    one, near = nearest_neighbours(features, sets, 9)
    for changed, block in ((features, 1), (features, 777), (features * 4, 2**20), (features * 2.0**60, 2**20)):
        indices, similarities = nearest_neighbours(changed, sets, 9, block)
        np.testing.assert_array_equal(indices, one)
        np.testing.assert_array_equal(similarities, near)


def test_a_doubled_row_is_its_twins_nearest_and_lower_rows_come_first() -> None:
    features = np.concatenate([clips(50), clips(50)])
    indices, near = nearest_neighbours(features, np.zeros(100, int), 3)
    np.testing.assert_array_equal(indices[:50, 0], np.arange(50, 100))
    np.testing.assert_array_equal(indices[50:, 0], np.arange(50))
    np.testing.assert_allclose(near[:, 0], 1, atol=1e-6)
    np.testing.assert_array_equal(indices[:, 2], indices[:, 1] + 50)  # the next image, and then its twin


def test_thousands_of_copies_are_not_compared_with_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    cosines = module._cosines
    monkeypatch.setattr(module, "_cosines", lambda u, row, other: compared.append(len(row)) or cosines(u, row, other))
    indices, _ = nearest_neighbours(np.repeat(clips(1), 2000, axis=0), np.zeros(2000, int), 3)
    np.testing.assert_array_equal(indices[10], [0, 1, 2])
    np.testing.assert_array_equal(indices[1], [0, 2, 3])
    assert sum(compared) <= 2000 * 4


def test_sets_of_one_have_no_neighbour() -> None:
    indices, similarities = nearest_neighbours(clips(5), np.arange(5), 2)
    assert (indices == -1).all()
    assert np.isneginf(similarities).all()


def test_small_sets_give_what_there_is() -> None:
    indices, similarities = nearest_neighbours(clips(5), np.array([3, 3, 3, 8, 8]), 4)
    assert [(row >= 0).sum() for row in indices] == [2, 2, 2, 1, 1]
    assert set(indices[3]) == {4, -1}
    np.testing.assert_array_equal(np.isneginf(similarities), indices < 0)


def test_no_rows_and_no_neighbours() -> None:
    assert nearest_neighbours(np.empty((0, 8), np.float32), np.empty(0, int), 3)[0].shape == (0, 3)
    assert nearest_neighbours(clips(4), np.zeros(4, int), 0)[0].shape == (4, 0)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_rows_without_a_direction_are_refused(value: float) -> None:
    features = clips(6)
    features[4] = value
    with pytest.raises(InputError, match="row 4"):
        nearest_neighbours(features, np.zeros(6, int), 2)


@pytest.mark.parametrize(("sets", "k"), [(np.zeros(5, int), 2), (np.zeros((6, 1), int), 2), (np.zeros(6, int), -1)])
def test_what_does_not_fit_together_is_refused(sets: np.ndarray, k: int) -> None:
    with pytest.raises(InputError, match="expected features"):
        nearest_neighbours(clips(6), sets, k)


def test_memory_is_bounded_by_the_block() -> None:
    features, sets = clips(6000, 16), np.zeros(6000, int)
    tracemalloc.start()
    nearest_neighbours(features, sets, 10, block=2**18)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12e6  # all pairs would take 144 MB; the block 1, features and results 2.5
