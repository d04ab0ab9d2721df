"""SIGKILL at any moment, the same command again, and the result is bit by bit that of an uninterrupted run.

A few kills of each kind; `make test-kills` does it before each change and many more times at random.
"""

import subprocess
from pathlib import Path

import pytest
from support import kills
from support.kills import Reference

pytestmark = [pytest.mark.line, pytest.mark.slow]


@pytest.mark.parametrize("verb", ["synthetic", "folds", "pack", "ensemble"])
def test_killed_before_its_files_take_their_places(known: Reference, verb: str, tmp_path: Path) -> None:
    made = kills.changes(known, verb, verb, tmp_path)
    renames = [number for number, change in enumerate(made, 1) if change.startswith("os.rename")]
    for number in {len(made) // 2, renames[0], renames[-1], len(made)}:
        assert kills.killed_before_change(known, verb, verb, number, tmp_path) == [], made[number - 1]


@pytest.mark.parametrize("before", ["checkpoint.h5", "manifest.json"])
def test_a_fold_killed_before_it_keeps_something(known: Reference, before: str, tmp_path: Path) -> None:
    made = kills.changes(known, "train", "train-fold", tmp_path)
    moments = [n for n, change in enumerate(made, 1) if change.startswith("os.rename") and f".{before}." in change]
    number = moments[len(moments) // 2]  # of the checkpoints, the second: at the first epoch of the second stage
    assert kills.killed_before_change(known, "train", "train-fold", number, tmp_path) == [], made[number - 1]


def test_killed_at_random(known: Reference, tmp_path: Path) -> None:
    assert kills.killed_at_random(known, "train", 3, 2, tmp_path)[1] == []


def test_two_at_once_never_both_write(known: Reference, tmp_path: Path) -> None:
    project = known.before("train", tmp_path / "project")
    both = [
        subprocess.Popen(
            kills.command("train"), cwd=project, env=kills.environment(), stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    said = [started.communicate()[1] for started in both]
    assert sorted(started.returncode for started in both) == [0, 2]
    assert "another command is writing here (process " in "".join(said)
    assert kills.differing(known.states["train"], kills.state(project)) == []


def test_the_comparison_sees_a_difference(known: Reference, tmp_path: Path) -> None:
    project = known.before("ensemble", tmp_path / "project")
    assert "folds/demo.csv" in kills.state(project)
    (project / "folds" / "demo.csv").write_text("other")
    assert kills.differing(kills.state(project), known.states["predict"]) == ["folds/demo.csv"]
