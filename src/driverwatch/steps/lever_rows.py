"""The table of levers read back from `docs/levers.md`, where `make levers` keeps it."""

import re
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from driverwatch.errors import InputError

NUMBER = r"([+-]?\d+\.\d+)"
CHANGE = re.compile(rf"{NUMBER} \({NUMBER} to {NUMBER}\)")
AFTER = 7  # cells of a row after its lever, whose own name may hold a bar
COLUMNS = ["lever", "before", "after", "difference", "low", "high", "minutes", "kept", "why"]


class Levers(NamedTuple):
    """Measured levers by kind, a frame of `COLUMNS` each; `unmeasured` by name."""

    measured: dict[str, pd.DataFrame]
    unmeasured: list[str]


def read_levers(path: Path, dataset: str) -> Levers | None:
    """The page's tables; None where there is no page, or one of another data set.

    Raises:
        InputError: a row that `make levers` would not have written.
    """
    parts = _parts(path, dataset)
    if parts is None:
        return None
    unmeasured = [_lever(line) for line in parts.pop("Not measured", []) if line.startswith("- ")]
    frames = {kind: [_row(line, path) for line in _lines(rest)] for kind, rest in parts.items()}
    return Levers({kind: pd.DataFrame(rows, columns=COLUMNS) for kind, rows in frames.items() if rows}, unmeasured)


def lines_before(path: Path, dataset: str) -> dict[tuple[str, str, str], str]:
    """The page's rows as they stand, by kind, lever and command; none where there is no such page."""
    found = {}
    for kind, rest in (_parts(path, dataset) or {}).items():
        for line in _lines(rest):
            lever, (*_, command, _) = _cells(line)
            found[kind, lever, command.strip("`")] = line
    return found


def _parts(path: Path, dataset: str) -> dict[str, list[str]] | None:
    """Lines by heading."""
    text = path.read_text("utf-8", errors="replace") if path.is_file() else ""
    if f"`make levers DATASET={dataset}`" not in text:
        return None
    parts = [part.splitlines() for part in text.split("\n## ")[1:]]
    return {title.strip(): rest for title, *rest in parts}


def _lines(rest: list[str]) -> list[str]:
    return [line for line in rest if line.startswith("| ") and "| log loss before |" not in line]


def _cells(line: str) -> tuple[str, list[str]]:
    """The lever, and the `AFTER` cells after it, empty ones where there are fewer."""
    cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
    return " | ".join(cells[:-AFTER]), cells[-AFTER:] if len(cells) > AFTER else [""] * AFTER


def _lever(line: str) -> str:
    """A lever's name before the reason, which begins with a path or a sentence of its own."""
    return re.split(r": (?=\S+/|its two sides)", line[2:], maxsplit=1)[0]


def _row(line: str, path: Path) -> list[object]:
    name, (before, after, moved, minutes, kept, *_) = _cells(line)
    change = CHANGE.fullmatch(moved)
    if change is None:
        raise InputError(f"{path}: expected a row as make levers writes them, got {line[:80]!r}; run it again")
    try:
        numbers = [float(before), float(after), *map(float, change.groups()), float(minutes)]
    except ValueError as error:
        raise InputError(f"{path}: {error}; run make levers again") from error
    kept, _, why = kept.partition(": ")
    return [name, *numbers, kept, why]
