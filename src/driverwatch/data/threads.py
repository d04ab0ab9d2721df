"""A thread per core, working a bounded number of items ahead: `Executor.map` would submit all at once, a kilobyte each."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_threads(function: Callable[[T], R], items: Iterable[T], ahead: int = 256) -> Iterator[R]:
    """`function` of each item, in order, computed up to `ahead` items before it is asked for."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        pending: deque[Future[R]] = deque()
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
