"""Sides timed in turn in one process, A B A B ..., so that whatever else the machine does falls on all of them alike."""

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from driverwatch.errors import InputError

LEAST = 3  # repetitions: of fewer there is no median beside an outlier


class Clocks(NamedTuple):
    """Both monotonic, in seconds: passing time, and CPU time of all threads of this process."""

    wall: Callable[[], float] = time.perf_counter
    cpu: Callable[[], float] = time.process_time


@dataclass(frozen=True)
class Side:
    """What is timed, and what is done before each time without being timed."""

    run: Callable[[], object]
    before: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Timing:
    """Seconds of each repetition, in order: passed, and spent by all threads of this process."""

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
    sides: Mapping[str, Side], repeat: int, clocks: Clocks | None = None, warm_up: int = 1
) -> dict[str, Timing]:
    """Run every side in turn, `warm_up` + `repeat` rounds, and time the later ones.

    The warm-up compiles graphs, starts threads and fills the page cache. Garbage is collected before each run and left lying
    during it.

    Raises:
        InputError: fewer than `LEAST` repetitions.
    """
    refuse_few(repeat)
    clocks = clocks or Clocks()
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for number in range(warm_up + repeat):
        for name, side in sides.items():
            side.before()
            found = _once(side.run, clocks)
            if number >= warm_up:
                taken[name].append(found)
    return {name: Timing(tuple(s for s, _ in times), tuple(c for _, c in times)) for name, times in taken.items()}


def refuse_few(repeat: int) -> None:
    if repeat < LEAST:
        raise InputError(
            f"REPEAT={repeat}: expected {LEAST} repetitions or more, since a row is a median with its spread"
        )


def _once(run: Callable[[], object], clocks: Clocks) -> tuple[float, float]:
    with no_collections():
        cpu, wall = clocks.cpu(), clocks.wall()
        run()
        return clocks.wall() - wall, clocks.cpu() - cpu


@contextmanager
def no_collections() -> Iterator[None]:
    """Collect garbage now, and not again until the end of the block."""
    gc.collect()
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
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
