"""Printing fails no work: not for want of a sign, not on a closed, full or forsaken output."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")

SIGNS = "2.3 \u00b1 0.1 \u2192 \u2013 \u201cimg\u201d caf\u00e9 \u9a7e \U0001f697 \udcff"
WORK = f"""
import sys
from driverwatch.io.console import keep_printing, lost
from driverwatch.io.console import Meter, say, show_cursor
keep_printing()
keep_printing()
with open("made", "w", encoding="utf-8") as file:
    say({SIGNS!r})
    print({SIGNS!r}, file=sys.stderr)
    with Meter("caf\\u00e9", 2) as meter:
        meter.at(2)
    print("x" * 200_000)
    say("y")
    show_cursor()
    file.write("whole")
print("lost:", lost(), file=sys.stderr)
"""
ENCODINGS = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "ascii, strictly": {"PYTHONIOENCODING": "ascii:strict"},
    "C": {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "latin": {"PYTHONIOENCODING": "latin-1"},
    "Shift JIS": {"PYTHONIOENCODING": "shift_jis"},
    "UTF-8": {"PYTHONIOENCODING": "utf-8"},
    "UTF-8, unbuffered": {"PYTHONIOENCODING": "utf-8", "PYTHONUNBUFFERED": "1"},
}


def worked(folder: Path, redirection: str = "", **environment: str) -> "subprocess.CompletedProcess[bytes]":
    (folder / "work.py").write_text(WORK)
    command = f'set -o pipefail; "$PYTHON" work.py {redirection}'
    plain = {
        key: value for key, value in os.environ.items() if not key.startswith(("LANG", "LC_", "PYTHONIO", "PYTHONUTF8"))
    }
    made = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=plain | {"PYTHON": sys.executable} | environment,
        capture_output=True,
        check=False,
    )
    assert (folder / "made").read_text() == "whole", made.stderr.decode()
    return made


@pytest.mark.parametrize("environment", ENCODINGS.values(), ids=ENCODINGS)
def test_signs_that_an_encoding_lacks_are_escaped(tmp_path: Path, environment: dict[str, str]) -> None:
    made = worked(tmp_path, **environment)
    assert made.returncode == 0, made.stderr.decode()
    encoding = environment.get("PYTHONIOENCODING", "ascii").partition(":")[0]
    said = made.stdout.decode(encoding).splitlines()[0]
    assert said == SIGNS.encode(encoding, "backslashreplace").decode(encoding)
    assert b"lost: None" in made.stderr


@pytest.mark.parametrize(
    ("redirection", "said"),
    [(">&-", "None"), ("1</dev/null", "Bad file descriptor"), ("| head -1", "None"), ("| true", "None"),
         ("> /dev/full", "No space left on device"),
     ("<&- >&-", "None")],
)  # fmt: skip
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_output_that_takes_nothing(tmp_path: Path, redirection: str, said: str, unbuffered: str) -> None:
    made = worked(tmp_path, redirection, PYTHONUNBUFFERED=unbuffered)
    assert made.returncode == 0
    assert f"lost: {said}" in made.stderr.decode()
    assert b"Traceback" not in made.stderr and b"Exception ignored" not in made.stderr


@pytest.mark.parametrize(
    "redirection", ["2>&-", "2>/dev/full", ">&- 2>&-", "<&- >&- 2>&-", "&>/dev/full", "2>&1 | true"]
)
def test_an_error_output_that_takes_nothing(tmp_path: Path, redirection: str) -> None:
    assert worked(tmp_path, redirection).returncode == 0


def test_a_full_pipe_that_does_not_wait(tmp_path: Path) -> None:
    """What shares its end of a pipe may have made it non-blocking: all arrives all the same."""
    (tmp_path / "work.py").write_text(WORK)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with subprocess.Popen([sys.executable, "work.py"], cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE) as process:
        os.close(writer)
        with os.fdopen(reader, "rb") as file:
            said = file.read()
        assert process.wait() == 0
    assert said.count(b"x") == 200_000 and said.endswith(b"y\n")


def verb(project: Path, words: str, redirection: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = ["bash", "-c", f'set -o pipefail; "$PYTHON" -m driverwatch {words} {redirection}']
    return subprocess.run(
        command,
        cwd=project,
        env=os.environ | {"PYTHON": sys.executable} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("redirection", "status", "said"),
    [(">&-", 0, ""), ("| head -1", 0, ""), ("| true", 0, ""),
     ("> /dev/full", 2, "driverwatch: standard output: No space left on device; what was asked for is done, but not all that it "
                        "printed arrived\n")],
)  # fmt: skip
def test_a_command_does_its_work(project: Path, data: Path, redirection: str, status: int, said: str) -> None:
    made = verb(project, f"folds --dataset demo --data {data}", redirection)
    assert (made.returncode, made.stderr) == (status, said)
    assert (project / "folds" / "demo.csv").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("redirection", [">&-", "> /dev/full", "2>/dev/full", "2>&-"])
def test_what_is_refused_is_refused(project: Path, redirection: str) -> None:
    made = verb(project, "folds --dataset demo --data nowhere", redirection)
    assert made.returncode == 2
    assert "standard output" not in made.stderr
    assert ("nowhere" in made.stderr) == ("2>" not in redirection)


@pytest.mark.slow
@pytest.mark.parametrize("environment", [ENCODINGS["C"], ENCODINGS["cp1252"]])
def test_a_command_on_a_terminal_without_utf_8(project: Path, data: Path, environment: dict[str, str]) -> None:
    assert verb(project, f"folds --dataset demo --data {data}", "", **environment).returncode == 0
    assert verb(project, "status --dataset demo", "", **environment).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("redirection", [">&-", "> /dev/full"])
def test_the_doctor_says_so_or_nothing(project: Path, redirection: str) -> None:
    command = ["bash", "-c", f'"$PYTHON" -m scripts.doctor --only Python clock {redirection}']
    made = subprocess.run(
        command, cwd=project, env=os.environ | {"PYTHON": sys.executable}, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in made.stderr
    assert ("did not arrive" in made.stderr) == ("full" in redirection)
