"""`predict.batch_size`: what auto takes, that it decides nothing but rounding, and what happens where memory is too small."""

from typing import Any

import keras
import numpy as np
import pytest
from support.packs import CLASSES, SIZE

from driverwatch.config.loading import parse
from driverwatch.config.model import ACCELERATOR_CROPS, PROCESSOR_CROPS, ModelSettings, PredictSettings
from driverwatch.data.pack import Pack
from driverwatch.errors import InputError
from driverwatch.inference.predict import Predictor
from driverwatch.models import devices
from driverwatch.models.classifier import build
from driverwatch.models.devices import ForwardPasses, crops_in_a_pass


class Small:
    """A device that holds `most` samples: the network answers with their sums, or with an error of its backend's."""

    def __init__(self, most: int, error: Exception) -> None:
        self.most, self.error, self.asked = most, error, list[int]()

    def predict_on_batch(self, samples: np.ndarray) -> np.ndarray:
        self.asked.append(len(samples))
        if len(samples) > self.most:
            raise self.error
        return samples.sum(axis=1, keepdims=True)


class ResourceExhaustedError(Exception):
    """As TensorFlow calls it."""


OUT_OF_MEMORY = [
    ResourceExhaustedError("OOM when allocating tensor with shape[640,32,80,104]"),
    RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 17179869184 bytes."),
    RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError(),
]
SAMPLES = np.arange(30.0).reshape(10, 3)


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["tensorflow", "jax", "torch", "numpy"])
def test_too_large_a_pass_is_halved_until_it_fits(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    network: Any = Small(3, error)
    passes = ForwardPasses(network)
    assert np.array_equal(passes(SAMPLES), SAMPLES.sum(axis=1, keepdims=True))
    assert network.asked == [10, 5, 3, 3, 2, 2]
    said = capsys.readouterr().out
    assert "not enough memory for 10 images in one pass; 5 from now on" in said
    assert "3 from now on" in said
    passes(SAMPLES)
    assert network.asked[6:] == [3, 3, 2, 2], "what is known is not tried again"


def test_one_image_that_does_not_fit_is_an_error() -> None:
    network: Any = Small(0, MemoryError())
    with pytest.raises(MemoryError):
        ForwardPasses(network)(SAMPLES)
    assert network.asked == [10, 5, 3, 2, 1]


def test_other_errors_are_raised_at_once() -> None:
    network: Any = Small(3, ValueError("shapes do not fit"))
    with pytest.raises(ValueError, match="shapes"):
        ForwardPasses(network)(SAMPLES)
    assert network.asked == [10]


def test_auto_is_small_on_a_processor_and_large_on_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    assert PredictSettings().batch_size == "auto"
    assert crops_in_a_pass(7) == 7
    listed: dict[str, Any] = {keras.backend.backend(): lambda: ["cpu:0"]}
    monkeypatch.setattr(devices, "LISTED", listed)
    assert crops_in_a_pass("auto") == PROCESSOR_CROPS
    listed[keras.backend.backend()] = lambda: ["gpu:0", "gpu:1"]
    assert crops_in_a_pass("auto") == ACCELERATOR_CROPS


def test_anything_else_is_refused() -> None:
    assert parse(PredictSettings, {"batch_size": 5}, "x").batch_size == 5
    for wrong in (0, "many", "20"):
        with pytest.raises(InputError, match="batch_size"):
            parse(PredictSettings, {"batch_size": wrong}, "x")


def test_the_batch_decides_nothing_but_rounding(packs: dict[str, Pack]) -> None:
    content = {"backbone": "tiny", "weights": "none", "input": {"pack": "36x44", "size": "32x40"}}
    classifier = build(parse(ModelSettings, content, "x"), CLASSES, (80.0,) * 3, None, load=False)
    images, rows = packs["test"].pixels, np.arange(9)
    found = {
        crops: Predictor(classifier, ["ten_crop"], SIZE, (32, 40), crops_at_once=crops)(images, rows)["ten_crop"]
        for crops in (1, 20, 70, 640)
    }
    for crops, made in found.items():
        assert np.allclose(made, found[20], atol=1e-6), crops
        assert made.shape[0] == 9
