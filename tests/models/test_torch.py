"""Converted checkpoints against the same layers in PyTorch, through the real command; `make test-torch` installs PyTorch."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.places import ROOT

from driverwatch.config.backbones import BACKBONES
from driverwatch.config.loading import parse
from driverwatch.config.model import ModelSettings
from driverwatch.models import efficientnet_lite, pretrained, weight_files
from driverwatch.models.convert_torch import NORMALIZATION
from driverwatch.models.googlenet import auxiliary, googlenet
from driverwatch.models.pretrained import fill
from driverwatch.models.squeezenet import squeezenet_torch, squeezenet_v1_1

TORCH = ROOT / ".venv-torch" / "bin" / "python"
pytestmark = [
    pytest.mark.keras,
    pytest.mark.torch,
    pytest.mark.skipif(not TORCH.is_file(), reason="no PyTorch in .venv-torch; make test-torch installs it"),
]
BUILDERS = {"googlenet": googlenet, "squeezenet_torch": squeezenet_torch, "squeezenet_v1_1": squeezenet_v1_1}
SIZES = ("224x224", "227x227", "161x213", "96x129", "64x67")  # pools fit here, and hang over there
CLOSE = 1e-5  # of probabilities; in float32 the two differ by 2.4e-6 at most


def start(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run([TORCH, *map(str, arguments)], env=environment, capture_output=True, text=True, check=False)


def in_torch(*arguments: str | Path) -> str:
    done = start(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module", params=sorted(BUILDERS))
def reference(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, dict[str, Any]]:
    """A network's name, its checkpoint, and what PyTorch computes with it."""
    folder = tmp_path_factory.mktemp(request.param)
    checkpoint = folder / "random.pth"
    in_torch(
        ROOT / "tests" / "support" / "torch_reference.py", request.param, checkpoint, folder / "outputs.npz", *SIZES
    )
    with np.load(folder / "outputs.npz") as archive:
        return request.param, checkpoint, {name: archive[name] for name in archive.files}


def test_outputs_are_pytorchs(reference: tuple[str, Path, dict[str, Any]], tmp_path: Path) -> None:
    name, checkpoint, found = reference
    said = in_torch("-m", "driverwatch", "convert", checkpoint, "--model", name, "--weights", tmp_path)
    converted = tmp_path / BACKBONES[name].weight_files[0]
    assert said.startswith(f"{converted}: ")
    assert ("20 of the auxiliary classifiers" in said) == (name == "googlenet")
    content = {"backbone": name, "input": {"pack": "96x96", "size": "64x80"}}
    settings = parse(ModelSettings, content, "test")
    assert weight_files.find(settings, tmp_path) == converted
    assert pretrained.build_backbone(settings, converted).name == name
    for size in SIZES:
        image, expected = found[f"image {size}"], found[f"softmax {size}"]
        assert expected.std(axis=0).max() > 100 * CLOSE, "the two images must differ for this test to say anything"
        network = BUILDERS[name](include_top=True, input_shape=image.shape[1:])
        fill(network, converted)
        difference = np.abs(np.asarray(network(image, training=False)) - expected).max()
        print(f"{name} {size}: largest difference {difference:.1e} of probabilities up to {expected.max():.2f}")
        assert difference < CLOSE


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"])
def test_packaged_weights_give_what_pytorchs_layers_give(name: str, tmp_path: Path) -> None:
    package = BACKBONES[name].package
    assert package is not None
    path = weight_files.installed(package)
    if path is None:
        pytest.skip("not installed; make setup EXTRAS=weights")
    random, side = np.random.default_rng(0), BACKBONES[name].native
    sizes = ((side, side), (97, 130))
    images = {f"{h}x{w}": ((random.integers(0, 256, (2, h, w, 3)) - 127) / 128).astype(np.float32) for h, w in sizes}
    np.savez(tmp_path / "images.npz", **images)
    script = ROOT / "tests" / "support" / "torch_lite.py"
    in_torch(script, path, tmp_path / "images.npz", tmp_path / "outputs.npz")
    with np.load(tmp_path / "outputs.npz") as expected:
        for size, image in images.items():
            network = getattr(efficientnet_lite, name)(include_top=True, input_shape=image.shape[1:])
            fill(network, path)
            assert expected[size].max() > 1000 * CLOSE
            assert np.abs(np.asarray(network(image, training=False)) - expected[size]).max() < CLOSE


@pytest.mark.parametrize("reference", ["googlenet"], indirect=True)
def test_the_auxiliary_classifier_is_pytorchs(reference: tuple[str, Path, dict[str, Any]]) -> None:
    _, _, found = reference
    arrays = {
        "conv/kernel": found["aux conv.conv.weight"].transpose(2, 3, 1, 0),
        **{f"conv_bn/{ours}": found[f"aux conv.bn.{theirs}"] for theirs, ours in NORMALIZATION.items()},
        # PyTorch flattens channels first
        "fc1/kernel": found["aux fc1.weight"].reshape(1024, 128, 4, 4).transpose(2, 3, 1, 0).reshape(2048, 1024),
        "fc1/bias": found["aux fc1.bias"],
        "fc2/kernel": found["aux fc2.weight"].T,
        "fc2/bias": found["aux fc2.bias"],
    }
    sizes = [name.removeprefix("tap ") for name in found if re.fullmatch(r"tap \d+x\d+", name)]
    assert len(sizes) == 4
    for size in sizes:
        tap = found[f"tap {size}"]
        network = auxiliary(1000, "aux1")
        network.build(tap.shape)
        for layer in network.layers:
            for weight in layer.weights:
                weight.assign(arrays[f"{layer.name}/{weight.name}"])
        expected = found[f"tap softmax {size}"]
        assert expected.std(axis=0).max() > 100 * CLOSE
        difference = np.abs(np.asarray(network(tap, training=False)) - expected).max()
        print(f"auxiliary {size}: largest difference {difference:.1e} of probabilities up to {expected.max():.2f}")
        assert difference < CLOSE


SAVED = """
import os, sys, torch
class Program:
    def __reduce__(self):
        return os.system, (f"touch {sys.argv[2]}.ran",)
things = {
    "program": {"a": Program()},
    "whole module": torch.nn.Linear(2, 2),
    "wrapped": {"state_dict": {"a": torch.ones(1)}},
    "sparse": {"a": torch.ones(2, 2).to_sparse()},
    "bfloat16": {"a": torch.ones(2, dtype=torch.bfloat16)},
    "huge by strides": {"features.0.weight": torch.ones(1).expand(10**6, 10**6)},
    "old format": {"a": torch.ones(2)},
}
torch.save(things[sys.argv[1]], sys.argv[2], _use_new_zipfile_serialization=sys.argv[1] != "old format")
"""


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("program", "cannot be read as one"),
        ("whole module", "cannot be read as one"),
        ("wrapped", "got state_dict: a dict"),
        ("sparse", "expected plain tensors by name, got a: "),
        ("bfloat16", "expected plain tensors by name, got a: "),
        ("huge by strides", "has of other shapes features.0.weight (1000000, 1000000), not (64, 3, 3, 3)"),
        ("old format", "has left over a"),  # so it was read
        ("cut short", "expected a PyTorch checkpoint of plain tensors"),
    ],
)
def test_strangers_files_are_data(kind: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "stranger.pth"
    in_torch("-c", SAVED, "wrapped" if kind == "cut short" else kind, path)
    if kind == "cut short":
        path.write_bytes(path.read_bytes()[:-300])
    arguments = ("convert", path, "--model", "squeezenet_v1_1", "--weights", tmp_path / "weights")
    done = start("-m", "driverwatch", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_conversion_needs_no_network_library() -> None:
    """`.venv-torch` has neither Keras nor TensorFlow, so that the command runs there shows it."""
    found = in_torch("-m", "pip", "freeze").lower()
    assert "torch==" in found
    assert "keras" not in found
    assert "tensorflow" not in found
