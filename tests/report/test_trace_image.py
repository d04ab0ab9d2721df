"""One image's way: what is said of it agrees with what was packed, predicted and submitted, and what is missing is said."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support.finished import CLASSES, World, world_of

from driverwatch.config.ensemble import PipelineSettings, kept_settings
from driverwatch.config.loading import parse
from driverwatch.ensemble import members as blending
from driverwatch.ensemble import post_processing
from driverwatch.ensemble.embedding_index import EmbeddingIndex
from driverwatch.ensemble.members import Member, finished_runs
from driverwatch.ensemble.transform import MemberPredictions
from driverwatch.errors import InputError
from driverwatch.io.atomic import write_json
from driverwatch.io.manifests import read_json
from driverwatch.report import trace_image as trace
from driverwatch.report.trace_image import TracedImage, run_lines, submission_lines, traced
from driverwatch.submission import build

NEAR: dict[str, Any] = {"embeddings": "tiny", "k": 3}
PIPELINES: list[dict[str, Any]] = [
    {},
    {"blend": "weighted", "calibrate": "bias", "clip": 0.01},
    {"blend": "greedy", "class_balance": "tiny", "knn": {"embeddings": "tiny"}, "calibrate": "temperature"},
    {"class_balance": "tiny", "knn": {"embeddings": "tiny", "smooth_before_balancing": True}, "clip": "fitted"},
    {
        "class_balance": "tiny",
        "knn": {**NEAR, "smooth_before_balancing": True, "passes": 2},
        "calibrate": "temperature",
    },
    {"blend": "per_class", "knn": {"embeddings": "tiny", "method": "clusters"}},
    {"knn": NEAR},
    {"knn": {**NEAR, "weights": "similar", "mean": "geometric", "rounds": 2}, "calibrate": "bias"},
    {
        "class_balance": "tiny",
        "knn": {**NEAR, "weights": "equal", "mean": "arithmetic", "rounds": 1, "smooth_before_balancing": True},
    },
    {"knn": {**NEAR, "k": 0}, "clip": 0.002},
    {"knn": {**NEAR, "method": "clusters"}, "class_balance": "tiny"},
]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Two finished runs, and features by which drivers and classes differ."""
    monkeypatch.chdir(tmp_path)
    made = world_of(tmp_path)
    made.opened(monkeypatch)
    names = np.array([*made.packs["train"].names, *made.packs["test"].names])
    rows = np.array([np.random.default_rng([*name[:2].encode()]).normal(size=6) for name in names], np.float32)
    rows += 0.3 * np.random.default_rng(0).normal(size=rows.shape).astype(np.float32)
    space = EmbeddingIndex(names, rows, "tiny", "of today")
    monkeypatch.setattr(trace, "open_embeddings", lambda *_: space)
    monkeypatch.setattr(build, "open_embeddings", lambda *_: space)
    monkeypatch.setattr(trace, "open_packs", lambda *_: (made.folds, made.packs))
    made.run("first", seed=1)
    made.run("second", seed=2, skill=2.5)
    return made


def image_of(name: str) -> TracedImage:
    return TracedImage(name, "test", "", -1, "")


def numbers(line: str) -> list[float]:
    return [float(word) for word in line.split()[-len(CLASSES) :]]


@pytest.mark.parametrize("pipeline", PIPELINES, ids=str)
def test_the_followed_pipeline_ends_as_the_submission_does(world: World, pipeline: dict[str, Any]) -> None:
    build.make_ensemble(world.context, [], "both", None, None, pipeline)
    frame = pd.read_csv(world.context.places.submission("both"))
    for name in ("t03.jpg", "t11.jpg"):
        lines = submission_lines(world.context, image_of(name), "both")
        assert lines[-1] == "as in both.csv"
        row = frame.loc[frame["img"] == name, list(CLASSES)].to_numpy()[0]
        assert numbers(lines[1]) == pytest.approx(100 * row, abs=0.051)
        assert numbers(lines[-2]) == pytest.approx(100 * row, abs=0.051)
    path = world.context.places.submission("both").with_suffix(".json")
    made = read_json(path)
    assert kept_settings(made["pipeline"], path) == parse(PipelineSettings, pipeline, "test")
    assert made.get("embeddings", {}) == ({"tiny": "of today"} if "tiny" in str(pipeline) else {})


@pytest.mark.parametrize("pipeline", PIPELINES, ids=str)
def test_a_labelled_image_is_followed_by_a_pipeline_that_others_were_fitted_for(
    world: World, pipeline: dict[str, Any]
) -> None:
    finished = finished_runs(world.context, [])
    members = [Member(run, test, "five_crop") for run, test in zip(finished.runs, finished.tests, strict=True)]
    rows = blending.oof_of_members(members, world.packs["train"], world.folds)
    settings, pack = parse(PipelineSettings, pipeline, "test"), world.packs["train"]
    space = trace.open_embeddings(world.context, "tiny")
    made = post_processing.fit(settings, rows, pack.labels, pack.drivers, {"tiny": space})
    for place in (0, 25, 53):
        image = TracedImage(pack.names[place], "train", pack.drivers[place], 0, "")
        steps = trace.pipeline_steps({"tiny": space}, members, finished, settings, image)
        assert list(steps.values())[-1] == pytest.approx(
            made.probabilities[place], abs=1e-4 if pipeline.get("clip") == "fitted" else 1e-9
        )


def test_a_submission_of_other_rows_is_recognised(world: World) -> None:
    build.make_ensemble(world.context, [], "both", None, None, {})
    path = world.context.places.submission("both")
    frame = pd.read_csv(path)
    frame.loc[frame["img"] == "t03.jpg", list(CLASSES)] = [0.2, 0.3, 0.5]
    frame.to_csv(path, index=False)
    assert "both.csv differs by" in submission_lines(world.context, image_of("t03.jpg"), None)[-1]
    frame[frame["img"] != "t03.jpg"].to_csv(path, index=False)
    with pytest.raises(InputError, match=r"expected one row of t03.jpg, got 0"):
        submission_lines(world.context, image_of("t03.jpg"), None)


def test_the_submission_with_the_least_loss_is_followed_unless_one_is_named(world: World) -> None:
    with pytest.raises(InputError, match="no submission; run make ensemble"):
        submission_lines(world.context, image_of("t03.jpg"), None)
    build.make_ensemble(world.context, ["first"], "a", None, None, {})
    build.make_ensemble(world.context, ["second"], "b", None, None, {})
    build.make_ensemble(world.context, ["second"], "c", None, 0, {})  # a fold alone: not scored
    said = "\n".join(submission_lines(world.context, image_of("t03.jpg"), None))
    assert "the pipeline of b, of second (five_crop)" in said
    assert [line.split()[0] for line in said.splitlines()[1:4]] == ["a.csv", "b.csv", "c.csv"]
    assert "the pipeline of a," in "\n".join(submission_lines(world.context, image_of("t03.jpg"), "a"))
    with pytest.raises(InputError, match="NAME=d: no such submission; there are: a, b, c"):
        submission_lines(world.context, image_of("t03.jpg"), "d")


def test_of_a_labelled_image_the_held_out_model_alone_speaks(world: World) -> None:
    name, driver = "p3_4.jpg", "p3"
    lines = run_lines(world.context, TracedImage(name, "train", driver, 1, ""), ["first"])
    home = world.folds.of_driver[driver]
    assert sum("five_crop, fold" in line for line in lines) == 1
    assert any(f"five_crop, fold {home}" in line for line in lines)
    assert not any("mean " in line for line in lines[3:])
    run = finished_runs(world.context, ["first"]).runs[0]
    row = trace.predicted(run, world.folds, TracedImage(name, "train", driver, 1, ""))[f"five_crop, fold {home}"]
    assert float(lines[-1].split()[-1]) == pytest.approx(-np.log(row[1]), abs=6e-4)
    others = run_lines(world.context, image_of("t03.jpg"), ["first"])
    assert sum("five_crop, fold" in line for line in others) == 3
    assert "log loss" not in "\n".join(others)


def test_a_run_on_all_drivers_says_nothing_of_a_labelled_image(world: World) -> None:
    world.run("whole", splits={"kind": "all"})
    assert run_lines(world.context, TracedImage("p3_4.jpg", "train", "p3", 1, ""), ["whole"])[-1].startswith(
        "no prediction"
    )
    build.make_ensemble(world.context, ["first", "whole"], "mixed", None, None, {})
    assert "its pipeline is not followed" in submission_lines(world.context, image_of("t03.jpg"), "mixed")[-1]


def test_an_image_is_found_by_name_in_packs_where_the_tables_are_gone(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match="nothing is packed yet"):
        trace.find(world.context, "p3_4.jpg")
    monkeypatch.setattr(trace, "_sizes", lambda _: ["36x44"])
    assert trace.find(world.context, "p3_4.jpg") == TracedImage("p3_4.jpg", "train", "p3", 1, "")
    assert trace.find(world.context, "t03.jpg").label == -1
    with pytest.raises(InputError, match=r"none of the 66 images .* did you mean p3_4.jpg"):
        trace.find(world.context, "p3_4.jpe")
    monkeypatch.setattr(trace, "_packs", lambda *_: ["in a pack"])
    trace.trace_image(world.context, "some/folder/p3_4.jpg", [], None)
    said = capsys.readouterr().out
    assert "the image itself is not here" in said
    assert "not yet: " in said  # the fold file, and a submission
    assert "five_crop, fold" in said
    with pytest.raises(InputError, match="no such run"):
        trace.trace_image(world.context, "p3_4.jpg", ["third"], None)


def uniform(order: list[int]) -> MemberPredictions:
    members = np.random.default_rng(0).dirichlet([1, 1, 1], size=(2, 4))
    return MemberPredictions(np.array(["a", "b", "c", "d"])[order], members[:, order], np.zeros(4, int))


def test_a_trace_knows_its_image_by_name() -> None:
    rules = {"mean": lambda rows: rows.changed(rows.members.mean(axis=0, keepdims=True)), "none": lambda rows: rows}
    first, shuffled = (traced(rules, uniform(order), "c", ["one"]) for order in ([0, 1, 2, 3], [3, 2, 0, 1]))  # type: ignore[arg-type]
    assert list(first) == ["one", "mean", "none"]
    assert np.allclose(first["one"], uniform([0, 1, 2, 3]).members[0, 2])
    assert np.allclose(first["none"], shuffled["none"])
    assert np.allclose(first["mean"], uniform([0, 1, 2, 3]).members[:, 2].mean(axis=0))
    with pytest.raises(InputError, match="x: is not among the 4 images"):
        traced({}, uniform([0, 1, 2, 3]), "x", [])


@pytest.mark.parametrize("pipeline", [None, {}, {"steps": {"mean": {}}, "clip": 1e-5}, {"settings": []}, "x"])
def test_a_manifest_without_settings_is_said_in_a_sentence_and_nothing_is_guessed(
    world: World, pipeline: object
) -> None:
    build.make_ensemble(world.context, [], "both", None, None, {"knn": NEAR})
    path = world.context.places.submission("both").with_suffix(".json")
    write_json(path, {**read_json(path), "pipeline": pipeline})
    with pytest.raises(InputError, match=r"both.json: does not say the settings .*; make ensemble writes it again"):
        submission_lines(world.context, image_of("t03.jpg"), "both")
    lines = submission_lines(world.context, image_of("t03.jpg"), None)
    assert lines[1].startswith("both.csv")
    assert "the pipeline of both is not followed: " in lines[-1]


def test_settings_of_another_version_are_refused_by_name(world: World) -> None:
    build.make_ensemble(world.context, [], "both", None, None, {})
    path = world.context.places.submission("both").with_suffix(".json")
    write_json(path, {**read_json(path), "pipeline": {"settings": {"magic": 1}}})
    with pytest.raises(InputError, match=r"both.json: pipeline.settings: .*magic"):
        submission_lines(world.context, image_of("t03.jpg"), "both")


def test_embeddings_that_were_computed_again_are_not_followed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    build.make_ensemble(world.context, [], "both", None, None, {"knn": NEAR})
    space = trace.open_embeddings(world.context, "tiny")
    monkeypatch.setattr(trace, "open_embeddings", lambda *_: replace(space, checksum="of another day"))
    with pytest.raises(InputError, match="was made with other embeddings of tiny than today's"):
        submission_lines(world.context, image_of("t03.jpg"), "both")


def test_of_many_classes_the_likeliest_are_shown(world: World) -> None:
    many = {f"k{i}": "" for i in range(40)}
    context = replace(world.context, settings=world.context.settings.model_copy(update={"classes": many}))
    row = np.arange(40.0) / 780
    head, line = trace._probabilities(context, {"x": row}, TracedImage("x", "train", "", 2, ""), "view")
    assert head.split()[2:] == [f"k{i}" for i in range(28, 40)] + ["log", "loss"]
    assert float(line.split()[-1]) == pytest.approx(-np.log(2 / 780), abs=1e-3)
