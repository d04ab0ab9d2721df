"""Which process a temporary file or a lock is of, and whether it still runs, so that nobody removes what a living one writes.

A temporary file has its writer in its name. A lock is the operating system's; on a file system that has none, a file beside it
takes its place.
"""

import fcntl
import hashlib
import os
import re
import secrets
import socket
import time
from functools import cache
from pathlib import Path
from typing import IO, NamedTuple

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


def temporary(path: Path) -> Path:
    """A name beside `path` that is this process' alone."""
    return path.with_name(f".{_repeated(path.name)}.{machine()}-{os.getpid()}.{secrets.token_hex(4)}.partial")


def _repeated(name: str) -> str:
    encoded = os.fsencode(name)
    return name if len(encoded) <= LONGEST else hashlib.sha256(encoded).hexdigest()[:16]


def abandoned(folder: Path, name: str | None = None) -> list[Path]:
    """Temporary files and folders in `folder` (those for `name`, or all) whose writers have ended; never another program's."""
    try:
        there = [Path(entry.path) for entry in os.scandir(folder) if entry.name.endswith(".partial")]
    except OSError:
        return []
    made = [(path, found) for path in there if (found := TEMPORARY.fullmatch(path.name))]
    mine = [(path, found) for path, found in made if name is None or found[1] == _repeated(name)]
    return [path for path, found in mine if _ended(path, found[2], int(found[3]))]


def _ended(path: Path, where: str, process: int) -> bool:
    if where == machine():
        return not runs(process)
    return _age(path) > FOREIGN_SECONDS


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
    """Who holds a claim; None: nobody, or somebody who has ended."""
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
    ended = temporary(path)
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
