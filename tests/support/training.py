"""Folds of a tiny network trained by the real code: their runs, what came of them, and kills."""

import csv
import itertools
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from driverwatch.config.loading import parse
from driverwatch.config.model import ModelSettings, PredictSettings
from driverwatch.data.pack import Pack
from driverwatch.inference import predictions
from driverwatch.models.classifier import Classifier, build
from driverwatch.run import Run
from driverwatch.training import fold as folds
from driverwatch.training.fold import train_fold
from driverwatch.training.pseudo_labels import FoldIndices
from support.packs import COUNT, SWAP

ROWS = FoldIndices(np.arange(32), np.arange(32, COUNT))


def run_of(tmp_path: Path, **train: object) -> Run:
    content = {
        "backbone": "tiny", "weights": "none", "input": {"pack": "36x44", "size": "32x40"},
        "head": {"pooling": "flatten", "dropout": 0.3}, "augment": {"preset": "noise"},
        "train": {"optimizer": "adam", "learning_rate": 0.003, "epochs": 3, "batch_size": 8, **train},
    }  # fmt: skip
    preset = [{"RandomBrightnessContrast": {"p": 0.5}}]
    settings = parse(ModelSettings, content, "test")
    return Run(
        tmp_path / "run", settings, tuple("abcd"), SWAP, preset, "folds", {"train": "train", "test": "test"}, None
    )


def trained(
    run: Run,
    packs: dict[str, Pack],
    number: int = 0,
    rows: FoldIndices = ROWS,
    tta: str = "centre",
    feature_caches: Path | None = None,
) -> dict[str, np.ndarray]:
    """Train a fold: its weights by number, and its predictions by kind of images and TTA set."""
    asked = PredictSettings(batch_size=40, tta=tta)
    train_fold(run, number, packs, rows, None, asked, feature_caches or run.folder.parent / "backbone")
    with h5py.File(run.fold(number) / "weights.h5") as file:
        found = {key: item[...] for key, item in file["model"].items()}
    for path in run.fold(number).glob("*-*.h5"):
        found[path.stem] = predictions.read(path, run.origin).probabilities
    return found


@dataclass(frozen=True)
class Whole:
    """A fold trained without interruption, and its folder as it was when each epoch's checkpoint was written."""

    run: Run
    found: dict[str, np.ndarray]
    moments: Path
    packs: dict[str, Pack]
    asked: dict[str, Any]

    def killed(self, after: int, folder: Path, **train: object) -> Run:
        """The run as a kill after so many epochs leaves it, in a folder of its own; settings that decide no weights may differ."""
        run = replace(changed(self.run, train=train), folder=folder / "run")
        shutil.copytree(self.moments / str(after), run.fold(self.asked.get("number", 0)))
        return run

    def ends_alike(self, after: int, folder: Path, **train: object) -> bool:
        """Whether the fold, killed after so many epochs and resumed, ends with these weights and predictions bit for bit."""
        feature_caches = self.run.folder.parent / "backbone"
        found = trained(self.killed(after, folder, **train), self.packs, feature_caches=feature_caches, **self.asked)
        return same(self.found, found)


def whole_of(run: Run, packs: dict[str, Pack], **asked: Any) -> Whole:
    """Train a fold to its end, keeping what a kill after each of its epochs would leave.

    Args:
        asked: more of what `trained` takes.
    """
    real, moments, count = folds.write_state, run.folder.parent / "moments", itertools.count(1)

    def keeps(path: Path, *arguments: Any) -> None:
        real(path, *arguments)
        if path.name == "checkpoint.h5":
            shutil.copytree(path.parent, moments / str(next(count)))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(folds, "write_state", keeps)
        found = trained(run, packs, **asked)
    return Whole(run, found, moments, packs, asked)


def history(run: Run, number: int = 0) -> list[dict[str, str]]:
    """A finished fold's epochs."""
    with (run.fold(number) / "history.csv").open() as file:
        return list(csv.DictReader(file))


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


def counts_as_pretrained(made: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on folds begin with this backbone's weights, as they would with a weight file's."""
    kept = [weight.numpy() for weight in made.backbone.weights]

    def loaded(*arguments: object, **keywords: object) -> Classifier:
        classifier = build(*arguments, **{**keywords, "load": False})
        for weight, value in zip(classifier.backbone.weights, kept, strict=True):
            weight.assign(value)
        return classifier

    monkeypatch.setattr(folds, "build", loaded)


def apart(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    assert a.keys() == b.keys()
    return max(float(np.abs(a[key] - b[key]).max()) for key in a)


def changed(run: Run, **parts: dict) -> Run:
    content = run.settings.model_dump()
    for name, part in parts.items():
        content[name] |= part
    return replace(run, settings=parse(ModelSettings, content, "test"))
