"""Class activation maps: the formula, what it adds up to, and whether the map finds what the network looks at."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from support.places import SHARED, needs_images, needs_weights

from driverwatch.config.backbones import RAW, SQUEEZENET
from driverwatch.config.loading import parse
from driverwatch.config.model import ModelSettings
from driverwatch.inference import class_activation
from driverwatch.inference.class_activation import Network, of_classifier, of_whole
from driverwatch.models.classifier import ChannelScaling, build
from driverwatch.models.squeezenet import squeezenet

pytestmark = pytest.mark.keras
HEIGHT, WIDTH = 48, 64
SQUARE = (slice(32, 40), slice(8, 16))  # is in one cell of a 6x8 map


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def square() -> np.ndarray:
    """A dim picture with one bright square."""
    picture = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
    picture[SQUARE] = 250
    return picture


def test_the_formula_on_numbers() -> None:
    features = np.array([[[1.0, 2.0], [3.0, 4.0]]], np.float32)  # one row, two columns, two features
    average = np.array([[10.0, -1.0], [100.0, 1.0]], np.float32)
    assert class_activation.class_activation(features, average, 0).tolist() == [[210, 430]]
    assert class_activation.class_activation(features, average, 1).tolist() == [[1, 1]]
    flat = np.array([[1.0], [10.0], [100.0], [1000.0]], np.float32)
    assert class_activation.class_activation(features, flat, 0).tolist() == [[21, 4300]]
    assert class_activation.class_activation(features, average, 0, ((0, 0), (1, 0))).tolist() == [[430]]


def bright(head: str, gain: float = 0.02) -> Network:
    """A network set by hand: class 1 of 3 the more likely, the brighter some cell is."""
    image = layers.Input((HEIGHT, WIDTH, 3))
    light = layers.Conv2D(2, 1, activation="relu", name="light")(image)
    cells = layers.AveragePooling2D(8)(light)
    if head == "average":
        pooled: Any = layers.GlobalAveragePooling2D()(cells)
    elif head == "flatten":
        pooled = layers.Flatten()(cells)
    else:
        pooled = layers.Dense(4, activation="relu", name="hidden")(layers.GlobalMaxPooling2D()(cells))
    model = keras.Model(image, layers.Dense(3, activation="softmax", name="top")(layers.Dropout(0.5)(pooled)))
    model.get_layer("light").set_weights([np.full((1, 1, 3, 2), 1 / 3, np.float32), np.array([-100, 0], np.float32)])
    top = model.get_layer("top")
    kernel = np.zeros(top.kernel.shape, np.float32)
    kernel[::2, 1] = gain  # of every cell the first feature, brightness above 100
    top.set_weights([kernel, np.zeros(3, np.float32)])
    if head == "hidden":
        model.get_layer("hidden").set_weights([np.array([[1] * 4, [0] * 4], np.float32), np.zeros(4, np.float32)])
    return of_whole(model, ChannelScaling.of(RAW))


@pytest.mark.parametrize(
    ("head", "method", "size"),
    [
        ("average", "class activation", (6, 8)),
        ("flatten", "class activation", (6, 8)),
        ("hidden", "occlusion", (HEIGHT, WIDTH)),
    ],
)
def test_the_map_is_hottest_where_the_network_looks(head: str, method: str, size: tuple[int, int]) -> None:
    found, how = class_activation.heat(bright(head), square(), 1)
    assert (how, found.shape, found.dtype) == (method, size, np.float32)
    y, x = np.unravel_index(found.argmax(), found.shape)
    y, x = (y + 0.5) * HEIGHT / size[0], (x + 0.5) * WIDTH / size[1]
    assert SQUARE[0].start <= y < SQUARE[0].stop
    assert SQUARE[1].start <= x < SQUARE[1].stop
    assert found.max() > 10 * np.median(np.abs(found))
    blank, _ = class_activation.heat(bright(head), np.full((HEIGHT, WIDTH, 3), 40, np.uint8), 1)
    assert found.max() > blank.max()


def test_occlusion_is_the_drop_behind_patches() -> None:
    """A network that looks at one pixel alone: only patches over it change anything, and all by the same."""

    def probabilities(images: np.ndarray) -> np.ndarray:
        share = np.asarray(images)[:, 7, 11, 0] / 255
        return np.stack([share, 1 - share], axis=1).astype(np.float32)

    picture = np.full((20, 30, 3), 255, np.uint8)
    found = class_activation.occlusion(Network(probabilities, None, ()), picture, 0)
    assert found[7, 11] == pytest.approx(1 - class_activation.GREY / 255, abs=1e-6)
    assert found.max() == found[7, 11]
    reached = np.abs(np.indices(found.shape) - np.array([7, 11])[:, None, None]).max(axis=0)
    assert (found[reached >= 20 // class_activation.PATCHES] == 0).all()


def test_several_networks_are_averaged_maps_and_probabilities() -> None:
    both = [bright("average"), bright("flatten", 0.01)]
    maps = [class_activation.heat(network, square(), 1)[0] for network in both]
    assert not np.allclose(*maps)
    found, how = class_activation.class_activation_map(lambda: iter(both), square(), 1)
    assert how == "class activation"
    assert np.allclose(found, np.mean(maps, axis=0))
    pictures = np.stack([square() // (i + 1) for i in range(class_activation.IMAGES_AT_ONCE + 3)])
    rows = class_activation.probabilities(lambda: iter(both), pictures)
    alone = [np.mean([np.asarray(network(picture[None]))[0] for network in both], axis=0) for picture in pictures]
    assert np.allclose(rows, alone, atol=1e-6)
    assert np.ptp(rows[:, 1]) > 0.1


def logits_by_maps(network: Network, image: np.ndarray, classes: int, summed: Callable[[np.ndarray], float]) -> Any:
    found = [class_activation.heat(network, image, label) for label in range(classes)]
    assert {how for _, how in found} == {"class activation"}
    return np.array([summed(heat) for heat, _ in found])


@pytest.mark.parametrize("pooling", ["average", "flatten"])
def test_the_maps_of_a_classifier_add_up_to_its_probabilities(pooling: str) -> None:
    settings = parse(
        ModelSettings,
        {
            "backbone": "tiny",
            "weights": "none",
            "input": {"pack": "48x64", "size": "48x64"},
            "head": {"pooling": pooling},
        },
        "test",
    )
    classifier = build(settings, 10, (0, 0, 0), None)
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    summed = np.mean if pooling == "average" else np.sum
    network = of_classifier(classifier)
    made = softmax(logits_by_maps(network, image, 10, summed))  # the new softmax' biases are still 0
    assert np.allclose(made, np.asarray(network(image[None]))[0], atol=1e-5)


@pytest.mark.parametrize(
    "constructor",
    [
        keras.applications.MobileNet,
        pytest.param(keras.applications.DenseNet121, marks=pytest.mark.slow),
        squeezenet,
    ],
    ids=["mobilenet", "densenet121", "squeezenet"],
)
def test_the_maps_of_published_networks_add_up_too(constructor: Callable[..., keras.Model]) -> None:
    """MobileNet ends in a 1x1 convolution, DenseNet in a dense layer, SqueezeNet in a map per class."""
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    model = constructor(weights=None, include_top=True, input_shape=(64, 64, 3), classes=5)
    for layer in model.layers:  # squeezenet's random features are small; without biases they would all be much alike
        if isinstance(layer, keras.layers.Conv2D) and layer.use_bias:
            layer.bias.assign(np.linspace(-0.1, 0.3, layer.filters))
    network = of_whole(model, ChannelScaling.of(SQUEEZENET))
    whole = Network(network.probabilities, network.features, network.head)  # its margin counts in the average, too
    added = logits_by_maps(whole, image, 5, np.mean)
    if constructor is keras.applications.MobileNet:
        added += np.asarray(model.get_layer("conv_preds").bias)
    assert np.allclose(softmax(added), np.asarray(network(image[None]))[0], atol=1e-5)
    assert np.ptp(added) > 1e-3


def test_padding_above_the_last_extended_convolution_is_no_part_of_the_image() -> None:
    network = of_whole(squeezenet(include_top=True, input_shape=(64, 64, 3)), ChannelScaling.of(SQUEEZENET))
    assert network.margin == ((1, 1), (1, 1))
    found, _ = class_activation.heat(network, np.zeros((64, 64, 3), np.uint8), 3)
    assert found.shape == squeezenet(input_shape=(64, 64, 3)).output_shape[1:3]


def test_a_head_that_is_not_linear_is_asked_by_occlusion() -> None:
    """Hidden layers, activations after the pooling, a backbone without a map."""
    for shape in ((64, 64, 3), None):
        mobile = keras.applications.MobileNetV3Small(weights=None, input_shape=shape, classes=3)
        network = of_whole(mobile, ChannelScaling.of(RAW))
        assert isinstance(network.head[0], layers.GlobalAveragePooling2D)  # not the flattening at its end
        assert class_activation.class_kernel(network.head) is None
    image = layers.Input((8, 8, 3))
    dense = layers.Dense(4)(layers.Flatten()(image))
    for top in (layers.Dense(2, activation="softmax"), layers.Dense(2, activation="sigmoid")):
        assert (
            class_activation.class_kernel(of_whole(keras.Model(image, top(dense)), ChannelScaling.of(RAW)).head) is None
        )
    flat = layers.Input((9,))
    none = of_whole(keras.Model(flat, layers.Dense(2, activation="softmax")(flat)), ChannelScaling.of(RAW))
    assert none.features is None


@needs_weights
@needs_images
def test_a_real_network_sees_a_class_where_its_image_was_put() -> None:
    """Real SqueezeNet: a driver's image shrunk into a corner of a grey picture heats that corner."""
    from driverwatch.data.images import examine
    from driverwatch.models.pretrained import build_whole

    image = sorted((SHARED / "statefarm" / "imgs" / "train" / "c0").glob("*.jpg"))[0]
    small = examine(image, (112, 112)).pixels
    network = of_whole(build_whole("squeezenet", SHARED / "weights"), ChannelScaling.of(SQUEEZENET))
    for top, left in ((0, 0), (115, 115), (0, 115)):
        picture = np.full((227, 227, 3), 128, np.uint8)
        picture[top : top + 112, left : left + 112] = small
        label = int(np.asarray(network(picture[None])).argmax())
        found, _ = class_activation.heat(network, picture, label)
        y, x = (np.array(np.unravel_index(found.argmax(), found.shape)) + 0.5) * 227 / np.array(found.shape)
        assert top <= y <= top + 112
        assert left <= x <= left + 112
