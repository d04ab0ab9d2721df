"""Bars in a pseudo-terminal, lines off it, and what every command ends with."""

import fcntl
import os
import pty
import re
import signal
import struct
import sys
import termios
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.places import ROOT
from support.runs import started_folder

from driverwatch.io import console
from driverwatch.io.atomic import write_json
from driverwatch.io.console import LEAST, Meter, bold, clock, close, duration, ending, fitting, scored, table, track
from driverwatch.metrics import over_folds
from driverwatch.training import fold_runner
from driverwatch.training.epoch import TimeRemaining, time_remaining

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"

BAR = """
import sys, time
from driverwatch.io.console import Meter, say
with Meter("fold 1, epoch 2 of 5", 40, whose="a_run_with_quite_a_long_name", end=False) as meter:
    for done in range(0, 41, 8):
        meter.at(done, lambda: [(1, "loss 0.412"), (4, "fold 0:40"), (3, "run 5:20")])
        time.sleep(0.1)
        if done == 16:
            say("said meanwhile")
say("after")
"""


def in_terminal(
    code: str, columns: int = 80, keys: Callable[[str], bytes] = lambda _: b"", **environment: str
) -> tuple[str, int]:
    """Run Python code in a pseudo-terminal; all that it showed, and its exit status. `keys`: what to type, from what is shown."""
    pid, descriptor = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        variables = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "COLUMNS", "LINES")}
        variables |= {"TERM": "xterm-256color", "PYTHONPATH": str(ROOT / "src"), **environment}
        os.execve(sys.executable, [sys.executable, "-c", f"import time; time.sleep(0.3)\n{code}"], variables)
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    shown, typed = "", False
    while True:
        try:
            piece = os.read(descriptor, 65536)
        except OSError:  # Linux' way to say that the other end is gone
            break
        if not piece:
            break
        shown += piece.decode(errors="replace")
        if not typed and (typing := keys(shown)):
            typed = True
            os.write(descriptor, typing)
    return shown, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def lines_of(shown: str) -> list[str]:
    """Every line that was ever drawn, without escapes."""
    return [line for line in re.split(r"[\r\n]+", ESCAPES.sub("", shown)) if line.strip()]


@pytest.mark.parametrize("columns", [80, 140])
def test_a_bar_tells_rate_time_left_and_notes_and_fits(columns: int) -> None:
    shown, status = in_terminal(BAR, columns)
    drawn = lines_of(shown)
    assert status == 0
    assert max(map(len, drawn)) <= columns
    (last,) = [line for line in drawn if "40/40" in line or " loss" in line][-1:]
    for part in ("fold 1, epoch 2 of 5", "loss 0.412", "0:00 left", "fold 0:40", "run 5:20", "/s"):
        assert part in last
    assert ("a_run_with_quite_a_long_name" in last) == (columns == 140)
    assert ("images/s" in last) == (columns == 140)
    assert drawn[-1] == "after"
    assert "said meanwhile" in drawn
    assert shown.rindex(SHOW) > shown.rindex(HIDE)


def test_no_colour_is_obeyed_and_a_dumb_terminal_gets_lines() -> None:
    colours = re.compile(r"\x1b\[[0-9;]*m")
    coloured, _ = in_terminal(BAR)
    assert any(code not in ("\x1b[0m", "\x1b[m") for code in colours.findall(coloured))
    plain, _ = in_terminal(BAR, NO_COLOR="1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", plain.replace(HIDE, "").replace(SHOW, ""))
    assert "loss 0.412" in plain
    dumb, _ = in_terminal(BAR, TERM="dumb")
    assert "\x1b" not in dumb
    assert "a_run_with_quite_a_long_name fold 1, epoch 2 of 5: 24/40 images" in dumb


def test_stdout_that_is_a_file_gets_its_lines_though_the_bar_is_on_a_terminal(tmp_path: Path) -> None:
    kept = tmp_path / "log"
    code = f"import os, sys\nos.dup2(os.open({str(kept)!r}, os.O_WRONLY | os.O_CREAT), 1)\n{BAR}"
    shown, _ = in_terminal(code)
    assert kept.read_text() == "said meanwhile\nafter\n"
    assert "said meanwhile" not in shown
    assert "loss 0.412" in shown


def test_ctrl_c_leaves_a_clean_terminal() -> None:
    code = textwrap.dedent("""
    import time
    from driverwatch.io.console import Meter
    with Meter("x", 100) as meter:
        meter.at(10)
        print("ready", flush=True)
        time.sleep(30)
    """)
    start = time.monotonic()
    shown, _ = in_terminal(code, keys=lambda seen: b"\x03" if "ready" in seen else b"")
    assert time.monotonic() - start < 25
    assert "KeyboardInterrupt" in shown
    assert shown.rindex(SHOW) > shown.rindex(HIDE)


CHILD = """
import sys, time
from driverwatch.io.console import Meter
{before}
with Meter("fold 0, epoch 1 of 2", 100) as meter:
    meter.at(10)
    print("ready", flush=True)
    time.sleep(60)
"""
PARENT = """
import sys
from pathlib import Path
from driverwatch.training import fold_runner
fold_runner.PATIENCE = 1.0
try:
    fold_runner.FoldProcess().run_to_end([sys.executable, "-c", Path({child!r}).read_text()], [])
except KeyboardInterrupt:
    print("the parent resumes")
"""


@pytest.mark.parametrize("before", ["", "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"])
def test_ctrl_c_while_a_child_draws_leaves_a_clean_terminal_and_no_child(tmp_path: Path, before: str) -> None:
    """Also where the child does not listen, as while a long step computes."""
    child = tmp_path / "child.py"
    child.write_text(CHILD.format(before=before))
    start = time.monotonic()
    shown, _ = in_terminal(PARENT.format(child=str(child)), keys=lambda seen: b"\x03" if "ready" in seen else b"")
    assert time.monotonic() - start < 50  # the child would have slept a minute
    assert "the parent resumes" in shown
    assert shown.rindex(SHOW) > shown.rindex(HIDE)


def test_a_childs_exit_status_is_reported(tmp_path: Path) -> None:
    assert fold_runner.FoldProcess().run_to_end([sys.executable, "-c", "raise SystemExit(3)"], []) == 3


def counted(capsys: pytest.CaptureFixture[str], meter: Meter, steps: list[int]) -> list[str]:
    with meter:
        for done in steps:
            meter.at(done, lambda: [(1, "loss 0.5")])
    return capsys.readouterr().out.splitlines()


def test_off_a_terminal_an_epoch_says_nothing_unless_it_takes_minutes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert counted(capsys, Meter("epoch 1", 100, patience=60, end=False), [25, 50, 75, 100]) == []
    clocks = iter(range(0, 10_000, 40))
    monkeypatch.setattr(console.time, "monotonic", lambda: float(next(clocks)))
    said = counted(capsys, Meter("epoch 1", 100, whose="run", patience=60, end=False), [25, 50, 75, 100])
    assert len(said) == 1
    assert said[0].startswith("run epoch 1: 50/100 images, ")
    assert said[0].endswith("loss 0.5")


def test_items_are_tracked_at_half_way_and_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track("abcd", 4, "letters", unit="letters")) == list("abcd")
    said = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in said] == ["letters: 2/4 letters", "letters: 4/4 letters"]
    assert list(track([], 0, "nothing")) == []
    assert list(track([1, 2, 3], 10, "uneven", step=4)) == [1, 2, 3]
    assert [line.split(",")[0] for line in capsys.readouterr().out.splitlines()] == [
        "uneven: 8/10 images",
        "uneven: 10/10 images",
    ]


def test_a_rate_is_of_late_and_knows_no_step_that_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    meter = Meter("x", 1000)
    assert (meter.rate, meter.left) == (0.0, 0.0)
    assert "starting" in meter.beside(80)[1]
    for seconds, done in ((60.0, 10), (61.0, 20), (62.0, 30)):  # the first step took a minute
        now[0] = seconds
        meter.at(done)
        assert ("starting" in meter.beside(80)[1]) == (done == 10)
    assert meter.rate == pytest.approx(10.0)
    assert meter.left == pytest.approx(97.0)


@given(st.lists(st.tuples(st.integers(0, 9), st.text("ab ", max_size=12)), max_size=8), st.integers(0, 80))
def test_what_is_most_wanted_stays_longest(parts: list[tuple[int, str]], room: int) -> None:
    kept = fitting(parts, room)
    assert sum(len(text) + 2 for text in kept) <= room
    assert kept == [text for _, text in parts] or len(kept) < len(parts)
    wider = fitting(parts, room + 5)
    assert len(wider) >= len(kept)


@given(st.integers(20, 200), st.text("abc ", min_size=1, max_size=60), st.text("xyz", max_size=40))
def test_a_bar_never_outgrows_its_terminal(width: int, label: str, whose: str) -> None:
    meter = Meter(label, 5000, whose=whose)
    for done in (0, 1234):
        meter.at(done, lambda: [(1, "loss 0.412"), (4, "fold 1:00:00"), (3, "run 12:00:00")])
    before, after = meter.beside(width)
    assert len(before) + 2 + LEAST + (len(after) + 2 if after else 0) <= width


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0:00"), (7.4, "0:07"), (59.6, "1:00"), (750, "12:30"), (3725, "1:02:05"), (-3, "0:00")]
)
def test_a_clock(seconds: float, said: str) -> None:
    assert clock(seconds) == said


HISTORY = [{"stage": 0, "seconds": 5.0}, {"stage": 1, "seconds": 60.0}, {"stage": 1, "seconds": 80.0}]


def test_time_left_of_a_fold_and_its_run() -> None:
    planned = TimeRemaining((1, 5, 2), 2, None)
    fold = planned.fold(HISTORY, 1, 90.0, 30.0)
    assert fold == pytest.approx(30 + (2 + 2) * 70)  # of stage 1 two epochs more, then two at its pace
    assert planned.run(HISTORY, 90.0, 30.0, fold) == pytest.approx(fold + 2 * (145 + 60 + fold))
    assert TimeRemaining((1, 5, 2), 2, 1000.0).run(HISTORY, 90.0, 30.0, fold) == pytest.approx(fold + 2000)
    assert planned.fold([], 0, 12.0, 6.0) == pytest.approx(6 + 7 * 12)  # nothing is known but this epoch
    assert [text.split()[0] for _, text in planned.parts(HISTORY, 1, 90.0, 30.0)] == ["fold", "run"]
    assert [text.split()[0] for _, text in TimeRemaining((4,), 0, None).parts([], 0, 1.0, 1.0)] == ["fold"]


def test_what_finished_folds_took_is_read_and_what_is_broken_is_passed_over(tmp_path: Path) -> None:
    from driverwatch import run as runs

    run = runs.load(started_folder(tmp_path))
    assert time_remaining(run, 1).each is None
    write_json(run.fold(0) / "manifest.json", {"seconds": 10})
    write_json(run.fold(1) / "manifest.json", {"seconds": 30})
    assert time_remaining(run, 1).each == 20
    (run.fold(1) / "manifest.json").write_text("{")
    assert time_remaining(run, 1).each == 10


def test_every_command_ends_alike(capsys: pytest.CaptureFixture[str]) -> None:
    close("build/x", "3 of 3 folds finished", 754.0, scored(0.4117, 0.0513, "out of fold"), ["make a", "make b"])
    assert capsys.readouterr().out == (
        "build/x: 3 of 3 folds finished\n"
        "  score  log loss 0.4117 ± 0.0513 (out of fold)\n"
        "  took   13 min\n"
        "  next   make a\n"
        "         make b\n"
    )
    ending()
    assert capsys.readouterr().out == ""
    assert scored(0.5, float("nan"), "x") == scored(0.5, None, "x") == "log loss 0.5000 (x)"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (47, "47 s"), (119.4, "119 s"), (754, "13 min"), (6000, "1 h 40 min")],
)
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_colour_only_where_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    assert bold("x") == "x"  # stdout is captured
    monkeypatch.setattr("driverwatch.io.console.plain", lambda _: False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert bold("x") == "\x1b[1mx\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert bold("x") == "x"


def test_a_table_drops_whole_columns_from_the_end() -> None:
    columns = {"name": False, "count": True, "rest": False}
    rows = [["a", "10", "long words"], ["bcd", "5", ""]]
    lines, left_out = table(columns, rows, ("name",), 100)
    assert lines == ["name  count  rest", "a        10  long words", "bcd       5"]
    assert left_out == []
    assert table(columns, rows, ("name",), 12) == (["name  count", "a        10", "bcd       5"], ["rest"])
    assert table(columns, rows, ("name",), 1)[1] == ["count", "rest"]


@given(st.lists(st.tuples(st.floats(0, 9), st.integers(1, 50)), min_size=1, max_size=6), st.integers(0, 99))
def test_the_error_over_folds_is_that_over_groups(folds: list[tuple[float, int]], seed: int) -> None:
    import numpy as np

    from driverwatch.metrics import standard_error

    losses = np.concatenate([np.full(images, loss) for loss, images in folds])
    groups = np.concatenate([np.full(images, number) for number, (_, images) in enumerate(folds)])
    order = np.random.default_rng(seed).permutation(len(losses))
    mean, error = over_folds(*zip(*folds, strict=True))
    assert mean == pytest.approx(losses.mean())
    assert error == pytest.approx(standard_error(losses[order], groups[order]), nan_ok=True)


@pytest.mark.keras
def test_keras_feeds_the_bar_and_the_loss_is_asked_for_only_when_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    from driverwatch.training.epoch import EpochBar

    class Loss(float):
        asked = 0

        def __float__(self) -> float:
            Loss.asked += 1
            return 0.25

    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    meter = Meter("x", 100, patience=1e9, end=False)
    bar = EpochBar(meter, 8, TimeRemaining((2, 3), 1, 50.0), HISTORY[:1], 0)
    for step in range(13):
        now[0] += 2.0
        bar.on_train_batch_end(step, {"loss": Loss()})
    assert (meter.done, meter.rate, Loss.asked) == (100, 92 / 24, 0)  # the last step is a short one
    assert [text for _, text in meter.notes()] == ["loss 0.250", "fold 0:15", "run 1:05"]  # three epochs of 5 s, 50 s
    assert Loss.asked == 1
