"""Which drivers each fit of a run leaves out: a fold's, a drawn subset, or nobody."""

import math
from dataclasses import dataclass

import numpy as np

from driverwatch.data.folds import FoldTable
from driverwatch.errors import InputError
from driverwatch.train_settings import TrainSettings


@dataclass(frozen=True)
class Splits:
    """`held_out[k]`: the drivers that fit k is not trained on; `drivers`: all that there are."""

    drivers: frozenset[str]
    held_out: tuple[frozenset[str], ...]

    @property
    def count(self) -> int:
        return len(self.held_out)

    def rows(self, drivers: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Row numbers (training, held out) of fit `number`, given each row's driver; no driver is in both.

        Raises:
            InputError: a driver that no fold knows, or a fit that is not there.
        """
        if strangers := sorted(set(drivers) - self.drivers):
            raise InputError(
                f"folds: no fold holds driver {', '.join(strangers[:5])}; make folds FORCE=1 for this data"
            )
        if not 0 <= number < self.count:
            raise InputError(f"FOLD={number}: expected 0 to {self.count - 1}")
        held_out = np.array([driver in self.held_out[number] for driver in drivers], dtype=bool)
        return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def of(train: TrainSettings, folds: FoldTable) -> Splits:
    """The splits that a run's settings ask for.

    Raises:
        InputError: subsets that the drivers are too few for.
    """
    of_driver, splits = folds.of_driver, train.splits
    drivers, count = sorted(of_driver), splits.fits(folds.count)
    if splits.kind == "folds":
        held_out = [{driver for driver in drivers if of_driver[driver] == fold} for fold in range(count)]
    elif splits.kind == "all":
        held_out = [set()] * count
    else:
        held_out = [
            {drivers[i] for i in subset} for subset in subsets(len(drivers), splits.held_out, count, train.seed)
        ]
    return Splits(frozenset(drivers), tuple(map(frozenset, held_out)))


def subsets(drivers: int, size: int, count: int, seed: int) -> list[frozenset[int]]:
    """Draw `count` different subsets of `size` out of `drivers` numbers, each number in as many of them as any other, or one more.

    Drawn at random and then evened out: while x lies in two more subsets than y, x is exchanged for y in one of them. There
    is always one where that gives a new subset, since more subsets hold x and not y than y and not x.

    Raises:
        InputError: no driver left to train on, or fewer such subsets than asked for.
    """
    if size >= drivers:
        raise InputError(
            f"train.splits.hold_out: {size} of {drivers} drivers leave nobody to train on; lower it to {drivers - 1} or less"
        )
    if count > math.comb(drivers, size):
        raise InputError(
            f"train.splits.count: {drivers} drivers have only {math.comb(drivers, size)} subsets of {size}, got {count}; lower it"
        )
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
