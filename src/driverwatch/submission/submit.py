"""`make submit`: from a submission file to its score in the ledger, uploaded once however often the command is killed.

The ledger is `submissions/ledger.csv`: one line per scored upload, for all data sets, appended whole or not at all.
"""

import csv
import io
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from driverwatch.data import competition
from driverwatch.data.context import Context, absent
from driverwatch.errors import InputError
from driverwatch.io.atomic import locked, write_text
from driverwatch.io.console import say
from driverwatch.io.manifests import checksum_of_file, read_json
from driverwatch.submission import kaggle_client
from driverwatch.submission.download import competition_slug
from driverwatch.submission.kaggle_client import SUBMISSIONS_PAGE, Client, Submission

MOST_BYTES = 200_000_000  # 79,726 lines of ten probabilities take 8 MB
MESSAGE_CHARACTERS = 200  # at most; the client has no limit of its own, and Kaggle's is not documented
LOOKS_AFTER_KILL = 3  # at Kaggle's list, after a kill during an upload, before it is taken for lost


class Entry(NamedTuple):
    """One upload and what came of it; the fields are the ledger's columns, in this order."""

    when: str  # UTC, ISO 8601, to the second
    dataset: str
    file: str
    sha256: str
    message: str
    status: str  # complete or error
    public: str
    private: str
    out_of_fold: str  # from the manifest beside the file, where it is that file's
    commit: str  # that made the file, from the same manifest


def read_ledger(path: Path) -> list[Entry]:
    """The lines of the ledger; none where there is no file.

    Raises:
        InputError: another header, or a line that is not whole.
    """
    if not path.is_file():
        return []
    try:
        rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: expected a UTF-8 CSV, got {error}; restore it (git checkout {path})") from error
    if rows[:1] != [list(Entry._fields)]:
        raise InputError(f"{path}: expected the header {','.join(Entry._fields)}; restore it (git checkout {path})")
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(Entry._fields):
            raise InputError(f"{path}: row {number}: expected {len(Entry._fields)} cells, got {len(row)}; fix the row")
    return [Entry(*row) for row in rows[1:]]


def append_entry(path: Path, entry: Entry) -> None:
    """Add a line; the caller holds the ledger's lock. After a kill the file is what it was, or complete with the line."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([Entry._fields, *read_ledger(path), map(_cell, entry)])
    write_text(path, text.getvalue())


def _cell(text: str) -> str:
    """Text that no spreadsheet takes for a formula and that stays on its line."""
    text = " ".join(text.split())
    return f"'{text}" if re.match(r"[=+@-]", text) and not re.fullmatch(r"-?\d+(\.\d+)?", text) else text


class Wait(NamedTuple):
    """How to wait for a score."""

    poll_seconds: float  # between two looks at Kaggle's list
    limit_seconds: float  # until the command gives up waiting (the submission stays)


@dataclass(frozen=True)
class _Upload:
    client: Client
    file: Path
    checksum: str
    message: str
    tag: str  # at the end of the message, finds the upload again
    note: Path  # is there from just before the upload until the ledger has the score

    def listed(self) -> Submission | None:
        """The upload as Kaggle lists it."""
        return next((each for each in self.client.submissions() if self.tag in each.message), None)


def submit(context: Context, file: Path, message: str, command: str, wait: Wait, force: bool) -> None:
    """Check a file again, upload it, wait for its score, and append that to the ledger.

    The message ends with a tag made of the file's checksum. A command that is run again finds the upload by it in
    Kaggle's list and only waits.

    Raises:
        InputError: a file or message that will not do, a file that is in the ledger (without `force`), whatever stops
            the client, or a submission that Kaggle could not score.
    """
    slug, path = competition_slug(context), context.places.submissions.parent / "ledger.csv"
    checksum = _checked(context, file)
    with locked(path.parent, ".ledger.lock") as lock:
        message = _plain(message)
        number = _number(context, file, checksum, read_ledger(path), force)
        tag = f"[driverwatch {checksum[:12]}{f' {number}' if number > 1 else ''}]"
        note = path.with_name(f".uploading-{context.dataset}-{checksum[:12]}-{number}")
        upload = _Upload(Client(command, slug, lock), file, checksum, f"{message} {tag}", tag, note)
        if _is_up(upload, wait):
            say(f"{file}: is up already; waiting for its score")
        else:
            write_text(note, f"{upload.message}\n")
            say(f"{file}: uploading as {upload.message!r}")
            upload.client.submit(file, upload.message)
        scored = _await_score(upload, wait)
        append_entry(path, _entry(context, upload, scored))
        note.unlink(missing_ok=True)
    if scored.status == "error":
        raise InputError(
            f"{file}: Kaggle could not score it; the reason stands at {SUBMISSIONS_PAGE.format(slug=slug)}"
        )
    say(f"{file}: public {scored.public or '-'}, private {scored.private or '-'}; noted in {path}")


def check_upload(context: Context, file: Path, message: str) -> None:
    """Refuse what `submit` would refuse before it needs the client, a missing token included: that takes no installation."""
    competition_slug(context)
    _checked(context, file)
    _plain(message)
    kaggle_client.require_token()
    say(f"{file}: fits {context.dataset}, and a Kaggle token is there")


def _checked(context: Context, file: Path) -> str:
    """The checksum of a file that passes every check, and that did not change meanwhile."""
    from driverwatch.submission.build import read_submission  # with pandas, which `make status` does without

    if not file.is_file():
        way = absent(context) or f"make ensemble DATASET={context.dataset} writes one"
        raise InputError(f"FILE={file}: no such file; {way}")
    if file.suffix != ".csv":
        raise InputError(f"FILE={file}: expected a submission, <name>.csv")
    if file.stat().st_size > MOST_BYTES:
        raise InputError(
            f"FILE={file}: expected at most {MOST_BYTES // 10**6} MB, got {file.stat().st_size // 10**6} MB"
        )
    if sentence := absent(context):
        raise InputError(sentence)
    checksum, settings = checksum_of_file(file), context.settings
    names = competition.read_sample_submission(settings, context.data)
    if settings.expected is not None and len(names) != settings.expected.test:
        raise InputError(
            f"{context.data / settings.sample_submission}: expected {settings.expected.test:,} images, got "
            f"{len(names):,}; fetch the data again with make data"
        )
    read_submission(file, names, [settings.columns.image, *settings.classes])
    if checksum_of_file(file) != checksum:
        raise InputError(f"{file}: changed while it was checked; run the same command when it is finished")
    return checksum


def _plain(message: str) -> str:
    """A message that is one line, no option, no formula, and no secret."""
    if not re.fullmatch(r"\w[^\x00-\x1f\x7f-\x9f\u2028\u2029]*", message) or len(message) > MESSAGE_CHARACTERS:
        raise InputError(
            f"MESSAGE: expected one line of at most {MESSAGE_CHARACTERS} characters that begins with a letter or digit, "
            f"got {len(message)} characters"
        )
    if kaggle_client.redacted(message, kaggle_client.secrets()) != message:
        raise InputError("MESSAGE: holds your Kaggle token; leave it out, and withdraw the token if others saw it")
    return message.strip()


def _number(context: Context, file: Path, checksum: str, entries: list[Entry], force: bool) -> int:
    """1, or with `force` one more than the uploads of the same file that are in the ledger."""
    before = [entry for entry in entries if (entry.dataset, entry.sha256) == (context.dataset, checksum)]
    if before and not force:
        last = before[-1]
        raise InputError(
            f"{file}: was submitted on {last.when} as {last.message!r} ({last.status}, public {last.public or '-'}, "
            f"private {last.private or '-'}); FORCE=1 submits it once more"
        )
    return len(before) + 1


def _is_up(upload: _Upload, wait: Wait) -> bool:
    """Whether Kaggle lists the upload; after a broken one look several times, since its list may lag behind."""
    for look in range(LOOKS_AFTER_KILL if upload.note.exists() else 1):
        time.sleep(wait.poll_seconds if look else 0)
        if upload.listed():
            return True
    return False


def _await_score(upload: _Upload, wait: Wait) -> Submission:
    """The submission once it is scored or refused."""
    start = time.monotonic()
    while True:
        found = upload.listed()
        if found and found.status in ("complete", "error"):
            return found
        if time.monotonic() - start + wait.poll_seconds > wait.limit_seconds:
            state = "is not scored yet" if found else "is not in Kaggle's list yet"
            raise InputError(
                f"{upload.file}: {state} after {wait.limit_seconds:g} s; the same command resumes waiting and does not upload "
                f"twice (see {SUBMISSIONS_PAGE.format(slug=upload.client.slug)})"
            )
        time.sleep(wait.poll_seconds)


def _entry(context: Context, upload: _Upload, scored: Submission) -> Entry:
    """The ledger's line; what the manifest beside the file says counts only if it is of this very file."""
    manifest = upload.file.with_suffix(".json")
    made = read_json(manifest) if manifest.is_file() else {}
    made = made if made.get("submission") == upload.checksum else {}
    when = datetime.now(UTC).isoformat(timespec="seconds")
    facts = [str(made.get(key) or "") for key in ("out_of_fold_log_loss", "commit")]
    names = (when, context.dataset, upload.file.as_posix(), upload.checksum, upload.message)
    return Entry(*names, scored.status, scored.public, scored.private, *facts)
