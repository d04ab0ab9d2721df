"""Settings: what is written is what is meant, or one readable line says why not."""

from pathlib import Path

import pytest
from support.places import ROOT

from driverwatch.config.dataset import DatasetSettings
from driverwatch.config.ensemble import EnsembleSettings
from driverwatch.config.loading import load
from driverwatch.config.model import ModelSettings
from driverwatch.config.types import pixels
from driverwatch.errors import InputError

GOOD = "base: none\nbackbone: tiny\nweights: none\ninput: {pack: 40x40, size: 36x36}\n"


def model(tmp_path: Path, text: str, overrides: str = "") -> ModelSettings:
    (tmp_path / "m.yaml").write_text(text)
    return load(ModelSettings, tmp_path, "m", overrides)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*/*.yaml")), ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_committed_file_loads(path: Path) -> None:
    kinds = {"models": ModelSettings, "datasets": DatasetSettings, "ensembles": EnsembleSettings}
    if path.parent.name in kinds:
        assert load(kinds[path.parent.name], path.parent, path.stem)


def test_numbers_are_numbers(tmp_path: Path) -> None:
    assert model(tmp_path, GOOD + "train: {learning_rate: 1e-4}").train.learning_rate == 0.0001
    assert model(tmp_path, GOOD, "train.learning_rate=3e-3").train.learning_rate == 0.003
    assert model(tmp_path, GOOD, "train.learning_rate=5E-2").train.learning_rate == 0.05


def test_overrides_reach_into_lists(tmp_path: Path) -> None:
    text = GOOD + "train: {stages: [{epochs: 1}, {freeze_until: stage1_relu}]}"
    changed = model(tmp_path, text, "train.stages.1.epochs=7 augment.hflip=swap_left_right train.epochs=2")
    assert [stage.epochs for stage in changed.train.stages] == [1, 7]
    assert changed.augment.hflip == "swap_left_right"
    assert changed.train.epochs == 2


@pytest.mark.parametrize(
    ("text", "overrides", "said"),
    [
        (GOOD + "trian: {epochs: 1}", "", "trian: unknown key; expected one of.*did you mean train"),
        (GOOD + "train: {epoch: 1}", "", "train.epoch: unknown key.*did you mean epochs"),
        (GOOD + "train: {stages: [{epoch: 1}]}", "", r"train.stages.0.epoch: unknown key.*did you mean epochs"),
        (GOOD + "train: {epochs: many}", "", "train.epochs: .*valid integer, got 'many'"),
        (GOOD + "train: {epochs: true}", "", "train.epochs: .*valid integer, got True"),
        (GOOD + "train: {epochs: 0}", "", "train.epochs: .*greater than or equal to 1, got 0"),
        (GOOD + "train: {learning_rate: '1e-3'}", "", "train.learning_rate: .*valid number, got '1e-3'"),
        (GOOD.replace("tiny", "tinny"), "", "backbone: must be a backbone.*did you mean tiny"),
        (GOOD.replace("40x40", "40"), "", "input.pack: must be <height>x<width>"),
        (GOOD.replace("36x36", "44x36"), "", "input.size must fit into input.pack"),
        (GOOD.replace("36x36", "36x16"), "", "at least 32 px"),
        (GOOD + "train: {stages: [{freeze_until: head}]}", "", "random layers would stay random"),
        ("base: none\nweights: none", "", "2 problems|backbone: is missing"),
        (GOOD + "backbone: tiny", "", "key given twice: backbone"),
        ("- a\n- b", "", "expected settings as key: value lines, got list"),
        ("a: [", "", "expected YAML"),
        (GOOD, "train.epochs", "expected key=value"),
        (GOOD, "augment.preset=3", "augment.preset: expected a list of one transform each.*got 3"),
        (GOOD + "augment: {preset: [Affine]}", "", "augment.preset: expected a list of one transform each"),
        (GOOD + "augment: {preset: {Affine: {}}}", "", "augment.preset: expected a list of one transform each"),
        (GOOD + "augment: {preset: [Affine: 3]}", "", "augment.preset: expected a list of one transform each"),
        (GOOD + "augment: {preset: [3: {}]}", "", "augment.preset: expected a list of one transform each"),
        (GOOD, "augment.preset=../light", "augment.preset: must be the name of a file.*got '../light'"),
        (GOOD, "augment.mix=mixxup", "augment.mix: .*'none', 'mixup', 'cutmix' or 'same_class_halves'"),
        (GOOD, "augment.mix=mixup augment.mix_prob=0", "augment.mix_prob: .*greater than 0, got 0"),
        (
            GOOD,
            "augment.mix=same_class_halves augment.mix_alpha=0.4",
            "augment: mix_alpha belongs to mix: mixup or cutmix",
        ),
        (GOOD, "augment.mix_alpha=0.4", "augment: mix_alpha belongs to mix: mixup or cutmix"),
        (
            GOOD,
            "augment.mix=cutmix train.augmentation_passes=2",
            "augment.mix: cutmix needs train.augmentation_passes: null",
        ),
        (GOOD, "train.stages.5.epochs=1", "train.stages"),
        (GOOD, "backbone.name=1", "holds a value"),
    ],
)
def test_mistakes_are_one_readable_line(tmp_path: Path, text: str, overrides: str, said: str) -> None:
    with pytest.raises(InputError, match=f"(?s){said}") as error:
        model(tmp_path, text, overrides)
    assert "pydantic" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("blend: best", "blend: input should be 'mean', 'geometric'.*got 'best'"),
        ("calibrate: true", "calibrate: input should be 'none'.*got True"),
        ("clip: 0.0", "clip: must be a probability from 1e-5 to 0.1, or fitted, got 0.0"),
        ("clip: 1", "clip: must be a probability"),
        ("clip: fit", "clip: must be a probability.*got 'fit'"),
    ],
)
def test_pipelines_are_checked(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "e.yaml").write_text(f"runs: [a]\n{text}\n")
    with pytest.raises(InputError, match=said):
        load(EnsembleSettings, tmp_path, "e")
    (tmp_path / "e.yaml").write_text("runs: [a]\nblend: greedy\ncalibrate: bias\nclip: fitted\n")
    assert load(EnsembleSettings, tmp_path, "e").clip == "fitted"


def test_unknown_name_lists_and_suggests(tmp_path: Path) -> None:
    (tmp_path / "vgg16.yaml").write_text(GOOD)
    with pytest.raises(InputError, match=r"no such settings; did you mean vgg16\? \(expected one of vgg16"):
        load(ModelSettings, tmp_path, "vgg61")


def test_flipped_pairs_swap_columns(demo_settings: DatasetSettings) -> None:
    assert demo_settings.swap() == [0, 3, 4, 1, 2, 5, 6, 7, 8, 9]


def test_mixing_has_the_papers_defaults(tmp_path: Path) -> None:
    plain = model(tmp_path, GOOD).augment
    assert (plain.preset, plain.mix, plain.mix_prob, plain.mix_alpha) == (None, "none", 0.5, None)
    assert model(tmp_path, GOOD, "augment.mix=mixup").augment.beta == 0.2
    assert model(tmp_path, GOOD, "augment.mix=cutmix").augment.beta == 1.0
    assert model(tmp_path, GOOD, "augment.mix=mixup augment.mix_alpha=0.7").augment.beta == 0.7


def test_keywords_of_a_preset_may_be_left_out_and_overridden(tmp_path: Path) -> None:
    text = GOOD + "augment:\n  preset:\n    - ToGray:\n    - Affine: {p: 0.5}\n"
    assert model(tmp_path, text).augment.preset == [{"ToGray": {}}, {"Affine": {"p": 0.5}}]
    changed = model(tmp_path, text, "augment.preset.1.Affine.p=1.0").augment.preset
    assert changed == [{"ToGray": {}}, {"Affine": {"p": 1.0}}]


def test_pixels() -> None:
    assert pixels("224x298") == (224, 298)
