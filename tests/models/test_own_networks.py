"""AlexNet and GoogLeNet: sizes and parameters by hand, cuts where the table says, auxiliary classifiers."""

import importlib

import keras
import numpy as np
import pytest

from driverwatch.config.backbones import BACKBONES
from driverwatch.config.loading import parse
from driverwatch.config.model import ModelSettings
from driverwatch.errors import InputError
from driverwatch.models.alexnet import alexnet
from driverwatch.models.build_backbone import single_tensor_layers
from driverwatch.models.classifier import ChannelScaling
from driverwatch.models.googlenet import auxiliary, googlenet
from driverwatch.models.weight_files import find

pytestmark = pytest.mark.keras


def trainable(network: keras.Model) -> int:
    return sum(int(np.prod(weight.shape)) for weight in network.trainable_weights)


def test_alexnet_has_the_literatures_62_million_parameters() -> None:
    """Weights and biases layer by layer, no groups: (side^2 x inputs + 1) x outputs; and scale and shift per normalised channel."""
    convolutions = [(11, 3, 96), (5, 96, 256), (3, 256, 384), (3, 384, 384), (3, 384, 256)]
    dense = [(6 * 6 * 256, 4096), (4096, 4096), (4096, 1000)]
    plain = sum((k * k * i + 1) * o for k, i, o in convolutions) + sum((i + 1) * o for i, o in dense)
    assert plain == 62_378_344  # "62.4 M" without normalisation
    normalised = 2 * (96 + 256 + 384 + 384 + 256 + 4096 + 4096)
    assert trainable(alexnet(include_top=True)) == plain + normalised


def test_alexnet_is_the_guides() -> None:
    network = alexnet(include_top=True, classes=10)
    sides = [network.get_layer(name).output.shape[1] for name in ("conv1", "pool1", "conv2", "pool2", "conv5", "pool5")]
    assert sides == [55, 27, 27, 13, 13, 6]
    dropouts = [layer.rate for layer in network.layers if isinstance(layer, keras.layers.Dropout)]
    assert dropouts == [0.25] * 3 + [0.5] * 2
    kernels = [layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense)]
    assert len(kernels) == 8
    assert all(layer.kernel_regularizer.l2 == pytest.approx(2e-4) for layer in kernels)
    names = [layer.name for layer in network.layers]
    assert [names[names.index(f"{name}_bn") - 1] for name in ("conv1", "conv4", "fc2")] == ["conv1", "conv4", "fc2"]
    assert alexnet().output_shape == (None, 6, 6, 256)


def test_googlenet_has_as_many_parameters_as_torchvisions() -> None:
    """torchvision states 6,624,904 for its weights, without the auxiliary classifiers."""
    network = googlenet(include_top=True)
    assert trainable(network) == 6_624_904
    assert trainable(googlenet()) == 6_624_904 - 1025 * 1000
    statistics = 2 * sum(layer.gamma.shape[0] for layer in network.layers if hasattr(layer, "gamma"))
    assert network.count_params() == 6_624_904 + statistics


@pytest.mark.parametrize(("build", "smallest"), [(googlenet, 15), (alexnet, 67)])
def test_the_smallest_side(build: type, smallest: int) -> None:
    assert BACKBONES[build.__name__].smallest == smallest
    assert build(input_shape=(smallest, smallest, 3)).output_shape[1:3] == (1, 1)
    with pytest.raises(ValueError, match=r"[Nn]egative dimension|output size"):
        build(input_shape=(smallest - 1, smallest - 1, 3))


@pytest.mark.parametrize(
    "backbone",
    ["alexnet", "googlenet", "squeezenet_torch", "squeezenet_v1_1", "efficientnet_lite0", "efficientnet_lite2"],
)
def test_block_ends_are_legal_cuts(backbone: str) -> None:
    row = BACKBONES[backbone]
    module, name = row.constructor.rsplit(".", 1)
    build = getattr(importlib.import_module(module), name)
    network = build(input_shape=(96, 80, 3))
    legal = single_tensor_layers(network)
    assert set(row.freeze_points) | set(row.auxiliary) <= set(legal)
    assert not any("_branch" in name or "expand1x1" in name or "block2b_expand" in name for name in legal)
    assert network.name == backbone


def test_missing_weights_name_the_checkpoint_and_its_conversion() -> None:
    settings = parse(ModelSettings, {"backbone": "googlenet", "input": {"pack": "64x64", "size": "64x64"}}, "test")
    with pytest.raises(
        InputError, match=r"fetch https://\S+, make convert FILE=googlenet-1378be20.pth MODEL=googlenet WEIGHTS="
    ):
        find(settings, None)


def test_googlenets_scaling_is_what_transform_input_comes_to() -> None:
    """torchvision normalises by ImageNet's mean and deviation, then turns that into (x - 0.5) / 0.5 inside the network."""
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    image = np.random.default_rng(0).integers(0, 256, (1, 4, 5, 3)).astype(np.float32)
    normalised = (image / 255 - mean) / std
    inside = normalised * (std / 0.5) + (mean - 0.5) / 0.5
    scaled = ChannelScaling.of(BACKBONES["googlenet"].scaling)(image)
    assert np.allclose(np.asarray(scaled), inside, atol=1e-6)


@pytest.mark.parametrize("size", [(14, 14), (10, 13), (4, 4), (5, 3)])
def test_an_auxiliary_classifier_takes_any_tap(size: tuple[int, int]) -> None:
    head = auxiliary(10, "auxiliary1")
    found = np.asarray(head(np.random.default_rng(0).normal(size=(2, *size, 24)).astype(np.float32)))
    assert (found.shape, found.dtype) == ((2, 10), np.float32)
    assert np.allclose(found.sum(axis=1), 1, atol=1e-6)
    sizes = [24 * 128, 2 * 128, 2048 * 1024 + 1024, 1024 * 10 + 10]
    assert trainable(head) == sum(sizes)


@pytest.mark.slow
def test_an_auxiliary_classifier_learns_through_its_tap() -> None:
    network = googlenet(input_shape=(64, 80, 3))
    heads = [auxiliary(10, f"auxiliary{i}") for i in (1, 2)]
    taps = [network.get_layer(name).output for name in BACKBONES["googlenet"].auxiliary]
    network = keras.Model(network.input, [head(tap) for head, tap in zip(heads, taps, strict=True)])
    network.compile(keras.optimizers.SGD(0.1), ["categorical_crossentropy"] * 2, loss_weights=[0.3, 0.3])
    before = [np.asarray(network.get_layer(name).kernel) for name in ("conv1", "inception4d_branch1_conv1")]
    random = np.random.default_rng(0)
    labels = np.eye(10)[[3, 7]]
    network.train_on_batch(random.normal(size=(2, 64, 80, 3)), [labels, labels])
    after = [np.asarray(network.get_layer(name).kernel) for name in ("conv1", "inception4d_branch1_conv1")]
    assert all(not np.array_equal(a, b) for a, b in zip(before, after, strict=True))
