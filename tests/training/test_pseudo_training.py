"""Training on pseudo-labels, on all drivers, and for fewer epochs than the schedule's, by the real code on a tiny network."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.packs import CLASSES, COUNT, SWAP
from support.training import ROWS, Whole, changed, history, run_of, same, trained, whole_of

from driverwatch.data.augment import AugmentedInputs, Joined
from driverwatch.data.pack import Pack
from driverwatch.inference.feature_cache import augmented_pass
from driverwatch.inference.predictions import prediction_path
from driverwatch.io.manifests import read_json
from driverwatch.run import Run
from driverwatch.training.data_loader import TrainingBatches, class_weights
from driverwatch.training.pseudo_labels import FoldIndices, PseudoLabels

pytestmark = pytest.mark.keras
TEST = 9
SAID = np.random.default_rng(0).dirichlet([1.0] * 4, 4).astype(np.float32)
PSEUDO_LABELS = PseudoLabels(COUNT + np.array([1, 4, 5, 8]), SAID, 0.6, TEST, TEST)
STUDENT = FoldIndices(ROWS.training, ROWS.validation, PSEUDO_LABELS)


def student_of(folder: Path, **train: object) -> Run:
    return run_of(folder, pseudo={"runs": ["teacher"], "weight": 0.5}, **train)


def batches(run: Run, packs: dict[str, Pack], rows: FoldIndices, epoch: int = 0) -> Iterator[tuple[np.ndarray, ...]]:
    """Rows, images, targets and weights of an epoch's batches."""
    images = [AugmentedInputs(packs["train"].pixels, run.settings, run.preset, epoch)]
    images.append(AugmentedInputs(packs["test"].pixels, run.settings, run.preset, epoch, first=COUNT))
    targets = rows.targets(packs["train"].labels, CLASSES)
    made = TrainingBatches(
        Joined(*images, COUNT), rows.shown(), targets, run.settings, SWAP, epoch, rows.is_pseudo_label(COUNT)
    )
    for step in range(len(made)):
        size = run.settings.train.batch_size
        yield made.order[step * size : (step + 1) * size], *made[step]


def test_an_epoch_shows_labelled_and_taken_images_and_changes_nothing_for_labelled_ones(
    tmp_path: Path, packs: dict[str, Pack]
) -> None:
    run, shown = student_of(tmp_path, batch_size=7), {}
    for rows, images, *_ in batches(run, packs, STUDENT):
        shown |= dict(zip(rows.tolist(), images, strict=True))
    assert sorted(shown) == [*ROWS.training, *PSEUDO_LABELS.indices]
    alone = AugmentedInputs(packs["train"].pixels, run.settings, run.preset, 0)(ROWS.training)[0]
    assert all(np.array_equal(shown[row], image) for row, image in zip(ROWS.training, alone, strict=True))
    others = AugmentedInputs(packs["test"].pixels, run.settings, run.preset, 0, first=COUNT)(
        PSEUDO_LABELS.indices - COUNT
    )[0]
    assert all(np.array_equal(shown[row], image) for row, image in zip(PSEUDO_LABELS.indices, others, strict=True))


def test_weights_of_classes_are_those_of_labelled_images(tmp_path: Path, packs: dict[str, Pack]) -> None:
    run = student_of(tmp_path, class_weights="balanced")
    labelled = FoldIndices(ROWS.training[:29], ROWS.validation, PSEUDO_LABELS)
    of_class = class_weights(labelled.targets(packs["train"].labels, CLASSES)[labelled.training], "balanced")
    for rows, _, targets, weights in batches(run, packs, labelled):
        expected = targets @ of_class * np.where(rows >= COUNT, 0.5, 1.0)
        assert np.allclose(weights, expected)


def test_soft_targets_follow_flipped_images(tmp_path: Path, packs: dict[str, Pack]) -> None:
    run = changed(student_of(tmp_path), augment={"hflip": "swap_left_right", "preset": None})
    given, seen = STUDENT.targets(packs["train"].labels, CLASSES), set()
    for epoch in range(4):
        for rows, _, targets, _ in batches(replace(run, preset=[]), packs, STUDENT, epoch):
            for row, target in zip(rows, targets, strict=True):
                kept = np.array_equal(target, given[row])
                assert kept or np.array_equal(target, given[row][SWAP])
                seen |= {kept} if row >= COUNT else set()
    assert seen == {True, False}


def test_joined_inputs_keep_the_order_asked_for() -> None:
    def numbers(base: int) -> object:
        return lambda rows: (np.stack([rows + base, rows], axis=1), rows % 2 == 0)

    joined = Joined(numbers(100), numbers(200), 5)  # type: ignore[arg-type]
    for rows in (np.array([7, 0, 5, 4, 6]), np.array([4, 3]), np.array([9, 5])):
        made, flipped = joined(rows)
        own = np.where(rows < 5, rows, rows - 5)
        assert made[:, 0].tolist() == np.where(rows < 5, 100 + own, 200 + own).tolist()
        assert flipped.tolist() == (own % 2 == 0).tolist()


def test_a_cached_draw_of_test_images_is_that_of_training(tmp_path: Path, packs: dict[str, Pack]) -> None:
    run, rows = run_of(tmp_path), np.arange(TEST)
    cached = augmented_pass(run, 1, COUNT).cutting(packs["test"].pixels)(rows)[0]
    live = AugmentedInputs(packs["test"].pixels, run.settings, run.preset, 1, first=COUNT)(rows)[0]
    assert np.array_equal(cached, live)
    assert augmented_pass(run, 1, COUNT).identity != augmented_pass(run, 1).identity
    assert augmented_pass(run, 1, 0).identity == augmented_pass(run, 1).identity


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, packs: dict[str, Pack]) -> Whole:
    stages = [{}, {"freeze_until": "stage2", "learning_rate": 0.001}]
    return whole_of(student_of(tmp_path_factory.mktemp("whole"), epochs=2, stages=stages), packs, rows=STUDENT)


@pytest.mark.parametrize("after", [pytest.param(epoch, marks=pytest.mark.slow) for epoch in (1, 3)])
def test_a_killed_student_ends_as_an_uninterrupted_one(whole: Whole, tmp_path: Path, after: int) -> None:
    assert whole.ends_alike(after, tmp_path)


def test_what_a_student_trained_on_is_kept(whole: Whole) -> None:
    manifest = read_json(whole.run.fold(0) / "manifest.json")
    assert manifest["pseudo_labels"]["images"] == 4
    assert sum(manifest["pseudo_labels"]["per_class"].values()) == 4
    assert [row["pseudo_images"] for row in history(whole.run)] == ["4"] * 4


def test_students_train_on_their_teachers(whole: Whole, tmp_path: Path, packs: dict[str, Pack]) -> None:
    """Other teachers' words give other weights from the first epoch on; the same words the same, as after a kill."""
    turned = FoldIndices(ROWS.training, ROWS.validation, replace(PSEUDO_LABELS, targets=PSEUDO_LABELS.targets[:, ::-1]))
    run = student_of(tmp_path, epochs=2, stages=[{"epochs": 1}])
    trained(run, packs, rows=turned)
    assert history(run)[0]["val_loss"] != history(whole.run)[0]["val_loss"]


@pytest.mark.parametrize(
    "mix", [pytest.param(mix, marks=pytest.mark.slow) for mix in ("none", "mixup", "same_class_halves")]
)
def test_held_out_images_are_trained_on_without_their_labels(tmp_path: Path, packs: dict[str, Pack], mix: str) -> None:
    """Other labels of validation images change the score they are held against, and not one bit of the weights."""
    held = ROWS.validation[[0, 3, 5]]
    pseudo_labels = PseudoLabels(np.concatenate([held, [COUNT + 2]]), SAID, 0.6, 25, TEST)
    rows, labels = FoldIndices(ROWS.training, ROWS.validation, pseudo_labels), packs["train"].labels.copy()
    labels[ROWS.validation] = (labels[ROWS.validation] + 1) % CLASSES
    others = {**packs, "train": replace(packs["train"], labels=labels)}
    pseudo = {"runs": ["teacher"], "images": "both"}

    def student(name: str) -> Run:
        run = run_of(tmp_path / name, epochs=2, batch_size=16, class_weights="balanced", pseudo=pseudo)
        return changed(run, augment={"mix": mix})

    one, two = student("one"), student("two")
    weights = trained(one, packs, rows=rows)
    assert same(weights, trained(two, others, rows=rows))
    assert history(one)[-1]["val_loss"] != history(two)[-1]["val_loss"]
    assert [row["pseudo_images"] for row in history(one)] == ["4", "4"]
    if mix == "none":
        unaware = FoldIndices(ROWS.training, ROWS.validation, replace(pseudo_labels, indices=COUNT + np.arange(4)))
        assert not same(weights, trained(student("three"), packs, rows=unaware))


@pytest.mark.slow
def test_a_fit_on_all_drivers_holds_nobody_out_and_has_no_score(tmp_path: Path, packs: dict[str, Pack]) -> None:
    run = run_of(tmp_path, epochs=1, splits={"kind": "all", "count": 2})
    everybody = FoldIndices(np.arange(COUNT), np.arange(0))
    first, second = (trained(run, packs, number, everybody) for number in (0, 1))
    assert not same(first, second)  # nothing but the seed tells them apart
    other = changed(replace(run, folder=tmp_path / "seed1"), train={"seed": 1, "splits": {"kind": "all", "count": 1}})
    assert same(second, trained(other, packs, rows=everybody))
    assert (history(run)[0]["val_loss"], history(run)[0]["val_accuracy"]) == ("", "")
    manifest = read_json(run.fold(1) / "manifest.json")
    assert manifest["log_loss"] == {}
    assert manifest["seed"] == 1
    assert manifest["out_of_fold"] == "no score: trained on all drivers"
    assert run.manifest(1)
    assert prediction_path(run.fold(0), "test", "centre").is_file()
    assert not prediction_path(run.fold(0), "validation", "centre").is_file()


@pytest.mark.slow
def test_a_killed_fit_on_all_drivers_resumes(tmp_path: Path, packs: dict[str, Pack]) -> None:
    everybody = FoldIndices(np.arange(COUNT), np.arange(0))
    run = run_of(tmp_path / "whole", epochs=2, splits={"kind": "all", "count": 2})
    assert whole_of(run, packs, number=1, rows=everybody).ends_alike(1, tmp_path / "killed")


@pytest.mark.slow
def test_stopping_early_leaves_the_schedule_as_it_is(tmp_path: Path, packs: dict[str, Pack]) -> None:
    whole, short = run_of(tmp_path / "whole", epochs=3), run_of(tmp_path / "short", epochs=3, max_epochs=2)
    trained(whole, packs)
    trained(short, packs)
    both = [[(row["loss"], row["val_loss"]) for row in history(run)] for run in (whole, short)]
    assert len(both[1]) == 2
    assert both[0][:2] == both[1]
