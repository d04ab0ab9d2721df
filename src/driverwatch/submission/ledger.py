"""`submissions/ledger.csv`: one line per scored upload, for all data sets, appended whole or not at all."""

import csv
import io
import re
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from driverwatch.errors import InputError
from driverwatch.io.atomic import write_text


@dataclass(frozen=True)
class Entry:
    """One upload and what came of it; the fields are the columns, in this order."""

    when: str  # UTC, ISO 8601, to the second
    dataset: str
    file: str
    sha256: str
    message: str
    status: str  # complete or error
    public: str
    private: str
    out_of_fold: str  # from the manifest beside the file, where it is that file's
    commit: str  # that made the file, from the same manifest


HEADER = [field.name for field in fields(Entry)]


def read(path: Path) -> list[Entry]:
    """The lines of the ledger; none where there is no file.

    Raises:
        InputError: another header, or a line that is not whole.
    """
    if not path.is_file():
        return []
    try:
        rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: expected a UTF-8 CSV, got {error}; restore it (git checkout {path})") from error
    if not rows or rows[0] != HEADER:
        raise InputError(f"{path}: expected the header {','.join(HEADER)}; restore it (git checkout {path})")
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(HEADER):
            raise InputError(f"{path}: row {number}: expected {len(HEADER)} cells, got {len(row)}; fix the row")
    return [Entry(*row) for row in rows[1:]]


def append(path: Path, entry: Entry) -> None:
    """Add a line; the caller holds the ledger's lock. After a kill the file is what it was, or complete with the line."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows(map(astuple, read(path)))
    writer.writerow([_cell(value) for value in astuple(entry)])
    write_text(path, text.getvalue())


def _cell(text: str) -> str:
    """Text that no spreadsheet takes for a formula and that stays on its line."""
    text = " ".join(text.split())
    return f"'{text}" if re.match(r"[=+@-]", text) and not re.fullmatch(r"-?\d+(\.\d+)?", text) else text
