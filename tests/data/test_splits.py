"""Splits: who is left out, how evenly, and what is said where no score can be."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driverwatch.config.loading import parse
from driverwatch.config.model import ModelSettings
from driverwatch.config.training import TrainSettings
from driverwatch.data import splits
from driverwatch.data.folds import FoldTable
from driverwatch.errors import InputError

DRIVERS = [f"p{i:02d}" for i in range(9)]
FOLDS = FoldTable(pd.DataFrame({"driver": DRIVERS, "fold": [i % 3 for i in range(9)], "images": 4, "c0": 4}))


def train(**settings: object) -> TrainSettings:
    return parse(TrainSettings, settings, "test")


@given(st.integers(2, 12), st.data())
def test_subsets_are_different_and_leave_everybody_out_equally_often(drivers: int, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, drivers - 1))
    count = data.draw(st.integers(1, min(60, math.comb(drivers, size))))
    seed = data.draw(st.integers(0, 9))
    found = splits.subsets(drivers, size, count, seed)
    assert len(set(found)) == count
    assert {len(subset) for subset in found} == {size}
    held = np.bincount([i for subset in found for i in subset], minlength=drivers)
    assert len(held) == drivers
    assert held.max() - held.min() <= 1
    assert found == splits.subsets(drivers, size, count, seed)


@pytest.mark.parametrize(("drivers", "size"), [(5, 2), (6, 3), (4, 3)])
def test_every_subset_there_is_can_be_asked_for(drivers: int, size: int) -> None:
    assert len(set(splits.subsets(drivers, size, math.comb(drivers, size), 0))) == math.comb(drivers, size)


def test_the_seed_draws_other_subsets() -> None:
    assert set(splits.subsets(26, 4, 10, 0)) != set(splits.subsets(26, 4, 10, 1))


@given(st.integers(2, 40), st.integers(2, 5), st.integers(0, 99))
def test_reshuffled_folds_hold_everybody_out_once_and_apart_from_whom_they_were_with(
    drivers: int, k: int, draw: int
) -> None:
    count = max(drivers, 2 * k)
    names, images = [f"p{i:02d}" for i in range(count)], np.random.default_rng(count).integers(1, 30, (count, 2))
    frame = {"driver": names, "fold": [i % k for i in range(count)], "images": images.sum(axis=1)}
    table = FoldTable(pd.DataFrame({**frame, "c0": images[:, 0], "c1": images[:, 1]}))
    found = splits.of(train(splits={"kind": "reshuffled", "split_seed": draw}), table)
    assert sorted(driver for held in found.validation for driver in held) == names
    assert all(found.validation)
    assert found.count == k
    assert found == splits.of(train(splits={"kind": "reshuffled", "split_seed": draw}), table)
    before = splits.of(train(), table)
    assert pairs(found) & pairs(before) != pairs(before)
    made = train(splits={"kind": "reshuffled"})
    assert not made.splits.scored
    assert made.splits.unscored == "trained on other folds than the fold file's"


def pairs(found: splits.Splits) -> set[frozenset[str]]:
    """Drivers that are held out together."""
    return {frozenset({one, other}) for held in found.validation for one in held for other in held if one != other}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"val_drivers": 9}, "9 of 9 drivers leave none to train on"),
        ({"val_drivers": 8, "count": 10}, "only 9 subsets of 8, got 10"),
    ],
)
def test_too_few_drivers_are_one_sentence(settings: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        splits.of(train(splits={"kind": "shuffle_split", **settings}), FOLDS)


@pytest.mark.parametrize("kind", ["folds", "shuffle_split", "all"])
def test_no_driver_is_on_both_sides_and_none_is_lost(kind: str) -> None:
    settings = train(splits=kind)
    made = splits.of(settings, FOLDS)
    rows = np.random.default_rng(0).choice(DRIVERS, 50)
    assert made.count == settings.splits.models(FOLDS.count)
    for number in range(made.count):
        training, validation = made.indices(rows, number)
        assert sorted([*training, *validation]) == list(range(50))
        assert not set(rows[training]) & set(rows[validation])
        assert set(rows[validation]) == made.validation[number] & set(rows)


@pytest.mark.parametrize("kind", ["folds", "shuffle_split", "all"])
def test_fewer_drivers_are_among_more_and_the_held_out_ones_stay(kind: str) -> None:
    rows, before = np.array(DRIVERS), [set[str]()] * 10
    for count in (1, 2, 3, 4):
        made = splits.of(train(splits={"kind": kind, "train_drivers": count}), FOLDS)
        whole = splits.of(train(splits=kind), FOLDS)
        assert made.validation == whole.validation
        for number in range(made.count):
            training, validation = made.indices(rows, number)
            assert made.trained_on(number) == count == len(training)
            assert set(rows[training]) >= before[number]
            assert not set(rows[training]) & made.validation[number]
            assert set(rows[validation]) == set(whole.validation[number])
            before[number] = set(rows[training])
    assert len({frozenset(some) for some in before[: made.count]}) == (1 if made.count == 1 else made.count)
    other = splits.of(train(splits={"kind": kind, "train_drivers": 4}, seed=1), FOLDS)
    assert other.unused != made.unused


def test_more_drivers_than_there_are_cannot_be_trained_on() -> None:
    with pytest.raises(InputError, match=r"train_drivers: fold 0 has only 6 drivers to train on, got 7; lower it"):
        splits.of(train(splits={"train_drivers": 7}), FOLDS)


def test_folds_are_those_of_the_fold_file_and_all_leaves_nobody_out() -> None:
    rows = np.array(DRIVERS[::-1])
    for number in range(3):
        expected, found = FOLDS.indices(rows, number), splits.of(train(), FOLDS).indices(rows, number)
        assert all(np.array_equal(*pair) for pair in zip(expected, found, strict=True))
    everybody = splits.of(train(splits={"kind": "all", "count": 3}), FOLDS)
    assert everybody.count == 3
    assert [len(part) for part in everybody.indices(rows, 2)] == [9, 0]


def test_strangers_and_fits_that_are_not_there_are_refused() -> None:
    made = splits.of(train(splits="all"), FOLDS)
    with pytest.raises(InputError, match="no fold holds driver p99"):
        made.indices(np.array(["p99"]), 0)
    with pytest.raises(InputError, match="FOLD=1: expected 0 to 0"):
        made.indices(np.array(DRIVERS), 1)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"splits": "al"}, "splits.kind: input should be 'folds', 'reshuffled', 'shuffle_split' or 'all', got 'al'"),
        ({"splits": {"kind": "folds", "count": 4}}, "number of folds is the data set's"),
        ({"splits": {"kind": "reshuffled", "count": 4}}, "number of folds is the data set's"),
        ({"splits": {"kind": "folds", "split_seed": 4}}, "split_seed belongs to kind: reshuffled"),
        ({"splits": {"kind": "all", "val_drivers": 4}}, "val_drivers belongs to kind: shuffle_split"),
        (
            {"splits": {"shuffle_split": 4}},
            "splits.shuffle_split: unknown key; expected one of kind, count, val_drivers, train_drivers, split_seed",
        ),
        ({"splits": "all", "select": "best"}, "has no validation drivers; select must be last"),
        ({"splits": "all", "patience": 2}, "has no validation drivers"),
        ({"max_epochs": 5}, "max_epochs must be at most the last stage's epochs"),
        ({"max_epochs": 1, "stages": [{"freeze_until": "head", "fit": "linear_probe"}]}, "max_epochs .* fit: gradient"),
        ({"pseudo": {}}, "pseudo: must have either runs or labels"),
        ({"pseudo": {"runs": ["a"], "labels": "b"}}, "pseudo: must have either runs or labels"),
        ({"pseudo": {"runs": ["a", "a"]}}, "name each teacher once"),
        ({"pseudo": {"runs": ["../a"]}}, "pseudo.runs.0: .*pattern"),
        ({"pseudo": {"runs": ["a"], "threshold": 1.5}}, "pseudo.threshold: .*less than or equal to 1"),
        (
            {"pseudo": {"runs": ["a"]}, "stages": [{"freeze_until": "head", "fit": "linear_probe"}]},
            "pseudo needs a stage with fit: gradient",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        train(**settings)


def test_settings_come_back_from_a_manifest_as_they_were() -> None:
    content = {"backbone": "tiny", "weights": "none", "input": {"pack": "36x44", "size": "32x40"}}
    for more in (
        {},
        {"splits": "all"},
        {"splits": {"kind": "shuffle_split", "count": 7}},
        {"pseudo": {"runs": ["a", "b"]}},
    ):
        made = parse(ModelSettings, {**content, "train": more}, "test")
        assert parse(ModelSettings, made.model_dump(), "again") == made
