"""Sides timed in turn in one process, A B A B ..., so that whatever else the machine does falls on all of them alike."""

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from driverwatch.errors import InputError

LEAST_REPEATS = 3  # of fewer there is no median beside an outlier


@dataclass(frozen=True)
class Side:
    """What is timed, and what is done before each time without being timed."""

    run: Callable[[], object]
    before: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Timing:
    """Seconds of each repetition, in order: wall-clock, and CPU seconds of all threads of this process."""

    seconds: tuple[float, ...]
    cpu: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


class Spread(NamedTuple):
    """A figure's median over repetitions, and its least and largest."""

    median: float
    low: float
    high: float


def interleaved(
    sides: Mapping[str, Side],
    repeat: int,
    wall: Callable[[], float] = time.perf_counter,
    cpu: Callable[[], float] = time.process_time,
    warm_up: int = 1,
) -> dict[str, Timing]:
    """The timing of every side: all are run in turn, `warm_up` + `repeat` rounds, of which the later ones count.

    The warm-up compiles graphs, starts threads and fills the page cache. Garbage is collected before each run and left lying
    during it.

    Raises:
        InputError: fewer than `LEAST_REPEATS` repetitions.
    """
    refuse_few(repeat)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for number in range(warm_up + repeat):
        for name, side in sides.items():
            side.before()
            found = _once(side.run, wall, cpu)
            if number >= warm_up:
                taken[name].append(found)
    return {name: Timing(*zip(*times, strict=True)) for name, times in taken.items()}


def refuse_few(repeat: int) -> None:
    """Raise `InputError` of fewer than `LEAST_REPEATS` repetitions."""
    if repeat < LEAST_REPEATS:
        raise InputError(
            f"REPEAT={repeat}: expected {LEAST_REPEATS} repetitions or more, since a row is a median with its spread"
        )


def _once(run: Callable[[], object], wall: Callable[[], float], cpu: Callable[[], float]) -> tuple[float, float]:
    """Wall-clock and CPU seconds of one run, without garbage collection in it."""
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        spent, start = cpu(), wall()
        run()
        return wall() - start, cpu() - spent
    finally:
        if was_enabled:
            gc.enable()


def over_rounds(formula: Callable[..., float], *timings: tuple[float, ...]) -> Spread:
    """A figure computed from the same repetition of each, then its median and spread."""
    return spread([formula(*values) for values in zip(*timings, strict=True)])


def spread(values: Sequence[float]) -> Spread:
    """Median, least and largest."""
    return Spread(statistics.median(values), min(values), max(values))


def speed(ours: Timing, theirs: Timing) -> Spread:
    """How many times as fast as `theirs` ours is at the same work."""
    return over_rounds(lambda mine, other: other / mine, ours.seconds, theirs.seconds)
