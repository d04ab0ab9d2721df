"""`make data`: from Kaggle to the data folder. Download, unpack, verify, and only then move into place.

The archive is unpacked inside its folder only, plain files only, only so much, and after a kill only the rest.
"""

import os
import re
import shutil
import stat
import time
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from driverwatch.data import competition
from driverwatch.data.context import Context
from driverwatch.errors import DAMAGED_ZIP, InputError, counted, listed
from driverwatch.io.atomic import making, reason, way_out
from driverwatch.io.console import close, say, track
from driverwatch.io.manifests import require_space
from driverwatch.submission import kaggle_client
from driverwatch.submission.kaggle_client import Client

MOST_BYTES = 40 * 10**9  # unpacked: ten times what the competition's archive needs, and far less than a bomb wants
BLOCK_BYTES = 4096  # what a file takes on disk beyond its bytes, at most, on common file systems
CHUNK_BYTES = 1 << 20
ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # Python bounds the memory of only these two while it reads
ZIP_DEPTH = 2  # zips in zips in an archive
OTHER_FOLDER = "this folder is no whole competition; move it away, or name another with DATA="
LARGER_DISK = "name a folder on a larger disk with DATA="


def download_competition(context: Context, command: str) -> None:
    """Download a competition that is not there yet; after a kill at any moment the same command resumes.

    Everything happens in `<DATA>.download` until all counts are right, so `DATA` is whole or not there. A complete folder is
    verified and left as it is.

    Args:
        command: Kaggle's client, as `Client`.

    Raises:
        InputError: no such competition, something else in `DATA`, or whatever stops the client or the archive.
    """
    slug, start, after = competition_slug(context), time.monotonic(), f"make folds DATASET={context.dataset}"
    data = context.data.resolve()  # a link to a larger disk is followed before anything is written
    if data.exists() and not data.is_dir():
        raise InputError(f"{context.data}: is a file; move it away or name a folder with DATA=")
    folder = data.with_name(f"{data.name}.download")
    with making(data) as lock:
        if is_there := data.is_dir() and any(data.iterdir()):
            counts = _verify(context, data, OTHER_FOLDER)
        else:
            unpack(_fetch(context, Client(command, slug, lock), folder), folder / "data")
            counts = _move_into_place(context, folder, data)
        shutil.rmtree(folder, ignore_errors=True)  # a kill may have come before this
    if is_there:
        return close(context.data, f"up to date, {counts}", then=[after])
    return close(context.data, counts, time.monotonic() - start, then=[after])


def _move_into_place(context: Context, folder: Path, data: Path) -> str:
    """Verify what was unpacked in `folder`, and make it `data`; the counts of images as text."""
    try:
        whole = competition.arranged_parts(context.settings, folder / "data", folder / "arranged")
    except InputError as error:
        raise InputError(
            f"{error}. The archive is whole, and fetching it again would bring the same: name its files in "
            f"configs/datasets/{context.dataset}.yaml, then run the same command again: it resumes"
        ) from error
    counts = _verify(context, whole, f"remove {folder} and run the same command again")
    os.sync()  # once, instead of for each of 100,000 files
    try:
        whole.rename(data)  # over an empty folder too
    except OSError as error:
        raise InputError(
            f"{data}: {whole} cannot be moved here ({error.strerror}); fix that, then run the same command again: it resumes"
        ) from error
    return counts


def check_download(context: Context) -> None:
    """Refuse what `download_competition` would refuse before it needs the client, a missing token included.

    A folder or an archive that is there needs no token: that is verified or unpacked, and Kaggle is not asked.
    """
    slug, data = competition_slug(context), context.data.resolve()
    there = data.is_dir() and any(data.iterdir())
    if not there and not is_whole_zip(data.with_name(f"{data.name}.download") / f"{slug}.zip"):
        kaggle_client.require_token()


def competition_slug(context: Context) -> str:
    """The last part of the competition's address on Kaggle.

    Raises:
        InputError: the data set is no competition, or a part of one.
    """
    settings, where = context.settings, f"configs/datasets/{context.dataset}.yaml"
    if settings.slug is None:
        raise InputError(f"{where}: names no competition (slug:), so Kaggle has nothing of it; use DATASET=statefarm")
    if settings.subset is not None:
        raise InputError(
            f"{where}: is a part of {settings.slug}; make data fetches the whole, make subset SOURCE=<its folder> "
            f"DATASET={context.dataset} picks the part, and Kaggle takes submissions only for the whole"
        )
    return settings.slug


def _verify(context: Context, data: Path, way_out: str) -> str:
    """The counts of images as text, once tables, folders and expected counts agree."""
    try:
        tables = competition.read_both(context.settings, data)
    except InputError as error:
        raise InputError(f"{error}\n{way_out}") from error
    if problems := [*tables.problems, *(f"missing file {path}" for path in tables.missing)]:
        raise InputError(f"{data}: {counted(problems)}; {way_out}:{listed(problems)}")
    train, test, expected = tables.train, tables.test, context.settings.expected
    if expected is not None and (len(train), len(test)) != (expected.train, expected.test):
        raise InputError(
            f"{data}: expected {expected.train:,} labelled and {expected.test:,} test images, got {len(train):,} and "
            f"{len(test):,}; {way_out}"
        )
    unknown = "" if expected else " (no counts to compare with)"
    return f"{len(train):,} labelled and {len(test):,} test images{unknown}"


def _fetch(context: Context, client: Client, folder: Path) -> Path:
    """The archive in `folder`: kept if it is whole, else fetched or resumed."""
    path = folder / f"{client.slug}.zip"
    broken_off = path.with_name(f"{path.name}.kaggle-partial").exists()  # the client's note beside an unfinished file
    if is_whole_zip(path) and not broken_off:
        say(f"{path}: kept")
        return path
    if context.settings.expected is not None:
        there = path.stat().st_size if path.is_file() else 0
        needed = int(context.settings.expected.gigabytes * 2e9) - there  # the archive, and as much again unpacked
        require_space(folder, needed, "the download and its unpacking", LARGER_DISK)
    folder.mkdir(parents=True, exist_ok=True)
    say(f"{path}: downloading")
    client.download(folder)
    if not is_whole_zip(path):
        raise InputError(f"{path}: expected a whole zip from the client, got none; remove {folder} and run again")
    return path


def is_whole_zip(path: Path) -> bool:
    """Whether `path` ends as a whole zip does; a download that broke off does not."""
    return path.is_file() and zipfile.is_zipfile(path)


@dataclass
class _Claims:
    """What all archives of one download have claimed so far; names are folded, as a file system may that knows no upper case."""

    most_bytes: int
    files: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)
    bytes: int = 0

    def problem(self, name: str, is_folder: bool) -> str:
        """Claim a name; why it cannot be, or nothing."""
        path = PurePosixPath(unicodedata.normalize("NFC", name).casefold())
        above = set(map(str, path.parents))
        if above & self.files or str(path) in self.files or (str(path) in self.folders and not is_folder):
            return "is there twice"
        self.folders |= above
        (self.folders if is_folder else self.files).add(str(path))
        return ""


def unpack(archive: Path, target: Path, most_bytes: int = MOST_BYTES) -> None:
    """Unpack `archive` into `target`, and zips at its top level too (the competition's older layout had `imgs.zip`).

    The top level is the folder that everything is in, if there is one; zips in those zips are unpacked as well. A file is written
    under another name first and renamed, so it is whole or not there. What is there already with the right size and checksum is
    kept: reading 4 GB again costs a minute, and a power cut can leave a right size over wrong bytes.

    Raises:
        InputError: names that lead elsewhere, links and devices, names given twice, encryption, more than `most_bytes`, too
            little space, a full disk, damage.
    """
    for inner in _unpack(archive, target, "", _Claims(most_bytes), 0):
        inner.unlink()


def _unpack(path: Path, target: Path, prefix: str, claims: _Claims, depth: int) -> list[Path]:
    """Unpack one archive of a download below `target / prefix`; the zips that came out of it, each unpacked in its turn."""
    with _opened(path) as zipped:
        prefix += _zips_own_folder(zipped, path) if depth else ""
        members = [(info, target / (prefix + info.filename)) for info in _checked(zipped, path, prefix, claims)]
        _write_missing(zipped, path, members)
    folders = [file.parent for _, file in members if "__MACOSX" not in file.parts]
    top = Path(os.path.commonpath(folders)) if folders else target
    archives = [file for _, file in members if file.parent == top and file.suffix.lower() == ".zip"]
    zips = sorted(archives) if depth < ZIP_DEPTH else []
    below = "".join(f"{part}/" for part in top.relative_to(target).parts)
    return zips + [inner for each in zips for inner in _unpack(each, target, below, claims, depth + 1)]


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
            "command again: it resumes"
        ) from error


def _zips_own_folder(archive: zipfile.ZipFile, path: Path) -> str:
    """`imgs/` for an `imgs.zip` that holds only folders and not `imgs`, as Kaggle unpacks it on its site; else nothing."""
    names = [name for name in archive.namelist() if not name.startswith("__MACOSX/")]
    is_flat = any("/" not in name for name in names)
    return "" if is_flat or path.stem in {name.split("/")[0] for name in names} else f"{path.stem}/"


def _checked(archive: zipfile.ZipFile, path: Path, prefix: str, claims: _Claims) -> list[zipfile.ZipInfo]:
    """The files of an archive; every name is checked before the first is written."""
    problems, files = [], []
    for info in archive.infolist():
        if problem := _problem(info) or claims.problem(prefix + info.filename, info.is_dir()):
            problems.append(f"{info.orig_filename!r} {problem}")
        claims.bytes += info.file_size + BLOCK_BYTES
        files += [] if info.is_dir() else [info]
    if problems:
        raise InputError(
            f"{path}: {len(problems)} members that no honest archive holds; remove it and download it again:{listed(problems)}"
        )
    if claims.bytes > claims.most_bytes:
        raise InputError(
            f"{path}: expected at most {claims.most_bytes / 1e9:g} GB unpacked, got {claims.bytes / 1e9:.1f} GB; this is not the "
            "competition's archive, remove it"
        )
    return files


def _problem(info: zipfile.ZipInfo) -> str:
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
    if info.compress_type not in ZIP_METHODS:
        return f"is compressed by method {info.compress_type}, expected stored or deflated"
    return ""


def _write_missing(archive: zipfile.ZipFile, path: Path, members: list[tuple[zipfile.ZipInfo, Path]]) -> None:
    missing = [info.file_size + BLOCK_BYTES for info, file in members if not _has_size(file, info)]
    if members:
        require_space(members[0][1].parent, sum(missing), f"unpacking {path.name}", LARGER_DISK)
    for info, file in track(members, len(members), f"unpack {path.name}", "files"):
        if not (_has_size(file, info) and _crc32(file) == info.CRC):
            file.parent.mkdir(parents=True, exist_ok=True)
            _write(archive, info, file)


def _has_size(file: Path, info: zipfile.ZipInfo) -> bool:
    return file.is_file() and file.stat().st_size == info.file_size


def _crc32(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            crc = zlib.crc32(chunk, crc)
    return crc


def _write(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> None:
    """Write one file; zipfile reads no more bytes than the directory says, and checks their checksum."""
    partial = path.with_name(f".{path.name}.partial")
    with archive.open(info) as source, partial.open("wb") as sink:
        shutil.copyfileobj(source, sink, CHUNK_BYTES)
    partial.replace(path)
