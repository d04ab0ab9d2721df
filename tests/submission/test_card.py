"""The model card and Kaggle's three files: figures recomputed from the out-of-fold rows, commands and folders read back."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from support.places import ROOT
from typer.testing import CliRunner

from driverwatch.cli.main import app
from driverwatch.errors import InputError

DATASET, NAME = "statefarm_mini", "best"
COMMITTED = ROOT / "submissions" / DATASET
KEYS = ["RAW_DATA_DIR", "PROCESSED_DATA_DIR", "CHECKPOINT_DIR", "MODEL_DIR", "SUBMISSION_DIR"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the committed settings, folds and one submission of real drivers; its submissions folder."""
    monkeypatch.chdir(tmp_path)
    for folder in ("configs", "folds"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    here = tmp_path / "submissions" / DATASET
    (here / "out_of_fold").mkdir(parents=True)
    for file in (f"{NAME}.json", f"out_of_fold/{NAME}.csv.gz"):
        shutil.copyfile(COMMITTED / file, here / file)
    return here


def front_matter(card: str) -> dict[str, float]:
    """The metrics that the card's front matter claims, by type."""
    (model,) = yaml.safe_load(card.split("---")[1])["model-index"]
    return {metric["type"]: metric["value"] for metric in model["results"][0]["metrics"]}


def table(card: str, title: str) -> dict[str, list[str]]:
    """A section's table: cells by the first column."""
    lines = card.split(f"## {title}\n")[1].split("\n## ")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return {row[0]: row[1:] for row in cells[2:]}


def test_the_command_writes_four_files_that_can_be_read_back(place: Path) -> None:
    CliRunner().invoke(app, ["card", "--dataset", DATASET, NAME], catch_exceptions=False)
    folder = place / "cards" / NAME
    card, frame = (folder / "MODEL_CARD.md").read_text(), pd.read_csv(place / "out_of_fold" / f"{NAME}.csv.gz")
    classes = [column for column in frame if re.fullmatch(r"c\d", column)]
    rows = frame[classes].to_numpy()
    label = frame["class"].map(classes.index).to_numpy()
    loss = -np.log(np.clip(rows[np.arange(len(rows)), label], 1e-5, 1))  # rounded to six digits in the file
    right = rows.argmax(axis=1) == label
    found = front_matter(card)
    assert found["out_of_fold_log_loss"] == pytest.approx(loss.mean(), abs=1e-3)
    assert found["out_of_fold_accuracy"] == pytest.approx(right.mean(), abs=1e-4)
    manifest = json.loads((place / f"{NAME}.json").read_text())
    assert found["out_of_fold_log_loss"] == pytest.approx(manifest["out_of_fold_log_loss"], abs=1e-4)
    drivers = table(card, "Results by driver")
    assert sorted(drivers) == sorted(set(frame["driver"]))
    for name, (fold, images, each, accuracy) in drivers.items():
        mine = (frame["driver"] == name).to_numpy()
        assert int(images) == mine.sum()
        assert set(frame["fold"][mine]) == {int(fold)}
        assert float(each) == pytest.approx(loss[mine].mean(), abs=1e-3)
        assert float(accuracy.rstrip(" %")) == pytest.approx(100 * right[mine].mean(), abs=0.06)
    by_class = table(card, "Results by class")
    assert [int(row[1]) for row in by_class.values()] == np.bincount(label).tolist()
    assert list(by_class) == classes
    runs = table(card, "Runs and weights")
    assert list(runs) == [*manifest["runs"], "inception_v3_long"], "its teacher too"
    students = [runs[run] for run in manifest["runs"]]
    assert all("Apache-2.0" in row[2] and "pseudo-labels" in row[4] for row in students)
    assert all("not the published file, which has this licence" in row[2] for row in students)
    assert runs["inception_v3_long"][0] == ""
    assert "Not a safety device" in card
    assert ", then ".join(3 * ["k-NN smoothing", "temperature scaling", "per-driver class balancing"]) in card
    assert "per-driver class balancing, then k-NN smoothing, then temperature scaling, then clipping" in card
    assert "whose labels it never saw" in card and "Not for drivers who were not there" in card  # students
    assert "license: other" in card.split("---")[1]
    assert "On 7 other drivers, whose unlabelled images it was trained on too," in card
    assert "{{" not in card
    settings = json.loads((folder / "SETTINGS.json").read_text())
    assert list(settings) == KEYS
    assert settings["SUBMISSION_DIR"] == f"submissions/{DATASET}"
    listed = (folder / "directory_structure.txt").read_text().splitlines()
    assert {".", "./configs/models", f"./submissions/{DATASET}/out_of_fold"} <= set(listed)
    entry = (folder / "entry_points.md").read_text()
    targets = set(re.findall(r"^ +make ([a-z-]+)", entry, re.MULTILINE))
    assert {"setup", "data", "subset", "folds", "reproduce", "check", "classify", "train"} <= targets
    assert "make data DATASET=statefarm\n" in entry  # of a subset, make data refuses
    assert entry.index("RUN=inception_v3_long ") < entry.index("RUN=mobilenet_v2_student SET")  # teachers first
    assert targets <= set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_a_submission_that_no_recipe_makes_names_its_own_commands(place: Path) -> None:
    for file in (f"{NAME}.json", f"out_of_fold/{NAME}.csv.gz"):
        (place / file).rename(place / file.replace(NAME, "mine"))
    path = place / "mine.json"
    made = json.loads(path.read_text())
    made["pipeline"]["settings"] = {"blend": "geometric", "calibrate": "bias"}
    made.pop("trained", None)
    path.write_text(json.dumps(made))
    CliRunner().invoke(app, ["card", "--dataset", DATASET, "mine"], catch_exceptions=False)
    entry = (place / "cards" / "mine" / "entry_points.md").read_text()
    assert f'make ensemble NAME=mine MODELS="mobilenet_v2_student" DATASET={DATASET}' in entry
    card = (place / "cards" / "mine" / "MODEL_CARD.md").read_text()
    assert "geometric mean of the runs, then temperature scaling and class biases, then clipping at 1e-05" in card
    assert all(row[2:] == ["not recorded"] * 4 for row in table(card, "Runs and weights").values())


def test_a_recipe_that_makes_one_of_that_name_from_other_runs_is_not_its_own(place: Path) -> None:
    path = place / f"{NAME}.json"
    made = json.loads(path.read_text())
    path.write_text(json.dumps(made | {"runs": {**made["runs"], "tiny": "centre"}}))
    CliRunner().invoke(app, ["card", "--dataset", DATASET, NAME], catch_exceptions=False)
    entry = (place / "cards" / NAME / "entry_points.md").read_text()
    assert "make reproduce" not in entry
    assert f'make ensemble NAME={NAME} MODELS="mobilenet_v2_student tiny" DATASET={DATASET}' in entry


def test_how_runs_were_trained_comes_from_the_manifest(place: Path) -> None:
    """Hardware, times, commits and weights, wherever the runs themselves are."""
    path = place / f"{NAME}.json"
    made = json.loads(path.read_text())
    settings = {
        "backbone": "inception_v3",
        "input": {"pack": "180x240", "size": "160x208"},
        "train": {"pseudo": {"runs": ["teacher"], "images": "test"}},
    }
    one = {"settings": settings, "pretrained": {"file": "inception.h5", "sha256": "12ab"}, "seconds": 900}
    one |= {"machines": ["Tesla T4, Xeon, 4 cores"], "training_seconds": 600, "commits": ["abc1234"]}
    path.write_text(json.dumps(made | {"trained": dict.fromkeys(made["runs"], one)}))
    CliRunner().invoke(app, ["card", "--dataset", DATASET, NAME], catch_exceptions=False)
    card = (place / "cards" / NAME / "MODEL_CARD.md").read_text()
    runs = table(card, "Runs and weights")
    for row in (runs[name] for name in made["runs"]):
        assert row[2] == "Apache-2.0; file inception.h5; sha256 12ab; not the published file, which has this licence"
        assert row[5] == "Tesla T4, Xeon, 4 cores: 10 min training, 5 min predicting, at abc1234"
    assert "that it never saw" in card and "Not for drivers who were not there" in card


def test_one_image_of_a_new_driver_is_promised_what_single_image_runs_score(place: Path) -> None:
    shutil.copyfile(COMMITTED / "alone.json", place / "alone.json")
    CliRunner().invoke(app, ["card", "--dataset", DATASET, NAME], catch_exceptions=False)
    loss = json.loads((place / "alone.json").read_text())["out_of_fold_log_loss"]
    card = (place / "cards" / NAME / "MODEL_CARD.md").read_text()
    assert f"expect the scores of `alone`: log loss {loss:.3f}," in card
    teacher = table(card, "Runs and weights")["inception_v3_long"]
    assert teacher[1] == "inception_v3" and "sha256" in teacher[2], "from the manifest that has it"


def test_figures_of_another_submission_and_none_are_refused(place: Path) -> None:
    shutil.copyfile(COMMITTED / "out_of_fold" / "alone.csv.gz", place / "out_of_fold" / f"{NAME}.csv.gz")
    for name, said in ((NAME, "writes both"), ("absent", "no such submission")):
        made = CliRunner().invoke(app, ["card", "--dataset", DATASET, name])
        assert isinstance(made.exception, InputError)
        assert said in str(made.exception)


@pytest.mark.parametrize("folder", sorted((COMMITTED / "cards").glob("*")), ids=lambda folder: folder.name)
def test_committed_cards_are_todays(place: Path, folder: Path) -> None:
    """What make card writes today from what is committed, label issues included."""
    for path in [*COMMITTED.glob("*.json"), COMMITTED / "out_of_fold" / f"{folder.name}.csv.gz"]:
        shutil.copyfile(path, place / path.relative_to(COMMITTED))
    doubted = Path("experiments") / "results" / DATASET / "label_issues.json"
    doubted.parent.mkdir(parents=True)
    shutil.copyfile(ROOT / doubted, doubted)
    CliRunner().invoke(app, ["card", "--dataset", DATASET, folder.name], catch_exceptions=False)
    for name in ("MODEL_CARD.md", "entry_points.md", "SETTINGS.json"):
        assert (place / "cards" / folder.name / name).read_text() == (folder / name).read_text(), "run make card"
