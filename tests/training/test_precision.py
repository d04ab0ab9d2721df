"""Mixed precision: layers compute in half, weights and probabilities stay float32, and a fold resumes as it was."""

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from support.packs import CLASSES
from support.training import history, run_of, same, trained, whole_of

from driverwatch.data.pack import Pack
from driverwatch.models.classifier import build
from driverwatch.models.split_network import FrozenPart, split_point
from driverwatch.run import Run

pytestmark = pytest.mark.keras
MIXED = ["mixed_bfloat16", "mixed_float16"]


def mixed(run: Run, precision: str) -> Run:
    return replace(run, settings=run.settings.model_copy(update={"precision": precision}))


@pytest.mark.parametrize("precision", MIXED)
def test_layers_compute_in_it_and_nothing_else_does(precision: str, tmp_path: Path) -> None:
    run = mixed(run_of(tmp_path), precision)
    classifier = build(run.settings, CLASSES, (80.0,) * 3, None)
    half = precision.removeprefix("mixed_")
    inner = [layer for layer in classifier.backbone.layers if layer.weights]
    assert inner
    assert {layer.compute_dtype for layer in inner} == {half}
    assert {weight.dtype for weight in classifier.weights if "seed" not in weight.path} == {"float32"}
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 40, 3), np.uint8)
    found = np.asarray(classifier(images))
    assert found.dtype == np.float32
    assert np.allclose(found.sum(axis=1), 1, atol=1e-5)

    whole = build(run_of(tmp_path).settings, CLASSES, (80.0,) * 3, None)
    assert {layer.compute_dtype for layer in whole.backbone.layers} == {"float32"}  # what was asked for is over
    whole.set_weights(classifier.get_weights())
    assert np.allclose(np.asarray(whole(images)), found, atol=0.02)
    assert not np.array_equal(np.asarray(whole(images)), found)
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.slow
@pytest.mark.parametrize("precision", MIXED)
def test_it_learns_and_resumes_after_a_kill_bit_for_bit(precision: str, tmp_path: Path, packs: dict[str, Pack]) -> None:
    whole, plain = whole_of(mixed(run_of(tmp_path / "whole"), precision), packs), run_of(tmp_path / "float32")
    assert not same(whole.found, trained(plain, packs))
    losses = [float(history(run)[-1]["loss"]) for run in (whole.run, plain)]
    assert max(losses) < 0.2  # log(4) is guessing
    assert whole.ends_alike(1, tmp_path / "killed")


def test_caches_of_frozen_layers_are_of_a_precision(tmp_path: Path) -> None:
    from driverwatch.inference.feature_cache import FeatureCache

    run, identities = run_of(tmp_path), set()
    for precision in ("float32", *MIXED):
        keras.utils.set_random_seed(0)
        classifier = build(mixed(run, precision).settings, CLASSES, (80.0,) * 3, None)
        cut = split_point(classifier, 4)
        assert cut is not None
        cache = FeatureCache(tmp_path / "backbone", FrozenPart(classifier, cut), "float16")
        identities.add(cache.identity)
        made = cache._forward(np.zeros((3, 32, 40, 3), np.uint8), tmp_path)
        assert made.dtype == np.float16
    assert len(identities) == 3
