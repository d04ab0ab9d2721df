"""Other folds of the same drivers, for who has looked at the fold file's too often: each driver is held out once here too."""

import numpy as np

from driverwatch.data.folds import FoldTable

DRAWS = 50  # of which the one that shares the fewest pairs with the fold file is taken


def folds(table: FoldTable, draw: int) -> dict[str, int]:
    """A fold, 0 to K-1, of each driver, drawn anew: whole drivers, none of K folds empty, the same for the same number `draw`.

    Of `DRAWS` drawings the one is taken whose folds hold the fewest pairs of drivers that one fold of the file holds too,
    and among equals the one whose classes are spread most evenly (as `folds.assign` measures it).
    """
    counts = table.frame.iloc[:, 3:].to_numpy(np.int64)
    file, drawn = table.frame["fold"].to_numpy(np.int64), []
    for number in range(DRAWS):
        random = np.random.default_rng((draw, number, len(counts)))
        found = _dealt(counts, table.count, random.permutation(len(counts)))
        drawn.append((_shared_pairs(file, found), _unevenness(counts, found, table.count), number, found))
    best = min(drawn, key=lambda one: one[:3])[3]
    return dict(zip(table.frame["driver"], best.tolist(), strict=True))


def _dealt(counts: np.ndarray, folds: int, order: np.ndarray) -> np.ndarray:
    """Drivers one by one, each into the fold that lacks most of its classes; the first `folds` of them into one each."""
    deviation = np.repeat(-counts.sum(axis=0)[None], folds, axis=0)  # as in `folds.assign`
    found = np.empty(len(counts), np.int64)
    for place, driver in enumerate(order):
        found[driver] = place if place < folds else (deviation @ counts[driver]).argmin()
        deviation[found[driver]] += folds * counts[driver]
    return found


def _unevenness(counts: np.ndarray, found: np.ndarray, folds: int) -> int:
    """Summed squared deviation of the folds' class counts from their share, times `folds`**2."""
    sums = np.stack([counts[found == fold].sum(axis=0) for fold in range(folds)])
    return int(((folds * sums - counts.sum(axis=0)) ** 2).sum())


def _shared_pairs(one: np.ndarray, other: np.ndarray) -> int:
    """Pairs of drivers that lie in one fold here and there."""
    together = np.zeros((one.max() + 1, other.max() + 1), np.int64)
    np.add.at(together, (one, other), 1)
    return int((together * (together - 1) // 2).sum())
