"""How what was made is told: tables that fit the terminal, one shape of closing lines, colour only where it may be."""

import os
import shutil
import sys
from collections.abc import Iterable, Sequence

from driverwatch.terminal import plain, say

COLOURS = {"bold": "1", "red": "31", "green": "32", "yellow": "33", "grey": "2"}


def width() -> int:
    """Columns that a line on stdout may take: the terminal's; without end in a file or a pipe."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize


def painted(text: str, colour: str) -> str:
    """Text in colour on a terminal that can, unless NO_COLOR is set (no-color.org); it must say the same without."""
    if os.environ.get("NO_COLOR") or plain(sys.stdout) or not text:
        return text
    return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m"


def table(
    columns: dict[str, bool], rows: Sequence[Sequence[str]], keep: Iterable[str], room: int
) -> tuple[list[str], list[str]]:
    """Lines of a table, heading first, without the last columns where they do not fit into `room`; and those columns' names.

    Args:
        columns: name: whether its cells stand at the right.
        keep: names of the first columns, which stay however narrow it is.
    """
    names, kept = list(columns), len(columns)
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    while kept > len(list(keep)) and sum(widths[:kept]) + 2 * (kept - 1) > room:
        kept -= 1
    lines = []
    for row in [names, *rows]:
        cells = zip(row[:kept], widths[:kept], columns.values(), strict=False)
        lines.append("  ".join(cell.rjust(wide) if right else cell.ljust(wide) for cell, wide, right in cells).rstrip())
    return lines, names[kept:]


def duration(seconds: float) -> str:
    """`0.4 s`, `47 s`, `12 min`, `1 h 40 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def scored(loss: float, error: float | None, over: str) -> str:
    """`log loss 0.412 ± 0.051 (over 5 folds)`; without an error where there is none (a single fold)."""
    known = error is not None and error == error
    return f"log loss {loss:.4f}" + (f" ± {error:.4f}" if known else "") + f" ({over})"


def ending(seconds: float | None = None, score: str | None = None, then: Sequence[str] = ()) -> None:
    """Say, below what was made and where, its score, how long it took, and what to run next: how every verb ends."""
    facts = [("score", score)] if score else []
    facts += [("took", duration(seconds))] if seconds is not None else []
    facts += zip(["next", *[""] * len(then)], then, strict=False)
    for name, fact in facts:
        say(f"  {painted(f'{name:5}', 'bold')}  {fact}")


def close(
    where: object, what: str, seconds: float | None = None, score: str | None = None, then: Sequence[str] = ()
) -> None:
    """Say what was made and where, and the `ending`."""
    say(f"{where}: {what}")
    ending(seconds, score, then)
