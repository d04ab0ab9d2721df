#!/usr/bin/env python3
"""Stands in for the official Kaggle client 2.2.4 (for 1.7.4.5, without a token, where `old` is there): words, exit statuses, files.

All of it was taken from those clients, run without a token, without a network, and against a local server that answered
with each status. The folder $STANDIN holds what Kaggle would hold: `archive.zip`, `submissions.json`, and `<command>.mode`
with a failure for that command. `calls.txt` collects the command lines.
"""

import base64
import csv
import itertools
import json
import os
import sys
import time
from pathlib import Path

REMOTE = Path(os.environ["STANDIN"])
HELP = """Authentication required to call the Kaggle API.

First, you will need a Kaggle account. You can sign up at
  https://www.kaggle.com/account/login

Recommended: log in with OAuth via a web-based authorization flow.
No token to manage; credentials are cached locally for you.
    kaggle auth login

If you'd rather not use OAuth, generate an API token at
  https://www.kaggle.com/settings/api  (click "Generate New Token" under "API")
and supply it to the CLI in one of these ways:

  Option A: Environment variable
    export KAGGLE_API_TOKEN=xxxxxxxxxxxxxx  # token copied from the settings UI

  Option B: API token file
    Save the token to ~/.kaggle/access_token"""
URL = "https://api.kaggle.com/v1/competitions.CompetitionApiService/"
UNREACHABLE = (
    "HTTPSConnectionPool(host='api.kaggle.com', port=443): Max retries exceeded with url: "
    '/v1/competitions.CompetitionApiService/DownloadDataFiles (Caused by NameResolutionError("HTTPSConnection('
    "host='api.kaggle.com', port=443): Failed to resolve 'api.kaggle.com' ([Errno -2] Name or service not known)\"))"
)
ON_STDERR = {
    "rules": "You must accept this competition's rules before you'll be able to download files.",
    "bare403": f"403 Client Error: Forbidden for url: {URL}DownloadDataFiles",
    "denied": "Permission 'competitions.participate' was denied",
    "404": f"404 Client Error: Not Found for url: {URL}DownloadDataFiles",
    "notfound": "Not found",
    "400": "Bad Request",
    "bare400": f"400 Client Error: Bad Request for url: {URL}StartSubmissionUpload",
    "429": f"429 Client Error: Too Many Requests for url: {URL}ListSubmissions",
    "503": f"503 Server Error: Service Unavailable for url: {URL}ListSubmissions",
    "network": UNREACHABLE,
    "full": "[Errno 28] No space left on device",
    "daily": "Submission not allowed:  Your team has used its daily Submission allowance (5) today, please try again "
    "tomorrow UTC (9.3 hours from now).",
    "closed": "Submission not allowed: the deadline for this competition has passed.",
    "strange": "first\nsecond\nthird\nlast words",
    "six": "Traceback (most recent call last):\nModuleNotFoundError: No module named 'six'",
    "introspect": "Traceback (most recent call last):\nrequests.exceptions.HTTPError: Unauthenticated",
}


def note(line: str) -> None:
    with (REMOTE / "calls.txt").open("a") as file:
        file.write(line + "\n")


def mode(verb: str) -> str:
    path = REMOTE / f"{verb}.mode"
    return path.read_text() if path.is_file() else ""


def authenticate() -> None:
    home = Path.home() / ".kaggle"
    files = [home / "access_token", home / "kaggle.json"]
    if os.environ.get("KAGGLE_API_TOKEN") or any(file.is_file() for file in files):
        return
    if os.environ.get("KAGGLE_USERNAME") and os.environ.get("KAGGLE_KEY"):
        return
    if (REMOTE / "old").exists():
        folder = Path.home() / ".config" / "kaggle"
        sys.exit(
            f"OSError: Could not find kaggle.json. Make sure it's located in {folder}. Or use the environment method."
        )
    print(HELP)
    print(HELP)  # 2.2.4 says it once on import and once more
    sys.exit(1)


def fail(kind: str) -> None:
    """Leave as the client does on each failure."""
    if kind == "401":
        print(HELP)
        sys.exit(1)
    if kind == "echo":  # what its debug output holds
        secret = os.environ.get("KAGGLE_API_TOKEN", "")
        user, key = os.environ.get("KAGGLE_USERNAME", ""), os.environ.get("KAGGLE_KEY", "")
        path = Path.home() / ".kaggle" / "kaggle.json"
        if path.is_file():
            user, key = (json.loads(path.read_text())[name] for name in ("username", "key"))
        print(
            f"Authorization: Bearer {secret}\nAuthorization: Basic {base64.b64encode(f'{user}:{key}'.encode()).decode()}"
        )
        print(f"retry {secret} {key}", file=sys.stderr)
        sys.exit(1)
    if kind == "hang":
        time.sleep(60)
    if kind in ON_STDERR:
        print(ON_STDERR[kind], file=sys.stderr)
        sys.exit(1)


def bar(done: int, total: int) -> None:
    print(f"\r{100 * done // total:3d}%|{'#' * 10}| {done}/{total} [00:00<00:00]", end="", file=sys.stderr, flush=True)


def download(slug: str, folder: Path) -> None:
    """Goes on from a partial file if its note fits; a whole file that is newer is skipped; the note goes at the end."""
    fail(mode("download"))
    source, path = REMOTE / "archive.zip", folder / f"{slug}.zip"
    marker, whole = path.with_name(f"{path.name}.kaggle-partial"), source.read_bytes()
    if path.is_file() and path.stat().st_size == len(whole):
        print(f"{path.name}: Skipping, found more recently modified local copy (use --force to force download)")
        return
    start = path.stat().st_size if path.is_file() and marker.is_file() else 0
    note(f"from {start}")
    print(
        f"Resuming from {start} bytes ({len(whole) - start} bytes left)..."
        if start
        else f"Downloading {path.name} to {folder}"
    )
    marker.write_text(json.dumps({"validator": '"abc"', "size": len(whole)}))
    with path.open("ab" if start else "wb") as file:
        for at in range(start, len(whole), 50_000):
            file.write(whole[at : at + 50_000])
            file.flush()
            bar(file.tell(), len(whole))
            time.sleep(float(os.environ.get("STANDIN_SLOW", "0")))
    print()
    marker.unlink()


def submissions() -> list[dict[str, str]]:
    path = REMOTE / "submissions.json"
    return json.loads(path.read_text()) if path.is_file() else []


def keep(rows: list[dict[str, str]]) -> None:
    partial = REMOTE / ".submissions.json"
    partial.write_text(json.dumps(rows))
    partial.replace(REMOTE / "submissions.json")


def submit(file: Path, message: str) -> None:
    kind = mode("submit")
    fail(kind)
    bar(file.stat().st_size, file.stat().st_size)
    print(file=sys.stderr)
    if kind == "lost":  # 2.2.4 ends with 0
        print("Could not submit to competition", end="")
        return
    keep([{"fileName": file.name, "description": message, "looks": "0"}, *submissions()])
    if kind == "slow":
        time.sleep(60)
    print("4 submissions remaining today.")
    print("Successfully submitted to State Farm Distracted Driver Detection", end="")


def listed() -> None:
    """Pending for two looks, then complete or, in mode `error`, in error; mode `lag` hides the newest for two looks."""
    kind = mode("submissions")
    fail(kind)
    rows = [dict(row, looks=str(int(row["looks"]) + 1)) for row in submissions()]
    keep(rows)
    if kind == "lag":
        rows = [row for row in rows if int(row["looks"]) > 2]
    if not rows:
        print("No submissions found")
        return
    if kind == "warn":
        print(
            "Warning: Looks like you're using an outdated `kaggle` version (installed: 2.2.4), please consider upgrading"
        )
    writer = csv.writer(sys.stdout)
    writer.writerow(["ref", "fileName", "date", "description", "status", "publicScore", "privateScore"])
    for number, row in enumerate(rows):
        ended = int(row["looks"]) > 2 and kind != "pending"
        name = ("ERROR" if kind == "error" else "COMPLETE") if ended else "PENDING"
        scores = ["0.25001", "0.26002"] if name == "COMPLETE" else ["", ""]
        cells = [row["fileName"], "2026-11-21 10:00:00.123000", row["description"], f"SubmissionStatus.{name}", *scores]
        writer.writerow([str(5000 - number), *cells])


def main() -> None:
    group, verb, slug, *rest = sys.argv[1:]
    note(" ".join(sys.argv[1:]) + (" verbose" if os.environ.get("VERBOSE") else ""))
    authenticate()
    option = {key: value for key, value in itertools.pairwise(rest) if key in ("-p", "-f", "-m")}
    if group != "competitions" or slug != "state-farm-distracted-driver-detection":
        fail("404")
    if verb == "download":
        download(slug, Path(option["-p"]))
    elif verb == "submit":
        submit(Path(option["-f"]), option["-m"])
    else:
        listed()


if __name__ == "__main__":
    main()
