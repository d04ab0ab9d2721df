"""Files and folders written whole or not at all, and locks that tell a running writer from one that has ended.

A temporary file has its writer in its name. A lock is the operating system's; on a file system that has none, a file beside it
takes its place.
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
from typing import IO, Any, NamedTuple

from driverwatch.errors import InputError
from driverwatch.io.console import say

TEMPORARY = re.compile(r"\.(.+)\.([0-9a-f]{8})-(\d{1,10})\.[0-9a-f]{8}\.partial", re.DOTALL)
LONGEST = 200  # bytes of a name that its temporary ones repeat; file systems take 255
FOREIGN_SECONDS = 86_400.0  # without a change: until then another machine may be writing
UNSIGNED_SECONDS = 10.0  # until then a claim without a name in it is one that is being made


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
        return True
    return _facts(process)[:1] not in (["Z"], ["X"])


def _facts(process: int) -> list[str]:
    """What Linux tells of a process after its name, state first; elsewhere nothing."""
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


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


class Claim(NamedTuple):
    """What a file says that stands for a lock: who holds it, and when that process began, in Linux' ticks."""

    machine: str
    process: int
    began: str
    host: str

    @property
    def holds(self) -> bool:
        """Whether its process may still run; that of another machine cannot be asked."""
        if self.machine != machine():
            return True
        return runs(self.process) and self.began in ("?", _began(self.process))

    def __str__(self) -> str:
        return str(self.process) if self.machine == machine() else f"{self.process} on {self.host}"


def _began(process: int) -> str:
    return (_facts(process)[19:20] or ["?"])[0]


def claim_of(path: Path) -> Claim | None:
    """The claim on a place; None: there is none, or its process has ended."""
    try:
        words = path.read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return None
    if len(words) == 4 and words[1].isdigit():
        found = Claim(words[0], int(words[1]), words[2], words[3])
        return found if found.holds else None
    return Claim("", 0, "?", "?") if _age(path) < UNSIGNED_SECONDS else None


def claimed(path: Path) -> bool:
    """Make the file that says that this process holds `path`'s place, unless a living one has made it."""
    if claim_of(path):
        return False
    ended = temporary_path(path)
    try:
        path.rename(ended)  # of several that find its process ended, one gets it
    except FileNotFoundError:
        pass
    else:
        if claim_of(ended):  # another took the place since we looked
            ended.rename(path)
            return False
        ended.unlink()
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        host = "".join(socket.gethostname().split()) or "?"
        file.write(f"{machine()} {os.getpid()} {_began(os.getpid())} {host}\n")
    return True


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
    last of them, however they end. On a file system without locks `<name>.holder` says instead whose the folder is, and counts
    for as long as that process runs; one line says so. Temporary files of killed writers are removed first, from `sweep`
    (None: from `folder`).
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / name).open("a+", encoding="utf-8")
    except OSError as error:
        raise _cannot_write(folder, error) from error
    holder = folder / f"{name}.holder"
    with lock:
        by_system = _take(lock, holder, PATIENCE if patience is None else patience)
        try:
            for swept in (folder,) if sweep is None else sweep:
                sweep_partials(swept)
            yield lock.fileno()
        finally:
            if not by_system:
                holder.unlink(missing_ok=True)


def _take(lock: IO[str], holder: Path, patience: float) -> bool:
    """Wait for a folder; whether it is the operating system's lock that was taken, else the holder's file."""
    end, folder = time.monotonic() + patience, holder.parent
    while True:
        taken = locked_by_system(lock)
        try:
            if taken and claim_of(holder) is None:
                break
            if taken is None and claimed(holder):
                if (device := folder.stat().st_dev) not in _UNLOCKED:  # once for each file system
                    _UNLOCKED.add(device)
                    say(f"{folder}: this file system has no locks; a file that ends in .holder says who is writing")
                break
        except OSError as error:
            raise _cannot_write(folder, error) from error
        if time.monotonic() > end:
            raise InputError(_occupied(lock, holder))
        time.sleep(0.05)
    with suppress(OSError):  # on a full disk the lock holds all the same
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
    return bool(taken)


def _occupied(lock: IO[str], holder: Path) -> str:
    lock.seek(0)
    claim = claim_of(holder)
    who = claim or lock.read().strip() or "unknown"
    said = f"another command is writing here (process {who}); wait for it to end, then run again."
    more = f" Nothing else tells when it ends on another machine: if it has, remove {holder}." if claim else ""
    return f"{holder.parent}: {said}{more}"


def writer_of(folder: Path, name: str = ".lock") -> str | None:
    """Who holds `folder` as a writer now: a process number, or `unknown`; None: no one does. Writes nothing.

    To look takes the lock for a moment, shared with others who look; a writer who comes just then has patience.
    """
    if claim := claim_of(folder / f"{name}.holder"):
        return str(claim)
    try:
        with (folder / name).open(encoding="utf-8") as lock:
            if locked_by_system(lock, shared=True) is False:
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
