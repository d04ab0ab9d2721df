"""The official Kaggle client as a subprocess: importing it would authenticate at once and raise where no token is.

Its exit status proves little (2.2.4 ends with 0 when an upload failed, and after Ctrl-C), so callers look at what came of
it: the archive on disk, the submission in Kaggle's list. Tokens are never on its command line, and every line it prints is
freed of them before it is shown. A failure is one sentence with the way out.
"""

import codecs
import csv
import os
import re
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from driverwatch.errors import InputError
from driverwatch.submission import kaggle_credentials

INSTALLED = Path(".venv-kaggle/bin/kaggle")  # where make puts it
SILENCE_SECONDS = 900.0  # without a word; the client's own read timeout is 300, and it tries again by itself
SUBMISSIONS_LISTED = 100  # at once; five a day are allowed
VERBOSE = ("VERBOSE", "VERBOSE_OUTPUT")  # either makes the client print its request headers, token and all
LINES_SHOWN = 3  # of the client, where nothing in its words is recognised

SUBMISSIONS_PAGE = "https://www.kaggle.com/c/{slug}/submissions"
NO_TOKEN = r"authentication required|could not find kaggle\.json|missing (username|key) in configuration"
REFUSED_TOKEN = r"\b401\b.{0,3}(client error|unauthorized)|^unauthorized|unauthenticated|invalid credentials"
QUOTED = "; its words: {said}"
AGAIN = "run the same command again: it goes on"
# The first that is found in the client's words, which were collected by running the clients 2.2.4 and 1.7.4.5 without a token,
# without a network, and against a local server that answers with each status. The server's own message often replaces the status.
FAILURES = (
    (r"no space left on device|disk quota exceeded", f"the disk is full; free space, then {AGAIN}"),
    (r"(module|import)\w*error|unrecognized arguments|invalid choice",
     "the client itself is broken; remove .venv-kaggle and run again, or name another client with KAGGLE=<path>"),
    (r"failed to resolve|max retries exceeded|connectionerror|connection (refused|reset|aborted)|newconnectionerror|"
     r"network is unreachable|proxyerror|sslerror|timed? ?out|remotedisconnected|name resolution",
     f"could not reach Kaggle (no network, a proxy, or Kaggle is down); check the connection, then {AGAIN}"),
    (r"submission allowance|submissions? (per|for) (the )?day|daily (submission|limit)|submission limit",
     "today's submissions are used up (days are UTC); run the same command tomorrow"),
    (r"deadline|no longer accept|not accept\w* submissions|competition (has|is) (ended|closed|over)",
     "the competition takes no submissions any more; see {page}"),
    (r"accept\b.*\brules|\b403\b.{0,3}(client error|forbidden)|permission .*denied|^forbidden|don't have access",
     "this account may not (403): most likely it has not accepted the rules; accept them at "
     "https://www.kaggle.com/c/{slug}/rules (Kaggle may ask for a verified phone number first), then run again" + QUOTED),
    (r"could not find competition|competition not found|resource was not found|\b404\b.{0,3}(client|not)|^not ?found",
     "Kaggle knows no competition {slug} (404), or this account may not see it; fix slug: in the data set's YAML (the last part of "
     "the competition's address)"),
    (r"\b429\b.{0,3}(client error|too many)|too many requests|rate limited",
     f"Kaggle asks for fewer requests (429); wait some minutes, then {AGAIN}"),
    (r"\b5\d\d\b.{0,3}(server error|internal|bad gateway|service)|^internal server error|on kaggle's side",
     "Kaggle itself is in trouble (a 5xx answer); run the same command again later: it goes on"),
    (r"could not submit to competition",
     "the upload did not arrive; check the connection, then run the same command again"),
)  # fmt: skip
BAD_REQUEST = r"\b400\b.{0,3}(client error|bad request)|^bad request"
BAD_SUBMISSION = (
    "Kaggle refused the submission (400): likely the file is not this competition's, today's submissions are used up, or the "
    "competition takes none any more; see {page}" + QUOTED
)
BAD_SLUG = (
    "Kaggle refused the request (400); is slug: {slug} in the data set's YAML the last part of its address?" + QUOTED
)


@dataclass(frozen=True)
class Submission:
    """A submission as Kaggle lists it; a score is empty until it is known."""

    message: str
    status: str  # pending, complete or error
    public: str
    private: str


@dataclass(frozen=True)
class Client:
    """The client `command` (empty: the one make installed, or on the PATH), for the competition `slug`."""

    command: str
    slug: str
    lock: int | None = None  # inherited, so that nobody else writes while a client outlives us
    silence_seconds: float = SILENCE_SECONDS

    def download(self, folder: Path) -> None:
        """Fetch the competition's archive as `<folder>/<slug>.zip`; the client goes on where a killed one stopped."""
        self._run("download", "-p", str(folder.absolute()))

    def submit(self, file: Path, message: str) -> None:
        """Upload; that nothing is raised does not mean that it arrived."""
        words = self._run("submit", "-f", str(file.absolute()), "-m", message)
        if "could not submit" in words.lower() or "could not find" in words.lower():
            raise InputError(f"{self.slug}: {failure(words, self.slug, True)}")

    def submissions(self) -> list[Submission]:
        """The newest submissions, newest first."""
        return parse_submissions(self._run("submissions", "--csv", "--page-size", str(SUBMISSIONS_LISTED)))

    def _run(self, verb: str, *options: str) -> str:
        """All that the client said but its progress bars, redacted; bars are shown on a terminal, retries always."""
        hidden, words = kaggle_credentials.secrets(), []
        with _start([find_client(self.command), "competitions", verb, self.slug, *options], self.lock) as process:
            try:
                for raw in _lines(process.stdout, self.silence_seconds):
                    line = kaggle_credentials.redacted(raw, hidden)
                    is_bar = re.search(r"\d%\|", line) is not None
                    if not is_bar:
                        words.append(line)
                    is_retry = verb != "submissions" and re.search(r"resuming|retry", line, re.IGNORECASE)
                    if sys.stderr.isatty() if is_bar else is_retry:
                        print(line, end="", file=sys.stderr, flush=True)
            except BaseException:  # Ctrl-C too: a client left alone would go on writing
                process.kill()
                raise
        if process.returncode != 0:
            raise InputError(f"{self.slug}: {failure(''.join(words), self.slug, verb == 'submit')}")
        return "".join(words)


def find_client(command: str) -> str:
    """The client as a path: what was named, else what make installed, else the one on the PATH."""
    name = command or (str(INSTALLED) if INSTALLED.is_file() else "kaggle")
    path = shutil.which(name)
    if path is None:
        raise InputError(
            f"KAGGLE={name}: no such client; make data and make submit install it into .venv-kaggle, or name one with "
            "KAGGLE=<path>"
        )
    return str(Path(path).absolute())


def parse_submissions(text: str) -> list[Submission]:
    """What `submissions --csv` lists. Warnings may be before the header, and `No submissions found` in place of it.

    Raises:
        InputError: neither.
    """
    lines = text.splitlines(keepends=True)
    start = next((i for i, line in enumerate(lines) if re.match(r"(ref,)?fileName,", line)), None)
    if start is None:
        if "no submissions found" in text.lower():
            return []
        raise InputError(f"the client's list of submissions: expected CSV with a header, got: {text.strip()[:300]!r}")
    found = []
    for line in csv.DictReader(lines[start:], restval=""):
        scores = [str(line.get(name) or "").strip() for name in ("publicScore", "privateScore")]
        status = str(line.get("status", "")).rsplit(".", 1)[-1].strip().lower()  # SubmissionStatus.COMPLETE
        public, private = ("" if score in ("None", "null") else score for score in scores)
        found.append(Submission(str(line.get("description", "")), status, public, private))
    return found


def failure(words: str, slug: str, uploading: bool) -> str:
    """What went wrong in one sentence, judged by the client's words (redacted already), and what to do about it."""
    if _says(NO_TOKEN, words) or _says(REFUSED_TOKEN, words):  # the client says the same of both
        if place := next(iter(kaggle_credentials.found()), ""):
            how = kaggle_credentials.how_to()
            return f"Kaggle refused the token in {place} (401; expired, withdrawn or mistyped); {how}"
        return f"no Kaggle token is there; {kaggle_credentials.how_to()}"
    lines = [" ".join(line.split()) for line in words.splitlines() if line.strip()]
    said = " | ".join(line[:300] for line in lines[-LINES_SHOWN:]) or "(none)"
    failures = (*FAILURES, (BAD_REQUEST, BAD_SUBMISSION if uploading else BAD_SLUG))
    known = next((sentence for pattern, sentence in failures if _says(pattern, words)), None)
    if known is None:
        return f"the client failed; its last words: {said}"
    return known.format(slug=slug, page=SUBMISSIONS_PAGE.format(slug=slug), said=said)


def _says(pattern: str, words: str) -> bool:
    return re.search(pattern, words, re.IGNORECASE | re.MULTILINE) is not None


def _start(command: list[str], lock: int | None) -> "subprocess.Popen[bytes]":
    """The client with one stream for all it says; it cannot ask, and knows nothing of our own environment's packages."""
    environment = {k: v for k, v in os.environ.items() if k not in (*VERBOSE, "PYTHONPATH", "PYTHONHOME")}
    environment |= {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"} | kaggle_credentials.for_client()
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


def _lines(stream: IO[bytes] | None, silence_seconds: float) -> Iterator[str]:
    """What a process says, cut after each line end or carriage return, so that no secret is cut in two."""
    decode, rest = codecs.getincrementaldecoder("utf-8")("replace").decode, ""
    while stream is not None:
        if not select.select([stream], [], [], silence_seconds)[0]:
            raise InputError(
                f"the client has said nothing for {silence_seconds:g} s, so it was stopped; check the connection, then {AGAIN}"
            )
        chunk = os.read(stream.fileno(), 1 << 16)
        *lines, rest = re.split(r"(?<=\n)|(?<=\r)(?=[^\n])", rest + decode(chunk, final=not chunk))
        yield from lines
        if not chunk:
            yield rest
            return
