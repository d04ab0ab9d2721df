"""Pseudo-labels: which images are taken, by whom they are named, and that no fold's validation drivers leak."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from support.pseudo_labels import CLASSES, FOLDS, NAMES, TRAIN, run_of, settings_of, shares, tell, there

from driverwatch.config.loading import parse
from driverwatch.config.training import PseudoSettings
from driverwatch.errors import InputError
from driverwatch.experiments.pseudo_label_rounds import student_settings
from driverwatch.inference import predictions
from driverwatch.inference.predictions import Predictions, prediction_path
from driverwatch.run import Run
from driverwatch.training import pseudo_labels
from driverwatch.training.pseudo_labels import EnsembleTeacher, FoldIndices, PseudoLabels, RunTeacher, select, tta_of


def teacher_of(tmp_path: Path, name: str = "teacher", seed: int = 0, **train: object) -> Run:
    run = run_of(tmp_path / name, **train)
    for number in range(run.settings.train.splits.models(FOLDS)):
        tell(run, number, shares(seed + number))
    return run


def student_of(tmp_path: Path, teachers: list[Run], splits: str = "folds", **asked: object) -> Run:
    run = run_of(tmp_path / "student", splits=splits, pseudo={"runs": [t.name for t in teachers], **asked})
    assert run.settings.train.pseudo
    found = pseudo_labels.identity(heard(teachers, run), run.settings.train.pseudo)
    return replace(run, learned_from={"teachers": found})


def heard(teachers: list[Run], student: Run) -> list[RunTeacher]:
    assert student.settings.train.pseudo
    return [RunTeacher(run, tta_of(run, student.settings.train.pseudo), FOLDS) for run in teachers]


def fold_labels(
    student: Run, number: int, teachers: list[Run], names: np.ndarray, labelled: int
) -> PseudoLabels | None:
    return pseudo_labels.fold_labels(student, number, heard(teachers, student), there(number, names), labelled)


def rows_of(made: PseudoLabels | None) -> dict[str, list[float]]:
    """Targets by name: test images are numbered on from the training pack's end."""
    assert made is not None
    joined = np.concatenate([TRAIN, NAMES])
    return {str(joined[row]): target.tolist() for row, target in zip(made.indices, made.targets, strict=True)}


def test_a_fold_is_taught_by_its_teachers_same_fold_alone(tmp_path: Path) -> None:
    """A model of another fold has seen the validation drivers' labels: what it says must change nothing."""
    teacher = teacher_of(tmp_path)
    before = {
        number: rows_of(fold_labels(student_of(tmp_path, [teacher]), number, [teacher], NAMES, 5)) for number in (0, 1)
    }
    for other in (1, 2):
        tell(teacher, other, shares(90 + other))
    student = student_of(tmp_path, [teacher])
    assert rows_of(fold_labels(student, 0, [teacher], NAMES, 5)) == before[0]
    assert rows_of(fold_labels(student, 1, [teacher], NAMES, 5)) != before[1]


def test_only_who_leaves_nobody_out_is_taught_by_every_fold(tmp_path: Path) -> None:
    teacher = teacher_of(tmp_path)
    made = fold_labels(student_of(tmp_path, [teacher], splits="all"), 0, [teacher], NAMES, 50)
    assert made is not None
    assert np.allclose(made.targets, np.mean([shares(fold) for fold in range(FOLDS)], axis=0), atol=1e-6)


def test_several_teachers_are_averaged_by_name(tmp_path: Path) -> None:
    one, two = teacher_of(tmp_path, "one"), teacher_of(tmp_path, "two", seed=50)
    order = np.random.default_rng(1).permutation(len(NAMES))
    tell(two, 1, shares(51)[order], NAMES[order])
    made = fold_labels(student_of(tmp_path, [one, two]), 1, [one, two], NAMES, 50)
    assert made is not None
    assert np.allclose(made.targets, (shares(1) + shares(51)) / 2, atol=1e-6)
    assert made.targets.dtype == np.float32
    turned = NAMES[::-1]
    again = fold_labels(student_of(tmp_path, [one, two]), 1, [one, two], turned, 50)
    assert again is not None
    assert np.array_equal(again.targets[::-1], made.targets)


def test_hard_labels_are_the_first_choice(tmp_path: Path) -> None:
    teacher = teacher_of(tmp_path)
    made = fold_labels(student_of(tmp_path, [teacher], kind="hard"), 0, [teacher], NAMES, 50)
    assert made is not None
    assert np.array_equal(made.targets, np.eye(3)[shares(0).argmax(axis=1)])
    facts = made.facts(CLASSES)
    assert facts["images"] == facts["of"] == sum(facts["per_class"].values()) == 12
    assert facts["mean_confidence"] == pytest.approx(shares(0).max(axis=1).mean(), abs=1e-4)


def test_a_teacher_that_was_retrained_meanwhile_is_refused(tmp_path: Path) -> None:
    teacher = teacher_of(tmp_path)
    student = student_of(tmp_path, [teacher])
    tell(teacher, 2, shares(77))
    assert fold_labels(student, 0, [teacher], NAMES, 5)
    with pytest.raises(InputError, match=r"fold2/test-five_crop.h5: is not what student was started with"):
        fold_labels(student, 2, [teacher], NAMES, 5)


def test_a_fold_without_teacher_predictions_is_one_sentence(tmp_path: Path) -> None:
    teacher = teacher_of(tmp_path)
    prediction_path(teacher.fold(1), "test", "five_crop").unlink()
    with pytest.raises(InputError, match=r"fold1/test-five_crop.h5: no such predictions; run make predict"):
        student_of(tmp_path, [teacher])
    assert student_of(tmp_path, [teacher], images="validation").learned_from  # asks for no test images
    (teacher.fold(1) / "manifest.json").unlink()
    with pytest.raises(InputError, match="fold 1 is not finished"):
        student_of(tmp_path, [teacher])


def test_other_test_images_are_refused(tmp_path: Path) -> None:
    teacher = teacher_of(tmp_path)
    for names in (NAMES[:-1], np.array([*NAMES, "more.jpg"]), np.array([*NAMES[:-1], "other.jpg"])):
        with pytest.raises(InputError, match="images missing"):
            fold_labels(student_of(tmp_path, [teacher]), 0, [teacher], names, 5)


@pytest.mark.parametrize(
    ("asked", "labelled", "said"),
    [
        (
            {"threshold": 1.0},
            50,
            "no image reaches train.pseudo.threshold 1, the surest has 0.*; lower the threshold",
        ),
        ({"ratio": 0.01}, 50, "ratio 0.01 of 50 labelled images allows none; raise the ratio"),
        ({"class_balance": True}, 2, "of 2 labelled images, shared among 3 classes, allows none"),
    ],
)
def test_nothing_to_train_on_is_one_sentence(tmp_path: Path, asked: dict, labelled: int, said: str) -> None:
    teacher = teacher_of(tmp_path)
    with pytest.raises(InputError, match=said):
        fold_labels(student_of(tmp_path, [teacher], **asked), 0, [teacher], NAMES, labelled)


def test_a_competition_without_test_images_is_one_sentence(tmp_path: Path) -> None:
    teacher = run_of(tmp_path / "teacher")
    for number in range(FOLDS):
        tell(teacher, number, shares(0, 0), NAMES[:0])
    with pytest.raises(InputError, match="there is no image without a label to train on"):
        fold_labels(student_of(tmp_path, [teacher]), 0, [teacher], NAMES[:0], 5)


def test_no_pseudo_labels_no_lesson(tmp_path: Path) -> None:
    assert pseudo_labels.fold_labels(run_of(tmp_path / "run"), 0, [], there(0), 5) is None
    assert pseudo_labels.identity([], None) == {}


def test_a_students_score_flatters_where_its_teachers_epoch_was_selected(tmp_path: Path) -> None:
    honest = student_of(tmp_path, [teacher_of(tmp_path, "a")])
    assert not honest.uses_validation
    assert student_of(tmp_path, [teacher_of(tmp_path, "a"), teacher_of(tmp_path, "b", select="best")]).uses_validation
    pipeline = replace(teacher_of(tmp_path, "c"), learned_from={"teachers": {"b": {"chosen_on_validation": True}}})
    for number in range(FOLDS):
        tell(pipeline, number, shares(number))
    assert student_of(tmp_path, [pipeline]).uses_validation


def asked(**content: object) -> PseudoSettings:
    return parse(PseudoSettings, {"runs": ["t"], **content}, "test")


@given(
    arrays(np.float64, st.tuples(st.integers(0, 40), st.just(4)), elements=st.sampled_from([0.0, 0.1, 0.3, 1.0, 2.0])),
    st.integers(0, 60),
    st.sampled_from([0.0, 0.3, 0.5, 0.9, 1.0]),
    st.sampled_from([0.1, 0.5, 1.0, 3.0]),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_the_most_confident_are_taken_whatever_the_order(
    scores: np.ndarray, labelled: int, threshold: float, ratio: float, class_balance: bool, random: object
) -> None:
    rows = (scores + 1e-9) / (scores + 1e-9).sum(axis=1, keepdims=True)
    names = np.array([f"n{i:02d}" for i in range(len(rows))], object)
    settings = asked(threshold=threshold, ratio=ratio, class_balance=class_balance)
    taken = select(rows, names, labelled, settings)
    assert len(set(taken)) == len(taken) <= ratio * labelled
    assert list(taken) == sorted(taken)
    top, named = rows.max(axis=1), rows.argmax(axis=1)
    assert (top[taken] >= threshold).all()
    left = np.setdiff1d(np.flatnonzero(top >= threshold), taken)
    limit = int(ratio * labelled)
    for group in [named == one for one in range(4)] if class_balance else [np.ones(len(rows), bool)]:
        mine, others = taken[group[taken]], left[group[left]]
        assert len(mine) <= (limit // 4 if class_balance else limit)
        if len(others):
            assert len(mine) == (limit // 4 if class_balance else limit)
            assert top[mine].min(initial=1) >= top[others].max()
    order = np.array(random.sample(range(len(rows)), len(rows)), int)  # type: ignore[attr-defined]
    assert set(names[order][select(rows[order], names[order], labelled, settings)]) == set(names[taken])


def test_rows_and_targets_of_test_images_follow_the_labelled_ones() -> None:
    """Held-out images keep their row of the training pack, test images are numbered on from its end."""
    labels = np.array([1, 0, 1])
    pseudo_labels = PseudoLabels(np.array([1, 4, 6]), np.array([[0.4, 0.6], [0.2, 0.8], [1, 0]], np.float32), 0.9, 6, 5)
    rows = FoldIndices(np.array([0, 2]), np.array([1]), pseudo_labels)
    targets = rows.targets(labels, 2)
    assert rows.shown().tolist() == [0, 2, 1, 4, 6]
    assert np.allclose(targets[rows.shown()], [[0, 1], [0, 1], [0.4, 0.6], [0.2, 0.8], [1, 0]])
    assert len(targets) == 3 + 5
    assert np.flatnonzero(rows.is_pseudo_label(3)).tolist() == [1, 4, 6]
    assert np.array_equal(rows.targets(np.array([1, 1, 1]), 2), targets)  # whatever the validation label is
    alone = FoldIndices(np.array([0, 2]), np.array([1]))
    assert alone.shown().tolist() == [0, 2]
    assert alone.targets(labels, 2).tolist() == [[0, 1], [0, 0], [0, 1]]
    assert not alone.is_pseudo_label(3).any()


def test_a_labelled_image_cannot_be_guessed(tmp_path: Path) -> None:
    pseudo_labels = PseudoLabels(np.array([2, 4]), np.full((2, 2), 0.5, np.float32), 0.5, 2, 2)
    drivers = np.array(["a", "b", "c"])
    with pytest.raises(ValueError, match="a labelled image cannot have a pseudo-label"):
        FoldIndices(np.array([0, 2]), np.array([1]), pseudo_labels).refuse_shared(drivers, run_of(tmp_path), 0)
    FoldIndices(np.array([0, 1]), np.array([2]), pseudo_labels).refuse_shared(drivers, run_of(tmp_path), 0)


def test_held_out_images_are_trained_on_as_test_images_are(tmp_path: Path) -> None:
    teacher = teacher_of(tmp_path)
    held = there(1).validation
    both = rows_of(fold_labels(student_of(tmp_path, [teacher], images="both"), 1, [teacher], NAMES, 50))
    assert set(both) == {*TRAIN[held], *NAMES}
    own = rows_of(fold_labels(student_of(tmp_path, [teacher], images="validation"), 1, [teacher], NAMES, 50))
    assert own == {name: both[name] for name in TRAIN[held]}
    assert np.allclose([own[name] for name in TRAIN[held]], shares(201, 3), atol=1e-6)
    test = rows_of(fold_labels(student_of(tmp_path, [teacher]), 1, [teacher], NAMES, 50))
    assert test == {name: both[name] for name in NAMES}


def test_the_surest_of_both_kinds_share_one_ratio_whatever_their_order(tmp_path: Path) -> None:
    """Rows come out ascending, each with its own targets, though the packs are turned round."""
    teacher = teacher_of(tmp_path)
    certain = np.array([[0.99, 0.01, 0], [0.2, 0.4, 0.4], [0, 0, 1]], np.float32)
    tell(teacher, 0, shares(0), validation=certain)
    student = student_of(tmp_path, [teacher], images="both", ratio=0.5)
    taken = rows_of(fold_labels(student, 0, [teacher], NAMES, 10))
    mine = TRAIN[there(0).validation]
    offered = dict(zip([*mine, *NAMES], [*certain.max(axis=1), *shares(0).max(axis=1)], strict=True))
    assert len(taken) == 5
    assert set(taken) == set(sorted(offered, key=lambda name: -offered[name])[:5])
    assert {mine[0], mine[2]} <= set(taken)
    turned = there(0, NAMES[::-1], TRAIN[::-1])
    again = pseudo_labels.fold_labels(student, 0, heard([teacher], student), turned, 10)
    assert again is not None
    assert (np.diff(again.indices) > 0).all()
    joined = np.concatenate([TRAIN[::-1], NAMES[::-1]])
    assert dict(zip(joined[again.indices].tolist(), again.targets.tolist(), strict=True)) == taken


def test_a_name_in_both_packs_is_two_images(tmp_path: Path) -> None:
    """A test image called as a validation one keeps what was said of itself."""
    teacher, mine = teacher_of(tmp_path), TRAIN[there(0).validation]
    named = np.array([*mine, *NAMES[3:]])
    tell(teacher, 0, shares(0), named)
    student = student_of(tmp_path, [teacher], images="both")
    made = pseudo_labels.fold_labels(student, 0, heard([teacher], student), there(0, named), 50)
    assert made is not None
    assert made.indices.tolist() == [*there(0).validation, *range(len(TRAIN), len(TRAIN) + 12)]
    assert np.allclose(made.targets, [*shares(200, 3), *shares(0)], atol=1e-6)


def test_held_out_predictions_that_changed_or_are_of_others_are_refused(tmp_path: Path) -> None:
    teacher = teacher_of(tmp_path)
    student, unaware = (student_of(tmp_path, [teacher], images=images) for images in ("validation", "test"))
    tell(teacher, 2, shares(2), validation=shares(5, 3))
    assert fold_labels(unaware, 2, [teacher], NAMES, 50)
    with pytest.raises(InputError, match=r"fold2/validation-five_crop.h5: is not what student was started with"):
        fold_labels(student, 2, [teacher], NAMES, 50)
    with pytest.raises(InputError, match="images missing"):
        pseudo_labels.fold_labels(student, 0, heard([teacher], student), there(1), 50)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"runs": ["t"], "labels": "x"}, "either runs or labels"),
        ({}, "either runs or labels"),
        ({"runs": ["t", "t"]}, "each teacher once"),
        ({"runs": ["t"], "images": "all"}, "images"),
    ],
)
def test_who_teaches_is_named_once(content: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse(PseudoSettings, content, "test")


@pytest.mark.parametrize("images", ["validation", "both"])
def test_who_leaves_nobody_out_has_no_held_out_images(images: str) -> None:
    with pytest.raises(InputError, match=r"has no validation drivers; pseudo.images must be test"):
        settings_of(splits="all", pseudo={"runs": ["t"], "images": images})


def pseudo_labels_of(folder: Path, folds: int = FOLDS) -> EnsembleTeacher:
    """What `make pseudo-labels` leaves for students, without its manifest."""
    made = EnsembleTeacher(
        folder / "pseudo_labels", "folds", "weights and pipeline", folds, {"chosen_on_validation": False}
    )
    for number in range(folds):
        for kind, names in (("test", NAMES), ("validation", TRAIN[there(number).validation])):
            predictions.write(
                Predictions(names, shares(number, len(names)), made.origin(number)), made.path(number, kind)
            )
    return made


def test_a_taught_students_fold_reads_its_own_folds_file(tmp_path: Path) -> None:
    """A file of another fold, which knows this fold's labels, is refused in its place."""
    teacher = pseudo_labels_of(tmp_path)
    run = run_of(tmp_path / "student", pseudo={"labels": "pseudo_labels", "images": "both"})
    found = pseudo_labels.identity([teacher], run.settings.train.pseudo)
    student = replace(run, learned_from={"teachers": found})
    made = pseudo_labels.fold_labels(student, 1, [teacher], there(1), 50)
    assert np.allclose([rows_of(made)[name] for name in NAMES], shares(1), atol=1e-6)
    teacher.path(1, "test").write_bytes(teacher.path(0, "test").read_bytes())
    with pytest.raises(
        InputError, match=r"fold1-test.h5: made from other fold than today's.*make pseudo-labels NAME=pseudo_labels"
    ):
        pseudo_labels.fold_labels(student, 1, [teacher], there(1), 50)
    teacher.path(2, "validation").unlink()
    with pytest.raises(InputError, match=r"fold2-validation.h5: no such.*make pseudo-labels NAME=pseudo_labels"):
        pseudo_labels.identity([teacher], run.settings.train.pseudo)


def test_a_round_after_a_taught_run_has_its_own_teacher() -> None:
    first = settings_of(pseudo={"labels": "both", "images": "both", "weight": 0.5})
    made = student_settings(first, "first", "train.pseudo.ratio=2").train.pseudo
    assert made == PseudoSettings(runs=["first"], images="both", weight=0.5, ratio=2)
