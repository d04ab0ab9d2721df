"""What a run takes part with where no TTA set is asked for; and that every command suggested after training works."""

import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from support.finished import CLASSES, World, skilled, world_of
from support.places import ROOT
from support.project import Verb

from driverwatch import run as runs
from driverwatch.config.dataset import DatasetSettings
from driverwatch.config.loading import load, parse
from driverwatch.config.model import ModelSettings
from driverwatch.config.types import TTA_SETS, TtaSet
from driverwatch.data import folds as fold_tables
from driverwatch.data import splits
from driverwatch.data.pack import ImageBlock
from driverwatch.data.tta import best_of, held_by
from driverwatch.inference import predictions
from driverwatch.inference.predictions import Predictions, default_tta_of, prediction_path
from driverwatch.io.atomic import write_json
from driverwatch.io.manifests import read_json
from driverwatch.report.collect_runs import PackState, collect_folds, collect_runs
from driverwatch.report.status import ImagesState, next_command
from driverwatch.training.run_summary import print_summary

KINDS = "tiny", "efficientnet_lite0_96x128", "inception_v3", "guide_vgg16", "mobilenet_v2_strong"
MODELS = [
    pytest.param(name, marks=() if name in KINDS else pytest.mark.slow)
    for name in sorted(path.stem for path in (ROOT / "configs" / "models").glob("*.yaml"))
]


@pytest.mark.parametrize(
    ("there", "honest", "best"),
    [
        (["centre"], "five_crop", "centre"),
        (["centre"], "ten_crop", "centre"),
        (["centre", "multi_scale"], "five_crop", "multi_scale"),
        (["centre", "five_crop", "shifts"], "ten_crop", "shifts"),
        (["centre", "five_crop", "shifts"], "five_crop", "five_crop"),
        (["centre", "five_crop", "ten_crop"], "five_crop", "five_crop"),
        (["centre", "ten_crop_swap"], "five_crop", "centre"),  # its flipped views mislead
        (["ten_crop_swap"], "five_crop", "ten_crop_swap"),  # but there is nothing else
        (TTA_SETS, "ten_crop", "ten_crop"),
        ([], "five_crop", "five_crop"),
    ],
)
def test_the_best_of_what_is_there(there: list[TtaSet], honest: TtaSet, best: TtaSet) -> None:
    assert best_of(there, honest) == best


@pytest.fixture
def made_up(project: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Fabricated folds and packs in a project with the real configs; images are grey."""
    world = world_of(project)
    content = {"title": "Made up", "data": "data", "classes": {name: name for name in CLASSES}, "folds": 3}
    content["regions"] = {"head": [0.0, 0.2, 0.6, 0.8], "wheel": [0.4, 0.2, 1.0, 0.8]}
    (project / "configs" / "datasets" / "made_up.yaml").write_text(yaml.safe_dump(content))
    world = replace(world, context=replace(world.context, settings=parse(DatasetSettings, content, "x")))
    for kind, pack in world.packs.items():
        file = project / f"{kind}.raw"
        file.write_bytes(bytes([99]) * int(np.prod(pack.images.shape)))
        world.packs[kind] = replace(pack, images=ImageBlock(str(file), 0, pack.images.shape))
    fold_tables.write(world.folds, world.context.places.folds)
    world.opened(monkeypatch)
    return world


def trained(world: World, model: str, tta: list[TtaSet], test: bool = True) -> runs.Run:
    """A run as `make train` leaves it, of a model's settings with `predict.tta`: manifests, and what was predicted."""
    settings = load(ModelSettings, Path("configs/models"), model)
    checksums = {kind: pack.checksum for kind, pack in world.packs.items()}
    folder = world.context.places.run(model)
    identity = runs.identity(settings, world.context.settings, [], world.folds.checksum, checksums, None)
    write_json(folder / "run.json", identity)
    run, split = runs.load(folder), splits.of(settings.train, world.folds)
    sets = run.columns.sets_of(tta)
    for fit in range(split.count):
        facts = {"weights": f"{model}{fit}", "seconds": 60.0, "training_seconds": 50.0, "commit": "c"}
        facts["log_loss"] = dict.fromkeys(sets, 1.0)
        write_json(run.fold(fit) / "manifest.json", {"settings": run.settings.model_dump(), **run.claim, **facts})
        (run.fold(fit) / "weights.h5").touch()
        asked = {
            "validation": split.indices(world.packs["train"].drivers, fit)[1],
            "test": np.arange(len(world.packs["test"].names)),
        }
        for kind, rows in asked.items() if test else [("validation", asked["validation"])]:
            pack = world.packs["train" if kind == "validation" else "test"]
            for name in sets:
                said = skilled(pack.names[rows], pack.labels[rows], fit, 1.5)
                made = Predictions(pack.names[rows], said, run.predicted(fit, name))
                predictions.write(made, prediction_path(run.fold(fit), kind, name))
    return run


def suggested(world: World, run: runs.Run, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The commands that the end of training and the status suggest."""
    print_summary(world.context, run, world.folds.count, 1.0)
    lines = capsys.readouterr().out.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("  next"))
    said = [line.removeprefix("  next").strip() for line in lines[first:]]
    folds = collect_folds(world.context)
    checksums = {kind: pack.checksum for kind, pack in world.packs.items()}
    pack = PackState(run.settings.input.key, 66, checksums=checksums)
    states = [state for state in collect_runs(world.context, folds, [pack]) if state.name == run.name]
    assert [state.stale for state in states] == [[]]
    images = ImagesState(str(world.context.data), 54, 12, None)
    found = next_command(world.context, images, folds, states, [])
    return [*said, *([found] if found else [])]


def typed(command: str) -> list[str]:
    """What make hands on of a suggested command, but for DATA."""
    made, target, *variables = shlex.split(command)
    assert made == "make"
    return [target, *(word for variable in variables for word in _option(*variable.split("=", 1)))]


def _option(name: str, value: str) -> list[str]:
    return [value] if name == "RUN" else [f"--{name.lower()}", value]


@pytest.mark.parametrize("tta", ["its own", "centre"])
@pytest.mark.parametrize("model", MODELS)
def test_what_is_suggested_after_training_works(
    made_up: World, verb: Verb, capsys: pytest.CaptureFixture[str], model: str, tta: str
) -> None:
    asked = load(ModelSettings, Path("configs/models"), model).predict.tta if tta == "its own" else ["centre"]
    run = trained(made_up, model, asked)
    found = suggested(made_up, run, capsys)
    assert found == [f"make {target} DATASET=made_up" for target in ("score", "ensemble", "ensemble")]
    for command in [*found[:2], "make review DATASET=made_up"]:
        ended = verb(*typed(command))
        assert ended.returncode == 0, f"{command}: {ended.stderr}"
    honest = run.settings.default_tta
    expected = honest if honest in held_by(*asked) else asked[0]
    assert read_json(made_up.context.places.submissions / "ensemble.json")["runs"] == {model: expected}


@pytest.mark.parametrize("tta", ["multi_scale", "shifts", "five_crop", "ten_crop_keep"])
def test_every_tta_set_that_settings_may_name_is_taken(made_up: World, verb: Verb, tta: TtaSet) -> None:
    for model in ("mobilenet_v2", "tiny"):
        run = trained(made_up, model, [tta])
        assert default_tta_of(run) in held_by(tta)
    for command in ("ensemble", "score", "review", "blends"):
        ended = verb(command, "--dataset", "made_up")
        assert ended.returncode == 0, f"{command}: {ended.stderr}"


def test_a_lost_file_is_missed_and_no_other_set_takes_its_place(made_up: World, verb: Verb) -> None:
    run = trained(made_up, "mobilenet_v2", ["five_crop"])
    assert default_tta_of(run) == "five_crop"
    prediction_path(run.fold(1), "test", "five_crop").unlink()
    ended = verb("ensemble", "--dataset", "made_up")
    assert ended.returncode == 2
    assert "test-five_crop.h5: no such predictions" in ended.stderr


def test_where_no_test_image_was_predicted_that_is_what_comes_next(
    made_up: World, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(made_up, "mobilenet_v2", ["centre"], test=False)
    assert suggested(made_up, run, capsys) == ["make predict DATASET=made_up RUN=mobilenet_v2"] * 2
