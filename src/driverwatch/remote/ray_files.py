"""A task on the machine that Ray gave it: the project's files are copied there, its results come back while it works.

Code travels by Ray's `runtime_env`, files through its object store. Where the asking machine's folder is shared, nothing is copied.
"""

import hashlib
import io
import math
import os
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from driverwatch.errors import InputError, listed, printable
from driverwatch.io.atomic import locked, replacing
from driverwatch.io.manifests import checksum_of_file, differences, provenance, require_space
from driverwatch.io.paths import settle_environment, user_path

NODE_FOLDER = "DRIVERWATCH_NODE_FOLDER"  # variable: a machine's folder for copies; with it, none counts as shared
TOKENS = "build/.cluster"  # holds a file with a secret name; a machine that sees that file shares the project's folder
PRIVATE = (".lock", ".holder", ".partial")  # endings of files that never leave their machine
MANIFEST = "manifest.json"
LAST = {"checkpoint.h5": 1, MANIFEST: 2}  # speak of a folder's other files, and so arrive after them, in this order
PIECE_BYTES = 32 << 20  # of a file, sent at once
REPORT_SECONDS = 0.5  # between two looks for new lines and files


@dataclass(frozen=True)
class Task:
    """Work for one machine. Paths are relative to the project's folder, which is the working directory there."""

    name: str  # `vgg16 fold 2`, as the task's own lines begin
    call: Callable[..., None]  # module-level; gets the arguments, and the folder of a copy of `weights` by that name
    arguments: tuple[Any, ...]
    reads: tuple[str, ...]  # files
    folders: tuple[str, ...]  # whose files come back
    prefix: str = ""  # of their names; without one the folder is the task's own, and comes back whole at the end
    weights: str | None = None  # local file of pretrained weights, anywhere
    epochs: int = 0  # planned in all; their losses are in history.csv of the first folder
    log: str | None = None  # file that gets all that the task prints

    def owns(self, path: Path, root: Path) -> bool:
        """Whether a file is one that comes back: below a folder of the task in `root`, and no link in there leads out of it."""
        places = [(root / folder).parent.resolve() / Path(folder).name for folder in self.folders]
        below = any(place in path.resolve().parents for place in places)
        return below and path.name.startswith(self.prefix) and not path.name.endswith(PRIVATE)

    def files(self, root: Path) -> list[str]:
        """Names of the files in `root` that the task owns, sorted."""
        found = [path for folder in self.folders for path in (root / folder).rglob("*") if path.is_file()]
        return sorted(str(path.relative_to(root)) for path in found if self.owns(path, root))


class Project(NamedTuple):
    """What a task must know of the machine that asks for it."""

    root: str
    key: str  # names the copy of this project on machines that do not share its folder
    token: str
    versions: dict[str, str]  # of the packages that compute
    threads: int


class Home:
    """The asking machine's project folder, as a Ray actor: gives files, takes results, keeps the news of tasks."""

    def __init__(self, root: str) -> None:
        self.root = Path(root)
        self.tasks: dict[str, Task] = {}
        self.checksums: dict[tuple[str, int, int], str] = {}
        self.unread: deque[tuple[str, str, Any]] = deque()

    def expect(self, task: Task) -> None:
        """Accept files of a task from now on."""
        self.tasks[task.name] = task

    def tell(self, task: str, kind: str, value: Any) -> None:
        """Keep a piece of news: `machine` (a name) or `lines`."""
        self.unread.append((task, kind, value))

    def news(self) -> list[tuple[str, str, Any]]:
        """Task, kind and value of all news since the last call, in order."""
        return [self.unread.popleft() for _ in range(len(self.unread))]

    def describe(self, name: str) -> tuple[int, int, str]:
        """Bytes, time of the last change (ns) and SHA-256 of a file."""
        path = self.root / name
        found = path.stat()
        key = (name, found.st_size, found.st_mtime_ns)
        if key not in self.checksums:
            self.checksums[key] = checksum_of_file(path)
        return (*key[1:], self.checksums[key])

    def piece(self, name: str, start: int) -> bytes:
        """Up to `PIECE_BYTES` of a file; none behind its end."""
        with (self.root / name).open("rb") as file:
            file.seek(start)
            return file.read(PIECE_BYTES)

    def results(self, task: str) -> list[str]:
        """Files of a task that are here: what it resumes from."""
        return self.tasks[task].files(self.root)

    def receive(self, task: str, name: str, content: bytes, checksum: str) -> None:
        """Put a result into its place, whole or not at all.

        Raises:
            InputError: a file that the task does not own, or other bytes than the checksum (SHA-256) is of.
        """
        path = self.root / name
        if not self.tasks[task].owns(path, self.root):
            raise InputError(f"{printable(name)}: is no result of {task}; another program speaks in its place")
        if hashlib.sha256(content).hexdigest() != checksum:
            raise InputError(f"{path}: arrived damaged; the same command resumes")
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(content)

    def keep_only(self, task: str, names: list[str]) -> None:
        """Remove those of a task's files here that it no longer has."""
        for name in set(self.results(task)) - set(names):
            (self.root / name).unlink()


def run_task(task: Task, project: Project, home: Any) -> None:
    """Do a task on this machine, in a process that Ray starts for it alone; its results are home when it returns.

    Raises:
        InputError: as the task, or packages of other versions, or no room for its files.
    """
    import ray

    machine = machine_name(socket.gethostname(), ray.get_runtime_context().get_node_id())
    result(home.tell.remote(task.name, "machine", machine))
    if strange := differences(project.versions, provenance()["versions"]):
        raise InputError(f"{machine}: has other packages than the asking machine; make setup there:{listed(strange)}")
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(project.threads))  # sums, and so last bits, follow it
    sys.modules["__main__"].__file__ = None  # Ray's worker: each process that augments would import it
    settle_environment()
    shared = is_shared(project)
    root, weights = (Path(project.root), None) if shared else copied(task, project, home)
    os.chdir(root)
    with _reported(task, home, not shared):
        task.call(*task.arguments, **({"weights": weights} if weights else {}))


def machine_name(host: str, node: str) -> str:
    """A machine's name for people: its host, and the node, as one host may hold several."""
    return f"{host}/{node[:6]}"


def result(reference: Any) -> Any:
    """The value of a Ray reference. While a task waits in `ray.get`, Ray lends its cores to the next one; not so here."""
    return reference.future().result()


def is_shared(project: Project) -> bool:
    """Whether this machine sees the asking machine's folder. One that was given a folder of its own uses that."""
    try:
        return NODE_FOLDER not in os.environ and (Path(project.root) / TOKENS / project.token).is_file()
    except OSError:
        return False


def copied(task: Task, project: Project, home: Any) -> tuple[Path, Path | None]:
    """This machine's copy of the project with what the task reads and resumes from, and the folder of its `weights` file.

    Raises:
        InputError: there is no place for it, or as `copy`.
    """
    if NODE_FOLDER not in os.environ:
        raise InputError(
            f"{socket.gethostname()}: does not see {project.root} of the asking machine; start its make node again with "
            "FOLDER=<a folder for copies>"
        )
    root = user_path(os.environ[NODE_FOLDER]).resolve() / project.key
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in task.reads:
        copy(name, root / name, home)
    for folder in task.folders:
        with locked(root / folder):  # an earlier attempt that is still at work here is refused by it
            for name in task.files(root):
                (root / name).unlink()
    for name in result(home.results.remote(task.name)):
        copy(name, root / name, home)
    if task.weights is None:
        return root, None
    weights = root / "build" / "weights"
    copy(task.weights, weights / Path(task.weights).name, home)
    return root, weights


def copy(name: str, path: Path, home: Any) -> None:
    """Have a file of the asking machine at `path`, copied unless one with its checksum (SHA-256) is there.

    Raises:
        InputError: no room, or a file that changed on its way.
    """
    size, time, checksum = result(home.describe.remote(name))
    with locked(path.parent, f".{path.name}.lock", sweep=(), patience=math.inf):
        if path.is_symlink() or not path.is_file() or checksum_of_file(path) != checksum:
            require_space(path.parent, size, name, "name a larger disk: make node FOLDER=")
            with replacing(path) as temporary:
                with temporary.open("wb") as file:
                    following = home.piece.remote(name, 0)
                    while content := result(following):
                        following = home.piece.remote(name, file.tell() + len(content))
                        file.write(content)
                if checksum_of_file(temporary) != checksum:
                    raise InputError(f"{name}: changed on its way to another machine; the same command resumes")
        os.utime(path, ns=(time, time))  # a pack's time says that it is as packing left it


class _Printed(io.TextIOBase):
    """What is printed and not read yet."""

    def __init__(self) -> None:
        self.parts: deque[str] = deque()

    def write(self, text: str) -> int:
        self.parts.append(text)
        return len(text)


@contextmanager
def _reported(task: Task, home: Any, sends: bool) -> Iterator[None]:
    """What is printed meanwhile goes home, and with `sends` the task's files; at the end its manifest, as the last of them."""
    printed, over = _Printed(), threading.Event()
    sent = {name: _stamp(Path(name)) for name in task.files(Path()) if sends}

    def report() -> None:
        text = "".join(printed.parts.popleft() for _ in range(len(printed.parts)))
        if lines := [line for line in text.splitlines() if line]:
            result(home.tell.remote(task.name, "lines", lines))
        if sends:
            send(task, home, sent, (MANIFEST,))

    def watch() -> None:
        while not over.wait(REPORT_SECONDS):
            report()

    with ThreadPoolExecutor(1) as pool, redirect_stdout(printed), redirect_stderr(printed):
        watching = pool.submit(watch)
        try:
            yield
        finally:  # of a task that failed too: how far it came, and why
            over.set()
            watching.result()
            report()
    if sends:
        if not task.prefix:
            result(home.keep_only.remote(task.name, task.files(Path())))
        send(task, home, sent)


def send(task: Task, home: Any, sent: dict[str, list[int]], but: tuple[str, ...] = ()) -> None:
    """Bring home those of a task's files that are not as they were `sent` (bytes and time), which is brought up to date.

    A file of `LAST` is read before the others and sent after them: at home it is never newer than what it speaks of.
    """
    found = []
    for name in sorted(task.files(Path()), key=lambda name: LAST.get(Path(name).name, 0), reverse=True):
        path = Path(name)
        try:
            if path.name in but or sent.get(name) == (now := _stamp(path)):
                continue
            found.append((name, path.read_bytes(), now))
        except FileNotFoundError:  # it was in use for a moment
            continue
    for name, content, now in reversed(found):
        result(home.receive.remote(task.name, name, content, hashlib.sha256(content).hexdigest()))
        sent[name] = now


def _stamp(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]
