"""Every backbone of the table, built: its figures, its block ends, freezing, saving; most of them by `make test-all` alone."""

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from support.networks import MEAN, settings

from driverwatch.config.backbones import BACKBONES, Backbone, WeightFiles
from driverwatch.models.backend import load_state, write_state
from driverwatch.models.build_backbone import build_network, single_tensor_layers, truncated
from driverwatch.models.classifier import ChannelScaling, Classifier, build
from driverwatch.models.freezing import freeze

pytestmark = pytest.mark.keras
SHORT = ("tiny", "tiny_separable", "squeezenet", "mobilenet_v3_small")  # built by `make test` too
NAMES = [pytest.param(name, marks=[] if name in SHORT else pytest.mark.zoo) for name in BACKBONES]
KERAS = [name for name, row in BACKBONES.items() if row.constructor.startswith("keras.")]


def constructor(row: Backbone) -> Callable[..., Any]:
    module, name = row.constructor.rsplit(".", 1)
    return getattr(importlib.import_module(module), name)


@pytest.fixture(scope="module", params=NAMES)
def named(request: pytest.FixtureRequest) -> Iterator[tuple[str, Classifier]]:
    """One backbone at a time, at its smallest size: the zoo does not fit into memory at once."""
    name = request.param
    side = BACKBONES[name].smallest
    # by other draws a gate may be shut (MobileNetV3's hard sigmoid), and its weights get no gradient
    keras.utils.set_random_seed(2)
    yield name, build(settings(name, f"{side}x{side}"), 10, MEAN, None)
    keras.backend.clear_session()


def test_the_backbone_is_as_the_table_says(named: tuple[str, Classifier]) -> None:
    name, classifier = named
    row, backbone = BACKBONES[name], classifier.backbone
    assert (backbone.count_params(), backbone.output_shape[-1]) == (row.backbone_parameters, row.width)


def test_block_ends_are_legal_cuts_in_order(named: tuple[str, Classifier]) -> None:
    name, classifier = named
    legal = single_tensor_layers(classifier.backbone)
    ends = BACKBONES[name].freeze_points
    assert set(ends) <= set(legal)
    assert sorted(ends, key=legal.index) == list(ends)
    middle = ends[len(ends) // 2]
    cut = truncated(classifier.backbone, middle, name)
    assert cut.layers[-1].name == middle
    assert len(cut.inputs) == len(cut.outputs) == 1


def test_a_step_moves_what_learns_and_nothing_else(named: tuple[str, Classifier]) -> None:
    """Normalisation keeps its statistics too, although the classifier is trained. Adam: tiny gradients move weights as well."""
    name, classifier = named
    ends = BACKBONES[name].freeze_points
    learning = freeze(classifier, ends[(len(ends) - 1) // 2], train_statistics=False)
    assert 0 < learning < len(classifier.backbone.layers)
    before = [np.array(weight) for weight in classifier.weights]
    random = np.random.default_rng(0)
    side = BACKBONES[name].smallest
    classifier.compile(keras.optimizers.Adam(1e-2, epsilon=1e-20), "categorical_crossentropy", run_eagerly=True)
    classifier.train_on_batch(random.integers(0, 256, (4, side, side, 3), np.uint8), np.eye(10)[[1, 2, 3, 4]])
    trainable = {id(weight) for weight in classifier.trainable_weights}
    wrong = [
        weight.path
        for weight, old in zip(classifier.weights, before, strict=True)
        if np.array_equal(np.array(weight), old) == (id(weight) in trainable)
    ]
    statistics_of_new_layers = [path for path in wrong if path.startswith("auxiliary") and "moving" in path]
    assert wrong == statistics_of_new_layers
    assert len(wrong) == 2 * sum(one.trainable for one in classifier.auxiliaries)  # on a frozen layer one is left out


def test_a_saved_state_gives_the_same_output(named: tuple[str, Classifier], tmp_path: Path) -> None:
    name, classifier = named
    side = BACKBONES[name].smallest
    images = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8)
    expected = np.asarray(classifier(images))
    assert np.isfinite(expected).all()
    write_state(tmp_path / "state.h5", {"model": classifier.weights}, {})
    again = build(settings(name, f"{side}x{side}"), 10, MEAN, None)
    assert [layer.name for layer in again.backbone.layers] == [layer.name for layer in classifier.backbone.layers]
    load_state(tmp_path / "state.h5", {"model": again.weights})
    assert np.allclose(np.asarray(again(images)), expected, atol=1e-6)


def depth(network: Any) -> int:
    """Convolutions and dense layers on the longest path, nested networks included."""
    reached: dict[int, int] = {}
    for operation in network.operations:
        parents = [parent.operation for node in operation._inbound_nodes for parent in node.parent_nodes]
        longest = max((reached.get(id(parent), 0) for parent in parents), default=0)
        reached[id(operation)] = longest + counted(operation)
    return max(reached.values())


def counted(operation: Any) -> int:
    kinds = (keras.layers.Dense, keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)
    return sum(map(counted, operation.layers)) if hasattr(operation, "layers") else int(isinstance(operation, kinds))


@pytest.mark.parametrize("name", NAMES)
def test_the_whole_network_is_as_the_table_says(name: str) -> None:
    row = BACKBONES[name]
    keras.backend.clear_session()
    network = build_network(row, (row.native,) * 2, top=row.parameters is not None)
    assert depth(network) == row.depth
    if row.parameters is not None:
        assert (network.count_params(), network.output_shape) == (row.parameters, (None, 1000))
    assert set(row.top_cuts) <= set(single_tensor_layers(network))


@pytest.mark.parametrize("name", [p for p in NAMES if p.values[0] in KERAS])
@pytest.mark.parametrize("top", [False, True])
def test_downloads_are_those_of_the_installed_keras(name: str, top: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Keras upgrade that changes a file, its checksum or the native size is noticed here."""
    row = BACKBONES[name]
    asked: list[tuple[str, str | None]] = []

    def get_file(_: str, origin: str, file_hash: str | None = None, **__: Any) -> str:
        asked.append((origin, file_hash))
        return ""

    keras.backend.clear_session()
    monkeypatch.setattr(keras.src.utils.file_utils, "get_file", get_file)
    monkeypatch.setattr(keras.Model, "load_weights", lambda *_, **__: None)
    size = {} if top else {"input_shape": (row.native, row.native, 3)}
    network = constructor(row)(weights="imagenet", include_top=top, **size)
    files: WeightFiles = row.whole if top else row.backbone
    unknown = name in ("mobilenet", "mobilenet_v2")  # Keras names no checksum for these
    assert asked == [(files.url, None if unknown else files.checksum)]
    if top and None not in network.input_shape[1:]:
        assert network.input_shape[1:] == (row.native, row.native, 3)


@pytest.mark.parametrize("name", KERAS)
def test_scaling_is_keras_own(name: str) -> None:
    module = importlib.import_module(constructor(BACKBONES[name]).__module__)
    image = np.random.default_rng(0).integers(0, 256, (1, 4, 5, 3)).astype(np.float32)
    expected = module.preprocess_input(image.copy())
    assert np.allclose(np.asarray(ChannelScaling.of(BACKBONES[name].scaling)(image)), expected, atol=1e-3)
