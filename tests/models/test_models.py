"""Networks: preprocessing by golden values, freezing that freezes, cuts that are legal."""

from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from support.networks import MEAN, settings
from support.places import ROOT

from driverwatch.config.backbones import BACKBONES, CAFFE, RAW, SQUEEZENET, TF, TORCH, Scaling
from driverwatch.config.loading import load
from driverwatch.config.model import InputSettings, ModelSettings
from driverwatch.errors import InputError
from driverwatch.models.backend import load_state, write_state
from driverwatch.models.build_backbone import build_network, single_tensor_layers
from driverwatch.models.classifier import ChannelScaling, Classifier, build
from driverwatch.models.describe import LayerDescription, described
from driverwatch.models.freezing import freeze, frozen_count
from driverwatch.models.pretrained import build_backbone
from driverwatch.models.squeezenet import squeezenet

pytestmark = pytest.mark.keras


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
    layers = classifier.backbone.layers
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
    """An enclosing model must not hand `training=True` down to a backbone whose statistics are frozen."""
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
    with pytest.raises(InputError, match="stage2_rel is no layer or block of this backbone; did you mean stage2_relu"):
        freeze(classifier, "stage2_rel", False)
    with pytest.raises(InputError, match="the backbone has 14 layers"):
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
    cut = build_backbone(settings("squeezenet", "64x64", truncate_at="fire4_concat"), None)
    assert cut.output_shape[-1] == 256
    with pytest.raises(InputError, match="fire4_expand1x1 lies inside a branch"):
        build_backbone(settings("squeezenet", "64x64", truncate_at="fire4_expand1x1"), None)
    with pytest.raises(InputError, match="fire4 is no layer of it"):
        build_backbone(settings("squeezenet", "64x64", truncate_at="fire4"), None)


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


def test_state_files_hold_plain_arrays(tmp_path: Path) -> None:
    classifier = build(settings(), 10, MEAN, None)
    write_state(tmp_path / "s.h5", {"model": classifier.weights}, {})
    with h5py.File(tmp_path / "s.h5") as file:
        assert all(isinstance(item, h5py.Dataset) for item in file["model"].values())


BUILT = (
    "tiny",
    "squeezenet",
    "inception_v3",
    "mobilenet_v2",
    "xception",
)  # by `make test`; the others by test-all
MODELS = [
    pytest.param(path, id=path.stem, marks=[] if path.stem in BUILT else pytest.mark.zoo)
    for path in sorted((ROOT / "configs" / "models").glob("*.yaml"))
]


@pytest.mark.slow
@pytest.mark.parametrize("path", MODELS)
def test_every_committed_model_builds_freezes_and_cuts_where_it_says(path: Path) -> None:
    model = load(ModelSettings, path.parent, path.stem)
    row = BACKBONES[model.backbone]
    small = model.model_copy(update={"input": InputSettings(pack="96x96", size="96x96")})
    backbone = build_backbone(small, None, load=False)
    names = [layer.name for layer in backbone.layers]
    assert model.truncate_at is not None or set(row.freeze_points) <= set(names)
    assert backbone.layers[-1].name == (model.truncate_at or names[-1])
    assert all(0 <= frozen_count(backbone.layers, stage.freeze_until) <= len(names) for stage in model.train.stages)


def test_automatic_names_do_not_depend_on_what_was_built_before() -> None:
    row = BACKBONES["xception"]
    first, second = (build_network(row, (71, 71)) for _ in range(2))
    assert [layer.name for layer in first.layers] == [layer.name for layer in second.layers]
    assert {"add", "add_11"} <= {layer.name for layer in first.layers}
    assert first.get_layer("add_2").output.shape == (None, 5, 5, 728)  # block 4 ends there


def test_shortcuts_that_are_no_layers_are_no_cuts() -> None:
    """ConvNeXt adds its shortcuts by +, an operation that its layers do not list."""
    legal = single_tensor_layers(build_network(BACKBONES["convnext_tiny"], (32, 32)))
    assert "convnext_tiny_downsampling_block_1" in legal
    assert not any("_stage_" in name for name in legal)


def test_layers_are_described_as_they_train() -> None:
    stages = [{"freeze_until": None}, {"freeze_until": "head"}, {"freeze_until": "stage2"}]
    found = described(settings(train={"stages": stages}, truncate_at="stage3_relu"))
    assert [layer.name for layer in found][:3] == ["input_layer", "stage1_conv", "stage1_bn"]
    assert found[-1] == LayerDescription("stage3_relu", "stage3_relu", (4, 6, 64), 0, (False, True, False), True)
    conv = {layer.name: layer for layer in found}["stage2_conv"]
    assert (conv.block, conv.parameters, conv.frozen) == ("stage2_relu", 3 * 3 * 16 * 32, (False, True, True))
    assert sum(layer.parameters for layer in found) == 61808 - 64 * 64 * 9 - 4 * 64
    inside = {layer.name: layer.legal_cut for layer in described(settings("squeezenet", "64x64"))}
    assert inside["fire2_concat"]
    assert not inside["fire2_expand3x3"]
