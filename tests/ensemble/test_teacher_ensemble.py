"""What `make pseudo-labels` keeps for students: by fold, by name, and without the labels that the fold holds out."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.finished import CLASSES, World, world

from driverwatch.config.ensemble import PipelineSettings
from driverwatch.config.loading import parse
from driverwatch.config.model import ModelSettings
from driverwatch.config.training import PseudoSettings
from driverwatch.data.folds import FoldTable
from driverwatch.data.pack import Pack
from driverwatch.ensemble import teacher_ensemble as step
from driverwatch.ensemble.embedding_index import EmbeddingIndex
from driverwatch.ensemble.teacher_ensemble import identity, make_pseudo_labels
from driverwatch.errors import InputError
from driverwatch.inference import predictions
from driverwatch.inference.predictions import Predictions, prediction_path
from driverwatch.metrics import FLOOR, limited
from driverwatch.run import Run
from driverwatch.training import pseudo_labels
from driverwatch.training.pseudo_labels import Student, Teacher, Unlabelled, checked_teachers, open_teacher_ensemble

__all__ = ["world"]
NEAR = {"knn": {"embeddings": "looks", "k": 2}}
PIPELINES: dict[str, dict[str, Any]] = {
    "plain": {},
    "weighted": {"blend": "weighted"},
    "greedy": {"blend": "greedy"},
    "per_class": {"blend": "per_class"},
    "class_balance": {"class_balance": "looks"},
    "knn": {"knn": {"embeddings": "looks"}},
    "calibrate": {"calibrate": "bias"},
    "all": {"blend": "weighted_geometric", "class_balance": "looks", **NEAR, "calibrate": "temperature"},
}
COARSE = ["per_class", "class_balance"]  # fitted in steps, so that other labels may come to the same


@pytest.fixture(autouse=True)
def _looks(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features in which a driver's images lie together, in place of a network's."""
    names = np.concatenate([world.packs["train"].names, world.packs["test"].names])
    own = np.random.default_rng(0).normal(size=(len(names), 8))
    driver = [np.random.default_rng([*name[:2].encode()]).normal(size=8) for name in names]
    monkeypatch.setattr(
        step, "open_embeddings", lambda *_: EmbeddingIndex(names, (own + 3 * np.array(driver)).astype(np.float32))
    )


def stored(world: World, name: str = "both", **changes: object) -> dict[tuple[int, str], Predictions]:
    """What is written for each fold and kind of images."""
    make_pseudo_labels(world.context, ["one", "two"], name, "five_crop", changes)
    teacher = open_teacher_ensemble(world.context.places, name, world.folds)
    return {(fold, kind): teacher.predictions(fold, kind) for fold in range(3) for kind in ("validation", "test")}


def validation(world: World, fold: int) -> np.ndarray:
    return world.folds.indices(world.packs["train"].drivers, fold)[1]


def permuted(world: World, fold: int) -> World:
    """The world with the labels of a fold's validation images shifted to other classes."""
    labels, rows = world.packs["train"].labels.copy(), validation(world, fold)
    labels[rows] = (np.random.default_rng(fold).permutation(labels[rows]) + 1) % len(CLASSES)
    return world.labelled(labels)


@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize("fold", range(3))
def test_a_folds_held_out_labels_change_nothing_for_it(
    world: World, monkeypatch: pytest.MonkeyPatch, pipeline: str, fold: int
) -> None:
    world.run("one", 0, 1.0)
    world.run("two", 50, 2.0)
    before = stored(world, **PIPELINES[pipeline])
    permuted(world, fold).opened(monkeypatch)
    after = stored(world, **PIPELINES[pipeline])
    for kind in ("validation", "test"):
        assert list(after[fold, kind].names) == list(before[fold, kind].names)
        assert np.array_equal(after[fold, kind].probabilities, before[fold, kind].probabilities)
    others = [key for key in before if key[0] != fold]
    changed = any(not np.array_equal(after[key].probabilities, before[key].probabilities) for key in others)
    assert pipeline in COARSE or changed == (pipeline != "plain")  # for other folds these labels are fitted to


def test_a_fold_asks_its_own_models_alone_and_joins_by_name(world: World) -> None:
    found = [world.run("one", 0, 1.0), world.run("two", 50, 2.0)]
    made = stored(world)
    for fold in range(3):
        for kind, pack in (("validation", "train"), ("test", "test")):
            names = world.packs[pack].names[validation(world, fold) if kind == "validation" else slice(None)]
            assert list(made[fold, kind].names) == list(names)
            teachers = [predictions.read(prediction_path(run.fold(fold), kind, "five_crop"), {}) for run in found]
            mean = np.mean([one.aligned_to(list(names)).astype(float) for one in teachers], axis=0)
            assert np.allclose(made[fold, kind].probabilities, limited(mean, FLOOR), atol=1e-6)


def test_the_manifest_says_what_was_put_together(world: World) -> None:
    world.run("one", 0)
    world.run("two", 50, select="best")
    stored(world, blend="weighted")
    teacher = open_teacher_ensemble(world.context.places, "both", world.folds)
    assert teacher.facts["runs"] == {"one": "five_crop", "two": "five_crop"}
    assert teacher.facts["pipeline"] == PipelineSettings(blend="weighted").model_dump()
    assert teacher.facts["chosen_on_validation"] is True
    assert (teacher.count, teacher.name) == (3, "both")


def teachers_of(world: World, settings: ModelSettings, packs: dict[str, Pack] | None = None) -> list[Teacher]:
    """The checked teachers of a student of these settings."""
    return checked_teachers(Student(world.context, "student", settings, world.folds, packs or world.packs))


def student_of(world: World, name: str = "both", **asked: object) -> Run:
    """A student that was started with the pseudo-labels of now."""
    run = world.run("student", pseudo={"labels": name, **asked})
    settings = run.settings.train.pseudo
    found = pseudo_labels.identity([open_teacher_ensemble(world.context.places, name, world.folds)], settings)
    return replace(run, learned_from={"teachers": found})


def fold_labels(world: World, student: Run, fold: int) -> pseudo_labels.PseudoLabels:
    there = Unlabelled(world.packs["test"].names, world.packs["train"].names, validation(world, fold))
    made = pseudo_labels.fold_labels(
        student, fold, [open_teacher_ensemble(world.context.places, "both", world.folds)], there, 36
    )
    assert made is not None
    return made


@pytest.mark.parametrize("images", ["test", "validation", "both"])
def test_a_student_learns_what_is_kept_for_its_fold(world: World, images: str) -> None:
    world.run("one", 0)
    world.run("two", 50)
    kept = stored(world, **PIPELINES["all"])
    made = fold_labels(world, student_of(world, images=images), 1)
    joined = np.concatenate([world.packs["train"].names, world.packs["test"].names])
    expected = {}
    for kind in ("validation", "test"):
        if images in (kind, "both"):
            expected |= dict(zip(kept[1, kind].names, kept[1, kind].probabilities, strict=True))
    assert set(joined[made.indices]) == set(expected)
    for row, target in zip(made.indices, made.targets, strict=True):
        assert target == pytest.approx(expected[joined[row]], abs=1e-6)


def test_a_student_refuses_lessons_that_changed(world: World) -> None:
    world.run("one", 0)
    world.run("two", 50)
    stored(world)
    student = student_of(world)
    assert len(fold_labels(world, student, 2).indices) == 12
    stored(world)
    fold_labels(world, student, 2)  # the same again is the same
    stored(world, blend="geometric")
    with pytest.raises(InputError, match=r"fold2-test.h5: is not what student was started with"):
        fold_labels(world, student, 2)


def test_what_was_started_again_and_not_finished_is_not_there(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill between two folds leaves no mixture of an old and a new pipeline that a student would take."""
    world.run("one", 0)
    world.run("two", 50)
    stored(world)
    written, real = [], predictions.write

    def once(*arguments: Any) -> None:
        written.append(arguments)
        if len(written) == 3:
            raise KeyboardInterrupt
        real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(predictions, "write", once)
        with pytest.raises(KeyboardInterrupt):
            make_pseudo_labels(world.context, ["one", "two"], "both", "five_crop", {"blend": "geometric"})
    with pytest.raises(InputError, match="both is not there; make pseudo-labels NAME=both"):
        open_teacher_ensemble(world.context.places, "both", world.folds)


def test_a_file_of_an_older_pipeline_is_refused(world: World) -> None:
    world.run("one", 0)
    world.run("two", 50)
    stored(world)
    path = open_teacher_ensemble(world.context.places, "both", world.folds).path(1, "test")
    old = path.read_bytes()
    stored(world, blend="geometric")
    path.write_bytes(old)
    with pytest.raises(InputError, match="made from other made_of than today's"):
        open_teacher_ensemble(world.context.places, "both", world.folds).predictions(1, "test")


def test_pseudo_labels_of_other_folds_are_refused(world: World) -> None:
    world.run("one", 0)
    world.run("two", 50)
    stored(world)
    frame = world.folds.frame.copy()
    frame["fold"] = (frame["fold"] + 1) % 3
    with pytest.raises(InputError, match="made on other folds than today's; make pseudo-labels NAME=both"):
        open_teacher_ensemble(world.context.places, "both", FoldTable(frame))


def test_a_run_that_was_not_trained_on_folds_is_no_teacher(world: World) -> None:
    world.run("one", 0)
    world.run("everybody", 9, splits="all")
    with pytest.raises(InputError, match="everybody was not trained on folds, so it cannot label images fold by fold"):
        make_pseudo_labels(world.context, ["one", "everybody"], "both", "five_crop", {})
    assert not (world.context.places.pseudo_labels("both") / "manifest.json").exists()


def test_other_images_are_found_before_training(world: World) -> None:
    world.run("one", 0)
    world.run("two", 50)
    stored(world)
    test, train = world.packs["test"], world.packs["train"]
    fewer = {
        "test": {**world.packs, "test": replace(test, names=test.names[1:])},
        "validation": {**world.packs, "train": replace(train, names=train.names[1:], drivers=train.drivers[1:])},
    }
    for kind, packs in fewer.items():
        other = {"test": "validation", "validation": "test"}[kind]
        settings = {
            images: world.settings(pseudo={"labels": "both", "images": images}) for images in (kind, other, "both")
        }
        for images in (kind, "both"):
            with pytest.raises(InputError, match=f"both: predicts other {kind} images in fold .* than the student's"):
                teachers_of(world, settings[images], packs)
        assert [one.name for one in teachers_of(world, settings[other], packs)] == ["both"]


@pytest.mark.parametrize("images", ["test", "validation", "both"])
def test_shuffled_splits_take_no_pseudo_labels_by_fold(world: World, images: str) -> None:
    world.run("one", 0)
    world.run("two", 50)
    stored(world)
    drawn = world.settings(
        pseudo={"labels": "both", "images": images},
        splits={"kind": "shuffle_split", "count": 3, "val_drivers": 2},
    )
    with pytest.raises(InputError, match="shuffled ones hold others out; name runs"):
        teachers_of(world, drawn)
    whole = world.settings(pseudo={"labels": "both"}, splits="all")
    assert [one.name for one in teachers_of(world, whole)] == ["both"]


def test_a_student_of_all_drivers_learns_from_every_fold(world: World) -> None:
    world.run("one", 0)
    world.run("two", 50)
    kept = stored(world)
    made = fold_labels(world, student_of(world), 0)
    assert np.allclose(made.targets, kept[0, "test"].probabilities, atol=1e-6)
    run = world.run("whole", splits="all", pseudo={"labels": "both"})
    found = pseudo_labels.identity(
        [open_teacher_ensemble(world.context.places, "both", world.folds)], run.settings.train.pseudo
    )
    every = fold_labels(world, replace(run, learned_from={"teachers": found}), 0)
    assert np.allclose(
        every.targets, np.mean([kept[fold, "test"].probabilities for fold in range(3)], axis=0), atol=1e-6
    )


def test_an_epoch_chosen_on_held_out_drivers_is_handed_on(world: World) -> None:
    """A student's score is optimistic where its teachers' or its own epoch was chosen on validation drivers."""
    world.run("one", 0)
    world.run("two", 50)
    stored(world)
    assert not student_of(world, images="both").uses_validation
    world.run("two", 50, select="best")
    stored(world)
    assert student_of(world, images="both").uses_validation
    assert parse(PseudoSettings, {"labels": "both"}, "x").images == "test"


def test_other_features_make_another_pipeline(world: World) -> None:
    """Pseudo-labels made by embeddings of other weights are made again."""
    settings, names = PipelineSettings(class_balance="mobilenet_v2"), np.array(["a"])
    spaces = [
        {"mobilenet_v2": EmbeddingIndex(names, np.ones((1, 2), np.float32), "mobilenet_v2", checksum)}
        for checksum in "xyx"
    ]
    one, other, same = (identity([], world.folds, settings, space) for space in spaces)
    assert one == same != other
