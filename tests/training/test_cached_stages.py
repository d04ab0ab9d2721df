"""A classifier in halves: what frozen layers give is computed once, and nothing else changes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from support.packs import CLASSES, SIZE, SWAP
from support.training import ROWS, apart, counts_as_pretrained, run_of, trained, whole_of

from driverwatch.config.loading import parse
from driverwatch.config.model import ModelSettings
from driverwatch.data.augment import AugmentedInputs
from driverwatch.data.pack import Pack
from driverwatch.data.tta import View
from driverwatch.errors import InputError
from driverwatch.inference import feature_cache
from driverwatch.inference.feature_cache import FeatureCache, augmented_pass, tta_pass
from driverwatch.inference.predict import Predictor
from driverwatch.io.manifests import read_json
from driverwatch.models.classifier import build
from driverwatch.models.freezing import freeze
from driverwatch.models.split_network import FrozenPart, SplitPoint, TrainedPart, split_point
from driverwatch.run import Run
from driverwatch.training import fold as folds
from driverwatch.training.pseudo_labels import FoldIndices, PseudoLabels

pytestmark = pytest.mark.keras
MEAN = (80.0,) * 3


@pytest.fixture
def pretrained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Run]:
    """Runs of a tiny network whose backbone counts as pretrained: weights of its own are loaded in place of ImageNet's."""
    keras.utils.set_random_seed(3)
    made = build(run_of(tmp_path).settings, CLASSES, MEAN, None)
    for layer in made.backbone.layers:  # statistics of a backbone that has seen images
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.gamma.assign(np.random.default_rng(1).uniform(0.5, 1.5, layer.gamma.shape))
            layer.moving_variance.assign(np.full(layer.moving_variance.shape, 0.7))
    counts_as_pretrained(made, monkeypatch)

    def run(name: str = "run", head: dict | None = None, augment: dict | None = None, **train: object) -> Run:
        content = {
            "backbone": "tiny", "input": {"pack": "36x44", "size": "32x40"},
            "head": {"pooling": "flatten", **(head or {})}, "augment": augment or {},
            "train": {"optimizer": "adam", "learning_rate": 0.003, "epochs": 2, "batch_size": 8, **train},
        }  # fmt: skip
        settings = parse(ModelSettings, content, "test")
        return replace(run_of(tmp_path / name), settings=settings, folder=tmp_path / name / "run")

    return run


STAGES = [{"freeze_until": "head", "fit": "linear_probe"}, {"freeze_until": "stage2", "epochs": 1}]


@pytest.mark.parametrize(
    ("backbone", "layer"),
    [
        ("squeezenet", "fire4_concat"),
        pytest.param("googlenet", "inception3b", marks=pytest.mark.slow),
        ("tiny", None),
    ],
)
def test_the_halves_are_the_whole(backbone: str, layer: str | None) -> None:
    content = {"backbone": backbone, "weights": "none", "input": {"pack": "64x80", "size": "64x80"}}
    classifier = build(parse(ModelSettings, content, "test"), CLASSES, MEAN, None)
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 80, 3), np.uint8)
    cut = SplitPoint(layer, 0)
    frozen, tail = FrozenPart(classifier, cut), TrainedPart(classifier, cut)
    between = frozen.predict_on_batch(images)
    assert between.shape[1:] == frozen.features
    assert np.allclose(tail.predict_on_batch(between), classifier.predict_on_batch(images), atol=1e-6)
    assert {id(w) for w in tail.weights} == {id(w) for w in classifier.weights}


def test_a_cut_is_the_last_single_tensor_below_the_boundary() -> None:
    content = {"backbone": "squeezenet", "weights": "none", "input": {"pack": "64x64", "size": "64x64"}}
    classifier = build(parse(ModelSettings, content, "test"), CLASSES, MEAN, None)
    names = [layer.name for layer in classifier.backbone.layers]
    assert split_point(classifier, names.index("fire4_concat") + 1) == SplitPoint("fire4_concat", 0)
    assert split_point(classifier, names.index("fire4_expand1x1") + 1) == SplitPoint("fire4_squeeze1x1", 1)
    assert split_point(classifier, len(names)) == SplitPoint(None, 0)
    assert split_point(classifier, 1) is None


@pytest.mark.parametrize(
    ("until", "tta"),
    [
        ("stage2", "centre"),
        pytest.param("head", "five_crop", marks=pytest.mark.slow),
        pytest.param("stage3_conv", "centre", marks=pytest.mark.slow),
    ],
)
def test_cached_and_uncached_training_agree(
    pretrained: Callable[..., Run], packs: dict[str, Pack], until: str, tta: str
) -> None:
    """With as many draws as epochs they see the same inputs: caches differ by rounding."""
    asked = {"stages": [{"freeze_until": until}], "epochs": 3}
    plain = trained(pretrained("plain", **asked), packs, tta=tta)
    cached = trained(pretrained("cached", **asked, augmentation_passes=3, cache_dtype="float32"), packs, tta=tta)
    assert apart(plain, cached) < 2e-4


@pytest.mark.slow
def test_half_a_caches_precision_rounds_and_fewer_draws_show_other_images(
    pretrained: Callable[..., Run], packs: dict[str, Pack]
) -> None:
    asked = {"stages": [{"freeze_until": "stage2"}], "epochs": 3}
    exact = trained(pretrained("exact", **asked, augmentation_passes=3, cache_dtype="float32"), packs)
    run = pretrained("half", **asked, augmentation_passes=3)
    assert 0 < apart(exact, trained(run, packs)) < 5e-2
    fewer = pretrained("fewer", **asked, augmentation_passes=2)
    assert apart(exact, trained(fewer, packs)) > 2e-3
    for made, draws in ((run, ["draw0", "draw1", "draw2", "view"]), (fewer, ["draw0", "draw1", "view"])):
        assert sorted(path.name.split("-")[0] for path in (made.folder.parent / "backbone").glob("*/*.h5")) == draws


@pytest.mark.slow
def test_folds_and_runs_share_a_cache(
    pretrained: Callable[..., Run], packs: dict[str, Pack], monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = []
    real = FeatureCache._made

    def made(self: FeatureCache, path: Path, *arguments: object) -> object:
        computed.append(path)
        return real(self, path, *arguments)

    monkeypatch.setattr(FeatureCache, "_made", made)
    run = pretrained(stages=STAGES, augmentation_passes=2)
    trained(run, packs)
    once = len(computed)
    assert once == len(set(computed)) > 0
    trained(run, packs, 1, FoldIndices(ROWS.validation, ROWS.training))
    assert len(computed) == once
    other = pretrained(stages=STAGES, augmentation_passes=2, learning_rate=0.001)
    trained(replace(other, folder=run.folder.parent / "other"), packs)
    assert len(computed) == once
    trained(
        replace(pretrained(stages=STAGES, augmentation_passes=2, seed=1), folder=run.folder.parent / "seeded"), packs
    )
    assert len(computed) > once


def cache_of(packs: dict[str, Pack], folder: Path, dtype: str = "float32") -> FeatureCache:
    classifier = build(run_of(folder).settings, CLASSES, MEAN, None)
    return FeatureCache(folder / "backbone", FrozenPart(classifier, SplitPoint("stage2_relu", 0)), dtype)


def test_an_edited_cache_is_computed_again(tmp_path: Path, packs: dict[str, Pack]) -> None:
    keras.utils.set_random_seed(0)
    cache, draw = cache_of(packs, tmp_path), tta_pass(View(0, 0, False, 32, 40), (32, 40))
    good = np.array(cache.outputs(packs["train"], draw, "x").array)
    (path,) = (tmp_path / "backbone").glob("*/*.h5")
    with h5py.File(path, "r+") as file:
        file["outputs"][3] = 7
    assert np.array_equal(cache.outputs(packs["train"], draw, "x").array, good)
    path.write_bytes(path.read_bytes()[:2000])
    assert np.array_equal(cache.outputs(packs["train"], draw, "x").array, good)
    path.with_suffix(".json").write_text("{")
    assert np.array_equal(cache.outputs(packs["train"], draw, "x").array, good)


def test_a_file_with_another_time_is_taken_if_its_contents_are_ours(
    tmp_path: Path, packs: dict[str, Pack], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, draw = cache_of(packs, tmp_path), tta_pass(View(0, 0, False, 32, 40), (32, 40))
    good = np.array(cache.outputs(packs["train"], draw, "x").array)
    (path,) = (tmp_path / "backbone").glob("*/*.h5")
    path.touch()
    monkeypatch.setattr(FeatureCache, "_made", lambda *_: pytest.fail("computed again"))
    assert np.array_equal(cache.outputs(packs["train"], draw, "x").array, good)


def test_activations_that_float16_cannot_hold_are_refused(tmp_path: Path, packs: dict[str, Pack]) -> None:
    classifier = build(run_of(tmp_path).settings, CLASSES, MEAN, None)
    layer = classifier.backbone.get_layer("stage2_bn")
    layer.gamma.assign(np.full(layer.gamma.shape, 1e6))
    frozen, draw = FrozenPart(classifier, SplitPoint("stage2_relu", 0)), tta_pass(View(0, 0, False, 32, 40), (32, 40))
    with pytest.raises(InputError, match=r"too large for float16; set train\.cache_dtype: float32"):
        FeatureCache(tmp_path / "backbone", frozen, "float16").outputs(packs["train"], draw, "x")
    assert not list((tmp_path / "backbone").glob("*/*.h5"))
    assert np.isfinite(
        FeatureCache(tmp_path / "backbone", frozen, "float32").outputs(packs["train"], draw, "x").array
    ).all()


def test_room_is_asked_for_first(tmp_path: Path, packs: dict[str, Pack], monkeypatch: pytest.MonkeyPatch) -> None:
    cache, draw = cache_of(packs, tmp_path), tta_pass(View(0, 0, False, 32, 40), (32, 40))

    def none(folder: Path, needed: int, what: str, way_out: str) -> None:
        assert needed == 48 * 8 * 10 * 32 * 4
        raise InputError(f"no room; {way_out}")

    monkeypatch.setattr(feature_cache, "require_space", none)
    with pytest.raises(InputError, match=r"no room; lower train\.augmentation_passes"):
        cache.outputs(packs["train"], draw, "x")


@pytest.mark.parametrize("hflip", ["none", "keep_labels", "swap_left_right"])
def test_a_draw_is_an_epochs_augmentation(tmp_path: Path, packs: dict[str, Pack], hflip: str) -> None:
    run = run_of(tmp_path)
    run = replace(
        run,
        settings=run.settings.model_copy(update={"augment": run.settings.augment.model_copy(update={"hflip": hflip})}),
    )
    rows, images = np.array([5, 2, 40]), packs["train"].images.open()
    cut, flipped = augmented_pass(run, 1).cutting(images)(rows)
    again, flags = AugmentedInputs(images, run.settings, run.preset, 1)(rows)
    assert np.array_equal(cut, again)
    assert np.array_equal(flipped, flags)
    everything = augmented_pass(run, 1).cutting(images)(np.arange(48))[1]
    assert everything.any() == (hflip != "none")


def test_a_backbone_that_an_earlier_stage_trained_is_not_cached(
    pretrained: Callable[..., Run], packs: dict[str, Pack], capsys: pytest.CaptureFixture[str]
) -> None:
    run = pretrained(stages=[{"freeze_until": None}, {"freeze_until": "stage2"}], epochs=1, augmentation_passes=1)
    trained(run, packs)
    assert "is not cached: an earlier stage trained it" in capsys.readouterr().out
    assert not list((run.folder.parent / "backbone").glob("*/draw*"))


@pytest.mark.parametrize("cached", [{}, {"augmentation_passes": 2}])
def test_logistic_regression_on_features_is_a_head(
    pretrained: Callable[..., Run], packs: dict[str, Pack], cached: dict
) -> None:
    """The classifier that comes of it predicts from images what the head said of features."""
    run = pretrained(stages=[{"freeze_until": "head", "fit": "linear_probe"}], **cached)
    found = trained(run, packs, tta="five_crop")
    classifier = build(run.settings, CLASSES, MEAN, None, load=False)
    folds.load_state(run.fold(0) / "weights.h5", {"model": classifier.weights})
    freeze(classifier, "head", False)
    whole = Predictor(classifier, ["five_crop"], SIZE, (32, 40))(packs["train"].images.open(), ROWS.validation)
    assert np.allclose(whole["five_crop"], found["validation-five_crop"], atol=1e-5)
    made = read_json(run.fold(0) / "manifest.json")
    assert made["log_loss"]["five_crop"] < 0.8
    assert made["trainable_parameters"] == sum(int(np.prod(w.shape)) for w in classifier.top.weights)


def test_a_dense_head_on_features(pretrained: Callable[..., Run], packs: dict[str, Pack]) -> None:
    stages = [{"freeze_until": "head", "epochs": 15, "learning_rate": 0.03}]
    run = pretrained(head={"dense": [32]}, stages=stages, augmentation_passes=3)
    trained(run, packs)
    assert read_json(run.fold(0) / "manifest.json")["log_loss"]["centre"] < 0.8


@pytest.mark.slow
def test_the_best_epochs_backbone_is_predicted_with_and_cached_by_none(
    pretrained: Callable[..., Run], packs: dict[str, Pack]
) -> None:
    """The best epoch lies before the stage whose head stands on cached features of a later backbone."""
    stages = [{"freeze_until": None, "epochs": 8}, {"freeze_until": None, "learning_rate": 0.5, "epochs": 1}]
    run = pretrained(stages=[*stages, {"freeze_until": "head", "fit": "linear_probe", "l2": [3.0]}], select="best")
    found = trained(run, packs)["validation-centre"]
    classifier = build(run.settings, CLASSES, MEAN, None, load=False)
    folds.load_state(run.fold(0) / "weights.h5", {"model": classifier.weights})
    whole = Predictor(classifier, ["centre"], SIZE, (32, 40))(packs["train"].images.open(), ROWS.validation)
    assert np.allclose(whole["centre"], found, atol=1e-5)


def test_a_cache_is_named_by_what_it_holds_alone(tmp_path: Path, packs: dict[str, Pack]) -> None:
    """Not by Keras' counters, which depend on what was built before in the process."""
    classifier = build(run_of(tmp_path).settings, CLASSES, MEAN, None)
    cut = SplitPoint("stage2_relu", 0)
    first = FeatureCache(tmp_path, FrozenPart(classifier, cut), "float16").folder
    TrainedPart(classifier, cut)
    assert FeatureCache(tmp_path, FrozenPart(classifier, cut), "float16").folder == first
    cache = FeatureCache(tmp_path, FrozenPart(classifier, cut), "float16")
    classifier.backbone.get_layer("stage1_conv").kernel.assign(np.zeros((5, 5, 3, 16)))
    with pytest.raises(ValueError, match="has changed since its cache was opened"):
        cache.outputs(packs["train"], tta_pass(View(0, 0, False, 32, 40), (32, 40)), "x")


def test_a_centre_view_alone_was_never_flipped(pretrained: Callable[..., Run]) -> None:
    stages, flipped = [{"freeze_until": "head", "fit": "linear_probe"}], {"hflip": "swap_left_right"}
    assert not pretrained(stages=stages, augment=flipped).settings.trains_with_flips
    assert pretrained(stages=stages, augment=flipped, augmentation_passes=1).settings.trains_with_flips
    assert pretrained(stages=[{}], augment=flipped).settings.trains_with_flips
    assert not pretrained(stages=[{}]).settings.trains_with_flips


@pytest.mark.parametrize("moments", [(2,), pytest.param((1, 3), marks=pytest.mark.slow)])
def test_a_killed_fold_resumes_from_the_cache(
    pretrained: Callable[..., Run], packs: dict[str, Pack], tmp_path: Path, moments: tuple[int, ...]
) -> None:
    """Between its stages, within the second, and where training ends."""
    stages = [
        {"freeze_until": "head", "fit": "linear_probe"},
        {"freeze_until": "stage2", "normalization": "recalibrated"},
    ]
    whole = whole_of(pretrained("whole", stages=stages, augmentation_passes=2), packs)
    assert all(whole.ends_alike(after, tmp_path / f"killed{after}") for after in moments)


def test_labels_follow_cached_flipped_draws(pretrained: Callable[..., Run], packs: dict[str, Pack]) -> None:
    """A backbone's features of a flipped quadrant are learnt as the other side's class only under `swap`."""
    stages, draws = [{"freeze_until": "head", "fit": "linear_probe", "l2": [0.01]}], {"augmentation_passes": 2}
    losses = {}
    for hflip in ("swap_left_right", "keep_labels"):
        run = pretrained(hflip, augment={"hflip": hflip}, stages=stages, **draws)
        assert run.swap == SWAP
        trained(run, packs)
        losses[hflip] = read_json(run.fold(0) / "manifest.json")["log_loss"]["centre"]
    assert losses["swap_left_right"] < losses["keep_labels"] - 0.2


@pytest.mark.slow
def test_a_student_on_cached_outputs_ends_as_one_on_images(
    pretrained: Callable[..., Run], packs: dict[str, Pack]
) -> None:
    """Of labelled and of test images alike."""
    shares = np.random.default_rng(0).dirichlet([1.0] * CLASSES, 4).astype(np.float32)
    rows = FoldIndices(ROWS.training, ROWS.validation, PseudoLabels(48 + np.array([0, 3, 4, 8]), shares, 0.6, 9, 9))
    settings = {"stages": [{"freeze_until": "stage2"}], "epochs": 2, "pseudo": {"runs": ["teacher"]}}
    plain = trained(pretrained("plain", augment={"hflip": "swap_left_right"}, **settings), packs, rows=rows)
    cached = pretrained(
        "cached", augment={"hflip": "swap_left_right"}, **settings, augmentation_passes=2, cache_dtype="float32"
    )
    assert apart(plain, trained(cached, packs, rows=rows)) < 2e-4
