"""Files and folders written whole or not at all, and locks that tell a running writer from one that has ended.

A temporary file has its writer in its name. A lock is the operating system's; a file system that has none is named once.
"""

import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

from driverwatch.errors import InputError
from driverwatch.io.console import say

TEMPORARY = re.compile(r"\.(.+)\.([0-9a-f]{8})-(\d{1,10})\.[0-9a-f]{8}\.partial", re.DOTALL)
LONGEST = 200  # bytes of a name that its temporary ones repeat; file systems take 255
FOREIGN_SECONDS = 86_400.0  # without a change: until then another machine may be writing


@cache
def machine() -> str:
    """8 hex digits of this machine, or of the container whose process numbers are not the machine's."""
    try:
        numbers = str(Path("/proc/self/ns/pid").readlink())
    except OSError:  # not on Linux
        numbers = ""
    return hashlib.sha256(f"{socket.gethostname()} {numbers}".encode()).hexdigest()[:8]


def runs(process: int) -> bool:
    """Whether this machine has a process of that number, one that has not ended."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        pass
    return True


def temporary_path(path: Path) -> Path:
    """A name beside `path` that is this process' alone."""
    return path.with_name(f".{_repeated(path.name)}.{machine()}-{os.getpid()}.{secrets.token_hex(4)}.partial")


def _repeated(name: str) -> str:
    encoded = os.fsencode(name)
    return name if len(encoded) <= LONGEST else hashlib.sha256(encoded).hexdigest()[:16]


def abandoned(folder: Path, name: str | None = None) -> list[Path]:
    """Temporary files and folders in `folder` (those for `name`, or all) whose writers have ended; never another program's."""
    left: list[Path] = []
    with suppress(OSError):
        for path in [Path(entry.path) for entry in os.scandir(folder)]:
            found = TEMPORARY.fullmatch(path.name)
            if found and (name is None or found[1] == _repeated(name)):
                own = found[2] == machine()
                left += [path] if (not runs(int(found[3])) if own else _age(path) > FOREIGN_SECONDS) else []
    return left


def _age(path: Path) -> float:
    """Seconds since the last change; 0 for a file that is gone."""
    try:
        return time.time() - path.lstat().st_mtime
    except OSError:
        return 0.0


def locked_by_system(lock: IO[str], shared: bool = False) -> bool | None:
    """Try to take the operating system's lock of an open file: whether it was taken; None: this file system has no locks."""
    try:
        fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # ENOLCK, ENOTSUP, ENOSYS, EINVAL: as the file system's maker liked
        return None
    return True


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
        temporary = temporary_path(path)
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(path)
        _flush(path.parent)
    except OSError as error:
        raise _unchanged(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def scratch_beside(path: Path) -> Iterator[Path]:
    """A folder beside `path`, gone afterwards, for what cannot be written under a temporary name or is not kept."""
    sweep_partials(path.parent, path.name)
    folder = temporary_path(path)
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
    if error.errno == errno.ENOLCK:  # ours do without: HDF5 was set to insist
        return "unset HDF5_USE_FILE_LOCKING"
    return "see that the disk and the folder are whole"


def _cannot_write(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: cannot be written ({reason(error)}); {way_out(error)}.")


def _unchanged(path: Path, error: OSError) -> InputError:
    said = f"not written ({reason(error)}); what was there before is unchanged"
    return InputError(f"{path}: {said}; {way_out(error)}, and run again.")


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep_partials(folder: Path, name: str | None = None) -> None:
    """Remove temporary files and folders that killed writers (of `name`, or all) left in `folder`; living ones' stay."""
    for partial in abandoned(folder, name):
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)


@contextmanager
def locked(
    folder: Path, name: str = ".lock", sweep: tuple[Path, ...] | None = None, patience: float | None = None
) -> Iterator[int]:
    """Hold `folder` for one writer; a second one is refused after `patience` seconds (None: `PATIENCE`).

    Yields the lock's file descriptor: a process that inherits it resumes holding the lock, and the lock ends with the
    last of them, however they end. On a file system without locks nobody is refused; one line says so. Temporary files of killed
    writers are removed first, from `sweep` (None: from `folder`).
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / name).open("a+", encoding="utf-8")
    except OSError as error:
        raise _cannot_write(folder, error) from error
    with lock:
        _take(lock, folder, PATIENCE if patience is None else patience)
        for swept in (folder,) if sweep is None else sweep:
            sweep_partials(swept)
        yield lock.fileno()


def _take(lock: IO[str], folder: Path, patience: float) -> None:
    """Wait for a folder's lock, and leave this process' number in it."""
    end = time.monotonic() + patience
    while (taken := locked_by_system(lock)) is False:
        if time.monotonic() > end:
            lock.seek(0)
            said = f"another command is writing here (process {lock.read().strip() or 'unknown'})"
            raise InputError(f"{folder}: {said}; wait for it to end, then run again.")
        time.sleep(0.05)
    if taken is None and (device := folder.stat().st_dev) not in _UNLOCKED:  # once for each file system
        _UNLOCKED.add(device)
        say(f"{folder}: this file system has no locks; see that no other command writes here meanwhile")
    with suppress(OSError):  # on a full disk the lock holds all the same
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()


def writer_of(folder: Path, name: str = ".lock") -> str | None:
    """Who holds `folder` as a writer now: a process number, or `unknown`; None: no one does, or it cannot be told. Writes nothing.

    To look takes the lock for a moment, shared with others who look; a writer who comes just then has patience.
    """
    with suppress(OSError), (folder / name).open(encoding="utf-8") as lock:
        if locked_by_system(lock, shared=True) is False:
            return lock.read().strip() or "unknown"
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
    old, partial = path.with_name(f".{path.name}.old"), temporary_path(path)
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
        raise _unchanged(path, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8; bytes of file names that are none become `\\udcXX`, which JSON reads back as what they were."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write an object as indented UTF-8 JSON. Raises as `replacing`."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
