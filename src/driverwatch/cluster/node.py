"""A job on the machine that got it: its verb as a process, watched; what it says and makes is told as it comes."""

import csv
import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from driverwatch.cluster.code import PACKAGE
from driverwatch.cluster.cores import taken
from driverwatch.cluster.home import NEVER
from driverwatch.cluster.jobs import Job, Needs, Telling
from driverwatch.cluster.place import PIECE, Place, Remote, prepared
from driverwatch.data.pack import stamp
from driverwatch.errors import InputError

BEAT = 0.5  # seconds between two looks at what has been written


class Asked(NamedTuple):
    """A job as it travels."""

    job: Job
    needs: Needs
    root: str  # the project's folder on the asking machine
    token: str
    commit: str | None


def done(asked: Asked, depot: Any) -> Iterator[Telling]:
    """Do a job here, and tell: `place`, then `line`, `epoch` and `piece` as they come, and last `ended` with a status.

    Bad input is told as a line and status 2, as the verb would.
    """
    try:
        with taken(asked.needs.cores):
            place = prepared(asked.job, asked.root, asked.token, Remote(depot))
            yield "place", {"shared": place.shared}
            yield from Work(asked, place).tellings()
    except InputError as error:
        yield "line", f"driverwatch: {error}"
        yield "ended", 2


class Work:
    """A verb's process and what it writes."""

    def __init__(self, asked: Asked, place: Place) -> None:
        self.asked, self.job, self.place = asked, asked.job, place
        self.sent: dict[str, list[int]] = {name: stamp(place.root / name) for name in self._there(self.job.brings)}
        self.rows = 0
        self.lines: SimpleQueue[str | None] = SimpleQueue()

    def tellings(self) -> Iterator[Telling]:
        leash, held = os.pipe()
        try:
            with subprocess.Popen(
                self._command(leash), cwd=self.place.root, env=self._environment(), pass_fds=[leash], text=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace",
            ) as process:  # fmt: skip
                threading.Thread(target=self._read, args=(process,), daemon=True).start()
                yield from self._watched()
                status = process.wait()
        finally:
            os.close(leash)
            os.close(held)
        yield from self._news()
        if status == 0 and not self.place.shared:
            yield from self._rest()
        yield "ended", status

    def _command(self, leash: int) -> list[str]:
        return [sys.executable, "-m", "driverwatch", *self.job.words, *self.place.options, "--leash", str(leash)]

    def _environment(self) -> dict[str, str]:
        """This machine's, without the threads that Ray would have libraries take; the code is that which was compared."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        if kept.get("OMP_NUM_THREADS") == str(self.asked.needs.cores):
            del kept["OMP_NUM_THREADS"]
        if self.asked.needs.gpus % 1:  # shared with another job: no process may take all of its memory at once
            kept["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
        return kept | {"PYTHONPATH": str(PACKAGE.parent), "DRIVERWATCH_COMMIT": self.asked.commit or ""}

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    def _watched(self) -> Iterator[Telling]:
        """Lines and news until the process closes its output."""
        looked = time.monotonic()
        while True:
            try:
                line = self.lines.get(timeout=BEAT)
                if line is None:
                    return
                yield "line", line
            except Empty:
                yield from self._epochs()
            if time.monotonic() - looked > BEAT:
                looked = time.monotonic()
                yield from self._news()

    def _news(self) -> Iterator[Telling]:
        """What has been written since the last look: whole files home, and epochs."""
        if not self.place.shared:
            yield from self._changed(self.job.brings)
        yield from self._epochs()

    def _epochs(self) -> Iterator[Telling]:
        path = self.place.root / self.job.history if self.job.history else None
        if path is None or not path.is_file():
            return
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows[self.rows :]:
            yield "epoch", row
        self.rows = len(rows)

    def _changed(self, patterns: tuple[str, ...]) -> Iterator[Telling]:
        """Files that changed, opened in the order of `patterns` and sent in the reverse one.

        So nothing that is written before the first of them is older at home than what it goes with.
        """
        with ExitStack() as stack:
            found = []
            for name in self._there(patterns):
                path = self.place.root / name
                try:
                    file = stack.enter_context(path.open("rb"))
                except FileNotFoundError:  # it was in use for a moment
                    continue
                made = os.fstat(file.fileno())
                if self.sent.get(name) != (now := [made.st_size, made.st_mtime_ns]):
                    found.append((name, file, now))
            for name, file, now in reversed(found):
                yield from _pieces(name, file)
                self.sent[name] = now

    def _rest(self) -> Iterator[Telling]:
        """All of the folder that is whole now, its manifest last; what is not among it is spent."""
        if self.job.whole is None:
            return
        folder = self.place.root / self.job.whole
        files = [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(NEVER)]
        names = sorted(str(path.relative_to(self.place.root)) for path in files)
        last = str(Path(self.job.whole) / "manifest.json")
        yield from self._changed(tuple(name for name in names if name != last))
        yield "whole", names
        yield from self._changed((last,))

    def _there(self, patterns: tuple[str, ...]) -> list[str]:
        found = [path for pattern in patterns for path in sorted(self.place.root.glob(pattern))]
        names = [str(path.relative_to(self.place.root)) for path in found if path.is_file()]
        return [name for name in dict.fromkeys(names) if not name.endswith(NEVER)]


def _pieces(name: str, file: Any) -> Iterator[Telling]:
    """A file's bytes, and with the last of them its digest."""
    digest, piece = hashlib.sha256(), file.read(PIECE)
    while piece:
        digest.update(piece)
        following = file.read(PIECE)
        if following:
            yield "piece", (name, piece, None)
            piece = following
        else:
            break
    yield "piece", (name, piece, digest.hexdigest())
