"""Progress in a terminal as a bar with rate and time left; elsewhere as plain lines, at half way and at the end."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def say(text: str) -> None:
    """Print a line at once, also into a log file."""
    print(text, flush=True)


def track(items: Iterable[T], total: int, label: str, unit: str = "images", step: int = 1) -> Iterator[T]:
    """Yield `items`, reporting progress; each item counts for `step` units of `total`."""
    yield from _bar(items, total, label, unit, step) if sys.stderr.isatty() else _lines(items, total, label, unit, step)


def _bar(items: Iterable[T], total: int, label: str, unit: str, step: int) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed or 0:.0f} {unit}/s")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(label, total=total)
        for done, item in enumerate(items, start=1):
            yield item
            progress.update(task, completed=min(total, done * step))


def _lines(items: Iterable[T], total: int, label: str, unit: str, step: int) -> Iterator[T]:
    start, done, reported = time.monotonic(), 0, 0
    for item in items:
        yield item
        done = min(total, done + step)
        if total and done * 10 // total > reported:
            reported = done * 10 // total
            if reported in (5, 10):
                rate = done / max(time.monotonic() - start, 1e-9)
                say(f"{label}: {done}/{total} {unit}, {rate:.0f} {unit}/s, {(total - done) / rate:.0f} s left")
