"""Recipes: from images to the submissions they name, resuming from whatever is built, and nothing trained in vain."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from support.finished import MODEL_FILE, World, world
from support.project import QUICK, Verb

from driverwatch.config.ensemble import EnsembleSettings
from driverwatch.config.experiments import RecipeSettings, RunSettings
from driverwatch.config.loading import parse
from driverwatch.data.context import Context
from driverwatch.errors import InputError
from driverwatch.experiments import experiment
from driverwatch.experiments.experiment import load_runs, train_missing
from driverwatch.inference import predictions
from driverwatch.io.manifests import read_json
from driverwatch.training.train import TrainRequest

__all__ = ["world"]
PSEUDO_LABELS = "train.pseudo.labels=both"
Changes = dict[str, str]


@pytest.fixture
def done(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done, in turn, where a training leaves a finished run at once."""
    (tmp_path / "configs" / "models").mkdir(parents=True)
    (tmp_path / "configs" / "models" / "tiny.yaml").write_text(yaml.safe_dump(MODEL_FILE))
    made, real = list[str](), experiment.make_pseudo_labels

    def train(request: TrainRequest) -> None:
        made.append(request.name)
        if not (request.context.places.run(request.name) / "run.json").is_file():
            world.run(request.name, seed=10 * len(made), **request.settings.train.model_dump(include={"splits"}))

    def make_pseudo_labels(context: Context, names: list[str], name: str, *rest: Any) -> None:
        made.append(f"teach {name}")
        real(context, names, name, *rest)

    monkeypatch.setattr(experiment, "train", train)
    monkeypatch.setattr(experiment, "make_pseudo_labels", make_pseudo_labels)
    monkeypatch.setattr(experiment, "make_packs", lambda *_: None)
    monkeypatch.setattr(experiment, "refuse_misfits", lambda *_: None)
    return made


def follow(world: World, changes: Changes, **pipeline: object) -> None:
    """Train runs, given as `SET` by name; `both` is what one and two make together."""
    wanted = {name: RunSettings(model="tiny", set=change) for name, change in changes.items()}
    side = parse(EnsembleSettings, {"runs": ["one", "two"], "tta": "five_crop", **pipeline}, "x")
    train_missing(world.context, load_runs(wanted), None, {"both": side})


RUNS = {"one": "", "two": "train.seed=1", "student": PSEUDO_LABELS}


def test_teachers_speak_once_before_their_first_student(world: World, done: list[str]) -> None:
    follow(world, {**RUNS, "other": f"{PSEUDO_LABELS} train.seed=2"})
    assert done == ["one", "two", "teach both", "student", "other"]
    manifest = world.context.places.pseudo_labels("both") / "manifest.json"
    before = manifest.stat().st_mtime_ns
    follow(world, RUNS)
    assert done[5:] == ["one", "two", "student"]
    assert manifest.stat().st_mtime_ns == before


def test_teachers_speak_again_when_they_or_their_pipeline_changed(world: World, done: list[str]) -> None:
    follow(world, RUNS)
    follow(world, RUNS, blend="geometric")
    assert done.count("teach both") == 2
    follow(world, RUNS, blend="geometric")
    assert done.count("teach both") == 2
    path = world.context.places.run("two") / "fold1"
    text = (path / "manifest.json").read_text()
    (path / "manifest.json").write_text(text.replace('"weights": "two1"', '"weights": "new"'))
    with pytest.raises(InputError, match="made from other weights than today's"):  # its predictions are of the old ones
        follow(world, RUNS, blend="geometric")
    assert done.count("teach both") == 3
    (path / "manifest.json").write_text(text)
    follow(world, RUNS, blend="geometric")
    assert done.count("teach both") == 3  # what was there is untouched


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:99])])
def test_what_is_not_whole_is_made_again_and_is_the_same(
    world: World, done: list[str], damage: Callable[[Path], object]
) -> None:
    follow(world, RUNS)
    path = world.context.places.pseudo_labels("both") / "fold1-test.h5"
    before = predictions.checksum(predictions.read(path, {}))
    damage(path)
    follow(world, RUNS)
    assert done.count("teach both") == 2
    assert predictions.checksum(predictions.read(path, {})) == before


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"one": "", "student": PSEUDO_LABELS, "two": ""}, "student: its teachers two are not trained before it"),
        ({"one": "train.pseudo.runs=[two]", "two": ""}, "one: its teachers two are not trained before it"),
        ({"one": "train.pseudo.runs=[one]", "two": ""}, "one: its teachers one are not trained before it"),
        ({"one": "train.pseudo.runs=[stranger]", "two": ""}, "stranger: no such run"),
        (
            {"one": "train.pseudo.labels=absent", "two": ""},
            "labels=absent is neither listed here nor made",
        ),
        ({"one": "", "two": "train.splits.kind=all"}, "pseudo_labels.both: two is not trained on folds"),
        ({"one": "", "two": "augment.hflip=swap_left_right"}, "needs left_right_pairs"),
        ({"one": "", "two": "augment.preset=lihgt"}, "lihgt"),
        ({"one": "", "two": "train.epoch=1"}, "did you mean epochs"),
    ],
)
def test_misfits_are_found_before_anything_is_trained(
    world: World, done: list[str], changes: Changes, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        follow(world, changes)
    assert done == []


def test_finished_runs_of_others_may_teach(world: World, done: list[str]) -> None:
    world.run("earlier", 5)
    follow(world, {"one": "train.pseudo.runs=[earlier]", "two": "train.pseudo.runs=[one]"})
    assert done == ["one", "two"]


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (
            {"submissions": {"x": {"runs": ["one", "other"]}}},
            "submissions.x.runs must be of this recipe's runs, got other",
        ),
        (
            {"pseudo_labels": {"both": {"runs": ["other"]}}},
            "pseudo_labels.both.runs must be of this recipe's runs, got other",
        ),
        ({"runs": {}}, "runs"),
        ({"submissions": {}}, "submissions"),
        ({"runs": {"../one": {"model": "tiny"}}}, "runs"),
    ],
)
def test_recipes_name_their_own_runs(part: dict, said: str) -> None:
    whole = {"runs": {"one": {"model": "tiny"}}, "submissions": {"x": {"runs": ["one"]}}}
    assert parse(RecipeSettings, whole, "x").pseudo_labels == {}
    with pytest.raises(InputError, match=said):
        parse(RecipeSettings, {**whole, **part}, "x")


@pytest.mark.line
@pytest.mark.slow
def test_a_recipe_resumes_from_whatever_is_built(verb: Verb, project: Path, drawn: list[str]) -> None:
    def best(recipe: dict[str, Any]) -> tuple[int, str]:
        path = project / "configs" / "recipes" / "demo.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(recipe, sort_keys=False))
        made = verb("reproduce", *drawn)
        return made.returncode, made.stdout + made.stderr

    def run(*changes: str) -> dict[str, str]:
        return {"model": "tiny", "set": " ".join([QUICK, *changes])}

    runs = {"one": run(), "two": run("train.seed=1"), "student": run(PSEUDO_LABELS, "train.pseudo.images=both")}
    whole = {
        "runs": runs,
        "pseudo_labels": {"both": {"runs": ["one", "two"]}},
        "submissions": {"teachers": {"runs": ["one", "two"]}, "everyone": {"runs": list(runs), "blend": "geometric"}},
    }
    build, submissions = project / "build" / "demo", project / "submissions" / "demo"
    wrong = {**whole, "runs": {**runs, "last": run("truncate_at=nowhere")}}
    status, said = best(wrong)
    assert (status, "last: " in said, "Traceback" in said) == (2, True, False), said
    assert not list(build.glob("runs/*"))

    status, said = best(whole)
    assert status == 0, said
    assert "2 of 2 folds finished" in said
    manifests = sorted([*build.glob("runs/*/fold*/manifest.json"), *build.glob("pseudo_labels/*/[!.]*")])
    assert len(manifests) == 3 * 2 + 1 + 4
    for fold in range(2):
        pseudo_labels = read_json(build / "runs" / "student" / f"fold{fold}" / "manifest.json")["pseudo_labels"]
        labelled = len(pd.read_csv(project / "folds" / "demo.csv").query(f"fold != {fold}")["driver"]) * 20
        assert pseudo_labels["of"] == 120 - labelled + 40  # validation and test images
    sent = {path.name: path.read_bytes() for path in submissions.glob("*.csv")}
    assert set(sent) == {"teachers.csv", "everyone.csv"}
    assert read_json(submissions / "everyone.json")["runs"].keys() == runs.keys()

    times = {path: path.stat().st_mtime_ns for path in manifests}
    status, said = best(whole)
    assert status == 0, said
    assert {path: path.stat().st_mtime_ns for path in manifests} == times
    assert {path.name: path.read_bytes() for path in submissions.glob("*.csv")} == sent

    gone = build / "runs" / "two" / "fold1"
    shutil.rmtree(gone)
    status, said = best(whole)
    assert status == 0, said
    changed = {path for path in manifests if path.stat().st_mtime_ns != times[path]}
    assert changed == {gone / "manifest.json"}  # the same weights came of it, so its students stay
    assert {path.name: path.read_bytes() for path in submissions.glob("*.csv")} == sent
