"""A search: its space, its study, what is pruned, what a kill leaves, and how much of the gain survives on fresh folds."""

import csv
import io
import signal
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from support.finished import MODEL, World, world  # noqa: F401
from support.places import ROOT
from support.project import Verb
from support.searching import SPACE, made_up, searched, skill

from driverwatch import run as runs
from driverwatch.config.experiments import SearchSettings
from driverwatch.config.loading import load, parse, parse_yaml, put
from driverwatch.config.model import ModelSettings
from driverwatch.data import splits
from driverwatch.errors import InputError
from driverwatch.experiments import search as searches
from driverwatch.experiments.search import FoldRequest
from driverwatch.experiments.search_trials import Space, load_optuna, search_verdict
from driverwatch.io.atomic import write_json
from driverwatch.io.manifests import read_json
from driverwatch.metrics import FLOOR, limited, log_loss

optuna = pytest.importorskip("optuna", reason="make setup EXTRAS=cluster")


def space_of(text: str, **train: object) -> Space:
    own = parse(ModelSettings, {**MODEL, "train": train}, "test")
    return Space(own, parse(SearchSettings, {"space": parse_yaml(text)}, "s.yaml"), "s.yaml")


TWO = {"space": {"head.dropout": {"low": 0, "high": 0.5}}}


def read(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "searches").glob("*.yaml")), ids=lambda path: path.stem)
def test_committed_spaces_fit_committed_models(path: Path) -> None:
    names = [path.stem] if path.stem != "default" else ["inception_v3", "vgg16", "tiny", "inception_v3_robust"]
    for name in names:
        own = load(ModelSettings, ROOT / "configs" / "models", name)
        assert len(list(Space(own, load(SearchSettings, path.parent, path.stem), "x").variants())) > 5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{train.lerning_rate: {low: 1e-5, high: 1e-2}}", "space.*unknown key.*did you mean learning_rate"),
        ("{train.learning_rate: {lo: 1e-5, high: 1e-2}}", "unknown key; expected one of low, high.*did you mean low"),
        ("{train.learning_rate: {low: 1e-5, high: 100}}", "train.learning_rate: .*less than or equal to 10, got 100"),
        ("{train.learning_rate: {low: 1e-2, high: 1e-5}}", "low must be below high"),
        ("{train.learning_rate: {low: 1e-5}}", "low must be below high"),
        ("{train.learning_rate: {}}", "must have either low and high, or choices"),
        ("{train.learning_rate: {low: 0, high: 1, log: true}}", "log needs low above 0"),
        ("{head.dropout: {low: 0, high: 0.5, step: 0.2}}", "step must lead from low to high exactly, got 2.5 steps"),
        ("{head.dropout: {low: 0, high: 1}}", "head.dropout: .*less than 1, got 1"),
        ("{train.epochs: {low: 1.5, high: 9}}", "train.epochs: .*integer.*1.5"),
        ("{train.epochs: {low: 1, high: 2, step: 0.5}}", "takes whole numbers, so step must be one, got 0.5"),
        ("{augment.preset: {choices: [light]}}", "choices: .*at least 2"),
        ("{augment.preset: {choices: [light, light]}}", "name each value once"),
        ("{augment.mix: {choices: [mixup, mixxup]}}", "augment.mix: .*'mixxup'"),
        ("{augment.mix: {choices: [none, mixup], log: true}}", "belong to low and high"),
        ("{train.stages.3.epochs: {low: 1, high: 3}}", "space.train.stages.3.epochs: expected a number from 0 to 0"),
        ("{train.splits.kind: {choices: [folds, all]}}", "space.train.splits.kind: is what trials are compared on"),
        ("{train.seed: {low: 0, high: 9}}", "is luck"),
        ("{train.select: {choices: [last, best]}}", "chooses the epoch on the validation drivers"),
        ("{}", "space: .*at least 1"),
    ],
)
def test_a_space_that_does_not_fit_is_one_sentence(text: str, said: str) -> None:
    with pytest.raises(InputError, match=f"(?s)s.yaml: .*{said}") as refused:
        space_of(text)
    assert "\n" not in str(refused.value)


def test_a_model_that_cannot_be_compared_is_refused() -> None:
    for train in ({"splits": "all"}, {"select": "best"}, {"patience": 2}, {"pseudo": {"runs": ["a"]}}):
        with pytest.raises(InputError, match=next(iter(train)).replace("patience", "select")):
            space_of("{head.dropout: {low: 0, high: 0.5}}", **train)


def test_ranges_are_of_what_their_settings_take() -> None:
    """Whole numbers where nothing else is taken, written like whole numbers or not; choices of any kind come back as they were."""
    text = "{train.epochs: {low: 1, high: 4}, head.dropout: {low: 0, high: 0.6, step: 0.1}, head.weight_decay: {low: 0, high: 1}"
    text += ", train.stages: {choices: [[{epochs: 1}], [{epochs: 1}, {freeze_until: 2}]]}"
    text += ", augment.preset: {choices: [null, light]}}"
    space = space_of(text)
    assert space.whole == {"train.epochs"}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=5))
    tried = [space.values(study.ask(space.distributions()).params) for _ in range(12)]
    for values in tried:
        made = space.settings(values)
        assert isinstance(values["train.epochs"], int)
        assert values["head.dropout"] in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
        assert 0 < values["head.weight_decay"] < 1
        assert made.augment.preset in (None, "light")
        assert len(made.train.stages) in (1, 2)


def test_a_trial_is_compared_with_the_same_folds_of_others() -> None:
    """After an easy first fold, Optuna's own pruner would go by that fold for ever; pruned trials count too."""
    study = optuna.create_study()
    space = Space(space_of("{head.dropout: {low: 0, high: 0.5}}").own, parse(SearchSettings, TWO, "s.yaml"), "s.yaml")
    here = searches._Search(None, space, None, 2, study)  # type: ignore[arg-type]
    for number, means in enumerate([(0.2, 0.9), (0.3, 0.8), (0.4, 0.7), (0.6,), (0.1, 1.5)]):
        trial = study.ask(space.distributions())
        medians = [here._report(trial, fold, mean) for fold, mean in enumerate(means)]
        assert (medians[0] is None) == (number < 4)
        here._end(trial, "COMPLETE" if number < 3 else "PRUNED", "why")
    trial = study.ask(space.distributions())
    assert here._report(trial, 0, 0.1) == pytest.approx(0.3)
    assert here._report(trial, 1, 1.0) == pytest.approx(0.85)
    assert here._best().number == 2
    assert [one.value for one in here._trials("COMPLETE")] == [0.9, 0.8, 0.7]
    assert [one.state.name for one in here._trials()] == ["COMPLETE"] * 3 + ["PRUNED"] * 2 + ["RUNNING"]


def test_a_file_that_is_no_study_and_optuna_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "s.db").write_text("garbage")
    with (
        pytest.raises(InputError, match=r"s.db: expected a search's study, got .*not a database.*FORCE=1"),
        searches._open_study(tmp_path / "s.db", {}),
    ):
        pass
    with mock.patch.dict(sys.modules, {"optuna": None}), pytest.raises(InputError, match="make setup EXTRAS=cluster"):
        load_optuna()


@pytest.mark.parametrize("draw", [0, 1, 77])
def test_reshuffled_folds_hold_each_driver_out_once_with_other_drivers(world: World, draw: int) -> None:  # noqa: F811
    found, again = (splits.reshuffled_folds(world.folds, draw) for _ in range(2))
    assert found == again
    assert set(found) == set(world.folds.of_driver)
    assert set(found.values()) == set(range(world.folds.count))
    pairs = [{(a, b) for a in of for b in of if a < b and of[a] == of[b]} for of in (found, world.folds.of_driver)]
    assert not pairs[0] & pairs[1], "of six drivers in pairs, no pair need be the same"


def test_a_search_finds_what_is_best_and_says_what_is_left_on_other_folds(world: World, capsys: object) -> None:  # noqa: F811
    folder = searched(world, 14, made_up(world))
    result = read_json(folder / "result.json")
    lines = read(folder / "trials.csv")
    assert [int(line["number"]) for line in lines] == list(range(14))
    assert {line["state"] for line in lines} == {"COMPLETE", "PRUNED"}
    complete = {int(line["number"]): float(line["log_loss"]) for line in lines if line["state"] == "COMPLETE"}
    assert result["best"] == min(complete, key=complete.get)
    assert {line["augment.preset"] for line in lines} == {"null", "light"}
    assert all(line["intermediate_values_2"] or "above the median" in line["why"] for line in lines)

    own = world.settings()
    made = load(ModelSettings, folder, "best")
    wanted = own.model_dump()
    for key, value in result["values"].items():
        put(wanted, key, value, "test")
    assert made == parse(ModelSettings, wanted, "test")
    assert skill(made) > skill(own) - 1
    loss = out_of_fold(world, f"trial-{result['best']:04d}")
    assert loss == pytest.approx(result["searched"]["best"])
    assert loss == pytest.approx(complete[result["best"]], abs=1e-6)

    for side in ("searched", "fresh"):
        assert result[side]["difference"] == pytest.approx(result[side]["best"] - result[side]["own"])
        assert result[side]["low"] <= result[side]["difference"] <= result[side]["high"]
    optimism = result["fresh"]["difference"] - result["searched"]["difference"]
    assert result["optimism"]["difference"] == pytest.approx(optimism)
    drivers = read(folder / "drivers.csv")
    assert np.mean([float(line["difference"]) for line in drivers]) == pytest.approx(result["fresh"]["difference"])
    said = capsys.readouterr().out
    assert f"optimistic by {optimism:+.4f}" in said
    for plot in ("history", "slices"):
        assert (folder / f"{plot}.png").read_bytes().startswith(b"\x89PNG")

    kept = sorted(path.name for path in (world.context.places.build / "studies" / "search-found").iterdir())
    best = f"trial-{result['best']:04d}"
    assert kept == ["own", "own-fresh", best, f"{best}-fresh"], "beaten trials leave no weights"
    fresh = runs.load(world.context.places.build / "studies" / "search-found" / f"{best}-fresh")
    assert fresh.settings.train.splits.kind == "reshuffled"


def out_of_fold(world: World, name: str) -> float:  # noqa: F811
    """A run's loss as `make score` has it."""
    from dataclasses import replace

    from driverwatch.ensemble import members as blending

    place = replace(world.context, places=replace(world.context.places, study="search-found"))
    member = blending.Member(runs.load(place.places.run(name)), world.packs["test"], "five_crop")
    rows = limited(blending.oof_probabilities(member, world.packs["train"], world.folds), FLOOR)
    return log_loss(rows, world.packs["train"].labels)


def untimed(path: Path) -> list[dict[str, str]]:
    return [{key: value for key, value in line.items() if key != "duration"} for line in read(path)]


@pytest.mark.slow
def test_the_seed_decides_and_more_trials_resume(world: World) -> None:  # noqa: F811
    path = searched(world, 5, made_up(world)) / "trials.csv"
    five = untimed(path)
    searched(world, 8, made_up(world))
    eight = untimed(path)
    assert eight[:5] == five
    with pytest.raises(InputError, match=r"(?s)started with other settings.*seed: 0 -> 1"):
        searched(world, 8, made_up(world), seed=1)
    with pytest.raises(InputError, match=r"(?s)started with other settings.*startup: 3 -> 4"):
        searched(world, 8, made_up(world), SPACE.replace("startup: 3", "startup: 4"))
    searched(world, 8, made_up(world), force=True)
    assert untimed(path) == eight
    searched(world, 8, made_up(world), seed=1, force=True)
    assert untimed(path) != eight


def test_trials_that_fail_or_diverge_end_no_search(world: World) -> None:  # noqa: F811
    """A loss that is no number is a bad trial; whatever else stops a fold stops the search, until it is fixed or given up."""
    train, invalid = made_up(world), []

    def trainer(ask: FoldRequest) -> None:
        name, fit, folder = ask.name, ask.fold, ask.context.places.run(ask.name)
        if name == "trial-0001" and fit == 1:
            write_json(folder / "fold1" / runs.DIVERGED, {"epoch": 1})
            raise InputError("fold 1 ended with status 2")
        if name == "trial-0002" and not invalid:
            raise InputError("fold 0 ended with status -9")
        train(ask)

    with pytest.raises(InputError, match=r"trial-0002: fold 0 ended with status -9.*SKIP_TRIAL=2"):
        searched(world, 4, trainer)
    with pytest.raises(InputError, match="SKIP_TRIAL=1: expected a running trial, of 2"):
        searched(world, 4, trainer, skip=1)
    folder = searched(world, 4, trainer, skip=2)
    ends = {line["number"]: (line["state"], line["why"]) for line in read(folder / "trials.csv")}
    assert ends["1"] == ("PRUNED", "the loss became NaN or inf in fold 1")
    assert ends["2"] == ("FAIL", "given up with SKIP_TRIAL=")
    assert len(ends) == 4


@pytest.mark.slow
def test_killed_at_any_change_of_its_study_it_resumes_and_trains_nothing_twice(tmp_path: Path) -> None:
    """SIGKILL, again and again in one search, after each kind of change."""
    path = f"{ROOT / 'src'}:{ROOT / 'tests'}"
    command = [sys.executable, str(ROOT / "tests" / "support" / "searching.py"), "5"]
    statuses = []
    for changes in (1, 2, 5, 9, 4, 7, 3, 10_000):  # `create_new_trial` first, then states, values, means
        made = subprocess.run(
            [*command, str(changes)], cwd=tmp_path, env={"PYTHONPATH": path}, capture_output=True, text=True
        )
        statuses.append(made.returncode)
        if made.returncode == 0:
            break
        assert made.returncode == -signal.SIGKILL, made.stderr
    assert statuses[-1] == 0, made.stderr
    assert statuses.count(-signal.SIGKILL) > 4
    trained = (tmp_path / "trained.txt").read_text().split()
    assert len(set(trained)) == len(trained), "no fold is trained twice"
    found = tmp_path / "build" / "made_up" / "searches" / "found"
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{found / 'study.db'}")
    assert [one.number for one in study.trials] == list(range(5))
    for one in study.trials:
        assert one.state.name in ("COMPLETE", "PRUNED")
        assert len(one.params) == 4
        assert [name for name in trained if name.startswith(f"trial-{one.number:04d}/")] == [
            f"trial-{one.number:04d}/{fold}" for fold in one.intermediate_values
        ], "what was trained is what was reported"
    lines = read(found / "trials.csv")
    assert min(float(line["log_loss"]) for line in lines if line["state"] == "COMPLETE") == pytest.approx(
        study.best_value
    )


@pytest.mark.parametrize(
    ("searched", "fresh", "said"),
    [
        (-0.2, -0.15, "promises -0.2000; on fresh folds -0.1500 survives: it was optimistic by +0.0500"),
        (-0.2, -0.05, "-0.0500 survives (the interval holds 0: perhaps nothing): it was optimistic by +0.1500"),
        (-0.2, 0.05, "on fresh folds nothing survives: it was optimistic by +0.2500"),
        (
            0.1,
            -0.05,
            "No trial was better than the settings as they are: the best has +0.1000, on fresh folds -0.0500.",
        ),
    ],
)
def test_what_a_search_means(searched: float, fresh: float, said: str) -> None:
    sides = {"searched": searched, "fresh": fresh, "optimism": fresh - searched}
    facts = {key: {"difference": mean, "low": mean - 0.1, "high": mean + 0.1} for key, mean in sides.items()}
    assert said in search_verdict(facts)


@pytest.mark.line
@pytest.mark.slow
def test_the_command_searches_and_scores_again(verb: Verb, data: Path, project: Path) -> None:
    """On synthetic images by the real trainer."""
    dataset = project / "configs/datasets/demo.yaml"
    dataset.write_text(dataset.read_text().replace("folds: 3", "folds: 2"))
    (project / "configs/searches/two.yaml").write_text(
        "space: {train.learning_rate: {low: 1e-4, high: 1e-2, log: true}}"
    )
    place = ["--dataset", "demo", "--data", data]
    assert verb("folds", *place).returncode == 0
    shown = "input.pack=40x52 input.size=36x48 train.epochs=1 predict.tta=centre augment.hflip=none"
    made = verb("search", "tiny", "--space", "two", "--trials", "1", "--set", shown, *place)
    assert made.returncode == 0, made.stderr
    folder = project / "build/demo/searches/tiny"
    assert {path.name for path in folder.glob("[!.]*")} == {
        "best.yaml", "drivers.csv", "history.png", "result.json", "slices.png", "study.db", "trials.csv"
    }  # fmt: skip
    predicted = {path.name for path in project.glob("build/demo/studies/search-tiny/*/fold*/*.h5")}
    assert predicted == {"weights.h5", "validation-centre.h5"}, "test images cost a search nothing"
    assert "make train MODEL=tiny_found DATASET=demo" in made.stdout or "keep tiny as it is" in made.stdout
    assert "no run is there" in verb("ensemble", "--dataset", "demo").stderr
