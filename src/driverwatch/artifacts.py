"""Where things lie, and what they are: manifests, digests, differences, what made them."""

import hashlib
import json
import os
import platform
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from driverwatch import checkout
from driverwatch.errors import InputError

PACKAGES = ("tensorflow", "keras", "albumentations", "opencv-python-headless", "simplejpeg", "numpy", "h5py")
DIGITS = 100  # of a whole number in JSON; beyond 308 it is no floating-point number either
PIECE = 4096  # entries of a long list that are converted at once


@dataclass(frozen=True)
class Places:
    """Every path of one dataset, relative to the repository's root."""

    dataset: str
    root: Path = Path()
    study: str | None = None  # whose runs these are; they take no part in ensembles

    @property
    def build(self) -> Path:
        return self.root / "build" / self.dataset

    @property
    def folds(self) -> Path:
        return self.root / "folds" / f"{self.dataset}.csv"

    @property
    def groups(self) -> Path:
        """Which look-alikes each training image belongs to, where the table names no driver."""
        return self.root / "folds" / f"{self.dataset}_groups.csv"

    @property
    def runs(self) -> Path:
        return self.build / "runs" if self.study is None else self.build / "studies" / plain_name(self.study, "NAME")

    @property
    def blends(self) -> Path:
        """What each blend and calibration scores."""
        return self.build / "blends.json"

    def calibration(self, name: str) -> Path:
        """A reliability curve."""
        return self.build / "calibration" / f"{name}.png"

    def taught(self, name: str) -> Path:
        """What teachers make of images without labels, for students."""
        return self.build / "taught" / plain_name(name, "NAME")

    @property
    def trunks(self) -> Path:
        """What frozen layers made of the packed images, for any run."""
        return self.build / "trunk"

    @property
    def neighbours(self) -> Path:
        return self.build / "neighbours.json"

    @property
    def features(self) -> Path:
        """What pretrained networks see on every image: where neighbours are looked for."""
        return self.build / "features"

    @property
    def submissions(self) -> Path:
        return self.root / "submissions" / self.dataset

    def result(self, name: str) -> Path:
        """What an experiment found, for the repository; its page lies beside it."""
        return self.root / "experiments" / "results" / self.dataset / f"{plain_name(name, 'NAME')}.json"

    def pack(self, size: str) -> Path:
        return self.build / "pack" / size

    def preview(self, name: str) -> Path:
        return self.build / "preview" / f"{plain_name(name, 'RUN')}.png"

    def page(self, name: str) -> Path:
        """A page for people (`report/`)."""
        return self.build / "report" / f"{plain_name(name, 'NAME')}.html"

    def export(self, name: str) -> Path:
        """A run as one file for others."""
        return self.build / "export" / f"{plain_name(name, 'RUN')}.keras"

    def search(self, name: str) -> Path:
        """What a search keeps and found; its runs are a study's."""
        return self.build / "searches" / plain_name(name, "NAME")

    def range_test(self, name: str) -> Path:
        """A learning-rate range test, beside its picture."""
        return self.build / "lr_find" / f"{plain_name(name, 'MODEL')}.csv"

    def notebook(self, name: str) -> Path:
        """What goes up to train elsewhere: a notebook and its data set."""
        return self.build / "notebook" / plain_name(name, "NAME")

    def run(self, run: str) -> Path:
        return self.runs / plain_name(run, "RUN")

    def submission(self, name: str) -> Path:
        return self.submissions / f"{plain_name(name, 'NAME')}.csv"

    def out_of_fold(self, name: str) -> Path:
        """What a submission's chain makes of the labelled images, each fold's by others."""
        return self.submissions / "out_of_fold" / f"{plain_name(name, 'NAME')}.csv.gz"


def plain_name(name: str, variable: str) -> str:
    """Return a name that can only ever be one file or folder name; refuse anything else."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise InputError(
            f"{variable}={name}: expected letters, digits, '.', '_' and '-', beginning with a letter or digit"
        )
    return name


def read_json(path: Path) -> dict[str, Any]:
    """Read a manifest; anything but a JSON object is refused."""
    try:
        content = plain_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: expected a JSON manifest, got {error}; remove it and run the step again.") from error
    if not isinstance(content, dict):
        raise InputError(
            f"{path}: expected a JSON object, got {type(content).__name__}; remove it and run the step again."
        )
    return content


def plain_json(text: str) -> Any:
    """JSON from anywhere. Raises `ValueError`, also of numbers that nothing here can count to."""
    return json.loads(text, parse_int=_whole)


def _whole(text: str) -> int:
    if len(text) > DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def digest_of(content: object) -> str:
    """SHA-256 (hex) of a JSON-able value, the same on every machine; a NumPy array counts as its list."""
    digest = hashlib.sha256()
    for piece in _json(content):
        digest.update(piece.encode("utf-8", "surrogateescape"))  # names of files may be no UTF-8
    return digest.hexdigest()


def _json(content: Any) -> Iterator[str]:
    """What `json.dumps` gives, in pieces, so that a long list or array is never written out whole."""
    if isinstance(content, list | tuple) and len(content) <= 8:  # perhaps of long ones
        for number, entry in enumerate(content):
            yield ", " if number else "["
            yield from _json(entry)
        yield "]" if content else "[]"
    elif isinstance(content, list | tuple) or (hasattr(content, "tolist") and content.ndim):
        for start in range(0, max(len(content), 1), PIECE):
            part = content[start : start + PIECE]
            part = part.tolist() if hasattr(part, "tolist") else part
            yield (", " if start else "[") + json.dumps(part, sort_keys=True, ensure_ascii=False)[1:-1]
        yield "]"
    else:
        yield json.dumps(content, sort_keys=True, ensure_ascii=False)


def digest_of_file(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def differences(before: object, after: object, key: str = "") -> list[str]:
    """Say where two JSON-able values differ, one `dotted.key: before -> after` each."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = [*before, *(k for k in after if k not in before)]
        return [d for k in keys for d in differences(before.get(k), after.get(k), f"{key}.{k}" if key else str(k))]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [d for i, pair in enumerate(zip(before, after, strict=True)) for d in differences(*pair, f"{key}.{i}")]
    return [] if before == after else [f"{key}: {_short(before)} -> {_short(after)}"]


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return f"{text[1:13]}…" if isinstance(value, str) and len(value) == 64 else text


def require_space(folder: Path, needed: int, what: str, way_out: str) -> None:
    """Refuse before writing when `folder`'s disk has fewer than `needed` bytes (and a tenth) free."""
    existing = next(p for p in [folder.absolute(), *folder.absolute().parents] if p.exists())
    free = shutil.disk_usage(existing).free
    if free < needed * 1.1:
        raise InputError(
            f"{folder}: {what} needs {needed / 1e9:.1f} GB and a tenth, but only {free / 1e9:.1f} GB are free; free space, or "
            f"{way_out}"
        )


@cache
def provenance() -> dict[str, Any]:
    """What made an artefact: package versions, Python, machine type and the commit (with `+` if the tree was changed)."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "commit": checkout.commit(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "versions": versions,
    }
