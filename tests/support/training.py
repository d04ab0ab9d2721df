"""Folds of a tiny network trained by the real code: their runs, what came of them, and kills."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from driverwatch.data.pack import Pack
from driverwatch.inference import predictions
from driverwatch.inference.paths import prediction_path
from driverwatch.models.classifier import Classifier, build
from driverwatch.settings import ModelSettings, PredictSettings
from driverwatch.training import fold as folds
from driverwatch.training.fold import train_fold
from driverwatch.training.rows import Rows
from driverwatch.training.run import Run
from driverwatch.typed_yaml import parse
from support.packs import COUNT, SWAP

ROWS = Rows(np.arange(32), np.arange(32, COUNT))


def run_of(tmp_path: Path, **train: object) -> Run:
    content = {
        "backbone": "tiny", "weights": "none", "input": {"pack": "36x44", "size": "32x40"},
        "head": {"pooling": "flatten", "dropout": 0.3}, "augment": {"policy": "noise"},
        "train": {"optimizer": "adam", "learning_rate": 0.003, "epochs": 3, "batch_size": 8, **train},
    }  # fmt: skip
    policy = [{"RandomBrightnessContrast": {"p": 0.5}}]
    settings = parse(ModelSettings, content, "test")
    return Run(
        tmp_path / "run", settings, tuple("abcd"), SWAP, policy, "folds", {"train": "train", "test": "test"}, None
    )


def trained(run: Run, packs: dict[str, Pack]) -> dict[str, np.ndarray]:
    train_fold(run, 0, packs, ROWS, None, PredictSettings(batch_size=40), run.folder.parent / "trunk")
    with h5py.File(run.fold(0) / "weights.h5") as file:
        weights = {key: item[...] for key, item in file["model"].items()}
    for views in ("centre", "five_crop", "ten_crop"):
        made = predictions.read(prediction_path(run.fold(0), "test", views), {**run.origin, "views": views})
        weights[views] = made.probabilities
    return weights


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


class Killed(BaseException):
    pass


def counts_as_pretrained(made: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on folds begin with this trunk's weights, as they would with a weight file's."""
    kept = [weight.numpy() for weight in made.trunk.weights]

    def loaded(*arguments: object, **keywords: object) -> Classifier:
        classifier = build(*arguments, **{**keywords, "load": False})
        for weight, value in zip(classifier.trunk.weights, kept, strict=True):
            weight.assign(value)
        return classifier

    monkeypatch.setattr(folds, "build", loaded)


@contextmanager
def killed_after(epochs: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Train inside of this: it ends when that many bundles are kept."""
    real, count = folds.write_state, 0

    def dies(path: Path, *arguments: object) -> None:
        nonlocal count
        real(path, *arguments)
        count += path.name == "bundle.h5"
        if count == epochs:
            raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(folds, "write_state", dies)
        yield


def train(run: Run, packs: dict[str, Pack], number: int = 0, rows: Rows = ROWS) -> dict[str, np.ndarray]:
    """Weights by number and held-out predictions of a fold."""
    train_fold(run, number, packs, rows, None, PredictSettings(batch_size=40), run.folder.parent / "trunk")
    with h5py.File(run.fold(number) / "weights.h5") as file:
        found = {key: item[...] for key, item in file["model"].items()}
    path = prediction_path(run.fold(number), "held_out", "five_crop")
    return found | {"held_out": predictions.read(path, run.origin).probabilities}


def apart(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    assert a.keys() == b.keys()
    return max(float(np.abs(a[key] - b[key]).max()) for key in a)


@contextmanager
def killed_at(write: int, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Predict inside of this: it ends after that many files."""
    real, count = predictions.write, 0

    def dies(*arguments: Any) -> None:
        nonlocal count
        real(*arguments)
        count += 1
        if count == write:
            raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(predictions, "write", dies)
        yield


def changed(run: Run, **parts: dict) -> Run:
    content = run.settings.model_dump()
    for name, part in parts.items():
        content[name] |= part
    return replace(run, settings=parse(ModelSettings, content, "test"))
