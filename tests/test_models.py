"""Networks: preprocessing by golden values, freezing that freezes, weights that are the right ones."""

import hashlib
import importlib
import inspect
from dataclasses import replace
from functools import partial
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from conftest import ROOT, SHARED

from driverwatch.backbones import BACKBONES, CAFFE, RAW, SQUEEZENET, TF, TORCH, Scaling
from driverwatch.errors import InputError
from driverwatch.models.classifier import Classifier, build, freeze, frozen_count, load_state, write_state
from driverwatch.models.scaling import ChannelScaling
from driverwatch.models.squeezenet import squeezenet
from driverwatch.models.weights import build_trunk, find, identity, single_tensor_layers
from driverwatch.settings import InputSettings, ModelSettings, load, parse

pytestmark = pytest.mark.keras
MEAN = (100.0, 110.0, 120.0)


def settings(backbone: str = "tiny", size: str = "32x48", **more: object) -> ModelSettings:
    content = {"backbone": backbone, "weights": "none", "input": {"pack": size, "size": size}, **more}
    return parse(ModelSettings, content, "test")


@pytest.mark.parametrize(
    ("scaling", "golden"),
    [
        (TF, [-0.9215686, 0.5686275, 1.0]),
        (CAFFE, [151.061, 83.221, -113.68]),
        (TORCH, [-1.9466565, 1.4657498, 2.64]),
        (RAW, [10.0, 200.0, 255.0]),
        (SQUEEZENET, [151.0, 83.0, -113.0]),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_each_preprocessing_mode_by_numbers(scaling: Scaling, golden: list[float], dtype: type) -> None:
    pixel = np.array([[[[10, 200, 255]]]], dtype)
    before = pixel.copy()
    assert np.allclose(np.asarray(ChannelScaling.of(scaling)(pixel)).ravel(), golden, atol=1e-4)
    assert np.array_equal(pixel, before)


def test_the_modes_are_keras_own() -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 4, 5, 3)).astype(np.float32)
    for scaling, module in (
        (TF, keras.applications.mobilenet_v2),
        (CAFFE, keras.applications.vgg16),
        (TORCH, keras.applications.densenet),
    ):
        expected = module.preprocess_input(image.copy())
        assert np.allclose(np.asarray(ChannelScaling.of(scaling)(image)), expected, atol=1e-3)


def test_the_data_sets_mean_takes_the_weights_place() -> None:
    layer = ChannelScaling.of(CAFFE, MEAN)
    assert np.allclose(np.asarray(layer(np.array([[[MEAN]]]))), 0)
    assert layer.mean == MEAN[::-1]
    again = ChannelScaling.from_config(layer.get_config())
    assert (again.mean, again.order) == (layer.mean, "bgr")


def test_a_classifier_gives_probabilities() -> None:
    classifier = build(settings(), 10, MEAN, None)
    found = classifier.predict(np.random.default_rng(0).integers(0, 256, (3, 32, 48, 3), np.uint8), verbose=0)
    assert found.shape == (3, 10)
    assert found.dtype == np.float32
    assert np.allclose(found.sum(axis=1), 1, atol=1e-6)


def step(classifier: Classifier, count: int = 1) -> None:
    random = np.random.default_rng(0)
    classifier.compile(keras.optimizers.SGD(0.1), "categorical_crossentropy")
    for _ in range(count):
        classifier.train_on_batch(
            random.integers(0, 256, (8, 32, 48, 3), np.uint8), np.eye(10)[random.integers(0, 10, 8)]
        )


@pytest.mark.parametrize("backbone", ["tiny", "tiny_separable"])
@pytest.mark.parametrize(
    ("until", "frozen"),
    [(None, 0), ("head", 99), ("stage2", 7), ("stage2_relu", 7), (3, 3)],
)
def test_a_step_moves_what_learns_and_nothing_else(backbone: str, until: str | int | None, frozen: int) -> None:
    classifier = build(settings(backbone), 10, MEAN, None)
    learning = freeze(classifier, until, train_statistics=False)
    layers = classifier.trunk.layers
    assert learning == max(0, len(layers) - frozen)
    before = [w.numpy().copy() for w in classifier.weights]
    step(classifier)
    trainable = {id(w) for w in classifier.trainable_weights}
    for weight, old in zip(classifier.weights, before, strict=True):
        assert np.array_equal(weight.numpy(), old) != (id(weight) in trainable), weight.path
    fixed = {id(w) for layer in layers[:frozen] for w in layer.weights}
    assert trainable.isdisjoint(fixed)


@pytest.mark.parametrize("train_statistics", [False, True])
def test_normalisation_keeps_or_trains_its_statistics(train_statistics: bool) -> None:
    """An enclosing model must not hand `training=True` down to a trunk whose statistics are frozen."""
    classifier = build(settings(), 10, MEAN, None)
    freeze(classifier, None, train_statistics)
    moving = [w for w in classifier.weights if "moving" in w.path]
    before = [w.numpy().copy() for w in moving]
    step(classifier)
    assert len(moving) == 8
    assert all(np.array_equal(w.numpy(), old) != train_statistics for w, old in zip(moving, before, strict=True))


def test_frozen_layers_keep_their_statistics_while_later_ones_train() -> None:
    classifier = build(settings(), 10, MEAN, None)
    freeze(classifier, "stage2", train_statistics=True)
    before = {w.path: w.numpy().copy() for w in classifier.weights if "moving" in w.path}
    step(classifier)
    for weight in classifier.weights:
        if "moving" in weight.path:
            kept = "stage1" in weight.path or "stage2" in weight.path
            assert np.array_equal(weight.numpy(), before[weight.path]) == kept


def test_freezing_at_a_layer_that_is_not_there() -> None:
    classifier = build(settings(), 10, MEAN, None)
    with pytest.raises(InputError, match="stage2_rel is no layer or block of this trunk; did you mean stage2_relu"):
        freeze(classifier, "stage2_rel", False)
    with pytest.raises(InputError, match="the trunk has 14 layers"):
        freeze(classifier, 99, False)


def test_state_comes_back_and_strangers_are_refused(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 48, 3), np.uint8)
    first, second = (build(settings(), 10, MEAN, None) for _ in range(2))
    path = tmp_path / "state.h5"
    write_state(path, {"model": first.weights}, {"note": "x"})
    assert load_state(path, {"model": second.weights}) == {"note": "x"}
    assert np.array_equal(first.predict(images, verbose=0), second.predict(images, verbose=0))
    with pytest.raises(InputError, match="it is another network's"):
        load_state(path, {"model": build(settings("tiny_separable"), 10, MEAN, None).weights})
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputError, match="not a whole state file"):
        load_state(path, {"model": second.weights})


def test_cuts_are_legal_only_at_a_single_tensor() -> None:
    legal = single_tensor_layers(squeezenet(input_shape=(64, 64, 3)))
    assert {"conv1", "pool1", "fire2_squeeze1x1", "fire2_concat", "pool4", "fire9_concat"} <= set(legal)
    assert not any("expand" in name for name in legal)
    cut = build_trunk(settings("squeezenet", "64x64", cut="fire4_concat"), None)
    assert cut.output_shape[-1] == 256
    with pytest.raises(InputError, match="fire4_expand1x1 lies inside a branch"):
        build_trunk(settings("squeezenet", "64x64", cut="fire4_expand1x1"), None)
    with pytest.raises(InputError, match="fire4 is no layer of it"):
        build_trunk(settings("squeezenet", "64x64", cut="fire4"), None)


def test_residual_shortcuts_are_no_cuts() -> None:
    legal = single_tensor_layers(
        keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(32, 32, 3))
    )
    assert "block_3_project_BN" in legal
    assert "block_2_add" in legal
    assert "block_2_expand" not in legal
    assert "block_2_project_BN" not in legal


@pytest.mark.parametrize("side", [47, 64, 227, 160])
def test_squeezenet_pools_round_up(side: int) -> None:
    after_conv = (side - 7) // 2 + 1
    expected = after_conv
    for _ in range(3):
        expected = -(-(expected - 3) // 2) + 1
    model = squeezenet(input_shape=(side, side, 3))
    assert model.output_shape[1:] == (expected, expected, 512)
    if side == 227:
        assert model.count_params() == 735424  # v1.0's 1,248,424 less the 1000-way conv10 (512 x 1000 + 1000)


def test_weights_are_looked_for_where_told(tmp_path: Path) -> None:
    squeeze = settings("squeezenet", "64x64").model_copy(update={"weights": "imagenet"})
    with pytest.raises(InputError, match=r"no ImageNet weights to download.*WEIGHTS=<folder>"):
        find(squeeze, None)
    with pytest.raises(InputError, match="no such folder"):
        find(squeeze, tmp_path / "nowhere")
    assert identity(settings(), None) is None
    mobile = settings("mobilenet", "64x64").model_copy(update={"weights": "imagenet"})
    assert identity(mobile, tmp_path) == {"download": "keras.applications.MobileNet"}


@pytest.mark.parametrize("content", [b"", b"no weights", None])
def test_foreign_weight_files_are_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / BACKBONES["mobilenet"].weight_files[0]
    if content is None:
        keras.applications.MobileNet(weights=None, include_top=False, input_shape=(32, 32, 3), alpha=0.5).save_weights(
            path
        )
    else:
        path.write_bytes(content)
    mobile = settings("mobilenet", "32x32").model_copy(update={"weights": "imagenet"})
    with pytest.raises(InputError, match="expected weights of"):
        build_trunk(mobile, path)


def test_downloads_are_held_against_their_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keras checks its own, but for the MobileNets: theirs is checked here, on a download from a local file."""
    monkeypatch.setattr(keras.utils, "get_file", partial(keras.utils.get_file, cache_dir=tmp_path / "cache"))
    settings = parse(ModelSettings, {"backbone": "mobilenet_v2", "input": {"pack": "64x80", "size": "64x80"}}, "test")
    made = keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(64, 80, 3))
    origin = tmp_path / "served.weights.h5"
    made.save_weights(origin)
    url, md5 = origin.as_uri(), hashlib.md5(origin.read_bytes()).hexdigest()
    row = BACKBONES["mobilenet_v2"]
    monkeypatch.setitem(BACKBONES, "mobilenet_v2", replace(row, checked_by=(url, md5)))
    trunk = build_trunk(settings, None)
    assert np.array_equal(trunk.weights[0].numpy(), made.weights[0].numpy())
    monkeypatch.setitem(BACKBONES, "mobilenet_v2", replace(row, checked_by=(url, "0" * 32)))
    with pytest.raises(InputError, match="could not be downloaded"):
        build_trunk(settings, None)


def test_every_download_is_checked_by_somebody() -> None:
    """Constructors whose source names no digest must have one in the table."""
    for name, row in BACKBONES.items():
        if row.downloads:
            module, constructor = row.constructor.rsplit(".", 1)
            source = inspect.getsource(inspect.getmodule(getattr(importlib.import_module(module), constructor)))
            assert "file_hash" in source or row.checked_by, name


def test_a_failed_download_names_both_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise Exception("URL fetch failure on https://example.invalid: None -- unreachable")

    monkeypatch.setattr(keras.applications, "VGG16", offline)
    monkeypatch.setattr(keras.utils, "get_file", offline)
    for backbone in ("vgg16", "mobilenet"):
        wanted = settings(backbone, "32x32").model_copy(update={"weights": "imagenet"})
        with pytest.raises(InputError, match=r"could not be downloaded.*WEIGHTS=<folder>.*weights=none"):
            build_trunk(wanted, None)


needs_weights = pytest.mark.skipif(
    not (SHARED / "weights").is_dir(), reason="no folder of real ImageNet weights beside the project"
)


@needs_weights
@pytest.mark.parametrize(
    ("backbone", "cut", "size"),
    [
        ("inception_v3", "mixed7", "96x128"),
        ("mobilenet_v2", None, "64x96"),
        ("mobilenet", "conv_pw_12_relu", "64x96"),
        ("squeezenet", None, "64x96"),
    ],
)
def test_real_weights_load(backbone: str, cut: str | None, size: str) -> None:
    real = settings(backbone, size, cut=cut).model_copy(update={"weights": "imagenet"})
    trunk = build_trunk(real, find(real, SHARED / "weights"))
    image = np.random.default_rng(0).normal(size=(1, *map(int, size.split("x")), 3)).astype(np.float32)
    features = np.asarray(trunk(image))
    assert np.isfinite(features).all()
    assert features.std() > 0


@needs_weights
@pytest.mark.parametrize(
    ("backbone", "legal"), [("inception_v3", "mixed8"), ("mobilenet", "conv_dw_13_relu or cut: conv_pw_12_relu")]
)
def test_layers_that_a_file_leaves_at_zero_are_refused(backbone: str, legal: str) -> None:
    whole = settings(backbone, "96x96").model_copy(update={"weights": "imagenet"})
    with pytest.raises(InputError, match=f"holds nothing for .*cut: {legal}"):
        build_trunk(whole, find(whole, SHARED / "weights"))


@needs_weights
def test_squeezenet_weights_by_name_and_shape(tmp_path: Path) -> None:
    with np.load(SHARED / "weights" / "squeezenet_v1.0_imagenet.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    squeeze = settings("squeezenet", "64x64").model_copy(update={"weights": "imagenet"})
    trunk = build_trunk(squeeze, SHARED / "weights" / "squeezenet_v1.0_imagenet.npz")
    for layer in trunk.layers:
        for weight in layer.weights:
            assert np.array_equal(weight.numpy(), arrays[f"{layer.name}/{weight.name}"])
    swapped = {**arrays, "fire2_expand1x1/kernel": arrays["fire2_expand3x3/kernel"]}
    np.savez(tmp_path / "w.npz", **swapped)
    with pytest.raises(InputError, match=r"fire2_expand1x1/kernel is \(3, 3, 16, 64\), not \(1, 1, 16, 64\)"):
        build_trunk(squeeze, tmp_path / "w.npz")


def test_state_files_hold_plain_arrays(tmp_path: Path) -> None:
    classifier = build(settings(), 10, MEAN, None)
    write_state(tmp_path / "s.h5", {"model": classifier.weights}, {})
    with h5py.File(tmp_path / "s.h5") as file:
        assert all(isinstance(item, h5py.Dataset) for item in file["model"].values())


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "models").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_committed_model_builds_freezes_and_cuts_where_it_says(path: Path) -> None:
    model = load(ModelSettings, path.parent, path.stem)
    row = BACKBONES[model.backbone]
    small = model.model_copy(update={"cut": None, "input": InputSettings(pack="96x96", size="96x96")})
    trunk = build_trunk(small, None, load=False)
    names = [layer.name for layer in trunk.layers]
    assert set(row.freeze_points) <= set(names)
    assert model.cut is None or model.cut in single_tensor_layers(trunk)
    assert all(0 <= frozen_count(trunk.layers, stage.freeze_until) <= len(names) for stage in model.train.stages)
