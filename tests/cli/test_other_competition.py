"""Another competition is one YAML away: other names, columns, folders, sizes and classes, with groups and without."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.project import Verb

pytestmark = pytest.mark.line

NAMED = """
title: Five gestures at a counter
data: build/gestures/images
table: labels/train.csv
columns: {image: file, label: gesture, driver: counter}
train_images: "pictures/{image}"
test_images: "pictures/{image}"
sample_submission: labels/example.csv
test_labels: labels/answers.csv
classes: {still: nothing, left up: a hand, left down: a hand, right up: a hand, right down: a hand}
left_right_pairs: [[left up, right up], [left down, right down]]
folds: 2
"""
UNGROUPED = NAMED.replace("driver: counter", "driver: null").replace("columns:", "group_distance: 60\ncolumns:")
SET = "input.pack=40x60 input.size=36x48 train.epochs=1 train.batch_size=16 augment.hflip=swap_left_right predict.tta=centre"
LINE = (
    ["synthetic", "--drivers", "6", "--test-drivers", "2", "--frames", "3", "--clips", "2", "--size", "72x72"],
    ["folds"],
    ["pack", "--model", "tiny", "--set", SET],
    ["train", "tiny", "--set", SET],
    ["ensemble", "--name", "first", "--tta", "centre"],
    ["check", "submissions/gestures/first.csv"],
    ["score"],
)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(NAMED, id="another group column", marks=pytest.mark.slow),
        pytest.param(UNGROUPED, id="no group column", marks=pytest.mark.slow),
    ],
)
def test_the_whole_pipeline_on_another_competition(verb: Verb, project: Path, settings: str) -> None:
    (project / "configs" / "datasets" / "gestures.yaml").write_text(settings)
    for step in LINE:
        made = verb(*step, "--dataset", "gestures")
        assert made.returncode == 0, f"{step}: {made.stderr}"
    assert "Unseen test drivers" in made.stdout
    submission = pd.read_csv(project / "submissions" / "gestures" / "first.csv")
    assert list(submission) == ["file", "still", "left up", "left down", "right up", "right down"]
    assert len(submission) == 2 * 5 * 2 * 3
    table = pd.read_csv(project / "build" / "gestures" / "images" / "labels" / "train.csv")
    assert len(table) == 6 * 5 * 2 * 3
    assert ("counter" in table) == (settings is NAMED)


def test_look_alikes_stay_in_one_fold(verb: Verb, project: Path) -> None:
    """Without a group column, no frame of a clip may have its neighbour on the other side of a fold."""
    (project / "configs" / "datasets" / "gestures.yaml").write_text(NAMED)
    assert verb(*LINE[0], "--dataset", "gestures").returncode == 0
    data = project / "build" / "gestures" / "images"
    named = pd.read_csv(data / "labels" / "train.csv", dtype=str)
    (project / "configs" / "datasets" / "gestures.yaml").write_text(UNGROUPED)
    made = verb("folds", "--dataset", "gestures")
    assert made.returncode == 0, made.stderr
    groups = pd.read_csv(project / "folds" / "gestures_groups.csv").set_index("image")["group"]
    fold = pd.read_csv(project / "folds" / "gestures.csv").set_index("driver")["fold"]
    named["fold"] = named["file"].map(groups).map(fold)
    clips = named.groupby(["counter", "gesture"])["file"].count()  # two clips of three frames each
    assert (clips == 6).all()
    parted = [sorted(rows["fold"].value_counts()) for _, rows in named.groupby(["counter", "gesture"])]
    assert np.mean([counts in ([6], [3, 3]) for counts in parted]) >= 0.9  # whole clips on one side
    again = verb("folds", "--dataset", "gestures")
    assert "fits the data" in again.stdout
    (project / "folds" / "gestures_groups.csv").write_text("image,group\nimg_1.jpg,g0001\n")
    torn = verb("folds", "--dataset", "gestures")
    assert torn.returncode == 2
    assert "names other images than the table" in torn.stderr
