"""How files and folders are written: whole or not at all, by one writer at a time, each error of the disk one sentence."""

import errno
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from driverwatch import ownership
from driverwatch.errors import InputError
from driverwatch.terminal import say

PATIENCE = 3.0  # seconds: a writer that was just killed may need a moment to be gone
_UNLOCKED: set[int] = set()  # devices that it was said of


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success flush it to disk and rename it over `path`.

    After a kill, a full disk or an exception `path` is what it was before. An `OSError` becomes one sentence. What killed
    writers of `path` left there is removed; a living one's stays. The file's permissions are the umask's.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep_partials(path.parent, path.name)
        temporary = ownership.temporary(path)
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({reason(error)}); {way_out(error)}.") from error
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(path)
        _flush(path.parent)
    except OSError as error:
        raise InputError(
            f"{path}: not written ({reason(error)}); what was there before is unchanged; {way_out(error)}, and run again."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def scratch_beside(path: Path) -> Iterator[Path]:
    """A folder beside `path`, gone afterwards, for what cannot be written under a temporary name or is kept by nobody."""
    sweep_partials(path.parent, path.name)
    folder = ownership.temporary(path)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def reason(error: OSError) -> str:
    """The operating system's own words: HDF5 wraps them in a paragraph of addresses."""
    return os.strerror(error.errno) if error.errno else str(error)


def way_out(error: OSError) -> str:
    """What to do about an error of the disk."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "free space"
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return "make the folder writable"
    if error.errno == errno.ENOLCK:  # all of ours are gone without: it is HDF5 that was told to insist
        return "unset HDF5_USE_FILE_LOCKING"
    return "see that the disk and the folder are whole"


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep_partials(folder: Path, name: str | None = None) -> None:
    """Remove temporary files and folders that killed writers (of `name`, or all) left in `folder`; living ones' stay."""
    for partial in ownership.abandoned(folder, name):
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)


@contextmanager
def locked(
    folder: Path, name: str = ".lock", sweep: tuple[Path, ...] | None = None, patience: float | None = None
) -> Iterator[int]:
    """Hold `folder` for one writer; a second one is refused after `patience` seconds (None: `PATIENCE`).

    Yields the lock's file descriptor: a process that inherits it goes on holding the lock, and the lock ends with the
    last of them, however they end. On a file system without locks `<name>.holder` says instead whose the folder is, and counts
    for as long as that process runs; one line says so. Temporary files of killed writers are removed first, from `sweep`
    (None: from `folder`).
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / name).open("a+", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({reason(error)}); {way_out(error)}.") from error
    holder = _holder(folder, name)
    with lock:
        by_system = _take(lock, holder, PATIENCE if patience is None else patience)
        try:
            for swept in (folder,) if sweep is None else sweep:
                sweep_partials(swept)
            yield lock.fileno()
        finally:
            if not by_system:
                holder.unlink(missing_ok=True)


def _holder(folder: Path, name: str) -> Path:
    return folder / f"{name}.holder"


def _take(lock: IO[str], holder: Path, patience: float) -> bool:
    """Wait for a folder; whether it is the operating system's lock that was taken, else the holder's file."""
    end, folder = time.monotonic() + patience, holder.parent
    while True:
        taken = ownership.locked_by_system(lock)
        try:
            if taken and ownership.claim_of(holder) is None:
                break
            if taken is None and ownership.claimed(holder):
                _say_without_locks(folder)
                break
        except OSError as error:
            raise InputError(f"{folder}: cannot be written ({reason(error)}); {way_out(error)}.") from error
        if time.monotonic() > end:
            raise InputError(_occupied(lock, holder))
        time.sleep(0.05)
    with suppress(OSError):  # on a full disk the lock holds all the same
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
    return bool(taken)


def _occupied(lock: IO[str], holder: Path) -> str:
    way_out = "wait for it to end, then run again."
    if claim := ownership.claim_of(holder):
        return (
            f"{holder.parent}: another command is writing here (process {claim}); {way_out} Nothing else tells when it "
            f"ends on another machine: if it has, remove {holder}."
        )
    lock.seek(0)
    return f"{holder.parent}: another command is writing here (process {lock.read().strip() or 'unknown'}); {way_out}"


def _say_without_locks(folder: Path) -> None:
    """Once for each file system."""
    if (device := folder.stat().st_dev) not in _UNLOCKED:
        _UNLOCKED.add(device)
        say(f"{folder}: this file system has no locks; a file that ends in .holder says who is writing")


def writer_of(folder: Path, name: str = ".lock") -> str | None:
    """Who holds `folder` as a writer now: a process number, or `unknown`; None: nobody. Writes nothing.

    To look takes the lock for a moment, shared with others who look; a writer who comes just then has patience.
    """
    if claim := ownership.claim_of(_holder(folder, name)):
        return str(claim)
    try:
        with (folder / name).open(encoding="utf-8") as lock:
            if ownership.locked_by_system(lock, shared=True) is False:
                return lock.read().strip() or "unknown"
    except OSError:
        pass
    return None


@contextmanager
def making(path: Path) -> Iterator[int]:
    """Hold the place of a folder that is made whole or not at all (`replacing_folder`), for one writer. Yields as `locked`."""
    with locked(path.parent, f".{path.name}.lock", sweep=()) as lock:
        old = path.with_name(f".{path.name}.old")
        if old.exists() and not path.exists():  # killed between the two renames of `replacing_folder`
            old.rename(path)
        yield lock


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`; on success flush it to disk and put it in `path`'s place.

    After a kill, a full disk or an exception `path` is what it was before. The caller holds `making(path)`.
    """
    old, partial = path.with_name(f".{path.name}.old"), ownership.temporary(path)
    try:
        sweep_partials(path.parent, path.name)
        partial.mkdir(parents=True)
        yield partial
        os.sync()  # the files first, then their folder's name
        shutil.rmtree(old, ignore_errors=True)
        if path.exists():
            path.rename(old)
        partial.rename(path)
    except OSError as error:
        raise InputError(
            f"{path}: not written ({reason(error)}); what was there before is unchanged; {way_out(error)}, and run again."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8; bytes of file names that are none become `\\udcXX`, which JSON reads back as what they were."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
