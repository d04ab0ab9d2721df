"""Classes called like columns of our own tables, from images to pages; and names that no table could hold."""

import gzip
import io
from pathlib import Path

import pandas as pd
import pytest
from pydantic import ValidationError
from support.project import Verb

from driverwatch.config.dataset import OWN_COLUMNS, DatasetSettings, class_columns
from driverwatch.config.loading import load
from driverwatch.data import folds
from driverwatch.data import folds as fold_file
from driverwatch.data.competition import read_train
from driverwatch.errors import InputError

OURS = ["driver", "drivers", "fold", "images", "class", "log loss", "image", "label", "path", "loss"]
MORE = ["name", "names", "run", "group", "index", "true", "reasons", "checksum", "run or step", "mean"]
SETTINGS = """
title: Names
data: build/names/data
test_labels: test_labels.csv
folds: 2
classes:
"""
SET = "input.pack=32x40 input.size=32x40 train.epochs=1 train.batch_size=16 predict.tta=centre augment.hflip=none"
DRAW = ["synthetic", "--drivers", "4", "--test-drivers", "1", "--frames", "1", "--size", "48x64"]


def drawn(verb: Verb, project: Path, classes: list[str]) -> DatasetSettings:
    text = SETTINGS + "".join(f'  "{name}": what the driver does\n' for name in classes)
    (project / "configs/datasets/names.yaml").write_text(text)
    made = verb(*DRAW, "--dataset", "names")
    assert made.returncode == 0, made.stderr
    return load(DatasetSettings, project / "configs/datasets", "names")


@pytest.mark.parametrize("classes", [OURS, MORE], ids=["ours", "more"])
def test_folds_of_any_classes(verb: Verb, project: Path, classes: list[str]) -> None:
    settings = drawn(verb, project, classes)
    made = verb("folds", "--dataset", "names")
    assert made.returncode == 0, made.stderr
    assert "fits the data" in verb("folds", "--dataset", "names").stdout
    path = project / "folds/names.csv"
    frame = pd.read_csv(path)
    assert list(frame) == ["driver", "fold", "images", *class_columns(classes)]
    assert len(set(frame)) == len(list(frame))
    assert (frame[class_columns(classes)] == 1).all(axis=None)
    table = read_train(settings, project / "build/names/data").table
    assert fold_file.glance(path, tuple(classes)).checksum == folds.read(path, table).checksum
    assert verb("status", "--dataset", "names").returncode == 0


def test_plain_classes_keep_their_columns() -> None:
    assert class_columns(["c0", "c1", "Driver", "image"]) == ["c0", "c1", "Driver", "image"]


@pytest.mark.slow
def test_the_whole_pipeline_with_classes_called_like_our_columns(verb: Verb, project: Path) -> None:
    drawn(verb, project, OURS)
    options = ["--dataset", "names"]
    for step in (
        ["folds"],
        ["pack", "--model", "tiny", "--set", SET],
        ["train", "tiny", "--set", SET],
        ["ensemble", "--name", "first", "--tta", "centre"],
        ["check", "submissions/names/first.csv"],
        ["score"],
        ["report"],
        ["review", "--tta", "centre"],
        ["status"],
    ):
        made = verb(*step, *options)
        assert made.returncode == 0, f"{step}: {made.stderr}"
    assert list(pd.read_csv(project / "submissions/names/first.csv")) == ["img", *OURS]
    rows = gzip.decompress((project / "submissions/names/out_of_fold/first.csv.gz").read_bytes())
    frame = pd.read_csv(io.BytesIO(rows))
    assert list(frame) == ["img", "driver", "class", "fold", *class_columns(OURS)]
    image = frame["img"][0]
    traced = verb("trace", image, *options)
    assert traced.returncode == 0, traced.stderr
    assert "class log loss" in traced.stdout


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"classes": {"img": "", "c1": ""}}, "img is the column of images' names"),
        ({"classes": {"file": "", "c1": ""}, "columns": {"image": "file"}}, "file is the column of images' names"),
        ({"classes": {"driver": "", "class driver": ""}}, "two would be the column class driver"),
        ({"columns": {"image": "img", "label": "img"}}, "must be columns of their own"),
        ({"columns": {"label": "x", "driver": "x"}}, "must be columns of their own"),
        *(({"columns": {"image": name}}, f"must not be {name}") for name in OWN_COLUMNS),
    ],
)
def test_names_that_no_table_could_hold(changes: dict[str, object], said: str) -> None:
    plain = {"title": "x", "data": "data", "classes": {"c0": "", "c1": ""}}
    DatasetSettings.model_validate(plain)
    with pytest.raises(ValidationError, match=said):
        DatasetSettings.model_validate(plain | changes)


def test_they_are_refused_before_anything_is_written(verb: Verb, project: Path) -> None:
    (project / "configs/datasets/names.yaml").write_text(SETTINGS + "  img: x\n  c1: y\n")
    before = sorted(project.rglob("*"))
    for step in (DRAW, ["folds"], ["pack", "--size", "24x32"], ["status"]):
        made = verb(*step, "--dataset", "names")
        assert made.returncode == 2
        assert made.stderr.count("\n") == 1
        assert "img is the column of images' names" in made.stderr
    assert sorted(project.rglob("*")) == before
    with pytest.raises(InputError):
        load(DatasetSettings, project / "configs/datasets", "names")
