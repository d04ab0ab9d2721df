"""Several devices train as one does: two virtual ones against one, in processes of their own, which divide the processor.

Tolerances: 1e-5 for losses, accuracies and probabilities, 1e-4 for weights, where Adam divides rounding by small moments.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from support.places import ROOT

from driverwatch.errors import InputError
from driverwatch.models import backend
from driverwatch.models import devices as several
from driverwatch.models.devices import ONE, devices

pytestmark = pytest.mark.keras
SCRIPT = ROOT / "tests" / "support" / "several_devices.py"


def trained(name: str, count: int, dropout: float, folder: Path) -> dict[str, np.ndarray]:
    place = folder / str(count)
    place.mkdir()
    env = os.environ | {
        "KERAS_BACKEND": name,
        "VIRTUAL_DEVICES": "2",
        "JAX_PLATFORMS": "cpu",
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [sys.executable, str(SCRIPT), str(place), str(count), str(dropout)]
    made = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    with np.load(place / f"{count}.npz") as found:
        return dict(found)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "dropout"), [("tensorflow", 0.0), ("jax", 0.3)])
def test_two_train_as_one_does_and_resume_after_a_kill(name: str, dropout: float, tmp_path: Path) -> None:
    """Under JAX with dropout, whose draws are the whole batch's; TensorFlow's devices draw for themselves."""
    if find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    one, two = (trained(name, count, dropout, tmp_path) for count in (1, 2))
    assert np.ptp(one["loss"]) > 0.1  # there was something to learn
    for key, values in one.items():
        away = np.abs(values.astype(np.float64) - two[key]).max()
        assert away < (1e-4 if key.isdecimal() else 1e-5), key
    assert two["resumes"]
    if name == "tensorflow":
        mine, other = two["dropped"]
        assert set(mine) == set(other) == {0, 2}
        assert not np.array_equal(mine, other)


def seen(monkeypatch: pytest.MonkeyPatch, name: str, *names: str) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: name)
    monkeypatch.setitem(several.LISTED, name, lambda: list(names))


def test_where_there_is_one_nothing_is_split(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorflow", "jax", "torch"):
        seen(monkeypatch, name, "gpu:0")
        assert devices("all", 7) is devices(1, 7) is ONE


def test_a_processor_is_no_accelerator() -> None:
    assert bool(several.accelerators()) is not several.on_processor()


@pytest.mark.parametrize(
    ("name", "asked", "batch", "said"),
    [
        ("tensorflow", 3, 6, r"train.devices: 3: tensorflow sees 2 \(gpu:0, gpu:1\); ask for no more"),
        ("jax", "all", 7, r"train.batch_size: 7 images cannot be split evenly over 2 devices; .* such as 8"),
        ("torch", "all", 6, "under PyTorch a fold trains on one device, got 2; set 1"),
    ],
)
def test_what_cannot_be_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, asked: Any, batch: int, said: str
) -> None:
    seen(monkeypatch, name, "gpu:0", "gpu:1")
    with pytest.raises(InputError, match=said):
        devices(asked, batch)


@pytest.mark.parametrize("asked", ["two", "0", "-1", "65"])
def test_a_strange_number_of_virtual_devices_is_refused(monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    monkeypatch.setenv("VIRTUAL_DEVICES", asked)
    with pytest.raises(InputError, match=f"VIRTUAL_DEVICES={asked}: expected a number from 1 to 64"):
        backend.start()
