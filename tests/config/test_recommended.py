"""The recommended recipe: every backbone inherits it, figures that were recorded rest on settings that do not move with it."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.places import ROOT

from driverwatch.config.backbones import BACKBONES
from driverwatch.config.loading import load, parse, read_yaml
from driverwatch.config.model import ModelSettings
from driverwatch.config.types import pixels
from driverwatch.errors import InputError

FOLDER = ROOT / "configs" / "models"
FILES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
FROM_SCRATCH = ("alexnet", "tiny", "tiny_separable", "efficientnet_lite3", "efficientnet_lite4")
FINE_TUNED = [name for name in BACKBONES if name not in FROM_SCRATCH]
OWN = {"backbone", "weights", "truncate_at", "freeze_until", "input"}  # what a backbone's file says of the network
SYNTHETIC = ("tiny", "tiny_separable")  # sized for synthetic images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of models of its own, above it the committed recipe."""
    (tmp_path / "models").mkdir()
    shutil.copy(ROOT / "configs" / "recommended.yaml", tmp_path)
    return tmp_path / "models"


def made(folder: Path, text: str, overrides: str = "") -> ModelSettings:
    (folder / "m.yaml").write_text(text)
    return load(ModelSettings, folder, "m", overrides)


@pytest.mark.parametrize("name", BACKBONES)
def test_a_backbones_file_says_what_the_network_is_and_nothing_else(name: str) -> None:
    said = read_yaml(FOLDER / f"{name}.yaml")
    assert said["backbone"] == name
    assert said.keys() <= OWN or name in SYNTHETIC
    assert ("freeze_until" in said) == (name in FINE_TUNED)
    assert name in FROM_SCRATCH or said["freeze_until"] in BACKBONES[name].freeze_points  # which the zoo's tests build
    assert (said.get("weights") == "none") == (name in FROM_SCRATCH)


@pytest.mark.parametrize("name", FINE_TUNED)
def test_a_pretrained_backbone_is_fine_tuned_by_the_recipe(name: str) -> None:
    settings = load(ModelSettings, FOLDER, name)
    train, (first, second) = settings.train, settings.train.stages
    assert (settings.augment.preset, settings.augment.mix, settings.augment.hflip) == ("lean", "none", "none")
    assert (train.optimizer, train.learning_rate, train.warmup, train.epochs) == ("adam", 1e-4, 0.1, 4)
    assert (first.freeze_until, first.fit, first.l2) == ("head", "linear_probe", [0.3])
    assert (second.freeze_until, second.fit) == (read_yaml(FOLDER / f"{name}.yaml")["freeze_until"], "gradient")
    assert settings.predict.tta == ["five_crop"]
    assert (settings.input.pack, settings.input.size) == ("180x240", "160x208")


@pytest.mark.parametrize("name", FROM_SCRATCH)
def test_a_backbone_without_weights_is_trained_from_scratch_by_the_recipe(name: str) -> None:
    settings = load(ModelSettings, FOLDER, name)
    (stage,), train = settings.train.stages, settings.train
    assert (stage.freeze_until, stage.fit, train.optimizer, train.warmup) == (None, "gradient", "adam", 0.1)
    assert settings.augment.preset == "light"
    assert train.learning_rate == 1e-3 or name in SYNTHETIC


@pytest.mark.parametrize("name", [name for name in FILES if not name.startswith("guide_")])
def test_no_default_packs_larger_than_the_recipe(name: str) -> None:
    """The full competition packs 102,150 x 180 x 240 x 3 bytes, 13 GB, once for every model; 320x427 would take 42."""
    height, width = pixels(load(ModelSettings, FOLDER, name).input.pack)
    assert height * width <= 180 * 240
    assert height < width


def test_the_guides_recipes_are_literal() -> None:
    vgg, inception, alexnet = (
        load(ModelSettings, FOLDER, f"guide_{name}") for name in ("vgg16", "inception_v3", "alexnet_hdf5")
    )
    for settings in (vgg, inception):
        train = settings.train
        assert (train.optimizer, train.learning_rate, train.momentum, train.warmup) == ("sgd", 1e-3, 0.9, 0.0)
        assert [(stage.freeze_until, stage.fit) for stage in train.stages] == [(10, "gradient")]
    assert (vgg.truncate_at, vgg.input.size, inception.input.size) == ("fc2", "224x224", "299x299")
    assert (alexnet.mean, alexnet.head.dense, alexnet.head.weight_decay) == ("dataset", [4096, 4096], 2e-4)
    assert (alexnet.input.pack, alexnet.input.size, alexnet.predict.tta) == ("256x256", "227x227", ["ten_crop"])


RECORDED: dict[str, dict[str, Any]] = {  # settings, but for defaults, that figures in experiments/ and docs/ were made with
    "inception_v3_strong": {
        "backbone": "inception_v3", "truncate_at": "mixed7", "input": {"pack": "180x240", "size": "160x208"},
        "augment": {"preset": "strong", "mix": "same_class_halves"}, "predict": {"tta": ["five_crop"]},
        "train": {"optimizer": "adam", "learning_rate": 1e-4, "stages": [
            {"freeze_until": "head", "fit": "linear_probe", "l2": [0.3]}, {"freeze_until": "mixed2"}]},
    },
    "mobilenet_v2_screen": {
        "backbone": "mobilenet_v2", "input": {"pack": "108x144", "size": "96x128"}, "augment": {"preset": "light"},
        "predict": {"tta": ["centre"], "batch_size": 64},
        "train": {"optimizer": "adam", "learning_rate": 1e-4, "epochs": 3, "stages": [
            {"freeze_until": "head", "fit": "linear_probe", "l2": [0.3]}, {"freeze_until": "block_6_project_BN"}]},
    },
    "efficientnet_lite2": {
        "backbone": "efficientnet_lite2", "input": {"pack": "180x240", "size": "160x208"}, "augment": {"preset": "lean"},
        "predict": {"tta": ["five_crop"]},
        "train": {"optimizer": "adam", "learning_rate": 1e-4, "warmup": 0.1, "stages": [
            {"freeze_until": "head", "fit": "linear_probe", "l2": [0.3]}, {"freeze_until": "block2c_add"}]},
    },
}  # fmt: skip
RECORDED["inception_v3_robust"] = {**RECORDED["inception_v3_strong"], "augment": {"preset": "robust"}}
RECORDED["mobilenet_v2_strong"] = {
    **{key: RECORDED["inception_v3_strong"][key] for key in ("input", "augment", "predict")},
    "backbone": "mobilenet_v2",
    "train": {
        **RECORDED["inception_v3_strong"]["train"],
        "stages": [RECORDED["mobilenet_v2_screen"]["train"]["stages"][0], {"freeze_until": "block_3_project_BN"}],
    },
}
RECORDED["efficientnet_lite0"] = {
    **RECORDED["efficientnet_lite2"],
    "backbone": "efficientnet_lite0",
    "train": {
        **RECORDED["efficientnet_lite2"]["train"],
        "stages": [RECORDED["efficientnet_lite2"]["train"]["stages"][0], {"freeze_until": "block2b_add"}],
    },
}


@pytest.mark.parametrize("name", RECORDED)
def test_settings_that_figures_rest_on_stay_as_they_are(name: str) -> None:
    assert load(ModelSettings, FOLDER, name) == parse(ModelSettings, RECORDED[name], "test")


def test_the_freeze_point_is_that_of_stages_that_name_none(folder: Path) -> None:
    text = "base: none\nbackbone: vgg16\ninput: {pack: 64x64, size: 64x64}\nfreeze_until: block1_pool\n"
    assert [stage.freeze_until for stage in made(folder, text).train.stages] == ["block1_pool"]
    stages = "train: {stages: [{freeze_until: head}, {freeze_until: null}, {epochs: 2}]}\n"
    assert [stage.freeze_until for stage in made(folder, text + stages).train.stages] == ["head", None, "block1_pool"]
    with pytest.raises(InputError, match=r"m.yaml: freeze_until is for stages that name none.*train.stages.0.freeze_u"):
        made(folder, text + "train: {stages: [{freeze_until: null}]}\n")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ("freeze_until=mixed5", ["head", "mixed5"]),
        ("freeze_until=null", ["head", None]),
        ("train.stages.1.freeze_until=mixed5", ["head", "mixed5"]),
        ("weights=none", [None]),
        ("weights=none train.stages=[{}]", [None]),
    ],
)
def test_set_changes_the_freeze_point_and_the_section(overrides: str, expected: list[Any]) -> None:
    settings = load(ModelSettings, FOLDER, "inception_v3", overrides)
    assert [stage.freeze_until for stage in settings.train.stages] == expected
    assert (settings.augment.preset == "light") == ("weights=none" in overrides)


@pytest.mark.parametrize(
    ("text", "overrides", "said"),
    [
        ("backbone: vgg16\nfreze_until: 3\n", "", "freze_until: unknown key; .*did you mean freeze_until"),
        ("backbone: vgg16\n", "freeze_untl=3", "freeze_untl: unknown key; .*did you mean freeze_until"),
        ("backbone: vgg16\nbase: nothing\n", "", "base: input should be 'recommended' or 'none', got 'nothing'"),
        ("backbone: vgg16\nfreeze_until: 1.5\n", "", "freeze_until: must be a layer or block"),
        ("backbone: alexnet\nweights: none\nfreeze_until: conv3_bn\n", "", "random layers would stay random"),
        ("backbone: vgg16\nbase: none\n", "", "input: is missing"),
    ],
)
def test_what_does_not_fit_is_one_sentence(folder: Path, text: str, overrides: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as refused:
        made(folder, text, overrides)
    assert str(refused.value).startswith(str(folder / "m.yaml"))


def test_what_the_file_leaves_out_or_null_is_the_recipes(folder: Path) -> None:
    plain = made(folder, "backbone: vgg16\n")
    assert made(folder, "backbone: vgg16\ntrain:\naugment:\ninput: null\n") == plain
    assert made(folder, "backbone: vgg16\naugment: {preset: null}\n").augment.preset is None
    assert made(folder, "backbone: vgg16\ntrain: {stages: [{}]}\n").train.stages[0].fit == "gradient"
    assert made(folder, "backbone: vgg16\ntrain: {epochs: 9}\n").train.warmup == 0.1


def test_a_recipe_that_is_gone_or_no_recipe_is_one_sentence(folder: Path) -> None:
    recipe = folder.parent / "recommended.yaml"
    recipe.write_text("from_scratch: {}\n")
    with pytest.raises(InputError, match=f"{re.escape(str(recipe))}: expected settings of a model below fine_tuning"):
        made(folder, "backbone: vgg16\n")
    recipe.unlink()
    with pytest.raises(InputError, match=f"{re.escape(str(recipe))}: is not there; .*base: none"):
        made(folder, "backbone: vgg16\n")
    assert made(folder, "base: none\nbackbone: vgg16\ninput: {pack: 64x64, size: 64x64}\n").backbone == "vgg16"
