"""Weights: found where told, held against checksums, names and shapes, loaded where they belong."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from support.networks import settings
from support.places import SHARED, needs_weights

from driverwatch.config.backbones import BACKBONES, Backbone, WeightFiles
from driverwatch.config.model import ModelSettings
from driverwatch.errors import InputError
from driverwatch.models.build_backbone import build_network
from driverwatch.models.pretrained import build_backbone, build_whole, fill
from driverwatch.models.squeezenet import squeezenet
from driverwatch.models.weight_files import find, identity

pytestmark = pytest.mark.keras
SCALE = np.array([0.229, 0.224, 0.225])


def pretrained(backbone: str, size: str = "32x32", **more: object) -> ModelSettings:
    return settings(backbone, size, **more).model_copy(update={"weights": "imagenet"})


def legacy(network: keras.Model, path: Path) -> Path:
    """Save weights as Keras 2 did, names and order included."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in network.layers]
        for layer in network.layers:
            group = file.create_group(layer.name)
            variables = layer.trainable_weights + layer.non_trainable_weights
            names = [f"{layer.name}/{i}_{v.name}:0".encode() for i, v in enumerate(variables)]
            group.attrs["weight_names"] = names
            for name, variable in zip(names, variables, strict=True):
                group[name.decode()] = keras.ops.convert_to_numpy(variable)
    return path


def randomized(network: keras.Model) -> keras.Model:
    """Every weight another number, so that none can be mistaken for another."""
    random = np.random.default_rng(0)
    for weight in network.weights:
        if weight.dtype == "float32":
            weight.assign(random.uniform(0.1, 1, weight.shape))
    return network


def same(first: keras.Model, second: keras.Model) -> bool:
    pairs = zip(first.weights, second.weights, strict=True)
    return all(np.array_equal(a.numpy(), b.numpy()) for a, b in pairs)


SAVED: dict[str, Callable[[keras.Model, Path], Path]] = {
    "x.weights.h5": lambda network, path: network.save_weights(path) or path,
    "x.h5": legacy,
    "x.npz": lambda network, path: (
        np.savez(path, **{f"{layer.name}/{w.name}": w.numpy() for layer in network.layers for w in layer.weights})
        or path
    ),
}


def small(backbone: str) -> keras.Model:
    return build_network(BACKBONES[backbone], (BACKBONES[backbone].smallest,) * 2)


@pytest.mark.parametrize("name", SAVED)
@pytest.mark.parametrize("backbone", ["mobilenet", "squeezenet"])
def test_every_format_comes_back(tmp_path: Path, name: str, backbone: str) -> None:
    made = randomized(small(backbone))
    path = SAVED[name](made, tmp_path / name)
    again = small(backbone)
    fill(again, path)
    assert same(made, again)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x.weights.h5", "x.h5"])
def test_nested_layers_and_automatic_numbers_come_back(tmp_path: Path, name: str) -> None:
    """ConvNeXt nests layers, and the saving process had counted on from an earlier network."""
    keras.layers.LayerNormalization()
    row = BACKBONES["convnext_tiny"]
    made = randomized(keras.applications.ConvNeXtTiny(weights=None, include_top=False, input_shape=(32, 32, 3)))
    path = SAVED[name](made, tmp_path / name)
    again = build_network(row, (32, 32))
    fill(again, path)
    assert same(made, again)


def exchange(path: Path, first: str, second: str) -> None:
    """Exchange two layers of a file: their arrays and their names, so that every shape still fits."""
    with h5py.File(path, "r+") as file:
        if "layer_names" in file.attrs:
            order = list(file.attrs["layer_names"])
            i, j = order.index(first), order.index(second)
            order[i], order[j] = order[j], order[i]
            file.attrs["layer_names"] = [name.encode() for name in order]
        else:
            keys = {file[f"layers/{key}/vars"].attrs["name"]: f"layers/{key}" for key in file["layers"]}
            file.move(keys[first], "kept")
            file.move(keys[second], keys[first])
            file.move("kept", keys[second])


@pytest.mark.parametrize("name", ["x.weights.h5", "x.h5"])
@pytest.mark.parametrize(
    ("backbone", "first", "second"),
    [("squeezenet", "fire2_expand1x1", "fire3_expand1x1"), ("vgg16", "block3_conv2", "block3_conv3")],
)
def test_two_layers_exchanged_are_refused(tmp_path: Path, name: str, backbone: str, first: str, second: str) -> None:
    """Of the same shape, so that Keras would load them without a word."""
    path = SAVED[name](small(backbone), tmp_path / name)
    exchange(path, first, second)
    with pytest.raises(InputError, match=f"is {second}, where {first} was expected"):
        fill(small(backbone), path)


def test_automatically_numbered_layers_exchanged_are_refused(tmp_path: Path) -> None:
    """Inception's convolutions have no names of their own; two of mixed4's are of one shape."""
    made = small("inception_v3")
    shapes: dict[tuple[int, ...], str] = {}
    pair = next(
        (shapes[key], layer.name)
        for layer in made.layers
        if isinstance(layer, keras.layers.Conv2D)
        for key in [tuple(layer.kernel.shape)]
        if shapes.setdefault(key, layer.name) != layer.name
    )
    for name in ("x.weights.h5", "x.h5"):
        path = SAVED[name](made, tmp_path / name)
        fill(made, path)
        exchange(path, *pair)
        with pytest.raises(InputError, match="was expected"):
            fill(made, path)


@pytest.mark.parametrize("name", SAVED)
def test_another_networks_file_is_refused_with_the_first_difference(tmp_path: Path, name: str) -> None:
    path = SAVED[name](small("vgg16"), tmp_path / name)
    with pytest.raises(
        InputError, match=r"expected weights of vgg19, got another file \(.*(block3_conv4|block4_conv1)"
    ):
        fill(small("vgg19"), path)
    half = keras.applications.MobileNet(weights=None, include_top=False, input_shape=(32, 32, 3), alpha=0.5)
    path = SAVED[name](half, tmp_path / name)
    with pytest.raises(InputError, match=r"conv1.* is \(3, 3, 3, 16\), not \(3, 3, 3, 32\)"):
        fill(small("mobilenet"), path)


def test_arrays_too_many_are_refused(tmp_path: Path) -> None:
    path = SAVED["x.weights.h5"](small("squeezenet"), tmp_path / "x.weights.h5")
    with h5py.File(path, "r+") as file:
        file["layers/conv2d_99/vars/0"] = np.zeros(3)
    with pytest.raises(InputError, match="holds layers/conv2d_99/vars/0, which squeezenet has no place for"):
        fill(small("squeezenet"), path)


@pytest.mark.parametrize("name", ["x.weights.h5", "x.h5", "x.npz"])
def test_files_of_another_kind_are_refused(tmp_path: Path, name: str) -> None:
    for content in (b"", b"no weights"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="expected weights of squeezenet, got another file"):
            fill(small("squeezenet"), tmp_path / name)


def test_texts_in_place_of_numbers_are_refused(tmp_path: Path) -> None:
    path = SAVED["x.npz"](small("squeezenet"), tmp_path / "x.npz")
    with np.load(path) as archive:
        arrays = {n: archive[n] for n in archive.files}
    np.savez(path, **{**arrays, "conv1/kernel": np.full((7, 7, 3, 96), "1")})
    with pytest.raises(InputError, match="conv1/kernel holds no real numbers"):
        fill(small("squeezenet"), path)


def test_weights_are_looked_for_where_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no ImageNet weights to download.*WEIGHTS=<folder>"):
        find(pretrained("squeezenet", "64x64"), None)
    with pytest.raises(InputError, match="no such folder"):
        find(pretrained("squeezenet", "64x64"), tmp_path / "nowhere")
    with pytest.raises(InputError, match="tiny: has no ImageNet weights; train from scratch"):
        find(pretrained("tiny"), None)
    assert identity(settings(), None) is None
    official = BACKBONES["mobilenet"].backbone
    assert identity(pretrained("mobilenet"), tmp_path) == {"download": official.official, "checksum": official.checksum}


def test_a_local_file_with_an_official_name_must_be_the_official_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = randomized(small("mobilenet"))
    path = legacy(made, tmp_path / BACKBONES["mobilenet"].backbone.official)
    for refused in (
        lambda: find(pretrained("mobilenet"), tmp_path),
        lambda: build_backbone(pretrained("mobilenet"), path),
    ):
        with pytest.raises(InputError, match=r"expected the official file of that name, with MD5 725c.*got "):
            refused()
    path.rename(tmp_path / BACKBONES["mobilenet"].backbone.others[0])
    with pytest.raises(InputError, match="got another file"):  # a Keras 3 name for a file of Keras 2
        build_backbone(pretrained("mobilenet"), find(pretrained("mobilenet"), tmp_path))
    served(monkeypatch, "mobilenet", legacy(made, path))
    assert find(pretrained("mobilenet"), tmp_path) == path
    assert same(build_backbone(pretrained("mobilenet"), path), made)


def served(
    monkeypatch: pytest.MonkeyPatch, backbone: str, path: Path, whole: bool = False, algorithm: str = "md5"
) -> Backbone:
    """Let a local file be the official download of a backbone."""
    monkeypatch.setattr(keras.utils, "get_file", partial(keras.utils.get_file, cache_dir=path.parent / "cache"))
    monkeypatch.setattr("driverwatch.config.backbones.STORAGE", f"{path.parent.as_uri()}/")
    files = WeightFiles(path.name, hashlib.new(algorithm, path.read_bytes()).hexdigest(), ())
    row = replace(BACKBONES[backbone], **{"whole" if whole else "backbone": files})
    monkeypatch.setitem(BACKBONES, backbone, row)
    return row


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_downloads_are_held_against_their_checksum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, algorithm: str
) -> None:
    made = randomized(small("mobilenet_v2"))
    row = served(monkeypatch, "mobilenet_v2", legacy(made, tmp_path / "served.h5"), algorithm=algorithm)
    assert same(build_backbone(pretrained("mobilenet_v2"), None), made)
    other = replace(row.backbone, checksum="0" * len(row.backbone.checksum))
    monkeypatch.setitem(BACKBONES, "mobilenet_v2", replace(row, backbone=other))
    with pytest.raises(InputError, match="could not be downloaded"):
        build_backbone(pretrained("mobilenet_v2"), None)


@pytest.mark.parametrize("backbone", ["vgg16", "mobilenet", "efficientnet_b0"])
def test_a_failed_download_names_both_ways_out(monkeypatch: pytest.MonkeyPatch, backbone: str) -> None:
    def offline(*_: object, **__: object) -> None:
        raise Exception("URL fetch failure on https://example.invalid: None -- unreachable")

    monkeypatch.setattr(keras.utils, "get_file", offline)
    with pytest.raises(InputError, match=r"could not be downloaded.*WEIGHTS=<folder>.*weights=none"):
        build_backbone(pretrained(backbone), None)
    with pytest.raises(
        InputError, match=r"could not be downloaded.*_kernels.h5|could not be downloaded.*b0.h5|could not.*_tf.h5"
    ):
        build_whole(backbone, None)


@pytest.mark.slow
def test_efficientnet_sees_what_keras_own_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keras adds a layer to it under weights="imagenet" alone, since its file's "variance" is a deviation."""
    made = randomized(small("efficientnet_b0"))
    normalization = made.get_layer("normalization")
    normalization.adapt_mean.assign([0.485, 0.456, 0.406])
    normalization.adapt_variance.assign(SCALE)  # as released
    path = legacy(made, tmp_path / "efficientnetb0_notop.h5")
    monkeypatch.setattr(keras.src.utils.file_utils, "get_file", lambda *_, **__: str(path))
    theirs = keras.applications.EfficientNetB0(weights="imagenet", include_top=False, input_shape=(32, 32, 3))
    ours = small("efficientnet_b0")
    fill(ours, path)
    image = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    until = "stem_conv"
    outputs = [np.asarray(keras.Model(n.input, n.get_layer(until).output)(image)) for n in (ours, theirs)]
    assert np.allclose(*outputs, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_vgg_keeps_its_dense_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guides' own recipe: cut before the 1000-way softmax. A small stand-in for VGG16's 528 MB."""
    tiny = replace(BACKBONES["vgg16"], native=32)
    monkeypatch.setitem(BACKBONES, "vgg16", tiny)
    whole = build_network(tiny, (32, 32), top=True)
    path = legacy(whole, tmp_path / "vgg16.h5")
    served(monkeypatch, "vgg16", path, whole=True)
    network = build_backbone(pretrained("vgg16", truncate_at="fc2"), find(pretrained("vgg16", truncate_at="fc2"), None))
    assert network.output_shape == (None, 4096)
    assert np.array_equal(network.get_layer("fc2").kernel.numpy(), whole.get_layer("fc2").kernel.numpy())
    with pytest.raises(InputError, match=r"truncate_at: fc2: keeps vgg16's .* input.size of 32x32 alone, got 32x48"):
        find(pretrained("vgg16", "32x48", truncate_at="fc2"), None)
    built = build_whole("vgg16", tmp_path)
    image = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    assert np.allclose(np.asarray(built(image)), np.asarray(whole(image)))


def test_networks_without_weights_are_refused_in_a_sentence() -> None:
    for name, said in (
        ("tiny", "has no ImageNet network"),
        ("vgg17", "no such backbone.*did you mean vgg1"),
        ("squeezenet", "no ImageNet weights to download"),
    ):
        with pytest.raises(InputError, match=said):
            build_whole(name, None)


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
    real = pretrained(backbone, size, truncate_at=cut)
    network = build_backbone(real, find(real, SHARED / "weights"))
    image = np.random.default_rng(0).normal(size=(1, *map(int, size.split("x")), 3)).astype(np.float32)
    features = np.asarray(network(image))
    assert np.isfinite(features).all()
    assert features.std() > 0


@needs_weights
@pytest.mark.parametrize(
    ("backbone", "legal"),
    [("inception_v3", "mixed8"), ("mobilenet", "conv_dw_13_relu or truncate_at: conv_pw_12_relu")],
)
def test_layers_that_a_file_leaves_at_zero_are_refused(backbone: str, legal: str) -> None:
    whole = pretrained(backbone, "96x96")
    with pytest.raises(InputError, match=f"holds nothing for .*truncate_at: {legal}"):
        build_backbone(whole, find(whole, SHARED / "weights"))


@needs_weights
def test_squeezenet_weights_by_name_and_shape(tmp_path: Path) -> None:
    path = SHARED / "weights" / "squeezenet_v1.0_imagenet.npz"
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    whole = build_whole("squeezenet", path.parent)
    for network in (build_backbone(pretrained("squeezenet", "64x64"), path), whole):
        for layer in network.layers:
            for weight in layer.weights:
                assert np.array_equal(weight.numpy(), arrays[f"{layer.name}/{weight.name}"])
    assert whole.count_params() == BACKBONES["squeezenet"].parameters
    swapped = {**arrays, "fire2_expand1x1/kernel": arrays["fire2_expand3x3/kernel"]}
    np.savez(tmp_path / "w.npz", **swapped)
    with pytest.raises(InputError, match=r"fire2_expand1x1/kernel is \(3, 3, 16, 64\), not \(1, 1, 16, 64\)"):
        build_backbone(pretrained("squeezenet", "64x64"), tmp_path / "w.npz")
    np.savez(tmp_path / "w.npz", **{**arrays, "conv1/bias": np.full(96, np.nan)})
    with pytest.raises(InputError, match="holds NaN or infinity"):
        build_backbone(pretrained("squeezenet", "64x64"), tmp_path / "w.npz")


def test_converted_files_say_what_they_were_made_for(tmp_path: Path) -> None:
    """SqueezeNet v1.0 has the same names and shapes in two releases that expect other inputs."""
    network = squeezenet(input_shape=(64, 64, 3))
    arrays = {f"{layer.name}/{w.name}": w.numpy() for layer in network.layers for w in layer.weights}
    path = tmp_path / "w.npz"
    for row, marker, said in (
        ("squeezenet_torch", {}, "does not say whose it is"),
        ("squeezenet_torch", {"made_for/squeezenet_v1_1": np.zeros(0, "float32")}, "it is squeezenet_v1_1's"),
        ("squeezenet", {"made_for/squeezenet_torch": np.zeros(0, "float32")}, "it is squeezenet_torch's"),
    ):
        np.savez(path, **arrays, **marker)
        with pytest.raises(InputError, match=said):
            build_backbone(settings(row, "64x64").model_copy(update={"weights": "imagenet"}), path)
    np.savez(path, **arrays, **{"made_for/squeezenet_torch": np.zeros(0, "float32")})
    build_backbone(settings("squeezenet_torch", "64x64").model_copy(update={"weights": "imagenet"}), path)
