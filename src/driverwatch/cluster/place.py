"""Where a job works on another machine: in the project's own folder where that is shared, else in one like it, filled here."""

import hashlib
import math
import os
import re
import shutil
import stat
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from driverwatch.artifacts import digest_of, digest_of_file, plain_name, require_space
from driverwatch.cluster.home import is_plain
from driverwatch.cluster.jobs import Job
from driverwatch.errors import InputError, printable
from driverwatch.paths import user_path
from driverwatch.writing import locked, replacing

OWN = "DRIVERWATCH_NODE_FOLDER"  # where a machine keeps what it is brought; set, nothing is shared
TOKEN = "build/.cluster"  # a file of the asking machine's with a secret's name: who sees it sees the same folder
PIECE = 8 << 20  # bytes that travel at once
AHEAD = 4  # pieces asked for before they are needed


class Entry(NamedTuple):
    """A file of the asking machine's."""

    name: str
    size: int
    time: int  # nanoseconds
    digest: str


class Source(Protocol):
    """The asking machine's `remote.Depot`."""

    def described(self, names: list[str]) -> list[tuple[str, int, int, str]]: ...
    def there(self, patterns: list[str]) -> list[str]: ...
    def pieces(self, name: str, starts: list[int], count: int) -> Iterator[bytes]: ...


class Place(NamedTuple):
    """The folder to work in, options to add to the verb, whether the asking machine sees what is written."""

    root: Path
    options: list[str]
    shared: bool


def base() -> Path:
    """This machine's folder for what it is brought."""
    return user_path(os.environ.get(OWN) or Path(tempfile.gettempdir()) / f"driverwatch-{os.getuid()}")


def private(folder: Path) -> Path:
    """A folder of this user's own that nobody else may look into, made where it is not.

    Raises:
        InputError: it is a link, or another user's: who made it could put other files in the places of those kept there.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise InputError(f"{folder}: expected a folder of this user's own, got another's or a link; make node FOLDER=")
    if stat.S_IMODE(found.st_mode) & 0o077:
        folder.chmod(0o700)
    return folder


def is_shared(root: str, token: str) -> bool:
    """Whether the asking machine's `root` is the same folder here. A machine with a folder of its own uses that."""
    try:
        return OWN not in os.environ and (Path(root) / TOKEN / plain_name(token, "token")).read_text() == token
    except OSError:
        return False


def prepared(job: Job, root: str, token: str, source: Source) -> Place:
    """Find or make the folder in which a job can work.

    Raises:
        InputError: no room, or files that changed on their way.
    """
    shared = is_shared(root, token)
    options = [word for option, file in job.beside for word in (option, str(_beside(file, source, shared)))]
    if shared:
        return Place(Path(root), options, True)
    entries = [Entry(*each) for each in source.described(list(job.reads))]
    if OWN not in os.environ:
        private(base())
    tree = private(base() / digest_of(sorted((each.name, each.digest) for each in entries))[:16])
    targets = [_below(tree, entry) for entry in entries]
    for entry, target in zip(entries, targets, strict=True):
        _link(kept(entry, source), target)
    for cache in job.caches:
        _share(tree / cache)
    _take_state(job, tree, source)
    return Place(tree.resolve(), options, False)


def _below(tree: Path, entry: Entry) -> Path:
    if not is_plain(entry.name):
        raise InputError(f"{printable(entry.name)}: expected a name below the project's folder")
    return tree / entry.name


def kept(entry: Entry, source: Source) -> Path:
    """A file by its digest in this machine's store, brought there once, and anew where its bytes are others now."""
    if not re.fullmatch("[0-9a-f]{64}", entry.digest):
        raise InputError(f"{printable(entry.name)}: expected a SHA-256, got {printable(entry.digest, 80)}")
    path = private(base() / "store") / entry.digest
    with locked(path.parent, f".{entry.digest[:16]}.lock", sweep=(), patience=math.inf):
        if path.is_symlink() or not path.is_file() or digest_of_file(path) != entry.digest:
            require_space(path.parent, entry.size, entry.name, "name a larger disk: make node FOLDER=")
            with replacing(path) as temporary:
                _fetch(entry, source, temporary)
        os.utime(path, ns=(entry.time, entry.time))  # a pack's time tells that it is what packing left
    return path


def _fetch(entry: Entry, source: Source, target: Path) -> None:
    digest = hashlib.sha256()
    with target.open("wb") as file:
        for piece in source.pieces(entry.name, list(range(0, entry.size, PIECE)), PIECE):
            digest.update(piece)
            file.write(piece)
    if digest.hexdigest() != entry.digest:
        raise InputError(f"{entry.name}: changed on its way to another machine; the same command goes on")


def _link(kept: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as temporary:
        temporary.unlink()
        try:
            os.link(kept, temporary)
        except OSError:  # a disk without links
            shutil.copy2(kept, temporary)


def _share(cache: Path) -> None:
    """A folder that all of this machine's places have in common."""
    common = (private(base() / "caches") / cache.name).resolve()
    common.mkdir(parents=True, exist_ok=True)
    cache.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):  # made before, or by another job just now
        cache.symlink_to(common, target_is_directory=True)


def _take_state(job: Job, tree: Path, source: Source) -> None:
    """What there is of a job that was begun is the asking machine's, not what an earlier attempt left here."""
    if job.whole is not None:
        with locked(tree / job.whole):
            _empty(tree / job.whole)
    for entry in (Entry(*each) for each in source.described(source.there(list(job.brings)))):
        with replacing(_below(tree, entry)) as temporary:
            _fetch(entry, source, temporary)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name != ".lock":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _beside(file: str, source: Source, shared: bool) -> Path:
    """The folder of a file that lies anywhere: here as there, if it is the same, else brought."""
    entry = Entry(*source.described([file])[0])
    path = Path(file)
    if shared and path.is_file() and digest_of_file(path) == entry.digest:
        return path.parent
    folder = (private(base() / "beside") / entry.digest[:16]).resolve()
    _link(kept(entry, source), folder / path.name)
    return folder


class Remote:
    """A `Source` that is a Ray actor.

    Its answers are waited for as futures: while a task waits in `ray.get`, Ray lends its cores to the next one.
    """

    def __init__(self, actor: Any) -> None:
        self.actor = actor

    def described(self, names: list[str]) -> list[tuple[str, int, int, str]]:
        return self.actor.described.remote(names).future().result()

    def there(self, patterns: list[str]) -> list[str]:
        return self.actor.there.remote(patterns).future().result()

    def pieces(self, name: str, starts: list[int], count: int) -> Iterator[bytes]:
        """Pieces in order, some asked for ahead."""
        waiting: deque[Any] = deque()
        for start in starts:
            waiting.append(self.actor.piece.remote(name, start, count))
            if len(waiting) > AHEAD:
                yield waiting.popleft().future().result()
        while waiting:
            yield waiting.popleft().future().result()
