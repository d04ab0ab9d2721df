"""Driver folds: made, written, and read, either against the image table or alone (without pandas)."""

from __future__ import annotations  # pandas, half a second, is imported only where a frame is made

import csv
import io
from collections import Counter
from collections.abc import Container
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from driverwatch.config.dataset import class_columns
from driverwatch.data.competition import ImageTable
from driverwatch.errors import InputError, listed
from driverwatch.io.atomic import write_text
from driverwatch.io.csv_tables import numbers, read_csv
from driverwatch.io.manifests import checksum_of


@dataclass(frozen=True)
class FoldFile:
    """The checksum that `folds.FoldTable` has of the same file, its drivers, and how many images each fold holds out."""

    checksum: str
    drivers: int
    images: tuple[int, ...]  # by fold

    @property
    def count(self) -> int:
        return len(self.images)


def glance(path: Path, classes: tuple[str, ...]) -> FoldFile:
    """Read a fold file of a data set with these classes.

    Raises:
        InputError: no file, other columns, cells that are no whole numbers, or folds that are not 0 to K-1.
    """
    expected = ["driver", "fold", "images", *class_columns(classes)]
    try:
        text = path.read_text(encoding="utf-8-sig")
        header, *rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
        if header != expected or any(len(row) != len(expected) for row in rows):
            raise ValueError(f"columns other than {','.join(expected)}")
        table = sorted((row[0], [int(cell) for cell in row[1:]]) for row in rows)
    except FileNotFoundError:
        raise InputError(f"{path}: no fold file; run make folds DATASET={path.stem} first") from None
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: not a whole fold file ({error}); restore it") from error
    held: Counter[int] = Counter()
    for _, (fold, images, *_) in table:
        held[fold] += images
    _refuse_gaps(path, set(held))
    checksum = checksum_of([[driver, *map(str, numbers)] for driver, numbers in table])
    return FoldFile(checksum, len(table), tuple(held[fold] for fold in range(len(held))))


def _refuse_gaps(path: Path, numbers: set[int]) -> None:
    """Refuse folds that are not numbered 0 to K-1, or are fewer than two."""
    if numbers != set(range(len(numbers))) or len(numbers) < 2:
        found = sorted(numbers)[:9]
        raise InputError(f"{path}: folds must be numbered 0 to K-1 with K at least 2, got {found}; restore the file")


if TYPE_CHECKING:
    import pandas as pd

EXCHANGED = 1000  # drivers whose pairs are all tried: 8 MB a table, some 20 ms a round


@dataclass(frozen=True)
class FoldTable:
    """One line per driver: `driver` (str), `fold` (int), `images` (int) and counts per class, sorted by driver."""

    frame: pd.DataFrame

    @property
    def checksum(self) -> str:
        """SHA-256 (hex) of each driver's fold and numbers of images."""
        return checksum_of([list(map(str, row)) for row in self.frame.itertuples(index=False)])

    @property
    def count(self) -> int:
        return int(self.frame["fold"].max()) + 1

    @cached_property
    def of_driver(self) -> dict[str, int]:
        return dict(zip(self.frame["driver"], self.frame["fold"], strict=True))

    def indices(self, drivers: np.ndarray, fold: int) -> tuple[np.ndarray, np.ndarray]:
        """Indices, int (T,) and (V,), of the images that `fold` trains and validates on, given each image's driver (N,); no
        driver is in both.

        Raises:
            InputError: a driver that no fold knows, or a fold that is not there.
        """
        refuse_unknown(drivers, set(self.of_driver), fold, self.count)
        validation = np.array([self.of_driver[driver] == fold for driver in drivers], dtype=bool)
        return np.flatnonzero(~validation), np.flatnonzero(validation)


def refuse_unknown(drivers: np.ndarray, known: Container[str], fold: int, count: int) -> None:
    """Refuse drivers that no fold knows, or a fold that is none of `count`."""
    if unknown := sorted(driver for driver in set(drivers) if driver not in known):
        raise InputError(f"folds: no fold holds driver {', '.join(unknown[:5])}; make folds FORCE=1 for this data")
    if not 0 <= fold < count:
        raise InputError(f"FOLD={fold}: expected 0 to {count - 1}")


def class_counts(table: ImageTable) -> pd.DataFrame:
    """Images per driver (rows, sorted) and class (`class_columns`)."""
    import pandas as pd

    counts = pd.crosstab(table.frame["driver"], table.frame["label"])
    counts = counts.reindex(columns=range(len(table.classes)), fill_value=0).sort_index()
    counts.columns = class_columns(table.classes)
    return counts


def assign(counts: np.ndarray, folds: int) -> list[int]:
    """Give each driver a fold so that every class is spread as evenly as whole drivers allow.

    Minimises the summed squared deviation of each fold's class counts from their share, times `folds`**2: largest
    drivers first into the fold that costs least, then the best exchange or move of drivers until none helps. Integers
    throughout, ties by lowest number: the same on every machine and with every library version. Beyond `EXCHANGED`
    drivers (groups of near-duplicates come in thousands) any may still move, but only that many largest are exchanged.

    Drivers with few classes each may leave a fold empty, as its share of a class that it lacks costs the same wherever
    that class lies; all images then count as one more class, which no fold can be without.

    Args:
        counts: int (D, C), images of each driver and class, each driver with at least one.
    """
    from scipy.spatial.distance import cdist  # a second, not for who only reads folds

    counts = counts.astype(np.int64)
    deviation = np.repeat(-counts.sum(axis=0)[None], folds, axis=0)  # (folds, C): folds * a fold's sums - totals
    assigned = np.empty(len(counts), np.int64)
    largest_first = np.argsort(-counts.sum(axis=1), kind="stable")
    for driver in largest_first:
        assigned[driver] = (
            deviation @ counts[driver]
        ).argmin()  # what else the cost grows by is the same in every fold
        deviation[assigned[driver]] += folds * counts[driver]
    exchanged = np.sort(largest_first[:EXCHANGED])
    distances = cdist(counts[exchanged], counts[exchanged], "sqeuclidean")  # of whole numbers, so exact
    apart = folds * distances.astype(np.int64)
    while change := _best_change(counts, assigned, deviation, exchanged, apart):
        for driver, fold in change.items():
            deviation[assigned[driver]] -= folds * counts[driver]
            deviation[fold] += folds * counts[driver]
            assigned[driver] = fold
    if len(np.unique(assigned)) < min(folds, len(counts)):
        return assign(np.column_stack([counts, counts.sum(axis=1)]), folds)
    return assigned.tolist()


def _best_change(
    counts: np.ndarray, assigned: np.ndarray, deviation: np.ndarray, exchanged: np.ndarray, apart: np.ndarray
) -> dict[int, int]:
    """The move of one driver (leaving no fold empty) or exchange of two that saves most, as new folds; none: {}.

    With x for a driver's counts, v for a fold's deviation and K folds, a move from fold f to g changes the cost by
    2K (K x.x + x.(v_g - v_f)); an exchange is a move of the difference of two drivers. The factor 2K is left out.
    """
    folds = len(deviation)
    pull = counts @ deviation.T
    pull -= pull[np.arange(len(counts)), assigned][:, None]  # x.(v_g - v_f), 0 where a driver already is
    moves = pull + folds * (counts**2).sum(axis=1)[:, None]
    moves[np.bincount(assigned, minlength=folds)[assigned] == 1] = 0
    pairs = pull[exchanged][:, assigned[exchanged]]
    swaps = np.tril(apart + pairs + pairs.T)  # within a fold no pair saves anything, so none is masked
    if min(moves.min(), swaps.min()) >= 0:
        return {}
    if moves.min() <= swaps.min():
        driver, fold = divmod(int(moves.argmin()), folds)
        return {driver: fold}
    first, second = (int(exchanged[place]) for place in divmod(int(swaps.argmin()), len(exchanged)))
    return {first: int(assigned[second]), second: int(assigned[first])}


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
    """Write a fold table as CSV, whole or not at all."""
    text = io.StringIO()
    folds.frame.to_csv(text, index=False, lineterminator="\n")
    write_text(path, text.getvalue())


def read(path: Path, table: ImageTable) -> FoldTable:
    """Read a fold file and hold it against the images it must describe.

    Raises:
        InputError: repeated drivers, folds that are not 0..K-1, or drivers and counts other than the table's.
    """
    if not path.is_file():
        raise InputError(f"{path}: no fold file; run make folds DATASET={path.stem} first")
    expected = ["driver", "fold", "images", *class_columns(table.classes)]
    frame = read_csv(path, expected)
    try:
        if list(frame.columns) != expected:
            raise ValueError(f"the columns {','.join(map(str, frame.columns))}, not {','.join(expected)}")
        frame[expected[1:]] = numbers(frame[expected[1:]], whole=True)
        frame = frame.astype(dict.fromkeys(expected[1:], "int64"))
    except ValueError as error:
        raise InputError(f"{path}: expected whole numbers beside each driver, got {error}; restore the file") from error
    if (twice := frame["driver"].duplicated()).any():
        raise InputError(f"{path}: driver {frame['driver'][twice].iloc[0]} is listed twice; restore the file")
    _refuse_gaps(path, set(frame["fold"].tolist()))
    if (frame["images"] != frame[expected[3:]].sum(axis=1)).any():
        raise InputError(f"{path}: the column images is not the sum of the classes; restore the file")
    if problems := _mismatches(frame.set_index("driver")[expected[3:]].sort_index(), class_counts(table)):
        way_out = "check DATA=, or make folds FORCE=1 (runs on the old folds then no longer count)"
        raise InputError(f"{path}: does not fit the data: {len(problems)} drivers differ; {way_out}:{listed(problems)}")
    return FoldTable(frame.sort_values("driver", ignore_index=True))


def _mismatches(found: pd.DataFrame, counts: pd.DataFrame) -> list[str]:
    missing = [f"{driver}: in the data, in no fold" for driver in counts.index.difference(found.index)]
    extra = [f"{driver}: in a fold, not in the data" for driver in found.index.difference(counts.index)]
    both = [
        (driver, list(found.loc[driver]), list(counts.loc[driver])) for driver in counts.index.intersection(found.index)
    ]
    differ = [
        f"{driver}: counts per class {ours}, data has {theirs}" for driver, ours, theirs in both if ours != theirs
    ]
    return missing + extra + differ
