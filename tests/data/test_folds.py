"""Driver folds: disjoint, balanced, the same everywhere, and re-checked."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.places import ROOT

from driverwatch.config.dataset import DatasetSettings
from driverwatch.data import competition, folds
from driverwatch.data.competition import ImageTable
from driverwatch.data.folds import FoldTable, assign
from driverwatch.errors import InputError


@pytest.fixture
def table(data: Path, demo_settings: DatasetSettings) -> ImageTable:
    return competition.read_train(demo_settings, data).table


def test_written_folds_come_back(table: ImageTable, tmp_path: Path) -> None:
    made = folds.make(table, 3)
    folds.write(made, tmp_path / "f.csv")
    found = folds.read(tmp_path / "f.csv", table)
    assert found.checksum == made.checksum
    assert (tmp_path / "f.csv").read_text().startswith("driver,fold,images,c0,c1,c2,c3,c4,c5,c6,c7,c8,c9\np000,")


def test_each_driver_is_held_out_once(table: ImageTable) -> None:
    made = folds.make(table, 3)
    drivers = table.frame["driver"].to_numpy()
    held = []
    for fold in range(3):
        training, validation = made.indices(drivers, fold)
        assert set(drivers[training]).isdisjoint(drivers[validation])
        assert sorted([*training, *validation]) == list(range(len(drivers)))
        held += list(validation)
    assert sorted(held) == list(range(len(drivers)))


def test_the_assignment_is_pinned() -> None:
    """The same on every machine and with every library version: integers only, ties by lowest number."""
    counts = np.random.default_rng(7).integers(0, 40, (11, 4))
    assert assign(counts, 3) == [2, 2, 1, 0, 0, 1, 0, 0, 1, 2, 1]


def slow_assign(counts: np.ndarray, folds: int) -> list[int]:
    """The rule in plain words, every cost computed again: what `assign` did before groups came in thousands."""
    totals = counts.sum(axis=0)
    assigned = np.full(len(counts), -1)

    def changed(change: dict[int, int]) -> np.ndarray:
        after = assigned.copy()
        after[list(change)] = list(change.values())
        return after

    def cost(candidate: np.ndarray) -> int:
        sums = np.stack([counts[candidate == fold].sum(axis=0) for fold in range(folds)])
        return int(((folds * sums - totals) ** 2).sum())

    for d in sorted(range(len(counts)), key=lambda d: (-int(counts[d].sum()), d)):
        assigned[d] = min(range(folds), key=lambda fold: (cost(changed({d: fold})), fold))
    while True:
        each, sizes = range(len(counts)), np.bincount(assigned, minlength=folds)
        changes = [{d: f} for d in each for f in range(folds) if f != assigned[d] and sizes[assigned[d]] > 1]
        changes += [{a: assigned[b], b: assigned[a]} for a in each for b in range(a) if assigned[a] != assigned[b]]
        best = min(changes, key=lambda change: cost(changed(change)), default={})
        if not best or cost(changed(best)) >= cost(assigned):
            return assigned.tolist()
        assigned = changed(best)


@settings(deadline=None, max_examples=200)
@given(st.integers(2, 5), st.integers(1, 14), st.integers(1, 4), st.sampled_from([1, 3, 60]), st.integers(0, 2**32 - 1))
def test_the_fast_assignment_is_the_slow_one(count: int, drivers: int, classes: int, most: int, seed: int) -> None:
    """Also with many ties (`most` 1); unless the slow one left a fold empty."""
    counts = np.random.default_rng(seed).integers(0, most + 1, (drivers, classes))
    counts[:, 0] += counts.sum(axis=1) == 0
    slow = slow_assign(counts, count)
    assert assign(counts, count) == slow or len(set(slow)) < min(count, drivers)


@pytest.mark.parametrize("name", ["statefarm_mini", "demo"])
def test_the_committed_folds_come_out_again(name: str) -> None:
    frame = pd.read_csv(ROOT / "folds" / f"{name}.csv", dtype={"driver": str})
    counts = frame.filter(regex=r"^c\d$").to_numpy()
    assert assign(counts, frame["fold"].nunique()) == frame["fold"].tolist()


def test_thousands_of_groups_are_spread_evenly() -> None:
    """Beyond the bound on exchanges: every fold holds a fifth of each class, to within a few images."""
    counts = np.random.default_rng(0).integers(0, 12, (folds.EXCHANGED + 500, 10))
    assigned = np.array(assign(counts, 5))
    sums = np.stack([counts[assigned == fold].sum(axis=0) for fold in range(5)])
    assert np.ptp(sums, axis=0).max() <= 6


@given(st.integers(2, 5), st.integers(0, 2**32 - 1), st.integers(0, 6))
def test_no_fold_is_empty_when_each_group_has_one_class(count: int, seed: int, more: int) -> None:
    counts = np.eye(6, dtype=np.int64)[np.random.default_rng(seed).integers(0, 6, count + more)]
    assert set(assign(counts, count)) == set(range(count))


@given(st.integers(2, 5), st.integers(0, 2**32 - 1), st.integers(0, 6))
def test_every_fold_gets_drivers_even_when_there_are_few(count: int, seed: int, more: int) -> None:
    counts = np.random.default_rng(seed).integers(1, 30, (count + more, 3))
    assigned = np.array(assign(counts, count))
    assert set(assigned) == set(range(count))


def test_the_committed_folds_balance_the_real_drivers() -> None:
    frame = pd.read_csv(ROOT / "folds" / "statefarm_mini.csv", dtype={"driver": str})
    per_fold = frame.drop(columns="driver").groupby("fold").sum()
    assert len(frame) == 19
    assert per_fold["images"].sum() == 3539
    assert per_fold["images"].max() / per_fold["images"].min() < 1.06
    assert FoldTable(frame).checksum[:12] == "1633004e51ef"


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (
            lambda t: t.replace("p003,", "p033,"),
            r"(?s)2 drivers differ.*p003: in the data, in no fold.*p033: in a fold",
        ),
        (lambda t: t.replace(",2,2,2", ",2,1,3", 1), "counts per class"),
        (lambda t: t.replace(",2,2,2", ",2,2,3", 1), "is not the sum of the classes"),
        (lambda t: t + t.splitlines()[1] + "\n", "listed twice"),
        (lambda t: t.replace(",2,20,", ",5,20,"), "numbered 0 to K-1"),
        (lambda t: t.replace(",20,", ",many,", 1), "expected whole numbers"),
        (lambda t: t.replace("driver,", "subject,"), "missing column driver"),
    ],
)
def test_edited_fold_files_are_refused(
    table: ImageTable, tmp_path: Path, edit: Callable[[str], str], said: str
) -> None:
    path = tmp_path / "f.csv"
    folds.write(folds.make(table, 3), path)
    path.write_text(edit(path.read_text()))
    with pytest.raises(InputError, match=said):
        folds.read(path, table)


def test_moving_a_driver_changes_the_checksum(table: ImageTable) -> None:
    made = folds.make(table, 3)
    moved = made.frame.assign(fold=np.roll(made.frame["fold"], 1))
    assert FoldTable(moved).checksum != made.checksum


def test_strangers_and_wrong_numbers(table: ImageTable) -> None:
    made = folds.make(table, 3)
    with pytest.raises(InputError, match="no fold holds driver p999"):
        made.indices(np.array(["p000", "p999"]), 0)
    with pytest.raises(InputError, match="expected 0 to 2"):
        made.indices(np.array(["p000"]), 3)
    with pytest.raises(InputError, match="7 folds need at least as many drivers, got 6"):
        folds.make(table, 7)
