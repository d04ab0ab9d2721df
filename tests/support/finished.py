"""A small data set with finished runs, as files alone: no image, no network, so that tests of what is made of runs are quick."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from driverwatch import run as runs
from driverwatch.config.dataset import DatasetSettings
from driverwatch.config.loading import parse
from driverwatch.config.model import ModelSettings
from driverwatch.data import folds as fold_tables
from driverwatch.data import splits
from driverwatch.data.context import Context, table_of
from driverwatch.data.folds import FoldTable
from driverwatch.data.pack import ImageBlock, Pack
from driverwatch.ensemble import members
from driverwatch.inference import predictions
from driverwatch.inference.predictions import Predictions, prediction_path
from driverwatch.io.atomic import write_json
from driverwatch.io.paths import Places

CLASSES = ("c0", "c1", "c2")
DRIVERS, EACH, TESTS = 6, 9, 12
MODEL = {"backbone": "tiny", "weights": "none", "input": {"pack": "36x44", "size": "32x40"}}
MODEL_FILE = {"base": "none", **MODEL}  # as a YAML in configs/models


def pack_of(names: list[str], drivers: list[str], labels: np.ndarray, kind: str, folds: str) -> Pack:
    block = ImageBlock("nowhere", 0, (len(names), 36, 44, 3))
    made = np.array(names, object), np.asarray(labels, np.int64), np.array(drivers, object)
    return Pack(block, *made, (80.0,) * 3, (60.0,) * 3, kind, folds)


def skilled(names: np.ndarray, labels: np.ndarray, seed: int, skill: float) -> np.ndarray:
    """Probabilities float32 (N, C), by name: right as often as `skill` says, whatever the order of the names."""
    rows = []
    for name, label in zip(names, labels, strict=True):
        scores = np.random.default_rng([seed, *str(name).encode()]).normal(size=len(CLASSES))
        scores[max(label, 0)] += skill * (label >= 0)
        rows.append(np.exp(scores) / np.exp(scores).sum())
    return np.array(rows, np.float32).reshape(len(rows), len(CLASSES))


@dataclass(frozen=True)
class World:
    """A context, its folds and its packs."""

    context: Context
    folds: FoldTable
    packs: dict[str, Pack]

    def settings(self, **train: object) -> ModelSettings:
        return parse(ModelSettings, {**MODEL, "train": train}, "test")

    def run(self, name: str, seed: int = 0, skill: float = 1.5, study: str | None = None, **train: object) -> runs.Run:
        """Leave a finished run: identity, manifests, predictions of each fit, whose rows are in a shuffled order."""
        settings = self.settings(**train)
        folder = replace(self.context.places, study=study).run(name)
        checksums = {kind: pack.checksum for kind, pack in self.packs.items()}
        write_json(
            folder / "run.json",
            runs.identity(settings, self.context.settings, [], self.folds.checksum, checksums, None),
        )
        run, split = runs.load(folder), splits.of(settings.train, self.folds)
        for number in range(split.count):
            self.finish(run, number, seed, skill, split.indices(self.packs["train"].drivers, number)[1])
        return run

    def finish(self, run: runs.Run, number: int, seed: int, skill: float, validation: np.ndarray) -> None:
        """A fit's manifest and five-crop predictions."""
        facts = {"weights": f"{run.name}{number}", "seconds": 60.0 * (number + 1), "commit": f"c-{run.name}"}
        write_json(run.fold(number) / "manifest.json", {"settings": run.settings.model_dump(), **run.claim, **facts})
        train, test = self.packs["train"], self.packs["test"]
        asked = {"test": np.arange(len(test.names)), "validation": validation}
        for kind, rows in asked.items():
            if kind == "validation" and not len(rows):
                continue
            rows = np.random.default_rng(seed + number).permutation(rows)
            names = (test if kind == "test" else train).names[rows]
            labels = (test if kind == "test" else train).labels[rows]
            made = Predictions(names, skilled(names, labels, seed + number, skill), run.predicted(number, "five_crop"))
            predictions.write(made, prediction_path(run.fold(number), kind, "five_crop"))

    def labelled(self, labels: np.ndarray) -> "World":
        """The same with other labels of the training images."""
        return replace(self, packs={**self.packs, "train": replace(self.packs["train"], labels=labels)})

    def opened(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let steps find these folds and packs."""
        monkeypatch.setattr(members, "open_packs", lambda *_: (self.folds, self.packs))


def world_of(folder: Path) -> World:
    """Three folds of two drivers each, every class alike often, and the test images' sample submission."""
    settings = parse(
        DatasetSettings,
        {"title": "Made up", "data": "data", "classes": {name: name for name in CLASSES}, "folds": 3},
        "x",
    )
    context = Context("made_up", settings, Places("made_up"), folder / "data")
    names = [f"p{driver}_{image}.jpg" for driver in range(DRIVERS) for image in range(EACH)]
    labels = np.arange(DRIVERS * EACH) % len(CLASSES)
    train = pack_of(names, [name[:2] for name in names], labels, "train", "")
    tests = [f"t{i:02d}.jpg" for i in range(TESTS)]
    test = pack_of(tests, [""] * TESTS, np.full(TESTS, -1), "test", "")
    folds = fold_tables.make(table_of(train, CLASSES), 3)
    (folder / "data").mkdir()
    sample = pd.DataFrame({"img": tests[::-1], **dict.fromkeys(CLASSES, 1 / 3)})
    sample.to_csv(folder / "data" / "sample_submission.csv", index=False)
    return World(context, folds, {"train": train, "test": test})


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Such a data set in an empty project folder, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    made = world_of(tmp_path)
    made.opened(monkeypatch)
    return made
