"""Rounds of pseudo-labels and fits without an out-of-fold score, through the command line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from support.project import QUICK, Verb

from driverwatch.inference import predictions
from driverwatch.io.manifests import read_json

pytestmark = [pytest.mark.line, pytest.mark.slow]
Say = Callable[..., str]


@pytest.fixture
def ran(verb: Verb, finished: list[str]) -> Say:
    """What a command says, which must succeed on a finished line."""

    def run(*arguments: str) -> str:
        made = verb(*arguments, *finished)
        assert made.returncode == 0, made.stderr
        return made.stdout

    return run


@pytest.fixture
def refused(verb: Verb, finished: list[str]) -> Say:
    """What a command says, which must refuse."""

    def run(*arguments: str) -> str:
        made = verb(*arguments, *finished)
        assert made.returncode == 2
        assert "Traceback" not in made.stderr
        return made.stderr

    return run


def student(run: str, settings: str) -> list[str]:
    return ["train", "tiny", "--run", run, "--set", f"{QUICK} {settings}"]


def validation(fold: Path) -> list[str]:
    return list(predictions.read(fold / "validation-five_crop.h5", {}).names)


def test_rounds_teach_one_another(verb: Verb, ran: Say, refused: Say, project: Path) -> None:
    runs = project / "build" / "demo" / "runs"
    shutil.rmtree(runs / "tiny" / "fold1")
    assert "no such run" in refused("pseudo-rounds", "absent")
    assert "fold 1 is not finished" in refused(*student("x", "train.pseudo.runs=[tiny]"))
    surest = refused("pseudo-rounds", "tiny", "--set", "train.pseudo.threshold=1")  # trains fold 1 first
    assert "nothing to train on" in surest
    said = ran("pseudo-rounds", "tiny", "--rounds", "1", "--set", "train.pseudo.ratio=0.2")
    table = pd.read_csv(project / "build" / "demo" / "pseudo" / "tiny.csv")
    assert list(table["run"]) == ["tiny", "tiny-round1"]
    assert "test log loss" in said  # drawn, so the test images' labels are known
    first, second = table.to_dict("records")
    assert second["change"] == pytest.approx(second["log loss"] - first["log loss"])
    assert (first["steps"], second["steps"]) == (1, pytest.approx(1.2, abs=0.01))
    assert second["from"] <= second["change"] <= second["to"]
    for fold in range(2):
        made = read_json(runs / "tiny-round1" / f"fold{fold}" / "manifest.json")
        labelled = 120 - len(validation(runs / "tiny-round1" / f"fold{fold}"))
        assert made["pseudo_labels"]["images"] == int(0.2 * labelled)
    assert "tiny-round1 five_crop" in ran("score")
    assert "tiny cannot teach itself" in refused(*student("tiny", "train.pseudo.runs=[tiny]"), "--force")
    assert (runs / "tiny" / "fold0" / "manifest.json").is_file()
    asked = ["--dataset", "demo", "--tta", "five_crop", "--batch-size", "7", "--fold", "1"]
    assert verb("predict", "tiny", *asked).returncode == 0
    assert "learned_from.teachers.tiny.test.1" in refused("pseudo-rounds", "tiny", "--set", "train.pseudo.ratio=0.2")


def test_subsets_and_a_final_fit_have_no_score(ran: Say, refused: Say, project: Path) -> None:
    assert "least mean validation loss" in ran("refit", "tiny")
    runs = project / "build" / "demo" / "runs"
    assert read_json(runs / "tiny-all" / "run.json")["learned_from"]["epochs"]["run"] == "tiny"
    ran(*student("sub", "train.splits.kind=shuffle_split train.splits.count=1 train.splits.val_drivers=2"))
    scores = ran("score")
    assert "tiny-all: no out-of-fold score: trained on all drivers" in scores
    assert "sub: no out-of-fold score: trained on overlapping subsets" in scores
    assert "tiny five_crop" in scores
    assert "sub five_crop" not in scores
    submissions = project / "submissions" / "demo"
    assert "no out-of-fold score: trained on all drivers" in ran("ensemble", "--models", "tiny-all", "--name", "a")
    alone = json.loads((submissions / "a.json").read_text())
    assert "out_of_fold_log_loss" not in alone
    assert alone["out_of_fold"] == "no out-of-fold score: trained on all drivers"
    assert "without tiny-all (trained on all drivers)" in ran("ensemble", "--models", "tiny tiny-all", "--name", "b")
    ran("ensemble", "--models", "tiny", "--name", "c")
    both, folds = (json.loads((submissions / f"{name}.json").read_text()) for name in "bc")
    assert both["out_of_fold_log_loss"] == folds["out_of_fold_log_loss"]
    assert both["not_scored"] == {"tiny-all": "trained on all drivers"}
    a, b, c = (pd.read_csv(submissions / f"{name}.csv").drop(columns="img") for name in "abc")
    assert ((a + c) / 2 - b).abs().to_numpy().max() < 1e-4
    ran("submissions", "--models", "tiny-all sub")
    assert (submissions / "tiny-all-fold0.csv").is_file()

    assert "no out-of-fold score" in refused("pseudo-rounds", "tiny-all")
    assert "expected a run on folds" in refused("refit", "tiny-all")
    assert "trained on drivers that x holds out" in refused(*student("x", "train.pseudo.runs=[tiny-all]"))
