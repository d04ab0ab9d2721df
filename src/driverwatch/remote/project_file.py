"""The project's text files as one JSON file: Kaggle's client leaves folders out, and its site unpacks archives as it likes."""

import re
from pathlib import Path
from typing import Any

from driverwatch.artifacts import read_json
from driverwatch.errors import InputError
from driverwatch.listing import matching
from driverwatch.writing import write_json, write_text

FILE = "driverwatch.json"
FOLDERS = ("configs", "folds")
INSIDE = re.compile(rf"({'|'.join(FOLDERS)})(/[A-Za-z0-9_][A-Za-z0-9._-]*)+")
LARGEST = 20_000_000  # characters; the fold file and all settings take a tenth of a million


def pack(root: Path, dataset: str, path: Path, facts: dict[str, Any]) -> None:
    """Write all settings under `root` and one data set's fold files, with `facts`, into `path`.

    Raises:
        InputError: no fold file.
    """
    folds = root / "folds" / f"{dataset}.csv"
    if not folds.is_file():
        raise InputError(f"{folds}: no fold file; run make folds DATASET={dataset} first: both sides need the same")
    found = [file for file in matching(root / "configs", "**/*") if file.is_file() and file.suffix in (".yaml", ".csv")]
    found += [file for file in (folds, root / "folds" / f"{dataset}_groups.csv") if file.is_file()]
    files = {file.relative_to(root).as_posix(): file.read_text(encoding="utf-8") for file in found}
    write_json(path, {**facts, "files": files})


def unpack(path: Path, root: Path) -> dict[str, Any]:
    """Write the files in `path` to their places below `root`; return the facts beside them.

    Raises:
        InputError: not such a file, or one whose names lead elsewhere; nothing is written then.
    """
    content = read_json(path)
    files = content.pop("files", None)
    if not isinstance(files, dict) or not all(isinstance(text, str) for text in files.values()):
        raise InputError(f"{path}: expected files by name; make notebook writes it, attach that data set again")
    if wrong := [name for name in files if not INSIDE.fullmatch(name)]:
        raise InputError(
            f"{path}: {wrong[0]!r} is no place for settings or folds; this is not what make notebook wrote"
        )
    if sum(map(len, files.values())) > LARGEST:
        raise InputError(f"{path}: more than {LARGEST} characters of settings; this is not what make notebook wrote")
    for name, text in files.items():
        write_text(root / name, text)
    return content
