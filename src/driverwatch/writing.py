"""How files and folders are written: whole or not at all, by one writer at a time, each error of the disk one sentence."""

import errno
import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from driverwatch.errors import InputError

PATIENCE = 3.0  # seconds: a writer that was just killed may need a moment to be gone


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success flush it to disk and rename it over `path`.

    After a kill, a full disk or an exception `path` is what it was before. An `OSError` becomes one sentence.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({reason(error)}); {way_out(error)}.") from error
    temporary = Path(name)
    try:
        yield temporary
        _flush(temporary)
        temporary.chmod(0o644)
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
    """A folder beside `path`, gone afterwards, for what cannot be written under a temporary name or is kept by nobody.

    Call it under a lock of `path`: what a killed writer left there is removed.
    """
    folder = path.with_name(f".{path.name}.partial")
    shutil.rmtree(folder, ignore_errors=True)
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
    return "see that the disk and the folder are whole"


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep_partials(folder: Path) -> None:
    """Remove temporary files that a killed writer left in `folder`; call it under the lock of those who write there."""
    for partial in folder.glob(".*.partial"):
        if partial.is_file():
            partial.unlink(missing_ok=True)


@contextmanager
def locked(
    folder: Path, name: str = ".lock", sweep: tuple[Path, ...] | None = None, patience: float | None = None
) -> Iterator[int]:
    """Hold `folder` for one writer; a second one is refused after `patience` seconds (None: `PATIENCE`).

    Yields the lock's file descriptor: a process that inherits it goes on holding the lock, and the lock ends with the
    last of them, however they end. Temporary files of killed writers are removed first, from `sweep` (None: from `folder`).
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / name).open("a+")
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({reason(error)}); {way_out(error)}.") from error
    with lock:
        _take(lock, folder, PATIENCE if patience is None else patience)
        for swept in (folder,) if sweep is None else sweep:
            sweep_partials(swept)
        yield lock.fileno()


def _take(lock: IO[str], folder: Path, patience: float) -> None:
    end = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > end:
                lock.seek(0)
                raise InputError(
                    f"{folder}: another command is writing here (process {lock.read().strip() or 'unknown'}); "
                    "wait for it to end, then run again."
                ) from None
            time.sleep(0.05)
    with suppress(OSError):  # on a full disk the lock holds all the same
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()


def writer_of(folder: Path, name: str = ".lock") -> str | None:
    """Who holds `folder` as a writer now: a process number, or `unknown`; None: nobody. Writes nothing.

    To look takes the lock for a moment, shared with others who look; a writer who comes just then has patience.
    """
    try:
        with (folder / name).open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
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
    old, partial = (path.with_name(f".{path.name}.{end}") for end in ("old", "partial"))
    shutil.rmtree(partial, ignore_errors=True)
    try:
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
