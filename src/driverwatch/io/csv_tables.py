"""CSV files from anywhere: read as text, with what is wrong in them named by line."""

from __future__ import annotations  # pandas, half a second, is imported only where a frame is made

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from driverwatch.errors import InputError, counted, listed, nearest, printable

if TYPE_CHECKING:
    import pandas as pd

PLAIN = r"[^/\\\0\r\n]+"  # a file name that stays in its folder
BOMS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"PK\3\4": "a ZIP archive or a spreadsheet", b"\x1f\x8b": "gzip"}


def read_text(path: Path, expected: list[str]) -> pd.DataFrame:
    """Read a CSV as text with at least the `expected` columns, each once; short rows end in blanks.

    Raises:
        InputError: no such file, no UTF-8 CSV, a column missing or given twice, or rows longer than the header.
    """
    import pandas as pd

    try:
        _refuse_foreign(path)
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows that are longer than the header
            frame = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", header=None)
        frame = frame.set_axis(list(frame.iloc[0].fillna("")), axis=1).iloc[1:].reset_index(drop=True)
        if twice := [column for column in expected if list(frame.columns).count(column) > 1]:
            raise ValueError(f"column {', '.join(twice)} twice")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; see that its name, DATA= and DATASET= are right") from None
    # pandas' parser and decoding errors are ValueErrors
    except (ValueError, OSError, pd.errors.ParserWarning) as error:
        words = printable(" ".join(str(error).split()))
        raise InputError(f"{path}: expected a UTF-8 CSV with columns {', '.join(expected)}, got {words}") from error
    if missing := [column for column in expected if column not in frame]:
        names = list(map(str, frame.columns))
        got = f"{printable(', '.join(names), 200)}{nearest(missing[0], names)}"
        raise InputError(f"{path}: missing column {', '.join(missing)}; got {got}")
    return frame.fillna("")


def _refuse_foreign(path: Path) -> None:
    """Refuse what a parser would take for a strange header, by its first bytes."""
    with path.open("rb") as file:
        start = file.read(1024)
    kinds = [kind for bom, kind in BOMS.items() if start.startswith(bom)] + ["binary data"] * (b"\0" in start)
    if kinds:
        raise ValueError(f"{kinds[0]}; save it as UTF-8 text")


def read_csv(path: Path, expected: list[str]) -> pd.DataFrame:
    """`read_text` that takes no blank cells in the `expected` columns. Raises as it does."""
    frame = read_text(path, expected)
    if problems := [problem for column in expected for problem in cell_problems(frame[column])[0]]:
        raise InputError(f"{path}: {counted(problems)}; fix the file:{listed(problems)}")
    return frame


def cell_problems(column: pd.Series[str]) -> tuple[list[str], np.ndarray]:
    """Sentences on blank cells and blanks around text (two spellings of one driver are two drivers); a mask of rows, bool (N,)."""
    stripped = column.str.strip()
    blank = (stripped == "").to_numpy(bool)
    padded = (stripped != column).to_numpy(bool) & ~blank
    control = column.str.contains(r"[\x00-\x1f\x7f]").to_numpy(bool)
    problems = [f"{_lines(blank)}: blank {column.name}"] if blank.any() else []
    if control.any():
        problems.append(f"{_lines(control)}: control characters in {column.name} {column[control].iloc[0]!r}")
    if padded.any():
        problems.append(f"{_lines(padded)}: blanks around {column.name} {column[padded].iloc[0]!r}")
    return problems, blank | padded | control


def numbers(frame: pd.DataFrame, whole: bool = False) -> np.ndarray:
    """Cells as float64 (or int64, `whole`): plain ASCII numbers, since other readers take nothing else.

    Raises:
        ValueError: a cell is none.
    """
    form = r"\d{1,18}" if whole else r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?|[+-]?(nan|inf)"
    for column in frame.columns:
        wrong = ~frame[column].str.fullmatch(form, flags=re.ASCII | re.IGNORECASE).to_numpy(bool)
        if wrong.any():
            raise ValueError(f"{frame[column].iloc[int(wrong.argmax())]!r} in {_lines(wrong)}, column {column}")
    return frame.to_numpy(dtype=np.int64 if whole else np.float64)


def name_problems(names: pd.Series[str]) -> tuple[list[str], np.ndarray]:
    """Sentences on repeated names and names that are no plain file names; a mask of rows, bool (N,), with every copy."""
    repeated = names.duplicated(keep=False).to_numpy(bool) & (names.str.strip() != "").to_numpy(bool)
    unsafe = (~names.str.fullmatch(PLAIN) | names.isin([".", ".."])).to_numpy(bool) & (names != "").to_numpy(bool)
    problems = [f"repeated name {name}" for name in sorted(set(names[repeated]))]
    problems += [f"name is not a plain file name: {name!r}" for name in sorted(set(names[unsafe]))]
    return problems, repeated | unsafe


def _lines(rows: np.ndarray) -> str:
    """`line 5`, or `3 lines, first 5` (the header is line 1)."""
    first = int(rows.argmax()) + 2
    return f"line {first}" if rows.sum() == 1 else f"{int(rows.sum())} lines, first {first}"
