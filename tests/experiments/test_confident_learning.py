"""Label issues by confident learning: what is found, the list that is written, and the training that follows it."""

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from support.finished import CLASSES, World, skilled, world
from typer.testing import CliRunner

from driverwatch import run as runs
from driverwatch.cli.main import app
from driverwatch.config.loading import parse
from driverwatch.errors import InputError
from driverwatch.experiments.confident_learning import LabelIssuesRecord, confident_joint, find_issues
from driverwatch.io.manifests import read_json
from driverwatch.training import label_issues, train

__all__ = ["world"]
FOUR = ["c0", "c1", "c2", "c3"]


def test_the_joint_of_a_case_computed_by_hand() -> None:
    """Thresholds 0.7 and 0.6; the last image reaches neither."""
    rows = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.1, 0.9], [0.75, 0.25], [0.35, 0.65], [0.45, 0.55]])
    labels = np.array([0, 0, 0, 1, 1, 1, 1])
    found = confident_joint(rows, labels)
    assert np.allclose(found.thresholds, [0.7, 0.5875])
    assert found.likely.tolist() == [0, 0, 1, 1, 0, 1, -1]
    assert found.counts.tolist() == [[2, 1], [1, 2]]
    assert np.allclose(found.joint(labels), [[2 / 7, 1 / 7], [4 / 21, 8 / 21]])  # 3 and 4 of 7 images
    assert np.allclose(found.confidence[[0, 4]], [0.9 / 0.7, 0.25 / 0.5875])


def images(seed: int, flips: int) -> tuple[pd.DataFrame, np.ndarray, set[str]]:
    """200 images of ten drivers whose true class is predicted with 0.6 to 0.9, and `flips` of them labelled otherwise."""
    random = np.random.default_rng(seed)
    truth = np.arange(200) % 4
    rows = random.dirichlet([2.0] * 4, 200) * 0.1
    rows[np.arange(200), truth] += random.uniform(0.6, 0.9, 200)
    rows /= rows.sum(axis=1, keepdims=True)
    labels, wrong = truth.copy(), random.choice(200, flips, replace=False)
    labels[wrong] = (truth[wrong] + random.integers(1, 4, flips)) % 4
    names = [f"i{number:03d}.jpg" for number in range(200)]
    frame = pd.DataFrame({"image": names, "driver": [f"d{number // 20}" for number in range(200)], "label": labels})
    return frame, rows, {names[number] for number in wrong}


@pytest.mark.parametrize("flips", [0, 1, 12])
def test_flipped_labels_are_found_and_nothing_else(flips: int) -> None:
    frame, rows, wrong = images(3, flips)
    made, found = find_issues(frame, rows, FOUR)
    assert set(made["image"]) == wrong
    assert (made["kind"] == "error").tolist() == (
        made["p_likely"] >= found.thresholds[made["likely"].map(FOUR.index)]
    ).tolist()
    assert (made["kind"] == "error").sum() >= flips // 4  # the others' true class stays below its mean
    assert list(made["rank"]) == list(range(1, len(made) + 1))
    truth = {f"i{number:03d}.jpg": FOUR[number % 4] for number in range(200)}
    assert all(truth[one.image] == one.likely for one in made.itertuples())


def test_a_clip_that_looks_like_another_class_is_counted_as_one() -> None:
    """A driver whose c0 looks like c3: the list names the clip's share."""
    frame, rows, _ = images(0, 0)
    clip = frame.index[(frame["driver"] == "d2") & (frame["label"] == 0)]
    rows[clip] = np.roll(rows[clip], 3, axis=1)
    made, _ = find_issues(frame, rows, FOUR)
    assert set(made["image"]) == set(frame["image"][clip])
    assert set(made["likely"]) == {"c3"}
    assert set(made["clip_errors"]) == {(made["kind"] == "error").sum()}
    assert set(made["clip_images"]) == {5}


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    count, classes = draw(st.integers(1, 40)), draw(st.integers(2, 5))
    return random.dirichlet([draw(st.sampled_from([0.1, 1.0]))] * classes, count), random.integers(0, classes, count)


@given(cases())
def test_what_holds_of_any_joint(case: tuple[np.ndarray, np.ndarray]) -> None:
    rows, labels = case
    found, classes = confident_joint(rows, labels), rows.shape[1]
    shares = found.joint(labels)
    assert found.counts.sum() == (found.likely >= 0).sum() <= len(labels)
    assert (shares >= 0).all()
    assert np.allclose(shares.sum(axis=1), np.bincount(labels, minlength=classes) / len(labels))
    sure = np.flatnonzero(found.likely >= 0)
    assert (rows[sure, found.likely[sure]] >= found.thresholds[found.likely[sure]]).all()
    order = np.random.default_rng(0).permutation(len(labels))
    other = confident_joint(rows[order], labels[order])
    near = np.abs(rows - found.thresholds).min() > 1e-9  # a sum in another order may round a threshold across
    assert not near or np.array_equal(other.likely, found.likely[order])
    turned = confident_joint(rows[:, ::-1], classes - 1 - labels)
    assert np.array_equal(turned.counts, found.counts[::-1, ::-1]) or not near


def scored(world: World, name: str = "sub", **changed: Any) -> Path:
    """Leave out-of-fold probabilities of a submission; the first image's are of another class than its label."""
    pack, path = world.packs["train"], world.context.places.out_of_fold(name)
    rows = skilled(pack.names, pack.labels, 0, 4.0)
    rows[0] = [0.01, 0.01, 0.98]
    frame = pd.DataFrame(rows, columns=list(CLASSES))
    frame.insert(0, "img", pack.names)
    frame.insert(1, "driver", pack.drivers)
    frame.insert(2, "class", [CLASSES[label] for label in pack.labels])
    frame.insert(3, "fold", [world.folds.of_driver[driver] for driver in pack.drivers])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(frame.assign(**changed).to_csv(index=False).encode()))
    return path


@pytest.fixture
def written(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A world with its list of label issues, written by the command."""
    monkeypatch.setattr(train, "open_packs", lambda *_: (world.folds, world.packs))
    (tmp_path / "configs" / "datasets").mkdir(parents=True)
    settings = yaml.safe_dump(world.context.settings.model_dump())
    (tmp_path / "configs" / "datasets" / "made_up.yaml").write_text(settings)
    scored(world)
    made = CliRunner().invoke(app, ["label-issues", "--dataset", "made_up", "sub"], catch_exceptions=False)
    assert made.exit_code == 0
    return world


def started(world: World, rule: str) -> runs.Run:
    with train.started_run(
        train.TrainRequest(context=world.context, settings=world.settings(label_issues=rule), name=rule)
    ) as claim:
        return claim.run


def test_the_command_writes_a_list_that_a_training_follows(written: World) -> None:
    path = written.context.places.label_issues
    frame = pd.read_csv(path)
    record = parse(LabelIssuesRecord, read_json(path.with_suffix(".json")), "x")
    assert frame["img"][0] == "p0_0.jpg"
    assert record.errors == (frame["kind"] == "error").sum() > 0
    assert sum(clip.errors for clip in record.clips) == record.errors
    assert "Confident joint" in path.with_suffix(".md").read_text()
    names, every = written.packs["train"].names, np.arange(len(written.packs["train"].names))
    kept, weights = label_issues.weighted_rows(started(written, "drop"), written.packs, every)
    assert set(names) - set(names[kept]) == set(frame["img"][frame["kind"] == "error"])
    assert weights is not None
    assert set(weights[kept]) == {1.0}
    kept, weights = label_issues.weighted_rows(started(written, "down_weight"), written.packs, every[::2])
    assert weights is not None
    expected = dict(zip(frame["img"], frame["weight"], strict=True))
    assert np.allclose(weights[every[::2]], [expected.get(name, 1) for name in names[::2]])
    assert (weights[1::2] == 1).all()  # not among the rows: another label is meant there
    assert len(weights) == len(names) + len(written.packs["test"].names)


def test_a_run_is_of_the_list_that_it_began_with(written: World) -> None:
    run, path = started(written, "drop"), written.context.places.label_issues
    assert run.uses_validation
    (run.fold(0)).mkdir()
    (run.fold(0) / "checkpoint.h5").write_text("")
    assert started(written, "drop").identity == run.identity
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *lines[2:]]))
    with pytest.raises(InputError, match=r"learned_from\.label_issues\.checksum"):
        started(written, "drop")
    assert runs.load(run.folder).identity == run.identity
    assert label_issues.weighted_rows(run, written.packs, np.arange(9))[0][0] == 1  # it resumes by its record


def test_without_a_rule_nothing_changes(written: World) -> None:
    run, rows = started(written, "none"), np.arange(4)
    assert run.learned_from is None
    assert label_issues.weighted_rows(run, written.packs, rows) == (rows, None)
    content = run.settings.model_dump()
    del content["train"]["label_issues"]  # a run that was started before the setting came
    made = read_json(run.folder / "run.json")
    assert runs.as_today({**made, "settings": content}, Path("x")) == made


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: [lines[0], lines[1], lines[1]], "expected once"),
        (lambda lines: [lines[0], lines[1].replace("p0_0", "p9_9")], "no training image of class c0"),
        (lambda lines: [lines[0], lines[1].replace(",c0,", ",c1,", 1)], "no training image of class c1"),
        (lambda lines: [lines[0], lines[1].rpartition(",")[0] + ",1.5"], "weight 0 to 1; got error, 1.5"),
        (lambda lines: [lines[0], lines[1].rpartition(",")[0] + ",x"], "expected weights of 0 to 1"),
        (lambda lines: [lines[0].replace("weight", "w"), lines[1]], "missing column weight"),
    ],
)
def test_a_list_that_does_not_fit_is_refused(written: World, change: Any, said: str) -> None:
    path = written.context.places.label_issues
    path.write_text("\n".join(change(path.read_text().splitlines())))
    with pytest.raises(InputError, match=said):
        started(written, "drop")


def test_no_list_and_a_list_of_everything_are_refused(written: World) -> None:
    path = written.context.places.label_issues
    run = started(written, "drop")
    doubted = [
        np.flatnonzero(written.packs["train"].names == name)[0] for name in run.learned_from["label_issues"]["weights"]
    ]
    with pytest.raises(InputError, match="leaves no image to train on"):
        label_issues.weighted_rows(run, written.packs, np.array(doubted))
    path.unlink()
    with pytest.raises(InputError, match="run make label-issues NAME=<submission> DATASET=made_up first"):
        started(written, "drop")


def test_a_list_that_was_changed_by_hand_stays(written: World) -> None:
    path = written.context.places.label_issues
    whole = path.read_text()
    assert CliRunner().invoke(app, ["label-issues", "--dataset", "made_up", "sub"]).exit_code == 0  # the same again
    path.write_text(whole.rpartition("\np")[0])
    again = CliRunner().invoke(app, ["label-issues", "--dataset", "made_up", "sub"])
    assert "changed by hand" in str(again.exception)
    assert path.read_text() != whole
    CliRunner().invoke(app, ["label-issues", "--dataset", "made_up", "--force", "sub"], catch_exceptions=False)
    assert path.read_text() == whole


@pytest.mark.parametrize(
    ("changed", "said"),
    [({"c1": "x"}, "could not convert"), ({"c1": -1.0}, "without probabilities"), ({"class": "c9"}, "class c9")],
)
def test_probabilities_that_are_none_are_refused(written: World, changed: dict[str, Any], said: str) -> None:
    scored(written, "odd", **changed)
    made = CliRunner().invoke(app, ["label-issues", "--dataset", "made_up", "odd"])
    assert isinstance(made.exception, InputError)
    assert said in str(made.exception)
    missing = CliRunner().invoke(app, ["label-issues", "--dataset", "made_up", "absent"])
    assert "make ensemble NAME=absent" in str(missing.exception)
