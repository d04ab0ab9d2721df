"""CSV files from anywhere: read as text, with what is wrong in them named by line."""

from pathlib import Path

import numpy as np
import pandas as pd

from driverwatch.errors import InputError, counted, listed, nearest

PLAIN = r"[^/\\\0\r\n]+"  # a file name that stays in its folder
BOMS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"PK\3\4": "a ZIP archive or a spreadsheet", b"\x1f\x8b": "gzip"}


def read_text(path: Path, expected: list[str]) -> pd.DataFrame:
    """Read a CSV as text with at least the `expected` columns; short rows end in blanks.

    Raises:
        InputError: no such file, no UTF-8 CSV, or a column missing.
    """
    try:
        _refuse_foreign(path)
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False)
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file; DATA=<folder> must name the unpacked competition (make sample draws one)"
        ) from None
    except (ValueError, OSError) as error:  # pandas' parser and decoding errors are ValueErrors
        raise InputError(
            f"{path}: expected a UTF-8 CSV with columns {', '.join(expected)}, got {' '.join(str(error).split())}"
        ) from error
    if missing := [column for column in expected if column not in frame]:
        names = [str(column) for column in frame.columns]
        raise InputError(
            f"{path}: missing column {', '.join(missing)}; got {', '.join(names)[:200]}{nearest(missing[0], names)}"
        )
    return frame.fillna("")


def _refuse_foreign(path: Path) -> None:
    """Refuse what a parser would take for a strange header, by its first bytes."""
    with path.open("rb") as file:
        start = file.read(1024)
    kind = next(
        (kind for bom, kind in BOMS.items() if start.startswith(bom)), "binary data" if b"\0" in start else None
    )
    if kind:
        raise ValueError(f"{kind}; save it as UTF-8 text")


def read_csv(path: Path, expected: list[str]) -> pd.DataFrame:
    """`read_text` that takes no blank cells in the `expected` columns. Raises as it does."""
    frame = read_text(path, expected)
    if problems := [problem for column in expected for problem in cell_problems(frame[column])[0]]:
        raise InputError(f"{path}: {counted(problems)}; mend the file:{listed(problems)}")
    return frame


def cell_problems(column: "pd.Series[str]") -> tuple[list[str], np.ndarray]:
    """Blank cells and cells with blanks around their text (two spellings of one driver are two drivers), and which rows."""
    stripped = column.str.strip()
    blank = (stripped == "").to_numpy(bool)
    padded = (stripped != column).to_numpy(bool) & ~blank
    problems = [f"{_lines(blank)}: blank {column.name}"] if blank.any() else []
    if padded.any():
        problems.append(f"{_lines(padded)}: blanks around {column.name} {column[padded].iloc[0]!r}")
    return problems, blank | padded


def name_problems(names: "pd.Series[str]") -> tuple[list[str], np.ndarray]:
    """Names given twice and names that are no plain file names, and which rows (every copy of a repeated name)."""
    repeated = names.duplicated(keep=False).to_numpy(bool) & (names.str.strip() != "").to_numpy(bool)
    unsafe = (~names.str.fullmatch(PLAIN) | names.isin([".", ".."])).to_numpy(bool) & (names != "").to_numpy(bool)
    problems = [f"repeated name {name}" for name in sorted(set(names[repeated]))]
    problems += [f"name is not a plain file name: {name!r}" for name in sorted(set(names[unsafe]))]
    return problems, repeated | unsafe


def _lines(rows: np.ndarray) -> str:
    """`line 5`, or `3 lines, first 5` (the header is line 1)."""
    first = int(rows.argmax()) + 2
    return f"line {first}" if rows.sum() == 1 else f"{int(rows.sum())} lines, first {first}"
