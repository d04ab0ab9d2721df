"""Unpack a downloaded zip: inside its folder alone, plain files alone, only so much, and after a kill only the rest."""

import os
import re
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from driverwatch.artifacts import require_space
from driverwatch.errors import DAMAGED_ZIP, InputError, listed
from driverwatch.terminal import track
from driverwatch.writing import reason, way_out

CHUNK = 1 << 20
BLOCK = 4096  # what a file takes on disk beyond its bytes, at most, on common file systems
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # Python bounds the memory of these two alone while it reads
DEEPEST = 2  # zips in zips in an archive
LARGER = "name a folder on a larger disk with DATA="


@dataclass(frozen=True)
class Limits:
    """More than any archive of the competition needs (102,152 files, 4 GB), and far less than a bomb wants."""

    members: int = 300_000
    bytes: int = 40 * 10**9


@dataclass
class _Budget:
    """What all archives of one download have claimed so far: names (folded, True for a file) and bytes."""

    limits: Limits
    taken: dict[str, bool] = field(default_factory=dict)
    bytes: int = 0


@dataclass(frozen=True)
class _Member:
    info: zipfile.ZipInfo
    path: Path


def readable(path: Path) -> bool:
    """Whether `path` ends as a whole zip does; a download that broke off does not."""
    return path.is_file() and zipfile.is_zipfile(path)


def unpack(archive: Path, target: Path, limits: Limits | None = None) -> None:
    """Unpack `archive` into `target`, and zips at its top level too (the competition's older layout had `imgs.zip`).

    The top level is the folder that everything is in, if there is one; zips in those zips are unpacked as well.

    A file is written under another name first and renamed, so it is whole or not there. What is there already with the
    right size and checksum is kept: reading 4 GB again costs a minute, and a power cut can leave a right size over
    wrong bytes. The zips inside are kept beside `target` until the caller removes them.

    Raises:
        InputError: names that lead elsewhere, links and devices, names given twice, encryption, more than `limits`, too
            little space, a full disk, damage.
    """
    _unpack(archive, target, "", target.with_name(f"{target.name}.archives"), _Budget(limits or Limits()))


def _unpack(path: Path, target: Path, above: str, inner: Path, budget: _Budget, level: int = 0) -> None:
    """One archive of a download: what lies in the folder `above` goes there, below `target`; zips in it are kept in `inner`."""
    with _opened(path) as zipped:
        members = _planned(zipped, path, target, above + (_folder_of(zipped, path) if level else ""), budget)
        top = _top(members, target)
        zips = [m.path for m in members if m.path.parent == top and m.path.suffix.lower() == ".zip" and level < DEEPEST]
        nested = {each: inner / each.name for each in zips}
        _write_all(zipped, path, [_Member(m.info, nested.get(m.path, m.path)) for m in members])
    for each in sorted(nested.values()):
        below = "".join(f"{part}/" for part in top.relative_to(target).parts)
        _unpack(each, target, below, inner / each.stem, budget, level + 1)


def _top(members: list[_Member], target: Path) -> Path:
    """The folder that all files of an archive are in, directly or deeper."""
    folders = [m.path.parent for m in members if "__MACOSX" not in m.path.parts]
    return Path(os.path.commonpath(folders)) if folders else target


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip for reading; damage and a disk that fails become one sentence."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except DAMAGED_ZIP as error:
        raise InputError(f"{path}: is damaged or no zip ({error}); remove it and run the same command again") from error
    except OSError as error:
        raise InputError(
            f"{error.filename or path}: cannot be written or read ({reason(error)}); {way_out(error)}, then run the same "
            "command again: it goes on"
        ) from error


def _folder_of(archive: zipfile.ZipFile, path: Path) -> str:
    """`imgs/` for an `imgs.zip` that holds folders alone and not `imgs`, as Kaggle unpacks it on its site; else nothing."""
    tops = {name.split("/")[0] for name in archive.namelist() if not name.startswith("__MACOSX/")}
    files = any("/" not in name for name in archive.namelist())
    return "" if files or path.stem in tops else f"{path.stem}/"


def _planned(archive: zipfile.ZipFile, path: Path, target: Path, prefix: str, budget: _Budget) -> list[_Member]:
    """The files of an archive and where they go; every name is checked before the first is written."""
    problems, members = [], []
    for info in archive.infolist():
        if why := _refused(info):
            problems.append(f"{info.orig_filename!r} {why}")
            continue
        name = prefix + info.filename
        if why := _claimed(name, info.is_dir(), budget):
            problems.append(f"{name!r} {why}")
        budget.bytes += info.file_size
        if not info.is_dir():
            members.append(_Member(info, target / name))
    if problems:
        raise InputError(
            f"{path}: {len(problems)} members that no honest archive holds; remove it and download it again:"
            f"{listed(problems)}"
        )
    if len(budget.taken) > budget.limits.members or budget.bytes > budget.limits.bytes:
        raise InputError(
            f"{path}: expected at most {budget.limits.members} files and {budget.limits.bytes / 1e9:g} GB unpacked, got "
            f"{len(budget.taken)} and {budget.bytes / 1e9:.1f} GB; this is not the competition's archive, remove it"
        )
    return members


def _refused(info: zipfile.ZipInfo) -> str:
    """Why a member may not be unpacked, or nothing."""
    name, kind = info.orig_filename, stat.S_IFMT(info.external_attr >> 16)
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", name) or "\\" in name:
        return "leads out of the folder"
    if re.search(r"[\x00-\x1f\x7f]", name):
        return "holds control characters"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    if info.flag_bits & 0x1:
        return "is encrypted"
    if info.compress_type not in METHODS:
        return f"is compressed by method {info.compress_type}, expected stored or deflated"
    return ""


def _claimed(name: str, folder: bool, budget: _Budget) -> str:
    """Claim a name for this download; a name taken on any common file system (upper or lower case) is refused."""
    path = PurePosixPath(unicodedata.normalize("NFC", name).casefold())
    key, taken = str(path), budget.taken
    if any(taken.get(str(parent)) for parent in path.parents) or (key in taken and not (folder and not taken[key])):
        return "is there twice"
    for parent in path.parents[:-1]:
        taken.setdefault(str(parent), False)
    taken[key] = not folder
    return ""


def _write_all(archive: zipfile.ZipFile, path: Path, members: list[_Member]) -> None:
    missing = [m.info.file_size + BLOCK for m in members if not _size_fits(m)]
    if members:
        require_space(members[0].path.parent, sum(missing), f"unpacking {path.name}", LARGER)
    folders: set[Path] = set()
    for member in track(members, len(members), f"unpack {path.name}", "files"):
        if member.path.parent not in folders:
            member.path.parent.mkdir(parents=True, exist_ok=True)
            folders.add(member.path.parent)
        if not (_size_fits(member) and _checksum(member.path) == member.info.CRC):
            _write(archive, member)


def _size_fits(member: _Member) -> bool:
    return member.path.is_file() and member.path.stat().st_size == member.info.file_size


def _checksum(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc


def _write(archive: zipfile.ZipFile, member: _Member) -> None:
    """Write one file; its size is enforced here too, since headers may lie, and zipfile holds its checksum against it."""
    partial = member.path.with_name(f".{member.path.name}.partial")
    partial.unlink(missing_ok=True)
    written = 0
    with archive.open(member.info) as source, partial.open("xb") as sink:
        while chunk := source.read(CHUNK):
            written += len(chunk)
            if written > member.info.file_size:
                raise zipfile.BadZipFile(f"{member.info.filename} is larger than the directory says")
            sink.write(chunk)
    if written != member.info.file_size:
        raise zipfile.BadZipFile(f"{member.info.filename} is smaller than the directory says")
    partial.replace(member.path)
