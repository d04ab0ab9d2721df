"""Exact nearest neighbours by cosine: all pairs are compared, a block of rows at a time, so memory is bounded."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from driverwatch.errors import InputError

BLOCK = 2**25  # similarities that are held at a time, 128 MB
STRIP = 8  # rows that one thread searches at a time: of 80,000 images 2.5 MB, which a core's cache holds
SCORED = 2**21  # numbers of a piece of pairs that is compared anew in float64, 16 MB each side


def nearest(features: np.ndarray, sets: np.ndarray, k: int, block: int = BLOCK) -> tuple[np.ndarray, np.ndarray]:
    """The `k` most similar other rows of the same set, exact, by cosine.

    Blocks of rows are multiplied with all rows in float32. What may be among a row's k most similar, given how far such a
    product can be off, is compared anew in float64 and rounded to float32: so neither the block's size nor the library,
    nor its number of threads, decides anything, and equal rows are equally similar. Of these the lower row number is first.

    Args:
        features: float (N, F), finite, no row zero; of any length, rows are divided by their norm.
        sets: int (N,); only rows with the same number are neighbours.
        block: similarities held at a time, 4 bytes each.

    Returns:
        Row numbers int64 (N, k), most similar first, never the row itself, and cosines float32 (N, k). Where a set has
        fewer than k other rows the rest is -1 and -inf.

    Raises:
        InputError: features that are not finite, rows of zeros, a negative k, or shapes that do not fit.
    """
    features, sets = np.asarray(features), np.asarray(sets)
    if features.ndim != 2 or sets.shape != features.shape[:1] or k < 0:
        raise InputError(
            f"nearest neighbours: expected features (N, F), sets (N,) and k of 0 or more, got {features.shape}, {sets.shape} "
            f"and {k}; give one set per row"
        )
    unit = _unit(features)
    indices, similarities = np.full((len(unit), k), -1), np.full((len(unit), k), -np.inf, np.float32)
    for number in np.unique(sets):
        rows = np.flatnonzero(sets == number)
        taken = min(k, len(rows) - 1)
        found, near = _within(unit if len(rows) == len(unit) else unit[rows], taken, block)
        indices[rows, :taken], similarities[rows, :taken] = rows[found], near
    return indices, similarities


def _unit(features: np.ndarray) -> np.ndarray:
    """Rows divided by their norm, float32 (N, F); norms in float64, which squares of float32 cannot overflow."""
    unit = np.empty(features.shape, np.float32)
    step = max(1, SCORED // max(features.shape[1], 1))
    for start in range(0, len(unit), step):
        part = features[start : start + step].astype(np.float64)
        norms = np.sqrt((part * part).sum(axis=1, keepdims=True))
        if (wrong := ~(np.isfinite(norms[:, 0]) & (norms[:, 0] > 0))).any():
            row = start + int(np.flatnonzero(wrong)[0])
            raise InputError(
                f"nearest neighbours: expected finite features, not all zero, got row {row} with norm "
                f"{norms[row - start, 0]:g}; compute the features again"
            )
        unit[start : start + step] = part / norms
    return unit


def _within(unit: np.ndarray, k: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    """`nearest` among all of `unit` float32 (N, F), k < N."""
    count = len(unit)
    indices, similarities = np.empty((count, k), np.int64), np.empty((count, k), np.float32)
    if k == 0:
        return indices, similarities
    columns = np.flatnonzero(_twins_before(unit) <= k)  # beyond these a row's equals are never among its k
    others = unit if len(columns) == count else unit[columns]
    slack = _rounding(unit.shape[1])
    height = max(1, min(block // len(columns), count))
    product = np.empty((height, len(columns)), np.float32)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, count, height):
            held = np.matmul(unit[start : start + height], others.T, out=product[: min(height, count - start)])

            def search(at: int, held: np.ndarray = held, start: int = start) -> None:
                rows = np.arange(start + at, start + min(at + STRIP, len(held)))
                row, column = _candidates(held[at : at + STRIP], k + 1, slack)
                indices[rows], similarities[rows] = _best(unit, rows, rows[row], columns[column], k)

            list(pool.map(search, range(0, len(held), STRIP)))
    return indices, similarities


def _twins_before(unit: np.ndarray) -> np.ndarray:
    """For each row, how many rows before it are the same: int64 (N,). Copies by the thousand would all tie with each other."""
    seen: dict[bytes, int] = {}
    before = np.empty(len(unit), np.int64)
    for row, one in enumerate(unit):
        key = hashlib.blake2b(one.data, digest_size=16).digest()
        before[row] = seen[key] = seen.get(key, -1) + 1
    return before


def _rounding(length: int) -> float:
    """How far apart two float32 products of unit rows may seem that are equal: twice n u / (1 - n u), and a last rounding.

    Higham 2002, Accuracy and Stability of Numerical Algorithms, section 3.1: it holds for any order of the sum. The rows
    are of length 1 to a rounding each, so that the sum of the absolute products is at most 1 and a little.
    """
    error = length * 2.0**-24
    return 2.1 * error / (1 - error) + 2.0**-22


def _candidates(strip: np.ndarray, k: int, slack: float) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of all in `strip` float32 (S, n) that may be among a row's `k` largest: few more than S * k.

    The k-th largest of a row's maxima over m groups of columns is at most its k-th largest value, and not much less: so one
    pass finds it. Groups take every m-th column, because a clip's frames lie side by side.
    """
    count = strip.shape[1]
    groups = min(count, max(4 * k, 1024))
    whole = count // groups * groups
    maxima = strip[:, :whole].reshape(len(strip), -1, groups).max(axis=1)
    rest = count - whole
    np.maximum(maxima[:, :rest], strip[:, whole:], out=maxima[:, :rest])
    k = min(k, groups)
    least = np.partition(maxima, groups - k, axis=1)[:, groups - k]
    return np.divmod(np.flatnonzero(strip >= (least - np.float32(slack))[:, None]), count)


def _best(
    unit: np.ndarray, rows: np.ndarray, row: np.ndarray, other: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Of candidate pairs (`row`, `other`) the k most similar for each of `rows`, which `row` names in ascending order.

    Every row has at least k candidates beside itself.
    """
    apart = row != other
    row, other = row[apart], other[apart]
    near = _cosines(unit, row, other)
    order = np.lexsort((other, -near, row))
    first = np.searchsorted(row, rows)  # sorted by row before and after
    chosen = order[first[:, None] + np.arange(k)]
    return other[chosen], near[chosen]


def _cosines(unit: np.ndarray, row: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Products of pairs of rows, summed in float64 in an order of their length alone: float32 (len(row),)."""
    step = max(1, SCORED // max(unit.shape[1], 1))
    parts = [
        (unit[row[start : start + step]].astype(np.float64) * unit[other[start : start + step]]).sum(axis=1)
        for start in range(0, len(row), step)
    ]
    return np.concatenate(parts or [np.empty(0)]).astype(np.float32)
