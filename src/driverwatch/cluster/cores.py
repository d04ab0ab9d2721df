"""Cores of a machine for one job among several: as many threads as it asked for, and its neighbours not in their way."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from driverwatch.ownership import claimed, locked_by_system


@contextmanager
def taken(count: int, folder: Path | None = None) -> Iterator[list[int]]:
    """Bind this process, and so its children, to `count` cores that no other job has, as far as there are; all: no change.

    Libraries take as many threads as they may use cores: so does a bound process, and results follow the number of threads.

    Args:
        folder: whose locks say which cores are taken; they go with whoever holds them.
    """
    mine = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if not 0 < count < len(mine):
        yield mine
        return
    folder = folder or Path(tempfile.gettempdir()) / f"driverwatch-{os.getuid()}" / "cores"
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as locks:
        free: list[int] = []
        for core in mine:
            if len(free) < count and _lock(folder / str(core), locks):
                free.append(core)
        chosen = (free + [core for core in mine if core not in free])[:count]
        os.sched_setaffinity(0, chosen)
        try:
            yield sorted(chosen)
        finally:
            os.sched_setaffinity(0, mine)


def _lock(path: Path, locks: ExitStack) -> bool:
    """Lock a core, unless another job has it."""
    lock, holder = path.open("w"), path.with_name(f"{path.name}.holder")
    taken = locked_by_system(lock)
    if taken is None and claimed(holder):
        locks.callback(holder.unlink, missing_ok=True)
    elif not taken:
        lock.close()
        return False
    locks.enter_context(lock)
    return True
