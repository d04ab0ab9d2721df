"""A fold's history as `history.csv` and TensorBoard scalars, both derived from what its bundle holds; and its reading."""

import csv
import io
import math
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from driverwatch.errors import InputError, printable
from driverwatch.writing import write_text

WHOLE = {"epoch": 1, "stage": 0}  # columns of every history, and their least value
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|nan", re.ASCII)
LARGEST = 2**24  # bytes; 10,000 epochs have two million
MOST = 10**6  # epochs, and stages
Row = dict[str, Any]  # `epoch` and `stage` whole numbers, all else float, or None where there was nothing to measure


def read_history(path: Path) -> list[Row]:
    """A fold's epochs, in order, as everybody reads them: import, report, study and final fit.

    Raises:
        InputError: not a whole table of finite numbers (a loss may be `nan`), or none of an epoch.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"{path.stat().st_size} bytes")
        with path.open(encoding="utf-8", newline="") as file:
            header, *lines = csv.reader(file, strict=True)
        if len(set(header)) < len(header):
            raise ValueError("a column twice")
        if wrong := next((line for line in lines if len(line) != len(header)), None):
            raise ValueError(f"{len(wrong)} cells below {len(header)} columns")
        if not lines:
            raise ValueError("no epoch")
        cells = [zip(header, line, strict=True) for line in lines]
        return checked_rows([{name: _cell(name, cell) for name, cell in pairs} for pairs in cells])
    except (OSError, ValueError, csv.Error) as error:
        said = printable(" ".join(str(error).split()), 150)
        raise InputError(
            f"{path}: expected a line of numbers per epoch, this is not a whole history ({said}); train the fold anew with FORCE=1"
        ) from error


def _cell(name: str, text: str) -> float | int | None:
    if text == "":
        return None
    if not NUMBER.fullmatch(text) or (name in WHOLE and (not text.isdecimal() or len(text) > 7)):
        raise ValueError(f"{name}: {text[:30]!r} is no number that it can have")
    return int(text) if name in WHOLE else float(text)


def checked_rows(rows: Any) -> list[Row]:
    """The rows of a history, from a table or a bundle, if they are what a fold writes.

    Raises:
        ValueError: something else, in a few words.
    """
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise ValueError("no rows by name")
    for number, row in enumerate(rows, start=1):
        if row.keys() != rows[0].keys() or not row.keys() >= WHOLE.keys():
            raise ValueError(
                f"epoch {number} has other columns than an epoch and a stage, and those of the first epoch"
            )
        if wrong := next((name for name, value in row.items() if not _fits(str(name), value)), None):
            raise ValueError(f"{wrong}: {str(row[wrong])[:30]} is no number that it can have")
        if row["epoch"] != number:
            raise ValueError(f"epoch {row['epoch']} where {number} was expected")
    losses = [row.get("held_out_loss") for row in rows]
    if None in losses and losses.count(None) < len(losses):
        raise ValueError("held_out_loss is missing in some epochs")
    return [dict(row) for row in rows]


def _fits(name: str, value: object) -> bool:
    """Whether a value is None or a number that a floating-point number can be; an epoch or stage, a whole one."""
    if name in WHOLE:
        return isinstance(value, int) and not isinstance(value, bool) and WHOLE[name] <= value <= MOST
    if value is None or isinstance(value, int):
        return value is None or abs(value) < 2**53
    return isinstance(value, float) and not math.isinf(value)


class HistoryLog:
    """Keeps `<folder>/history.csv` and `<folder>/tensorboard/` up to date with a growing list of epochs."""

    def __init__(self, folder: Path, history: list[dict[str, Any]]) -> None:
        """Begin anew from `history`, so that an epoch that was logged but not kept does not appear twice."""
        from tensorboard.summary import Writer

        self.folder = folder
        shutil.rmtree(folder / "tensorboard", ignore_errors=True)
        self.writer = Writer(str(folder / "tensorboard"))
        self.written = 0
        self.write(history)

    def write(self, history: list[dict[str, Any]]) -> None:
        for row in history[self.written :]:
            for name in (name for name in row.keys() - {"epoch", "stage"} if row[name] is not None):
                self.writer.add_scalar(name, row[name], row["epoch"])
        self.writer.flush()
        self.written = len(history)
        if history:
            text = io.StringIO()
            table = csv.DictWriter(text, history[0].keys(), lineterminator="\n")
            table.writeheader()
            table.writerows(history)
            write_text(self.folder / "history.csv", text.getvalue())
