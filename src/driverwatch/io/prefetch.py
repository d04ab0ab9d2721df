"""Threads that work a bounded number of items ahead: `Executor.map` would submit all at once, a kilobyte each."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class _OpenCV:
    """How many are inside of `one_opencv_thread`, and how many threads OpenCV had before the first of them."""

    lock, inside, before = Lock(), 0, 0


@contextmanager
def one_opencv_thread() -> Iterator[None]:
    """OpenCV works in the calling thread alone: our own threads are the parallelism, and its would multiply with them.

    The number is the process's; it is put back when the last of those who overlap is done.
    """
    import cv2  # a tenth of a second, not for who only wants threads

    with _OpenCV.lock:
        if _OpenCV.inside == 0:
            _OpenCV.before = cv2.getNumThreads()
            cv2.setNumThreads(1)
        _OpenCV.inside += 1
    try:
        yield
    finally:
        with _OpenCV.lock:
            _OpenCV.inside -= 1
            if _OpenCV.inside == 0:
                cv2.setNumThreads(_OpenCV.before)


def in_threads(function: Callable[[T], R], items: Iterable[T], ahead: int = 256) -> Iterator[R]:
    """`function` of each item, in order, by a thread per core, computed up to `ahead` items before it is asked for."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        pending: deque[Future[R]] = deque()
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


class MadeAhead(Generic[R]):
    """`make(0)` to `make(count - 1)`, asked for in order and made by threads before that; started again at any number.

    Keeps the previous items: Keras reads batches 0 and 1 once before the epoch and must not recompute them.
    """

    def __init__(self, make: Callable[[int], R], count: int, threads: int) -> None:
        """Start nothing yet: threads start when a number is first asked for."""
        self.make, self.count, self.ahead = make, count, 2 * threads + 2
        self.pool = ThreadPoolExecutor(threads)
        self.made: dict[int, Future[R]] = {}
        self.lock, self.closed = Lock(), False

    def __call__(self, number: int) -> R:
        """What was made of a number.

        Raises:
            IndexError: `number` is not from 0 to `count` - 1.
            Exception: what `make` raised.
        """
        if not 0 <= number < self.count:
            raise IndexError(number)
        with self.lock:
            if not self.closed:
                wanted = range(max(0, number - 1), min(number + self.ahead, self.count))
                for other in [other for other in self.made if other not in wanted]:
                    self.made.pop(other).cancel()
                for each in wanted[number - wanted.start :]:
                    if each not in self.made:
                        self.made[each] = self.pool.submit(self.make, each)
            found = self.made.get(number)
        return found.result() if found is not None else self.make(number)

    def close(self) -> None:
        """Drop what was not asked for, and wait for what is being made; a later request makes its own item."""
        with self.lock:
            self.closed = True
            self.made.clear()
        self.pool.shutdown(cancel_futures=True)
