"""Finished runs whose weights are random numbers, so that networks answer without having been trained."""

from typing import Any

import numpy as np

from driverwatch import run as runs
from driverwatch.config.dataset import DatasetSettings
from driverwatch.config.loading import parse
from driverwatch.config.model import ModelSettings
from driverwatch.io.atomic import write_json
from driverwatch.io.manifests import checksum_of_file
from driverwatch.io.paths import Places
from driverwatch.run import Run

TINY = {"backbone": "tiny", "weights": "none", "input": {"pack": "40x56", "size": "32x48"}}


def fabricated(dataset: DatasetSettings, name: str, folds: tuple[int, ...] = (0, 2), **changed: Any) -> Run:
    """A run of the data set `drawn` in the working directory; each fold has weights of its own, none of them zero."""
    from driverwatch.models.backend import write_state
    from driverwatch.models.classifier import build

    settings = parse(ModelSettings, {**TINY, **changed}, "test")
    folder = Places("demo").run(name)
    checksums = {"train": "a", "test": "b"}
    runs.begin(folder, runs.identity(settings, dataset, [], "folds", checksums, None), None, False)
    run = runs.load(folder)
    classifier = build(settings, len(run.classes), (0, 0, 0), None, load=False)
    for fold in folds:
        _fill(classifier, np.random.default_rng(fold))
        path = run.fold(fold) / "weights.h5"
        write_state(path, {"model": classifier.weights}, {})
        made = {
            "settings": run.settings.model_dump(),
            **run.claim,
            "weights": checksum_of_file(path),
            "commit": f"c{fold}",
        }
        write_json(run.fold(fold) / "manifest.json", made)
    return run


def _fill(classifier: Any, random: np.random.Generator) -> None:
    """Random weights, and a softmax to which frames look different: its logits are even for the mean frame."""
    for weight in classifier.weights:
        if "seed" not in weight.path:
            spread = random.normal(scale=0.1, size=weight.shape)
            weight.assign(np.asarray(weight) * (1 + spread) + 0.1 * np.abs(spread))
    images = random.integers(0, 256, (8, *classifier.backbone.input_shape[1:3], 3), np.uint8)
    found = classifier.pool(classifier.backbone(classifier.scaling(images), training=False))
    found = np.tile(np.asarray(found), classifier.regions)
    for block in classifier.hidden:
        found = np.asarray(block(found, training=False))
    kernel = random.normal(size=classifier.top.kernel.shape) / (found.std(axis=0)[:, None] + 1e-3)
    kernel /= (found @ kernel).std()
    classifier.top.kernel.assign(kernel)
    classifier.top.bias.assign(-(found.mean(axis=0) @ kernel))
