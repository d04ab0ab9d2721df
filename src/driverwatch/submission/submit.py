"""From a submission file to its score in the ledger, uploaded once however often the command is killed."""

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from driverwatch.artifacts import digest_of_file, read_json
from driverwatch.data import competition
from driverwatch.errors import InputError
from driverwatch.steps.context import Context
from driverwatch.submission import kaggle_credentials as credentials
from driverwatch.submission import kaggle_failures as failures
from driverwatch.submission import ledger, validate
from driverwatch.submission.download import slug_of
from driverwatch.submission.kaggle_client import Client, Remote
from driverwatch.terminal import say
from driverwatch.writing import locked, write_text

LARGEST = 200_000_000  # bytes; 79,726 rows of ten probabilities take 8 MB
LONGEST = 200  # characters of a message; the client has no limit of its own, and Kaggle's is not documented
LOOKS = 3  # at Kaggle's list, after a kill during an upload, before it is taken for lost


@dataclass(frozen=True)
class Patience:
    every: float  # seconds between two looks at Kaggle's list
    limit: float  # seconds until the command gives up waiting (the submission stays)


@dataclass(frozen=True)
class _Upload:
    file: Path
    digest: str
    message: str  # with the tag that finds it again
    tag: str
    note: Path  # is there from just before the upload until the ledger has the score


def submit(context: Context, file: Path, message: str, command: str, patience: Patience, force: bool) -> None:
    """Check a file again, upload it, wait for its score, and append that to the ledger.

    The message ends with a tag made of the file's digest. A command that is run again finds the upload by it in
    Kaggle's list and only waits.

    Raises:
        InputError: a file or message that will not do, a file that is in the ledger (without `force`), whatever stops
            the client, or a submission that Kaggle could not score.
    """
    slug = slug_of(context)
    path = context.places.submissions.parent / "ledger.csv"
    digest = _checked(context, file)
    with locked(path.parent, ".ledger.lock") as lock:
        upload = _tagged(context, file, digest, _plain(message), ledger.read(path), force)
        client = Client(command, slug, lock)
        if not _is_up(client, upload, patience):
            _send(client, upload)
        remote = _waited(client, upload, patience)
        ledger.append(path, _entry(context, upload, remote))
        upload.note.unlink(missing_ok=True)
    if remote.status == "error":
        raise InputError(f"{file}: Kaggle could not score it; the reason stands at {failures.LIST.format(slug=slug)}")
    say(f"{file}: public {remote.public or '-'}, private {remote.private or '-'}; noted in {path}")


def _checked(context: Context, file: Path) -> str:
    """The digest of a file that passes every check, and that did not change meanwhile."""
    if not file.is_file() or file.suffix != ".csv":
        raise InputError(f"FILE={file}: expected a submission, <name>.csv")
    if file.stat().st_size > LARGEST:
        raise InputError(f"FILE={file}: expected at most {LARGEST // 10**6} MB, got {file.stat().st_size // 10**6} MB")
    digest, settings = digest_of_file(file), context.settings
    names = competition.read_sample_submission(settings, context.data)
    if settings.expected is not None and len(names) != settings.expected.test:
        raise InputError(
            f"{context.data / settings.sample_submission}: expected {settings.expected.test:,} images, got "
            f"{len(names):,}; fetch the data again with make data"
        )
    validate.check_submission(file, names, [settings.columns.image, *settings.classes])
    if digest_of_file(file) != digest:
        raise InputError(f"{file}: changed while it was checked; run the same command when it is finished")
    return digest


def _plain(message: str) -> str:
    """A message that is one line, no option, no formula, and no secret."""
    if not re.fullmatch(r"\w[^\x00-\x1f\x7f-\x9f\u2028\u2029]*", message) or len(message) > LONGEST:
        raise InputError(
            f"MESSAGE: expected one line of at most {LONGEST} characters that begins with a letter or digit, "
            f"got {len(message)} characters"
        )
    if credentials.redacted(message, credentials.secrets()) != message:
        raise InputError("MESSAGE: holds your Kaggle token; leave it out, and withdraw the token if others saw it")
    return message.strip()


def _tagged(
    context: Context, file: Path, digest: str, message: str, entries: list[ledger.Entry], force: bool
) -> _Upload:
    """The upload that this command is about; with `force` the next one of the same file."""
    before = [entry for entry in entries if (entry.dataset, entry.sha256) == (context.dataset, digest)]
    if before and not force:
        last = before[-1]
        raise InputError(
            f"{file}: was submitted on {last.when} as {last.message!r} ({last.status}, public {last.public or '-'}, "
            f"private {last.private or '-'}); FORCE=1 submits it once more"
        )
    tag = f"[driverwatch {digest[:12]}{f' {len(before) + 1}' if before else ''}]"
    name = f".uploading-{context.dataset}-{digest[:12]}-{len(before) + 1}"
    return _Upload(file, digest, f"{message} {tag}", tag, context.places.submissions.parent / name)


def _is_up(client: Client, upload: _Upload, patience: Patience) -> bool:
    """Whether Kaggle lists the upload; after a broken one look several times, since its list may lag behind."""
    if _listed(client, upload):
        say(f"{upload.file}: is up already; waiting for its score")
        return True
    for _ in range(LOOKS - 1 if upload.note.exists() else 0):
        time.sleep(patience.every)
        if _listed(client, upload):
            return True
    return False


def _send(client: Client, upload: _Upload) -> None:
    write_text(upload.note, f"{upload.message}\n")
    say(f"{upload.file}: uploading as {upload.message!r}")
    client.submit(upload.file, upload.message)


def _waited(client: Client, upload: _Upload, patience: Patience) -> Remote:
    """The submission once it is scored or refused."""
    start = time.monotonic()
    while True:
        remote = _listed(client, upload)
        if remote and remote.status in ("complete", "error"):
            return remote
        if time.monotonic() - start + patience.every > patience.limit:
            state = "is not scored yet" if remote else "is not in Kaggle's list yet"
            raise InputError(
                f"{upload.file}: {state} after {patience.limit:g} s; the same command goes on waiting and does not upload "
                f"twice (see {failures.LIST.format(slug=client.slug)})"
            )
        time.sleep(patience.every)


def _listed(client: Client, upload: _Upload) -> Remote | None:
    return next((remote for remote in client.submissions() if upload.tag in remote.message), None)


def _entry(context: Context, upload: _Upload, remote: Remote) -> ledger.Entry:
    """The ledger's line; what the manifest beside the file says counts only if it is of this very file."""
    manifest = upload.file.with_suffix(".json")
    made = read_json(manifest) if manifest.is_file() else {}
    made = made if made.get("submission") == upload.digest else {}
    when = datetime.now(UTC).isoformat(timespec="seconds")
    facts = [str(made.get(key) or "") for key in ("out_of_fold_log_loss", "commit")]
    names = (when, context.dataset, upload.file.as_posix(), upload.digest, upload.message)
    return ledger.Entry(*names, remote.status, remote.public, remote.private, *facts)
