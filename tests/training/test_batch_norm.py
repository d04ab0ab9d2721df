"""Statistics of batch normalisation, recalibrated on the weights as they are."""

import numpy as np
import pytest

from driverwatch.config.loading import parse
from driverwatch.config.model import ModelSettings
from driverwatch.models.classifier import Classifier, build
from driverwatch.models.freezing import freeze
from driverwatch.training.epoch import recalibrate_batch_norm

pytestmark = pytest.mark.keras
RANDOM = np.random.default_rng(0)


def tiny(**more: object) -> Classifier:
    content = {"backbone": "tiny", "weights": "none", "input": {"pack": "32x48", "size": "32x48"}, **more}
    return build(parse(ModelSettings, content, "test"), 10, (100.0, 110.0, 120.0), None, load=False)


def test_statistics_measured_again_are_the_populations() -> None:
    classifier = tiny()
    freeze(classifier, None, train_statistics=True)
    images = RANDOM.integers(0, 256, (40, 32, 48, 3), np.uint8)
    recalibrate_batch_norm(classifier, (images[i : i + 8] for i in range(0, 40, 8)))
    first = classifier.backbone.get_layer("stage1_conv")
    seen = np.asarray(first(classifier.scaling(images)))
    layer = classifier.backbone.get_layer("stage1_bn")
    assert np.allclose(layer.moving_mean.numpy(), seen.mean(axis=(0, 1, 2)), atol=1e-4)
    assert np.allclose(layer.moving_variance.numpy(), seen.var(axis=(0, 1, 2)), rtol=2e-3)
    assert layer.momentum == 0.9


def test_frozen_layers_keep_their_statistics_when_others_are_measured() -> None:
    classifier = tiny()
    freeze(classifier, "stage2", train_statistics=True)
    before = {w.path: w.numpy() for w in classifier.weights}
    recalibrate_batch_norm(classifier, [RANDOM.integers(0, 256, (8, 32, 48, 3), np.uint8)])
    changed = {path.split("/")[-2] for path, old in before.items() if not np.array_equal(old, _now(classifier, path))}
    assert changed == {"stage3_bn", "stage4_bn"}


def _now(classifier: Classifier, path: str) -> np.ndarray:
    return next(w.numpy() for w in classifier.weights if w.path == path)


def test_a_heads_statistics_are_measured_too() -> None:
    classifier = tiny(head={"dense": [8], "normalization": True})
    freeze(classifier, "head", train_statistics=True)
    before = {w.path: w.numpy() for w in classifier.weights}
    recalibrate_batch_norm(classifier, [RANDOM.integers(0, 256, (8, 32, 48, 3), np.uint8)])
    changed = {path for path, old in before.items() if not np.array_equal(old, _now(classifier, path))}
    assert {path.split("/")[-2] for path in changed} == {"dense1_bn"}
