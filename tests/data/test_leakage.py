"""Random against driver split: what the classifiers answer, what is refused, and the command."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import KFold, PredefinedSplit
from support.project import Verb

from driverwatch.experiments import leakage
from driverwatch.experiments.leakage import LOGISTIC, NEAREST, compared_splits, out_of_fold


def test_the_nearest_of_equals_is_the_first() -> None:
    pixels = np.array([[0.0], [1.0], [1.0], [9.0], [1.1], [100.0], [-5.0]])
    folds = PredefinedSplit([0, 0, 0, 0, 1, 1, 1])
    found = out_of_fold(pixels, np.array([0, 2, 1, 1, 3, 3, 3]), folds, 4)[NEAREST][4:]
    assert found.argmax(axis=1).tolist() == [2, 1, 0]
    assert found.sum(axis=1).tolist() == [1, 1, 1]


@pytest.mark.parametrize("labels", [[1, 1, 1, 1], [0, 2, 0, 2], [0, 1, 2, 3]])
def test_classes_that_training_lacks_get_nothing(labels: list[int]) -> None:
    pixels = np.random.default_rng(0).normal(size=(6, 3))
    folds = PredefinedSplit([0] * 4 + [1] * 2)
    found = out_of_fold(pixels, np.array([*labels, 4, 4]), folds, 5)[LOGISTIC][4:]
    assert np.allclose(found.sum(axis=1), 1)
    assert not found[:, [c for c in range(5) if c not in labels]].any()


def clips(drivers: int = 8, classes: int = 3, frames: int = 6, noise: float = 0.01) -> tuple[np.ndarray, ...]:
    """Rows that tell the clip they are from, and nothing of the class: features, labels, drivers."""
    chance = np.random.default_rng(1)
    centre = np.repeat(chance.normal(size=(drivers * classes, 20)), frames, axis=0)
    seen = (centre + noise * chance.normal(size=centre.shape)).astype(np.float32)
    labels = np.tile(np.repeat(np.arange(classes), frames), drivers)
    return seen, labels, np.repeat([f"p{i}" for i in range(drivers)], classes * frames)


def table(seen: np.ndarray, labels: np.ndarray, drivers: np.ndarray) -> dict[tuple[str, str], float]:
    numbers = np.unique(drivers, return_inverse=True)[1]
    splits = {"random": KFold(4, shuffle=True, random_state=0), "drivers": PredefinedSplit(numbers % 4)}
    rows = compared_splits(seen, labels, drivers, splits, 3)
    assert all((row.log_loss is not None) == (row.classifier == "logistic regression") for row in rows)
    return {(row.classifier, row.split): 100 * row.accuracy for row in rows}


def test_clips_leak_through_a_random_split_alone() -> None:
    found = table(*clips())
    for name in ("nearest neighbour", "logistic regression"):
        assert found[name, "random"] > 95
        assert found[name, "drivers"] < 60  # chance is a third


def test_where_the_class_is_in_the_picture_both_splits_agree() -> None:
    seen, labels, drivers = clips()
    seen[:, :3] += 30 * np.eye(3)[labels]
    assert min(table(seen, labels, drivers).values()) > 95


def test_the_order_of_drivers_decides_nothing_of_a_driver_split() -> None:
    seen, labels, drivers = clips(noise=0.5)
    folds = np.unique(drivers, return_inverse=True)[1] % 4
    order = np.random.default_rng(3).permutation(len(labels))
    found = out_of_fold(seen, labels, PredefinedSplit(folds), 3)[NEAREST]
    shuffled = out_of_fold(seen[order], labels[order], PredefinedSplit(folds[order]), 3)[NEAREST]
    assert np.array_equal(found[order], shuffled)


def test_components_are_of_training_images_alone() -> None:
    """What a validation image shows decides nothing of the others' answers: no component is fitted on it."""
    seen, labels, drivers = clips(drivers=3)
    folds = PredefinedSplit(np.where(drivers == "p0", 0, -1))
    before = out_of_fold(seen, labels, folds, 3)
    seen[0] += 1000 * np.random.default_rng(0).normal(size=seen.shape[1])
    for name, found in out_of_fold(seen, labels, folds, 3).items():
        assert np.allclose(found[1:], before[name][1:]), name


def test_components_of_some_training_images_move_no_score(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = table(*clips(noise=0.5))
    monkeypatch.setattr(leakage, "FITTED_ON", 50)
    some = table(*clips(noise=0.5))
    assert some != whole, "the number decides"
    assert all(abs(some[key] - whole[key]) < 10 for key in whole)


def test_a_driver_alone_in_a_fold_and_folds_of_other_sizes() -> None:
    seen, labels, drivers = clips(drivers=3)
    made = out_of_fold(seen, labels, PredefinedSplit((drivers == "p0").astype(int)), 3)[LOGISTIC]
    assert made.shape == (len(labels), 3)
    assert np.allclose(made.sum(axis=1), 1)


@pytest.mark.line
def test_the_command_prints_both_splits(verb: Verb, project: Path, data: Path) -> None:
    options = ["--dataset", "demo", "--data", str(data)]
    assert "no fold file" in verb("leakage", *options).stderr
    assert verb("folds", *options).returncode == 0
    made = verb("leakage", *options)
    assert made.returncode == 0, made.stderr
    said = [line.split()[:4] for line in made.stdout.splitlines() if line.startswith(("nearest", "logistic"))]
    assert [(name, split) for name, _, split, _ in said] == [
        ("nearest", "random"), ("nearest", "drivers"), ("logistic", "random"), ("logistic", "drivers")
    ]  # fmt: skip
    shares = [line.split("%")[0].split()[-1] for line in made.stdout.splitlines() if line.startswith("nearest")]
    assert f"A random split would have promised {shares[0]}% accuracy" in made.stdout
    assert f"of drivers it has not seen it gets {shares[1]}%" in " ".join(made.stdout.split())
    assert "next   make train MODEL=tiny DATASET=demo" in made.stdout
    record = json.loads((project / "experiments" / "results" / "demo" / "leakage.json").read_text())
    assert [f"{row['accuracy']:.1%}" for row in record["rows"][:2]] == [f"{share}%" for share in shares]
    assert record["images"] == len(pd.read_csv(data / "driver_imgs_list.csv"))
    assert f"(checksum {record['fold_file']})" in made.stdout
    first = pd.read_csv(data / "driver_imgs_list.csv").iloc[0]
    (data / "imgs" / "train" / first["classname"] / first["img"]).write_bytes(b"")
    invalid = verb("leakage", *options)
    assert invalid.returncode == 2
    assert "1 images are invalid" in invalid.stderr
    settings = project / "configs" / "datasets" / "demo.yaml"
    settings.write_text(settings.read_text() + "columns: {driver: null}\n")
    assert "names no drivers" in verb("leakage", *options).stderr
