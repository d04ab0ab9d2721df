"""Fetching and submitting against a stand-in that behaves like the official client (`standin_kaggle.py`)."""

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from support.places import ROOT
from support.project import Verb

from driverwatch.data.competition import read_sample_submission
from driverwatch.data.context import Context, open_context
from driverwatch.errors import InputError
from driverwatch.io import atomic
from driverwatch.io.atomic import write_json
from driverwatch.io.manifests import checksum_of_file
from driverwatch.submission.download import download_competition
from driverwatch.submission.kaggle_client import Client, parse_submissions
from driverwatch.submission.submit import Entry, Wait, append_entry, read_ledger, submit

STANDIN = str(ROOT / "tests" / "support" / "standin_kaggle.py")
SLUG = "state-farm-distracted-driver-detection"
TOKEN, KEY = "KGAT_0a1b2c3d4e5f", "fedcba9876543210"
QUICK = Wait(poll_seconds=0.02, limit_seconds=20)


@pytest.fixture(autouse=True)
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What Kaggle holds; a home without a token, and a token in the environment."""
    folder = tmp_path / "remote"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith(("KAGGLE", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("STANDIN", str(folder))
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    return folder


@pytest.fixture
def context(project: Path, data: Path, remote: Path) -> Context:
    """A synthetic competition that Kaggle has under the real slug, and that is not here yet."""
    settings = (project / "configs/datasets/demo.yaml").read_text().replace("test_labels: test_labels.csv\n", "")
    settings += f"slug: {SLUG}\nexpected: {{train: 120, test: 40, gigabytes: 0.001}}\n"
    (project / "configs/datasets/there.yaml").write_text(settings.replace("build/demo/data", "data/there"))
    with zipfile.ZipFile(remote / "archive.zip", "w") as archive:
        for path in sorted(data.rglob("*")):
            archive.write(path, path.relative_to(data))
    return open_context("there", None)


def calls(remote: Path, verb: str) -> int:
    path = remote / "calls.txt"
    return sum(f"competitions {verb} " in line for line in path.read_text().splitlines()) if path.is_file() else 0


Spoken = pytest.CaptureFixture[str]


def test_the_competition_arrives_whole_and_once(context: Context, remote: Path, capsys: Spoken) -> None:
    context.data.mkdir(parents=True)  # an empty folder is not in the way
    download_competition(context, STANDIN)
    assert "data/there: 120 labelled and 40 test images" in capsys.readouterr().out
    assert sorted(p.name for p in Path("data").iterdir()) == [".there.lock", "there"]
    download_competition(context, STANDIN)
    assert "up to date" in capsys.readouterr().out
    assert calls(remote, "download") == 1


def test_other_counts_are_refused_and_nothing_takes_the_folders_place(context: Context) -> None:
    expected = context.settings.expected
    assert expected is not None
    more = replace(
        context, settings=context.settings.model_copy(update={"expected": expected.model_copy(update={"test": 41})})
    )
    with pytest.raises(
        InputError, match=r"expected 120 labelled and 41 test images, got 120 and 40; remove .*there\.download"
    ):
        download_competition(more, STANDIN)
    assert not context.data.exists()
    download_competition(context, STANDIN)
    next(context.data.rglob("*.jpg")).unlink()
    with pytest.raises(InputError, match=r"1 problem; .*no whole competition; move it away(.|\n)*missing file"):
        download_competition(context, STANDIN)


def test_a_token_is_asked_for_only_where_kaggle_is(
    context: Context, remote: Path, verb: Verb, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the client is installed; what is here already needs neither."""
    asked = ["data", "--dataset", "there", "--dry-run"]
    assert verb(*asked).returncode == 0
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    refused = verb(*asked)
    assert (refused.returncode, "no Kaggle token is there; make one at" in refused.stderr) == (2, True)
    assert not context.data.exists()
    folder = context.data.with_name("there.download")
    folder.mkdir(parents=True)
    shutil.copyfile(remote / "archive.zip", folder / f"{SLUG}.zip")
    assert verb(*asked).returncode == 0
    download_competition(context, "/no/client/needed")
    assert verb(*asked).returncode == 0
    assert calls(remote, "download") == 0


def started(*arguments: str, **environment: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "driverwatch", *arguments, "--dataset", "there", "--client", STANDIN]
    return subprocess.Popen(
        command, env={**os.environ, **environment}, start_new_session=True, stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )  # fmt: skip


def until(process: "subprocess.Popen[bytes]", ready: Callable[[], bool]) -> None:
    """Wait for a moment in a running command, at most half a minute."""
    end = time.monotonic() + 30
    while not ready() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    assert ready()
    assert process.poll() is None


def killed_once(process: "subprocess.Popen[bytes]", ready: Callable[[], bool]) -> None:
    """Kill a command and all that it started as soon as `ready`."""
    until(process, ready)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_killed_download_resumes_where_it_was(context: Context, remote: Path) -> None:
    path = Path(f"data/there.download/{SLUG}.zip")
    killed_once(started("data", STANDIN_SLOW="0.2"), lambda: path.is_file() and path.stat().st_size >= 50_000)
    assert not context.data.exists()
    assert path.with_name(f"{path.name}.kaggle-partial").is_file()
    download_competition(context, STANDIN)
    starts = [
        int(line.split()[1]) for line in (remote / "calls.txt").read_text().splitlines() if line.startswith("from ")
    ]
    assert len(starts) == 2
    assert starts[1] >= 50_000


def test_ctrl_c_ends_the_client_too_and_says_how_to_resume(context: Context, remote: Path) -> None:
    process = started("data", STANDIN_SLOW="0.2")
    until(process, lambda: calls(remote, "download") > 0)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait() == 130
    download_competition(context, STANDIN)  # nobody holds the lock any more


def test_a_killed_unpacking_resumes_without_the_client(
    context: Context, remote: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import os, signal\nfrom driverwatch.submission import download\nfrom driverwatch.data.context import open_context\n"
        "from driverwatch.submission.download import download_competition\nwrite, count = download._write, iter(range(99))\n"
        "download._write = lambda *a: (write(*a), next(count) == 30 and os.kill(os.getpid(), signal.SIGKILL))\n"
        f"download_competition(open_context('there', None), {STANDIN!r})"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    there = [p for p in Path("data/there.download/data").rglob("*") if p.is_file()]
    assert len(there) == 31
    before = {p.relative_to("data/there.download/data"): p.stat().st_ino for p in there}
    download_competition(context, "/no/client/needed")
    assert all((context.data / path).stat().st_ino == inode for path, inode in before.items())
    assert calls(remote, "download") == 1


def test_two_at_once_do_not_both_write(context: Context, remote: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "PATIENCE", 0.0)
    first = started("data", STANDIN_SLOW="0.3")
    until(first, lambda: calls(remote, "download") > 0)
    with pytest.raises(InputError, match="another command is writing here"):
        download_competition(context, STANDIN)
    os.kill(first.pid, signal.SIGKILL)  # its client outlives it for a moment and holds the lock
    first.wait()
    with pytest.raises(InputError, match="another command is writing here"):
        download_competition(context, STANDIN)
    os.killpg(first.pid, signal.SIGKILL)


def test_what_cannot_be_fetched_is_said_before_the_client_starts(
    context: Context, remote: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(".")
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2_000_000))
        with pytest.raises(
            InputError, match=r"the download and its unpacking needs 0\.0 GB and a tenth, but only 0\.0 GB"
        ):
            download_competition(context, STANDIN)
    for dataset, said in (("statefarm_mini", "make subset SOURCE="), ("demo", "names no competition")):
        with pytest.raises(InputError, match=said):
            download_competition(open_context(dataset, None), STANDIN)
    Path("file").write_text("in the way")
    for data, said in (("file", "is a file"), ("file/there", "cannot be written")):
        with pytest.raises(InputError, match=said):
            download_competition(open_context("there", Path(data)), STANDIN)
    assert calls(remote, "download") == 0


FAILURES = {
    "401": r"Kaggle refused the token in KAGGLE_API_TOKEN \(401; .*https://www.kaggle.com/settings",
    "introspect": "Kaggle refused the token in KAGGLE_API_TOKEN",
    "rules": f"has not accepted the rules; accept them at https://www.kaggle.com/c/{SLUG}/rules",
    "bare403": f"accept them at https://www.kaggle.com/c/{SLUG}/rules .*its words: 403 Client Error",
    "denied": "this account may not .403.: most likely it has not accepted the rules",
    "404": f"Kaggle knows no competition {SLUG} .404.*fix slug:",
    "notfound": "Kaggle knows no competition",
    "400": r"Kaggle refused the request \(400\)",
    "429": "fewer requests",
    "503": "Kaggle itself is in trouble",
    "network": "could not reach Kaggle .no network.*the same command again: it resumes",
    "full": "the disk is full",
    "strange": r"its last words: second \| third \| last words$",
    "six": "the client itself is broken; remove .venv-kaggle",
}


@pytest.mark.parametrize("kind", FAILURES)
def test_each_failure_of_a_download_is_one_sentence(kind: str, remote: Path, tmp_path: Path) -> None:
    (remote / "download.mode").write_text(kind)
    with pytest.raises(InputError, match=FAILURES[kind]) as caught:
        Client(STANDIN, SLUG).download(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("400", r"refused the submission \(400\): likely the file is not this competition's, .*its words: Bad Request"),
        ("bare400", f"likely the file is not .*https://www.kaggle.com/c/{SLUG}/submissions"),
        ("daily", "today's submissions are used up"),
        ("closed", "takes no submissions any more"),
        ("lost", "the upload did not arrive"),
        ("bare403", "accept them at"),
    ],
)
def test_each_failure_of_an_upload_is_one_sentence(kind: str, said: str, remote: Path, tmp_path: Path) -> None:
    (remote / "submit.mode").write_text(kind)
    (tmp_path / "a.csv").write_text("x")
    with pytest.raises(InputError, match=said):
        Client(STANDIN, SLUG).submit(tmp_path / "a.csv", "m")


@pytest.mark.parametrize("old", [False, True])
def test_no_token_names_both_places(old: bool, remote: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    if old:
        (remote / "old").touch()
    with pytest.raises(
        InputError, match=r"no Kaggle token is there; .*variable KAGGLE_API_TOKEN or .*/\.kaggle/access_token"
    ):
        Client(STANDIN, SLUG).download(tmp_path)


def test_a_client_that_is_missing_broken_or_silent_is_one_sentence(remote: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").touch(mode=0o755)
    (tmp_path / "bad").write_text("#!/no/such/interpreter\n")
    (tmp_path / "bad").chmod(0o755)
    (remote / "download.mode").write_text("hang")
    start = time.monotonic()
    for command, said in (
        ("/no/such", "KAGGLE=/no/such: no such client"),
        (str(tmp_path / "bad"), "cannot be started"),
        (STANDIN, "said nothing for 0.5 s"),
    ):
        with pytest.raises(InputError, match=said):
            Client(command, SLUG, silence_seconds=0.5).download(tmp_path)
    assert time.monotonic() - start < 30  # it was stopped: by itself it ends after a minute


def test_a_client_that_brings_no_zip_is_one_sentence(context: Context, remote: Path) -> None:
    (remote / "archive.zip").write_text("<html>")
    with pytest.raises(InputError, match=r"expected a whole zip from the client, got none; remove .*there\.download"):
        download_competition(context, STANDIN)


def test_tokens_are_never_shown_or_written(
    verb: Verb, context: Context, remote: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home" / ".kaggle"
    home.mkdir(parents=True)
    (home / "kaggle.json").write_text(json.dumps({"username": "someone", "key": KEY}))
    (remote / "download.mode").write_text("echo")
    monkeypatch.setenv("DEBUG", "1")
    monkeypatch.setenv("VERBOSE", "1")
    made = verb("data", "--dataset", "there", "--client", STANDIN)
    assert made.returncode == 2
    assert "Authorization: Basic ***" in made.stderr
    assert "verbose" not in (remote / "calls.txt").read_text()
    hidden = [TOKEN, KEY, base64.b64encode(f"someone:{KEY}".encode()).decode()]
    written = [p for p in tmp_path.rglob("*") if p.is_file() and home not in p.parents]
    for text in (made.stdout, made.stderr, *(p.read_bytes().decode(errors="replace") for p in written)):
        assert not any(secret in text for secret in hidden)


@pytest.fixture
def file(context: Context, data: Path, project: Path) -> Path:
    """A submission that fits, with the manifest that make ensemble writes beside it."""
    shutil.copytree(data, context.data)
    names = read_sample_submission(context.settings, context.data)
    frame = pd.DataFrame(0.1, index=range(len(names)), columns=list(context.settings.classes))
    frame.insert(0, "img", names)
    path = Path("submissions/there/first.csv")
    path.parent.mkdir(parents=True)
    frame.to_csv(path, index=False)
    write_json(
        path.with_suffix(".json"), {"submission": checksum_of_file(path), "out_of_fold_log_loss": 0.5, "commit": "abc"}
    )
    return path


def send(context: Context, file: Path, patience: Wait = QUICK, force: bool = False, message: str = "first try") -> None:
    submit(context, file, message, STANDIN, patience, force)


LEDGER = Path("submissions/ledger.csv")


def test_a_submission_waits_for_its_score_and_is_noted(
    context: Context, file: Path, remote: Path, capsys: Spoken
) -> None:
    send(context, file)
    assert "public 0.25001, private 0.26002" in capsys.readouterr().out
    (entry,) = read_ledger(LEDGER)
    tag = f"first try [driverwatch {checksum_of_file(file)[:12]}]"
    assert (entry.dataset, entry.file, entry.message, entry.status) == ("there", file.as_posix(), tag, "complete")
    assert (entry.public, entry.private, entry.out_of_fold, entry.commit) == ("0.25001", "0.26002", "0.5", "abc")
    assert calls(remote, "submissions") == 4  # nothing there, pending, pending, complete
    assert not list(LEDGER.parent.glob(".uploading-*"))
    with pytest.raises(InputError, match=r"was submitted on .*\(complete, public 0\.25001.*FORCE=1"):
        send(context, file)
    send(context, file, force=True)
    assert calls(remote, "submit") == 2
    assert [e.message for e in read_ledger(LEDGER)] == [tag, f"{tag[:-1]} 2]"]


def test_a_submission_that_cannot_be_scored_is_noted_and_said(context: Context, file: Path, remote: Path) -> None:
    (remote / "submissions.mode").write_text("error")
    write_json(file.with_suffix(".json"), {"submission": "another file's", "out_of_fold_log_loss": 0.1})
    with pytest.raises(InputError, match=f"could not score it; the reason stands at .*{SLUG}/submissions"):
        send(context, file)
    assert [(entry.status, entry.out_of_fold) for entry in read_ledger(LEDGER)] == [("error", "")]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["warn", "lag"])
def test_warnings_and_a_late_list_do_no_harm(context: Context, file: Path, remote: Path, kind: str) -> None:
    (remote / "submissions.mode").write_text(kind)
    send(context, file)
    assert [entry.public for entry in read_ledger(LEDGER)] == ["0.25001"]


def test_giving_up_waiting_uploads_once(context: Context, file: Path, remote: Path) -> None:
    (remote / "submissions.mode").write_text("pending")
    for _ in range(2):
        with pytest.raises(InputError, match=r"not scored yet after 0\.1 s; the same command resumes waiting"):
            send(context, file, Wait(0.02, 0.1))
    (remote / "submissions.mode").unlink()
    send(context, file)
    assert calls(remote, "submit") == 1
    assert len(read_ledger(LEDGER)) == 1


def test_a_kill_between_upload_and_ledger_uploads_once(context: Context, file: Path, remote: Path) -> None:
    (remote / "submit.mode").write_text("slow")
    there = remote / "submissions.json"
    killed_once(
        started("submit", str(file), "--message", "first try"),
        lambda: there.is_file() and "first try" in there.read_text(),
    )
    assert read_ledger(LEDGER) == []
    (remote / "submit.mode").unlink()
    (remote / "submissions.mode").write_text("lag")  # and Kaggle's list is late, too
    send(context, file)
    assert calls(remote, "submit") == 1
    assert [entry.status for entry in read_ledger(LEDGER)] == ["complete"]


@pytest.mark.slow
def test_an_upload_that_was_lost_is_sent_again(context: Context, file: Path, remote: Path) -> None:
    (remote / "submit.mode").write_text("lost")
    with pytest.raises(InputError, match="did not arrive"):
        send(context, file)
    (remote / "submit.mode").unlink()
    send(context, file)
    assert len(json.loads((remote / "submissions.json").read_text())) == 1


@pytest.mark.parametrize(
    "message", ["", "=cmd()", "-m", "two\nlines", "x" * 201, "a\x1b[31m", f"my token is {TOKEN}", " a"]
)
def test_messages_that_would_do_harm_are_refused(context: Context, file: Path, remote: Path, message: str) -> None:
    with pytest.raises(InputError, match="MESSAGE: ") as caught:
        send(context, file, message=message)
    assert TOKEN not in str(caught.value)
    assert calls(remote, "submit") == 0


def test_files_that_are_no_submission_of_this_competition_are_refused(
    context: Context, file: Path, remote: Path
) -> None:
    lines = file.read_text().splitlines()
    Path("short.csv").write_text("\n".join(lines[:-1]) + "\n")
    Path("text.txt").write_text("x")
    for name, said in (
        ("short.csv", "40 images once each, got 39"),
        ("text.txt", "expected a submission"),
        ("no.csv", "FILE=no.csv: no such file; make ensemble DATASET=.* writes one"),
    ):
        with pytest.raises(InputError, match=said):
            send(context, Path(name))
    for dataset, said in (("demo", "names no competition"), ("statefarm_mini", "is a part of")):
        with pytest.raises(InputError, match=said):
            send(open_context(dataset, context.data), file)
    with pytest.raises(InputError, match="expected 79,726 images, got 40; fetch the data again"):
        send(open_context("statefarm", context.data), file)
    assert calls(remote, "submit") == 0


def test_the_ledger_keeps_formulas_apart_and_refuses_what_it_did_not_write(tmp_path: Path) -> None:
    path = tmp_path / "ledger.csv"
    entry = Entry("w", "d", "=cmd.csv", "s", 'a, "b"\nc', "complete", "-0.5", "", "", "")
    for _ in range(2):
        append_entry(path, entry)
    assert read_ledger(path) == [entry._replace(file="'=cmd.csv", message='a, "b" c')] * 2
    for invalid, said in (
        ("when,x\n", "expected the header"),
        (",".join(Entry._fields) + "\na,b\n", "row 2: expected 10 cells"),
    ):
        path.write_text(invalid)
        with pytest.raises(InputError, match=said):
            append_entry(path, entry)
        assert path.read_text() == invalid


def test_a_list_that_is_no_list_is_one_sentence() -> None:
    with pytest.raises(InputError, match="expected CSV with a header, got: 'gibberish'"):
        parse_submissions("gibberish")
