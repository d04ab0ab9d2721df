"""The official Kaggle client as a subprocess: importing it would authenticate at once and raise where no token is.

Its exit status proves little (2.2.4 ends with 0 when an upload failed, and after Ctrl-C), so callers look at what came of
it: the archive on disk, the submission in Kaggle's list. Tokens never stand on its command line, and every line it
prints is freed of them before it is shown.
"""

import codecs
import csv
import os
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from driverwatch.errors import InputError
from driverwatch.submission import kaggle_credentials as credentials
from driverwatch.submission import kaggle_failures as failures

INSTALLED = Path(".venv-kaggle/bin/kaggle")  # where make puts it
SILENCE = 900.0  # seconds without a word; the client's own read timeout is 300, and it tries again by itself
MINUTE = 60.0
PAGE = 100  # submissions listed at once; five a day are allowed
CHATTY = ("VERBOSE", "VERBOSE_OUTPUT")  # either makes the client print its request headers, token and all


@dataclass(frozen=True)
class Remote:
    """A submission as Kaggle lists it; a score is empty until it is known."""

    message: str
    status: str  # pending, complete or error
    public: str
    private: str


@dataclass(frozen=True)
class Client:
    command: str
    slug: str
    lock: int | None = None  # inherited, so that nobody else writes while a client outlives us
    silence: float = SILENCE

    def download(self, folder: Path) -> None:
        """Fetch the competition's archive as `<folder>/<slug>.zip`; the client goes on where a killed one stopped."""
        self._run("download", "-p", str(folder.absolute()), show=True)

    def submit(self, file: Path, message: str) -> None:
        """Upload; that nothing is raised does not mean that it arrived."""
        words = self._run("submit", "-f", str(file.absolute()), "-m", message, show=True)
        if "could not submit" in words.lower() or "could not find" in words.lower():
            raise InputError(f"{self.slug}: {failures.sentence(words, self.slug, True)}")

    def submissions(self) -> list[Remote]:
        """The newest submissions, newest first. Clients before 2.0 list 20 and cannot be asked for more."""
        try:
            return parsed(self._run("submissions", "--csv", "--page-size", str(PAGE)))
        except _TooOldError:
            return parsed(self._run("submissions", "--csv"))

    def _run(self, verb: str, *options: str, show: bool = False) -> str:
        """All that the client said, redacted; a failure is one sentence."""
        command, hidden = [found(self.command), "competitions", verb, self.slug, *options], credentials.secrets()
        bar, words = _Bar(), []
        with _started(command, self.lock) as process:
            try:
                for raw in _lines(process.stdout, self.silence):
                    line = credentials.redacted(raw, hidden)
                    if not bar.is_one(line):
                        words.append(line)
                    if show:
                        bar.show(line)
            except BaseException:  # Ctrl-C too: a client left alone would go on writing
                process.kill()
                raise
        text = "".join(words)
        if process.returncode == 2 and "unrecognized arguments: --page-size" in text:
            raise _TooOldError
        if process.returncode != 0:
            raise InputError(f"{self.slug}: {failures.sentence(text, self.slug, verb == 'submit')}")
        return text


class _Bar:
    """The client's progress: every step on a terminal, one line a minute in a log; its retries always."""

    def __init__(self) -> None:
        self.shown = time.monotonic()

    @staticmethod
    def is_one(line: str) -> bool:
        return re.search(r"\d%\|", line) is not None

    def show(self, line: str) -> None:
        if self.is_one(line):
            if sys.stderr.isatty():
                sys.stderr.write(line)
            elif time.monotonic() - self.shown > MINUTE:
                self.shown = time.monotonic()
                sys.stderr.write(line.strip() + "\n")
        elif re.search(r"resuming|retry", line, re.IGNORECASE):
            sys.stderr.write(line.strip() + "\n")
        sys.stderr.flush()


class _TooOldError(Exception):
    """The client is too old for an option."""


def found(command: str) -> str:
    """The client as a path: what was named, else what make installed, else the one on the PATH."""
    name = command or (str(INSTALLED) if INSTALLED.is_file() else "kaggle")
    path = shutil.which(name)
    if path is None:
        raise InputError(
            f"KAGGLE={name}: no such client; make data and make submit install it into .venv-kaggle, or name one with "
            "KAGGLE=<path>"
        )
    return str(Path(path).absolute())


def parsed(text: str) -> list[Remote]:
    """Read `submissions --csv`: 2.x has `ref` before `fileName` and says `SubmissionStatus.COMPLETE`, 1.x `complete`.

    Warnings may stand before the header, and the text `No submissions found` in place of it.
    """
    lines = text.splitlines(keepends=True)
    start = next((i for i, line in enumerate(lines) if re.match(r"(ref,)?fileName,", line)), None)
    if start is None:
        if "no submissions found" in text.lower():
            return []
        raise InputError(f"the client's list of submissions: expected CSV with a header, got: {text.strip()[:300]!r}")
    rows = csv.DictReader(lines[start:], restval="")
    return [
        Remote(
            str(row.get("description", "")),
            str(row.get("status", "")).rsplit(".", 1)[-1].strip().lower(),
            _score(row.get("publicScore")),
            _score(row.get("privateScore")),
        )
        for row in rows
    ]


def _score(text: str | None) -> str:
    return "" if text in (None, "None", "null") else str(text).strip()


def _started(command: list[str], lock: int | None) -> "subprocess.Popen[bytes]":
    """The client with one stream for all it says; it cannot ask, and knows nothing of our own environment's packages."""
    environment = {k: v for k, v in os.environ.items() if k not in (*CHATTY, "PYTHONPATH", "PYTHONHOME")}
    environment |= {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"} | credentials.for_client()
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=[] if lock is None else [lock],
        )
    except OSError as error:
        raise InputError(
            f"{command[0]}: cannot be started ({error.strerror}); name another with KAGGLE=<path>"
        ) from error


def _lines(stream: IO[bytes] | None, silence: float) -> Iterator[str]:
    """What a process says, cut after each line end or carriage return, so that no secret is cut in two."""
    decode, rest = codecs.getincrementaldecoder("utf-8")("replace").decode, ""
    while stream is not None:
        if not select.select([stream], [], [], silence)[0]:
            raise InputError(
                f"the client has said nothing for {silence:g} s, so it was stopped; check the connection, then run the "
                "same command again: it goes on"
            )
        chunk = os.read(stream.fileno(), 1 << 16)
        *lines, rest = re.split(r"(?<=\n)|(?<=\r)(?=[^\n])", rest + decode(chunk, final=not chunk))
        yield from lines
        if not chunk:
            yield rest
            return
