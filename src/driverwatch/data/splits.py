"""Which drivers each fit of a run leaves out: a fold's, a redrawn fold's, a drawn subset, or nobody."""

import math
from dataclasses import dataclass

import numpy as np

from driverwatch.data import redrawn
from driverwatch.data.folds import FoldTable
from driverwatch.errors import InputError
from driverwatch.train_settings import TrainSettings


@dataclass(frozen=True)
class Splits:
    """Of fit k, `held_out[k]`: the drivers it is held against, `unused[k]`: others it does not see; `drivers`: all there are."""

    drivers: frozenset[str]
    held_out: tuple[frozenset[str], ...]
    unused: tuple[frozenset[str], ...]

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
        unused = np.array([driver in self.unused[number] for driver in drivers], dtype=bool)
        return np.flatnonzero(~(held_out | unused)), np.flatnonzero(held_out)

    def learnt_from(self, number: int) -> int:
        """Drivers that fit `number` is trained on."""
        return len(self.drivers - self.held_out[number] - self.unused[number])


def of(train: TrainSettings, folds: FoldTable) -> Splits:
    """The splits that a run's settings ask for.

    Raises:
        InputError: subsets, or drivers to learn from, that there are too few drivers for.
    """
    of_driver, splits = folds.of_driver, train.splits
    drivers, count = sorted(of_driver), splits.fits(folds.count)
    if splits.kind == "redrawn":
        of_driver = redrawn.folds(folds, splits.draw or 0)
    if splits.kind in ("folds", "redrawn"):
        held_out = [{driver for driver in drivers if of_driver[driver] == fold} for fold in range(count)]
    elif splits.kind == "all":
        held_out = [set()] * count
    else:
        held_out = [
            {drivers[i] for i in subset} for subset in subsets(len(drivers), splits.held_out, count, train.seed)
        ]
    unused = [_unused([d for d in drivers if d not in held], fit, train) for fit, held in enumerate(held_out)]
    return Splits(frozenset(drivers), tuple(map(frozenset, held_out)), tuple(unused))


def _unused(drivers: list[str], fit: int, train: TrainSettings) -> frozenset[str]:
    """Of those that fit `fit` may learn from, the ones that it does not: the last ones of an order drawn once."""
    count = train.splits.learn_from
    if count is None:
        return frozenset()
    if count > len(drivers):
        raise InputError(
            f"train.splits.learn_from: fit {fit} has only {len(drivers)} drivers to learn from, got {count}; lower it"
        )
    order = np.random.default_rng((train.seed, fit, len(drivers))).permutation(len(drivers))
    return frozenset(drivers[place] for place in order[count:])


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
