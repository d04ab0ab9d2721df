"""Converted checkpoints against the same layers in PyTorch, through the real verb; `make test-torch` installs PyTorch."""

import os
import subprocess
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from conftest import ROOT

from driverwatch.backbones import BACKBONES
from driverwatch.models import weights
from driverwatch.models.googlenet import auxiliary, googlenet
from driverwatch.models.squeezenet import squeezenet_torch, squeezenet_v1_1

TORCH = ROOT / ".venv-torch" / "bin" / "python"
pytestmark = [
    pytest.mark.keras,
    pytest.mark.skipif(not TORCH.is_file(), reason="no PyTorch in .venv-torch; make test-torch installs it"),
]
BUILDERS = {"googlenet": googlenet, "squeezenet_torch": squeezenet_torch, "squeezenet_v1_1": squeezenet_v1_1}
SIZES = ("224x224", "227x227", "161x213", "96x129", "64x67")  # pools fit here, and hang over there
CLOSE = 1e-5  # of probabilities; in float32 the two differ by 1e-6 at most


def in_torch(*arguments: str | Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([TORCH, *map(str, arguments)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module", params=sorted(BUILDERS))
def reference(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, dict[str, Any]]:
    """A network's name, its checkpoint, and what PyTorch computes with it."""
    folder = tmp_path_factory.mktemp(request.param)
    checkpoint = folder / "random.pth"
    in_torch(ROOT / "tests" / "torch_reference.py", request.param, checkpoint, folder / "outputs.npz", *SIZES)
    with np.load(folder / "outputs.npz") as archive:
        return request.param, checkpoint, {name: archive[name] for name in archive.files}


def test_outputs_are_pytorchs(reference: tuple[str, Path, dict[str, Any]], tmp_path: Path) -> None:
    name, checkpoint, found = reference
    said = in_torch("-m", "driverwatch", "convert", checkpoint, "--model", name, "--weights", tmp_path)
    converted = tmp_path / BACKBONES[name].weight_files[0]
    assert said.startswith(f"{converted}: ")
    assert ("20 of the auxiliary classifiers" in said) == (name == "googlenet")
    for size in SIZES:
        image, expected = found[f"image {size}"], found[f"softmax {size}"]
        assert expected.std(axis=0).max() > 100 * CLOSE, "the two images must differ for this test to say anything"
        network = BUILDERS[name](include_top=True, input_shape=image.shape[1:])
        weights._fill(network, converted)
        difference = np.abs(np.asarray(network(image, training=False)) - expected).max()
        print(f"{name} {size}: largest difference {difference:.1e} of probabilities up to {expected.max():.2f}")
        assert difference < CLOSE


def test_the_auxiliary_classifier_is_pytorchs(reference: tuple[str, Path, dict[str, Any]]) -> None:
    name, _, found = reference
    if name != "googlenet":
        return
    network = auxiliary(1000, "aux1")
    network.build(found["aux tap"].shape)
    flat = found["aux fc1.weight"].reshape(1024, 128, 4, 4).transpose(2, 3, 1, 0).reshape(2048, 1024)
    normalisation = [found[f"aux conv.bn.{part}"] for part in ("weight", "bias", "running_mean", "running_var")]
    network.set_weights(
        [
            found["aux conv.conv.weight"].transpose(2, 3, 1, 0),
            *normalisation[:2],
            flat,
            found["aux fc1.bias"],
            found["aux fc2.weight"].T,
            found["aux fc2.bias"],
            *normalisation[2:],
        ]
        if len(network.weights[3].shape) > 1
        else [
            found["aux conv.conv.weight"].transpose(2, 3, 1, 0),
            *normalisation,
            flat,
            found["aux fc1.bias"],
            found["aux fc2.weight"].T,
            found["aux fc2.bias"],
        ]
    )
    output = keras.ops.convert_to_numpy(network(found["aux tap"], training=False))
    assert np.abs(output - found["aux softmax"]).max() < CLOSE
