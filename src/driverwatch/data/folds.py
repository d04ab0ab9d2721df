"""Driver folds: written once to a small CSV, committed, and re-checked by everything that uses them."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from driverwatch.artifacts import digest_of, write_text
from driverwatch.data.competition import ImageTable, read_csv
from driverwatch.errors import InputError, listed


@dataclass(frozen=True)
class FoldTable:
    """One line per driver: `driver` (str), `fold` (int), `images` (int) and counts per class, sorted by driver."""

    frame: pd.DataFrame

    @property
    def digest(self) -> str:
        """SHA-256 of who lies where and how many images each has."""
        return digest_of([list(map(str, row)) for row in self.frame.itertuples(index=False)])

    @property
    def count(self) -> int:
        return int(self.frame["fold"].max()) + 1

    @property
    def of_driver(self) -> dict[str, int]:
        return dict(zip(self.frame["driver"], self.frame["fold"], strict=True))

    def rows(self, drivers: np.ndarray, fold: int) -> tuple[np.ndarray, np.ndarray]:
        """Row numbers (training, held out) of `fold`, given each row's driver; no driver is in both.

        Raises:
            InputError: a driver that no fold knows, or a fold that is not there.
        """
        known = self.of_driver
        if strangers := sorted(set(drivers) - set(known)):
            raise InputError(
                f"folds: no fold holds driver {', '.join(strangers[:5])}; make folds FORCE=1 for this data"
            )
        if not 0 <= fold < self.count:
            raise InputError(f"FOLD={fold}: expected 0 to {self.count - 1}")
        held_out = np.array([known[driver] == fold for driver in drivers])
        return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def class_counts(table: ImageTable) -> pd.DataFrame:
    """Images per driver (rows, sorted) and class (columns)."""
    counts = pd.crosstab(table.frame["driver"], table.frame["label"])
    counts = counts.reindex(columns=range(len(table.classes)), fill_value=0).sort_index()
    counts.columns = list(table.classes)
    return counts


def assign(counts: np.ndarray, folds: int) -> list[int]:
    """Give each driver a fold so that every class is spread as evenly as whole drivers allow.

    Minimises the summed squared deviation of each fold's class counts from their share, times `folds`**2: largest
    drivers first into the fold that costs least, then the best exchange or move of drivers until none helps. Integers
    throughout, ties by lowest number: the same on every machine and with every library version.

    Args:
        counts: int (D, C), images of each driver and class.
    """
    counts = counts.astype(np.int64)
    totals = counts.sum(axis=0)
    assigned = np.full(len(counts), -1)

    def cost(candidate: np.ndarray) -> int:
        sums = np.stack([counts[candidate == fold].sum(axis=0) for fold in range(folds)])
        return int(((folds * sums - totals) ** 2).sum())

    for driver in sorted(range(len(counts)), key=lambda d: (-int(counts[d].sum()), d)):
        assigned[driver] = min(range(folds), key=lambda fold: (cost(_with(assigned, {driver: fold})), fold))
    while True:
        best = min(_exchanges(assigned, folds), key=lambda change: cost(_with(assigned, change)), default={})
        if not best or cost(_with(assigned, best)) >= cost(assigned):
            return [int(fold) for fold in assigned]
        assigned = _with(assigned, best)


def _with(assigned: np.ndarray, change: dict[int, int]) -> np.ndarray:
    changed = assigned.copy()
    for driver, fold in change.items():
        changed[driver] = fold
    return changed


def _exchanges(assigned: np.ndarray, folds: int) -> list[dict[int, int]]:
    """Every move of one driver that leaves no fold empty, and every exchange of two between folds."""
    drivers = range(len(assigned))
    sizes = np.bincount(assigned, minlength=folds)
    moves = [{d: f} for d in drivers for f in range(folds) if f != assigned[d] and sizes[assigned[d]] > 1]
    swaps = [
        {a: int(assigned[b]), b: int(assigned[a])} for a in drivers for b in range(a) if assigned[a] != assigned[b]
    ]
    return moves + swaps


def make(table: ImageTable, folds: int) -> FoldTable:
    """Assign every driver of `table` to one of `folds` folds."""
    counts = class_counts(table)
    if len(counts) < folds:
        raise InputError(
            f"folds: {folds} folds need at least as many drivers, got {len(counts)}; lower `folds` in the dataset's YAML"
        )
    frame = counts.reset_index(names="driver")
    frame.insert(1, "fold", assign(counts.to_numpy(), folds))
    frame.insert(2, "images", counts.sum(axis=1).to_numpy())
    return FoldTable(frame)


def write(folds: FoldTable, path: Path) -> None:
    text = io.StringIO()
    folds.frame.to_csv(text, index=False, lineterminator="\n")
    write_text(path, text.getvalue())


def read(path: Path, table: ImageTable) -> FoldTable:
    """Read a fold file and hold it against the images it must describe.

    Raises:
        InputError: repeated drivers, folds that are not 0..K-1, or drivers and counts other than the table's.
    """
    if not path.is_file():
        raise InputError(f"{path}: no fold file; run make folds first")
    frame = read_csv(path, ["driver", "fold", "images", *table.classes])
    numbers = [column for column in frame.columns if column != "driver"]
    try:
        frame = frame.astype(dict.fromkeys(numbers, "int64"))
    except ValueError as error:
        raise InputError(f"{path}: expected whole numbers beside each driver, got {error}; restore the file") from error
    if (twice := frame["driver"].duplicated()).any():
        raise InputError(f"{path}: driver {frame['driver'][twice].iloc[0]} is listed twice; restore the file")
    if sorted(frame["fold"].unique()) != list(range(frame["fold"].nunique())) or frame["fold"].nunique() < 2:
        raise InputError(
            f"{path}: folds must be numbered 0 to K-1 with K at least 2, got {sorted(frame['fold'].unique())}"
        )
    counts = class_counts(table)
    found = frame.set_index("driver")[list(table.classes)].sort_index()
    if problems := _mismatches(found, counts):
        raise InputError(
            f"{path}: does not fit the data: {len(problems)} drivers differ; check DATA=, or make folds "
            f"FORCE=1 (runs on the old folds then no longer count):{listed(problems)}"
        )
    return FoldTable(frame.sort_values("driver", ignore_index=True))


def _mismatches(found: pd.DataFrame, counts: pd.DataFrame) -> list[str]:
    missing = [f"{driver}: in the data, in no fold" for driver in counts.index.difference(found.index)]
    extra = [f"{driver}: in a fold, not in the data" for driver in found.index.difference(counts.index)]
    both = counts.index.intersection(found.index)
    differ = [
        f"{driver}: counts per class {list(found.loc[driver])}, data has {list(counts.loc[driver])}"
        for driver in both
        if list(found.loc[driver]) != list(counts.loc[driver])
    ]
    return missing + extra + differ
