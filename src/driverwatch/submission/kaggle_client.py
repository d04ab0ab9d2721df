"""Kaggle's official client as a subprocess, and its tokens: which was refused, none printed.

Places and order are those of the official client 2.2.4 (`authenticate`) and kagglesdk 0.1.37 (`get_access_token_from_env`).
"""

import base64
import codecs
import csv
import json
import os
import re
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from driverwatch.errors import InputError
from driverwatch.io.paths import PathError, home, programs_home, user_path

HOW = "make one at https://www.kaggle.com/settings (API, Generate New Token), and {kept}"
VARIABLE = "put it into the variable KAGGLE_API_TOKEN"
FILE = (
    f"either {VARIABLE} or save it as {{folder}}/access_token (older kaggle.json files, or KAGGLE_USERNAME and KAGGLE_KEY, "
    "do as well)"
)
PAIR = ("KAGGLE_USERNAME", "KAGGLE_KEY")
SECRETS = ("username", "key", "token", "access_token", "refresh_token", "proxy")
SHORTEST = 6  # characters; shorter values are no tokens, and hiding them would hide half of every line


def folder(environ: Mapping[str, str], home: Path) -> Path:
    """The folder that kaggle.json is in; the newer files are in ~/.kaggle only."""
    if named := environ.get("KAGGLE_CONFIG_DIR"):
        return user_path(named, environ)
    usual = home / ".kaggle"
    if usual.exists():
        return usual
    return user_path(environ.get("XDG_CONFIG_HOME") or home / ".config", environ) / "kaggle"


def _token_files() -> list[Path]:
    """Files that a token may be in, with nothing else."""
    return [programs_home() / ".kaggle" / name for name in ("access_token", "access_token.txt")]


def _json_files() -> list[Path]:
    """JSON files that a token may be in, the older kind first."""
    usual = programs_home()
    return list(dict.fromkeys([folder(os.environ, usual) / "kaggle.json", usual / ".kaggle" / "credentials.json"]))


def _token_in(path: Path) -> str:
    """The token that is alone in a file; empty where there is none."""
    try:
        return _text(path.read_bytes()).strip()
    except (OSError, ValueError):
        return ""


def _secrets_in(path: Path) -> dict[str, str]:
    """The secrets of a JSON file that may hold settings too, and whose they are; empty where it is none."""
    try:
        content = json.loads(_text(path.read_bytes()))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {k: v for k, v in content.items() if k in SECRETS and isinstance(v, str) and v.strip()}


def how_to() -> str:
    """Where a token comes from, and where it goes; into a variable where there is no home folder."""
    known = home()
    return HOW.format(kept=VARIABLE if known is None else FILE.format(folder=known / ".kaggle"))


def found() -> dict[str, dict[str, str]]:
    """Places that hold a token, in the client's order, each with the token as variables of the client; none may be valid.

    A token of `kaggle auth login` has no variables: the client itself renews it in its file.
    """
    tokens, pair = {}, {name: os.environ[name] for name in PAIR if os.environ.get(name)}
    if named := os.environ.get("KAGGLE_API_TOKEN"):
        tokens["KAGGLE_API_TOKEN"] = {"KAGGLE_API_TOKEN": _token_in(_named_file(named)) or named}
    tokens |= {str(path): {"KAGGLE_API_TOKEN": token} for path in _token_files() if (token := _token_in(path))}
    if "KAGGLE_KEY" in pair:
        tokens["KAGGLE_KEY"] = pair
    for path in _json_files():
        content = _secrets_in(path)
        if "key" in content:
            tokens[str(path)] = {f"KAGGLE_{k.upper()}": content[k] for k in ("username", "key") if k in content} | pair
        elif "refresh_token" in content:
            tokens[str(path)] = {}
    return tokens


def require_token() -> None:
    """Refuse to go on where no place holds a token. Raises `InputError`, with where one comes from."""
    if not found():
        raise InputError(f"no Kaggle token is there; {how_to()}")


def username() -> str:
    """Whose token it is, where the environment or a JSON file says so; empty where there is only a token."""
    known = [_secrets_in(path).get("username", "") for path in _json_files()]
    return next(filter(None, [os.environ.get("KAGGLE_USERNAME", ""), *known]), "")


def secrets() -> list[str]:
    """Every value that must not be printed, longest first, also as the client's debug output spells it (Basic user:key)."""
    named, content = os.environ.get("KAGGLE_API_TOKEN", ""), [_secrets_in(path) for path in _json_files()]
    users = {os.environ.get("KAGGLE_USERNAME", ""), *(each.pop("username", "") for each in content)}
    keys = {os.environ.get("KAGGLE_KEY", ""), *(value for each in content for value in each.values())}
    tokens = {named, *map(_token_in, [_named_file(named), *_token_files()])}
    basic = {base64.b64encode(f"{user}:{key}".encode()).decode() for user in users for key in keys if key}
    return sorted((value for value in tokens | keys | basic if len(value) >= SHORTEST), key=len, reverse=True)


def redacted(text: str, hidden: list[str]) -> str:
    """`text` with every secret replaced by `***`."""
    for value in hidden:
        text = text.replace(value, "***")
    return text


def _named_file(named: str) -> Path:
    """The file that KAGGLE_API_TOKEN names where it names one; a token is not quoted by an error about its path."""
    try:
        return user_path(named)
    except PathError:
        return Path(named)


def _text(content: bytes) -> str:
    """UTF-8, or UTF-16 and UTF-32 where a byte-order mark says so; the mark is no part of it."""
    return content.decode(json.detect_encoding(content))


INSTALLED = Path(".venv-kaggle/bin/kaggle")  # where make puts it
SILENCE_SECONDS = 900.0  # without a word; the client's own read timeout is 300, and it tries again by itself
SUBMISSIONS_LISTED = 100  # at once; five a day are allowed
VERBOSE = ("VERBOSE", "VERBOSE_OUTPUT")  # either makes the client print its request headers, token and all
LINES_SHOWN = 3  # of the client, where nothing in its words is recognised

SUBMISSIONS_PAGE = "https://www.kaggle.com/c/{slug}/submissions"
NO_TOKEN = r"authentication required|could not find kaggle\.json|missing (username|key) in configuration"
REFUSED_TOKEN = r"\b401\b.{0,3}(client error|unauthorized)|^unauthorized|unauthenticated|invalid credentials"
QUOTED = "; its words: {said}"
AGAIN = "run the same command again: it resumes"
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
     "Kaggle itself is in trouble (a 5xx answer); run the same command again later: it resumes"),
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
        """Fetch the competition's archive as `<folder>/<slug>.zip`; the client resumes where a killed one stopped."""
        self._run("download", "-p", str(folder.absolute()))

    def submit(self, file: Path, message: str) -> None:
        """Upload; that nothing is raised does not mean that it arrived."""
        words = self._run("submit", "-f", str(file.absolute()), "-m", message)
        if "could not submit" in words.lower() or "could not find" in words.lower():
            raise InputError(f"{self.slug}: {failure(words, self.slug, True)}")

    def submissions(self) -> list[Submission]:
        """The newest submissions, newest first."""
        return parse_submissions(self._run("submissions", "--csv", "--page-size", str(SUBMISSIONS_LISTED)))

    def _run(self, command: str, *options: str) -> str:
        """All that the client said but its progress bars, redacted; bars are shown on a terminal, retries always."""
        hidden, words = secrets(), []
        with _start([find_client(self.command), "competitions", command, self.slug, *options], self.lock) as process:
            try:
                for raw in _lines(process.stdout, self.silence_seconds):
                    line = redacted(raw, hidden)
                    is_bar = re.search(r"\d%\|", line) is not None
                    if not is_bar:
                        words.append(line)
                    is_retry = command != "submissions" and re.search(r"resuming|retry", line, re.IGNORECASE)
                    if sys.stderr.isatty() if is_bar else is_retry:
                        print(line, end="", file=sys.stderr, flush=True)
            except BaseException:  # Ctrl-C too: a client left alone would resume writing
                process.kill()
                raise
        if process.returncode != 0:
            raise InputError(f"{self.slug}: {failure(''.join(words), self.slug, command == 'submit')}")
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
        if place := next(iter(found()), ""):
            return f"Kaggle refused the token in {place} (401; expired, withdrawn or mistyped); {how_to()}"
        return f"no Kaggle token is there; {how_to()}"
    lines = [" ".join(line.split()) for line in words.splitlines() if line.strip()]
    said = " | ".join(line[:300] for line in lines[-LINES_SHOWN:]) or "(none)"
    failures = (*FAILURES, (BAD_REQUEST, BAD_SUBMISSION if uploading else BAD_SLUG))
    known = next((sentence for pattern, sentence in failures if _says(pattern, words)), None)
    if known is None:
        return f"the client failed; its last words: {said}"
    return known.format(slug=slug, page=SUBMISSIONS_PAGE.format(slug=slug), said=said)


def _says(pattern: str, words: str) -> bool:
    return re.search(pattern, words, re.IGNORECASE | re.MULTILINE) is not None


def _start(command: list[str], lock: int | None) -> subprocess.Popen[bytes]:
    """The client with one stream for all it says; it cannot ask, and knows nothing of our own environment's packages."""
    environment = {k: v for k, v in os.environ.items() if k not in (*VERBOSE, "PYTHONPATH", "PYTHONHOME")}
    environment |= {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
    environment |= next(
        iter(found().values()), {}
    )  # the client reads no files with a byte-order mark, as Windows' editors write
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
