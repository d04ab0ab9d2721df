"""`SET=`: every place that settings have can be reached, left out or null, and the advice that sentences print works."""

import re
import shutil
from pathlib import Path

import pytest
from support.places import ROOT

from driverwatch.cli.options import model_settings
from driverwatch.config.loading import load, parse, put
from driverwatch.config.model import ModelSettings
from driverwatch.errors import InputError
from driverwatch.models import weight_files

MODELS = sorted(path.stem for path in (ROOT / "configs" / "models").glob("*.yaml"))
BASE = "base: none\nbackbone: tiny\nweights: none\ninput: {pack: 40x40, size: 36x36}\n"


def settings(folder: Path, yaml: str, overrides: str) -> ModelSettings:
    (folder / "one.yaml").write_text(BASE + yaml)
    return load(ModelSettings, folder, "one", overrides)


@pytest.mark.parametrize(
    "yaml", ["", "train:\n", "train: {epochs: 3}\n", "train: {stages: null}\n", "train: {stages: [{}]}\n"]
)
def test_stages_that_are_left_out_or_null_begin_as_their_default(tmp_path: Path, yaml: str) -> None:
    made = settings(tmp_path, yaml, "train.stages.0.epochs=7 train.stages.0.learning_rate=1e-3")
    assert [(stage.epochs, stage.learning_rate) for stage in made.train.stages] == [(7, 0.001)]


@pytest.mark.parametrize("yaml", ["", "train: {pseudo: null}\n", "train: {pseudo: }\n"])
def test_pseudo_labels_can_be_asked_for_key_by_key(tmp_path: Path, yaml: str) -> None:
    made = settings(tmp_path, yaml, "train.pseudo.threshold=0.9 train.pseudo.runs=[teacher]")
    assert made.train.pseudo is not None
    assert (made.train.pseudo.threshold, made.train.pseudo.runs) == (0.9, ["teacher"])
    with pytest.raises(InputError, match=r"train.pseudo: must have either runs or labels"):
        settings(tmp_path, yaml, "train.pseudo.threshold=0.9")


@pytest.mark.parametrize(
    ("yaml", "overrides", "expected"),
    [
        ("head:\n", "head.dropout=0.5", ("head", {"dropout": 0.5})),
        ("predict:\n", "predict.tta.0=centre", ("predict", {"tta": ["centre"]})),
        (
            "train: {stages: [{lr_multipliers: null}]}\n",
            "train.stages.0.lr_multipliers.stage1=0.1",
            ("train", {"stages": [{"lr_multipliers": {"stage1": 0.1}}]}),
        ),
        ("train: {splits: null}\n", "train.splits.kind=all", ("train", {"splits": "all"})),
    ],
)  # fmt: skip
def test_every_null_on_the_way_begins_as_its_default(
    tmp_path: Path, yaml: str, overrides: str, expected: tuple
) -> None:
    key, value = expected
    wanted = parse(
        ModelSettings,
        {"backbone": "tiny", "weights": "none", "input": {"pack": "40x40", "size": "36x36"}, key: value},
        "x",
    )
    assert settings(tmp_path, yaml, overrides) == wanted


@pytest.mark.parametrize(
    ("yaml", "overrides", "sentence"),
    [
        ("", "augment.preset.0=light", r"SET augment.preset.0: augment.preset holds a value, not further keys; set it as a whole"),
        ("truncate_at: null\n", "truncate_at.x=1", r"SET truncate_at.x: truncate_at holds a value"),
        ("", "train.epochs.x=1", r"SET train.epochs.x: train.epochs holds a value"),
        ("train: {epochs: 3}\n", "train.epochs.x=1", r"SET train.epochs.x: epochs holds a value"),
        ("", "head.dense.0=8", r"SET head.dense.0: there is an empty list .* set it as a whole"),
        ("", "train.stages.1.epochs=2", r"SET train.stages.1.epochs: expected a number from 0 to 0 in place of 1"),
        ("", "train.stages.first.epochs=2", r"expected a number from 0 to 0 in place of first"),
        ("train: {stages: [null]}\n", "train.stages.0.epochs=2", r"0 holds a value, not further keys"),
        ("", "trian.pseudo.x=2", r"trian: unknown key; .*did you mean train\?"),
        ("", "train.pseud.x=2", r"train.pseud: unknown key; .*did you mean pseudo\?"),
    ],
)  # fmt: skip
def test_what_is_no_place_is_said_of_that_place(tmp_path: Path, yaml: str, overrides: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        settings(tmp_path, yaml, overrides)


def test_without_a_kind_what_is_left_out_begins_empty() -> None:
    content: dict = {"a": None}
    put(content, "a.b.c", 1, "here")
    assert content == {"a": {"b": {"c": 1}}}


@pytest.mark.parametrize("model", MODELS)
def test_the_advice_to_train_from_scratch_works_of_every_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    """As it is printed, it is typed: it must be taken, leave no layer frozen that would stay random, and need no weights."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    advice = re.search(r'SET="([^"]*)"', weight_files.SCRATCH)
    assert advice is not None
    made = model_settings(model, advice[1])
    assert made.weights == "none"
    assert all(stage.freeze_until is None and stage.fit == "gradient" for stage in made.train.stages)
    assert sum(made.train.planned) == made.train.epochs
    assert weight_files.find(made, None) is None


@pytest.mark.parametrize("made", ["null", "5", "{threshold: 0.9}"])
def test_rounds_of_pseudo_labels_need_their_teacher(made: str) -> None:
    from driverwatch.experiments.pseudo_label_rounds import student_settings

    content = {"backbone": "tiny", "weights": "none", "input": {"pack": "40x40", "size": "36x36"}}
    own = parse(ModelSettings, content, "x")
    with pytest.raises(InputError, match="make pseudo-rounds names each round's teacher itself"):
        student_settings(own, "first", f"train.pseudo={made.replace(' ', '')}")
    with pytest.raises(InputError, match="make pseudo-rounds names each round's teacher itself"):
        student_settings(own, "first", "train=null")
    asked = student_settings(own, "first", "train.pseudo.threshold=0.9").train.pseudo
    assert asked is not None
    assert (asked.runs, asked.threshold) == (["first"], 0.9)
