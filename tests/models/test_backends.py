"""Keras' backends: the same weights, batches and steps give the same network, as far as float32 goes."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from support.places import ROOT

pytestmark = [pytest.mark.keras, pytest.mark.slow]
SCRIPT = ROOT / "tests" / "support" / "one_step.py"


def one_step(backend: str, folder: Path, backbone: str) -> dict[str, np.ndarray]:
    paths = f"{ROOT / 'src'}{os.pathsep}{ROOT / 'tests'}"
    env = os.environ | {
        "PYTHONPATH": paths,
        "KERAS_BACKEND": backend,
        "JAX_PLATFORMS": "cpu",
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [sys.executable, str(SCRIPT), str(folder), backbone]
    made = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    with np.load(folder / f"{backend}.npz") as found:
        return dict(found)


class Reference(NamedTuple):
    """What TensorFlow comes to, and the folder with the weights that it began with."""

    backbone: str
    folder: Path
    found: dict[str, np.ndarray]


@pytest.fixture(scope="module", params=["tiny", "squeezenet"])
def reference(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    folder = tmp_path_factory.mktemp(request.param)
    return Reference(request.param, folder, one_step("tensorflow", folder, request.param))


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_step_and_a_prediction_agree_with_tensorflow(backend: str, reference: Reference) -> None:
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    expected, found = reference.found, one_step(backend, reference.folder, reference.backbone)
    assert np.ptp(expected["probabilities"], axis=0).max() > 1e-3  # images differ
    for made in (expected, found):  # whatever OpenVINO was refused for, it never answers wrongly
        assert np.allclose(made.pop("openvino", made["probabilities"]), made["probabilities"], rtol=0, atol=1e-5)
    for name, values in expected.items():
        assert np.allclose(found[name], values, rtol=0, atol=1e-6), (name, np.abs(found[name] - values).max())
