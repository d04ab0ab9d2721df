"""Splits of drivers: the fold file's, reshuffled folds, random validation subsets, or none (all drivers train)."""

import math
from dataclasses import dataclass

import numpy as np

from driverwatch.config.training import TrainSettings
from driverwatch.data.folds import FoldTable, refuse_unknown
from driverwatch.errors import InputError

DRAWS = 50  # of which the one that shares the fewest pairs with the fold file is taken


def reshuffled_folds(table: FoldTable, seed: int) -> dict[str, int]:
    """A fold, 0 to K-1, of each driver, shuffled again: whole drivers, no fold empty, the same for the same `seed`.

    Of `DRAWS` drawings the one is taken whose folds hold the fewest pairs of drivers that one fold of the file holds too,
    and among equals the one whose classes are spread most evenly (as `folds.assign` measures it).
    """
    counts = table.frame.iloc[:, 3:].to_numpy(np.int64)
    file, drawn = table.frame["fold"].to_numpy(np.int64), []
    for number in range(DRAWS):
        random = np.random.default_rng((seed, number, len(counts)))
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
    """Pairs of drivers that are in one fold here and there."""
    together = np.zeros((one.max() + 1, other.max() + 1), np.int64)
    np.add.at(together, (one, other), 1)
    return int((together * (together - 1) // 2).sum())


@dataclass(frozen=True)
class Splits:
    """Of fold k, `validation[k]`: the drivers it is held against, `unused[k]`: others it does not see; `drivers`: all there are."""

    drivers: frozenset[str]
    validation: tuple[frozenset[str], ...]
    unused: tuple[frozenset[str], ...]

    @property
    def count(self) -> int:
        return len(self.validation)

    def indices(self, drivers: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Indices, int (T,) and (V,), of the images that fold `number` trains and validates on, given each image's driver (N,); no
        driver is in both.

        Raises:
            InputError: a driver that no fold knows, or a fold that is not there.
        """
        refuse_unknown(drivers, self.drivers, number, self.count)
        validation = np.array([driver in self.validation[number] for driver in drivers], dtype=bool)
        unused = np.array([driver in self.unused[number] for driver in drivers], dtype=bool)
        return np.flatnonzero(~(validation | unused)), np.flatnonzero(validation)

    def trained_on(self, number: int) -> int:
        """Drivers that fold `number` is trained on."""
        return len(self.drivers - self.validation[number] - self.unused[number])


def of(train: TrainSettings, folds: FoldTable) -> Splits:
    """The splits that a run's settings ask for.

    Raises:
        InputError: subsets, or drivers to train on, that there are too few drivers for.
    """
    of_driver, splits = folds.of_driver, train.splits
    drivers, count = sorted(of_driver), splits.models(folds.count)
    if splits.kind == "reshuffled":
        of_driver = reshuffled_folds(folds, splits.split_seed or 0)
    if splits.kind in ("folds", "reshuffled"):
        validation = [{driver for driver in drivers if of_driver[driver] == fold} for fold in range(count)]
    elif splits.kind == "all":
        validation = [set()] * count
    else:
        found = subsets(len(drivers), splits.validation, count, train.seed)
        validation = [{drivers[i] for i in subset} for subset in found]
    unused = [_unused([d for d in drivers if d not in held], fold, train) for fold, held in enumerate(validation)]
    return Splits(frozenset(drivers), tuple(map(frozenset, validation)), tuple(unused))


def _unused(drivers: list[str], fold: int, train: TrainSettings) -> frozenset[str]:
    """Of those that fold `fold` may train on, the ones that it does not: the last ones of an order drawn once."""
    count = train.splits.train_drivers
    if count is None:
        return frozenset()
    if count > len(drivers):
        lacks = f"fold {fold} has only {len(drivers)} drivers to train on, got {count}"
        raise InputError(f"train.splits.train_drivers: {lacks}; lower it")
    order = np.random.default_rng((train.seed, fold, len(drivers))).permutation(len(drivers))
    return frozenset(drivers[place] for place in order[count:])


def subsets(drivers: int, size: int, count: int, seed: int) -> list[frozenset[int]]:
    """Draw `count` different subsets of `size` out of `drivers` numbers, each number in as many of them as any other, or one more.

    Drawn at random and then evened out: while x is in two more subsets than y, x is exchanged for y in one of them. There
    is always one where that gives a new subset, since more subsets hold x and not y than y and not x.

    Raises:
        InputError: no driver left to train on, or fewer such subsets than asked for.
    """
    if size >= drivers:
        lacks = f"{size} of {drivers} drivers leave none to train on"
        raise InputError(f"train.splits.val_drivers: {lacks}; lower it to {drivers - 1} or less")
    if count > (most := math.comb(drivers, size)):
        lacks = f"{drivers} drivers have only {most} subsets of {size}, got {count}"
        raise InputError(f"train.splits.count: {lacks}; lower it")
    random = np.random.default_rng((seed, drivers, size, count))
    drawn: dict[frozenset[int], None] = {}  # a set that keeps its order
    while len(drawn) < count:
        drawn[frozenset(random.choice(drivers, size, replace=False).tolist())] = None
    found = list(drawn)
    while True:
        held = np.bincount([i for subset in found for i in subset], minlength=drivers)
        often, seldom = int(held.argmax()), int(held.argmin())
        if held[often] - held[seldom] < 2:
            return found
        _exchange(found, often, seldom)


def _exchange(found: list[frozenset[int]], often: int, seldom: int) -> None:
    """Put `seldom` in the place of `often` in the first subset where that gives one that is not there yet."""
    there = set(found)
    for place, subset in enumerate(found):
        changed = subset - {often} | {seldom}
        if often in subset and seldom not in subset and changed not in there:
            found[place] = changed
            return
