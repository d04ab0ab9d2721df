"""Weights of a list of label issues in the loss, by the real code on a tiny network."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.packs import CLASSES, COUNT, SWAP
from support.training import ROWS, changed, counts_as_pretrained, run_of, same, trained, whole_of

from driverwatch.config.loading import parse
from driverwatch.config.model import ModelSettings
from driverwatch.data.augment import AugmentedInputs
from driverwatch.data.pack import Pack
from driverwatch.models.classifier import build
from driverwatch.training import fold
from driverwatch.training.data_loader import TrainingBatches, one_hot
from driverwatch.training.linear_probe import LinearProbe, Sample, fit_linear_probe

pytestmark = pytest.mark.keras
FACTORS = np.linspace(0.1, 1, COUNT + 9).astype(np.float32)
DOUBTED = replace(ROWS, sample_weights=FACTORS)


def test_each_images_loss_weighs_as_the_list_says(tmp_path: Path, packs: dict[str, Pack]) -> None:
    run = changed(run_of(tmp_path, batch_size=8), train={"class_weights": "balanced"})
    inputs = AugmentedInputs(packs["train"].pixels, run.settings, run.preset, 0)
    targets = one_hot(packs["train"].labels, CLASSES)
    about = inputs, ROWS.training, targets, run.settings, SWAP, 0, None, 1
    plain, listed = TrainingBatches(*about), TrainingBatches(*about, FACTORS)
    for step in range(len(plain)):
        rows = plain.order[step * 8 : step * 8 + 8]
        assert np.allclose(listed[step][2], plain[step][2] * FACTORS[rows])
    assert listed.weight_sums.sum() < plain.weight_sums.sum()


@pytest.mark.slow
def test_a_fold_is_another_with_weights_and_resumes_with_them(tmp_path: Path, packs: dict[str, Pack]) -> None:
    plain = trained(run_of(tmp_path / "plain", epochs=2), packs)
    ones = replace(ROWS, sample_weights=np.ones_like(FACTORS))
    assert same(plain, trained(run_of(tmp_path / "ones", epochs=2), packs, rows=ones))
    whole = whole_of(run_of(tmp_path / "whole", epochs=2), packs, rows=DOUBTED)
    assert not same(plain, whole.found)
    assert whole.ends_alike(1, tmp_path / "killed")


def test_a_linear_probe_weighs_them_too(
    tmp_path: Path, packs: dict[str, Pack], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []

    def fitted(rows: Sample, *arguments: Any) -> LinearProbe:
        taken.append(rows.weights)
        return fit_linear_probe(rows, *arguments)

    monkeypatch.setattr(fold, "fit_linear_probe", fitted)
    counts_as_pretrained(build(run_of(tmp_path).settings, CLASSES, (80.0,) * 3, None), monkeypatch)
    probe = {"stages": [{"fit": "linear_probe", "freeze_until": "head", "l2": [1.0]}]}
    run = run_of(tmp_path / "probe")
    content = run.settings.model_dump() | {"weights": "imagenet"}
    content["train"] |= probe
    trained(replace(run, settings=parse(ModelSettings, content, "test")), packs, rows=DOUBTED)
    assert np.allclose(taken[0], FACTORS[ROWS.training])
