"""Manifests: JSON read and compared, checksums, the package's own commit, and what made an artefact."""

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from driverwatch.errors import InputError

ROOT = Path(__file__).resolve().parents[3]  # where src/driverwatch lies
PART_OF_IT = "src/driverwatch/__init__.py"  # tracked by this project's repository, and by no other
CODE = ("src", "configs", "folds", "requirements")  # a change in one of these may change a result


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` without git's variables: GIT_DIR and its like name another repository than the one git would find."""
    kept = {name: value for name, value in environ.items() if not name.startswith("GIT_")}
    # looking must not write the index, which others may be writing
    return {**kept, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}


def git(root: Path, *arguments: str) -> str | None:
    """What git says in `root`; None where it fails or is not installed."""
    command, environ = ["git", "-C", str(root), *arguments], environment(os.environ)
    try:
        made = subprocess.run(command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError:
        return None
    return made.stdout.decode("utf-8", "surrogateescape").strip("\n") if made.returncode == 0 else None


def is_own(root: Path) -> bool:
    """Whether `root` is the top of a checkout that tracks this package: not a copy unpacked inside another project's."""
    top = git(root, "rev-parse", "--show-toplevel")
    return top is not None and Path(top).resolve() == root.resolve() and bool(git(root, "ls-files", "--", PART_OF_IT))


@cache
def commit(root: Path = ROOT) -> str | None:
    """The package's own commit, 12 hexadecimal digits, with `+` where tracked code was changed since.

    None where it is in no checkout of its own, as an installed wheel does; a notebook that installed one sets
    DRIVERWATCH_COMMIT to the commit that the wheel was built from.
    """
    found = git(root, "rev-parse", "--short=12", "HEAD") if is_own(root) else None
    if found is None:
        return os.environ.get("DRIVERWATCH_COMMIT") or None
    return found + ("+" if git(root, "status", "--porcelain", "--untracked-files=no", "--", *CODE) else "")


def changed_since(recorded: str, root: Path = ROOT) -> bool:
    """Whether the package's source is another than at a recorded commit (with or without `+`); False where git cannot tell."""
    hexadecimal = recorded.rstrip("+")
    if not re.fullmatch("[0-9a-f]{4,64}", hexadecimal) or not is_own(root):
        return False
    return bool(git(root, "diff", "--name-only", hexadecimal, "--", "src"))


PACKAGES = ("tensorflow", "keras", "albumentations", "opencv-python-headless", "simplejpeg", "numpy", "h5py")
DIGITS = 100  # of a whole number in JSON; beyond 308 it is no floating-point number either


def read_json(path: Path) -> dict[str, Any]:
    """Read a manifest; anything but a JSON object is refused."""
    way_out = "remove it and run the step again."
    try:
        content = plain_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: expected a JSON manifest, got {error}; {way_out}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object, got {type(content).__name__}; {way_out}")
    return content


def plain_json(text: str) -> Any:
    """JSON from anywhere. Raises `ValueError`, also of numbers that nothing here can count to."""
    return json.loads(text, parse_int=_whole)


def _whole(text: str) -> int:
    if len(text) > DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def checksum_of(content: object) -> str:
    """SHA-256 (hex) of a JSON-able value, the same on every machine; a NumPy array counts as its list."""
    encoder = json.JSONEncoder(sort_keys=True, ensure_ascii=False, default=lambda array: array.tolist())
    checksum = hashlib.sha256()
    for piece in encoder.iterencode(content):  # so that a long list is never written out whole
        checksum.update(piece.encode("utf-8", "surrogateescape"))  # names of files may be no UTF-8
    return checksum.hexdigest()


def checksum_of_file(path: Path) -> str:
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


def free_bytes(folder: Path) -> int:
    """Free bytes of the disk that `folder`, or the nearest folder above it that exists, is on."""
    existing = next(p for p in [folder.absolute(), *folder.absolute().parents] if p.exists())
    return shutil.disk_usage(existing).free


def require_space(folder: Path, needed: int, what: str, way_out: str) -> None:
    """Refuse before writing when `folder`'s disk has fewer than `needed` bytes (and a tenth) free."""
    free = free_bytes(folder)
    if free < needed * 1.1:
        lacks = f"{what} needs {needed / 1e9:.1f} GB and a tenth, but only {free / 1e9:.1f} GB are free"
        raise InputError(f"{folder}: {lacks}; free space, or {way_out}")


@cache
def provenance() -> dict[str, Any]:
    """What made an artefact: package versions, Python, the machine and the commit (with `+` if the tree was changed)."""
    versions = {}
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    system = {"python": platform.python_version(), "machine": platform.machine(), "processor": processor()}
    return {"commit": commit(), **system, "cores": os.cpu_count(), "versions": versions}


@cache
def processor() -> str:
    """The processor's name as Linux has it; elsewhere, or where it has none, its kind: x86_64."""
    with suppress(OSError):
        listed = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        if found := re.search(r"^model name\s*:\s*(\S.*?)\s*$", listed, re.MULTILINE):
            return found[1]
    return platform.processor() or platform.machine()
