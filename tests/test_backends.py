"""Keras' backends: the same weights, batches and steps give the same network, as far as float32 goes."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from support.places import ROOT

pytestmark = pytest.mark.keras
SCRIPT = ROOT / "tests" / "support" / "one_step.py"


def one_step(backend: str, folder: Path, backbone: str) -> dict[str, np.ndarray]:
    env = os.environ | {"KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(SCRIPT), str(folder), backbone]
    made = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    with np.load(folder / f"{backend}.npz") as found:
        return dict(found)


@pytest.mark.parametrize("backbone", ["tiny", "squeezenet"])
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_step_and_a_prediction_agree_with_tensorflow(backend: str, backbone: str, tmp_path: Path) -> None:
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    expected = one_step("tensorflow", tmp_path, backbone)
    found = one_step(backend, tmp_path, backbone)
    assert np.ptp(expected["probabilities"], axis=0).max() > 1e-3  # images differ
    for name, values in expected.items():
        assert np.allclose(found[name], values, rtol=0, atol=1e-6), (name, np.abs(found[name] - values).max())
