"""Training on a tiny backbone, by the real code: learns, repeats, resumes, freezes."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from support.packs import CLASSES, COUNT, SIZE, SWAP
from support.training import ROWS, Whole, changed, history, run_of, same, trained, whole_of

from driverwatch.config.loading import parse
from driverwatch.config.model import ModelSettings, PredictSettings
from driverwatch.data.augment import AugmentedInputs
from driverwatch.data.pack import Pack
from driverwatch.data.tta import Columns, cut_all
from driverwatch.errors import InputError
from driverwatch.inference.predict import Predictor
from driverwatch.io.manifests import read_json
from driverwatch.models.backend import load_state
from driverwatch.models.classifier import build
from driverwatch.run import Run
from driverwatch.training.data_loader import TrainingBatches, class_weights, flip_targets, one_hot
from driverwatch.training.fold import FoldTraining, train_fold
from driverwatch.training.optimizer import plan, schedule
from driverwatch.training.pseudo_labels import FoldIndices

pytestmark = pytest.mark.keras


STAGES = [{"epochs": 8}, {"freeze_until": "stage2", "learning_rate": 0.001}]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, packs: dict[str, Pack]) -> Whole:
    """With dropout, Adam's moments and two stages, of eight epochs and of two: what other trainings are held against."""
    run = run_of(tmp_path_factory.mktemp("whole"), epochs=2, select="best", stages=STAGES, workers=1)
    return whole_of(run, packs, tta="ten_crop")


def test_it_learns(whole: Whole) -> None:
    folder = whole.run.fold(0)
    assert read_json(folder / "manifest.json")["log_loss"]["five_crop"] < 0.3
    assert not (folder / "checkpoint.h5").exists()
    assert [row["epoch"] for row in history(whole.run)] == [str(i) for i in range(1, 11)]
    assert list((folder / "tensorboard").glob("events*"))


def test_same_seed_same_weights_whatever_the_workers(whole: Whole, tmp_path: Path, packs: dict[str, Pack]) -> None:
    again = changed(whole.run, train={"workers": 4})
    assert same(whole.found, trained(replace(again, folder=tmp_path / "again" / "run"), packs, tta="ten_crop"))
    other = changed(whole.run, train={"seed": 1, "select": "last", "stages": [{"epochs": 1}]})
    other = replace(other, folder=tmp_path / "other" / "run")
    trained(other, packs)
    assert history(other)[0]["loss"] != history(whole.run)[0]["loss"]


@pytest.mark.slow
def test_training_by_processes_is_training_by_threads(whole: Whole, tmp_path: Path, packs: dict[str, Pack]) -> None:
    by_processes = replace(
        changed(whole.run, train={"loader": "processes", "workers": 2}), folder=tmp_path / "processes" / "run"
    )
    assert same(whole.found, trained(by_processes, packs, tta="ten_crop"))


@pytest.mark.parametrize("after", [3, 8, *(pytest.param(late, marks=pytest.mark.slow) for late in (9, 10))])
def test_a_killed_fold_ends_as_an_uninterrupted_one(whole: Whole, tmp_path: Path, after: int) -> None:
    """Killed within a stage, at its end, within the next, and where training ends; gone on with by other workers."""
    assert whole.ends_alike(after, tmp_path, workers=3)


def test_a_checkpoint_holds_the_optimizer(whole: Whole) -> None:
    for after, steps in ((3, 12), (8, 32), (9, 4)):  # each stage begins with a new one
        with h5py.File(whole.moments / str(after) / "checkpoint.h5") as file:
            kept = [item[...] for item in file["optimizer"].values()]
        assert steps in [int(value) for value in kept if value.shape == ()]
        assert sum(np.any(value) for value in kept if value.ndim) > 10  # Adam's moments of every kernel, scale and bias


def test_frozen_layers_stay_and_the_others_move(whole: Whole, packs: dict[str, Pack]) -> None:
    """Through the second stage, normalisation's statistics included."""
    classifier = build(whole.run.settings, CLASSES, packs["train"].mean, None, load=False)
    states = []
    for after in (8, 10):
        load_state(whole.moments / str(after) / "checkpoint.h5", {"model": classifier.weights})
        states.append([np.array(weight) for weight in classifier.weights])
    for weight, *values in zip(classifier.weights, *states, strict=True):
        if "seed" not in weight.path:
            frozen = any(name in weight.path for name in ("stage1", "stage2"))
            assert np.array_equal(*values) == frozen, weight.path


@pytest.mark.parametrize("mix", ["none", "mixup"])
def test_each_epoch_draws_again(tmp_path: Path, packs: dict[str, Pack], mix: str) -> None:
    """Its order, its dropout, how each image is augmented, and with whom it is mixed; the same epoch draws the same."""
    preset = "noise" if mix == "none" else None
    run = changed(run_of(tmp_path), augment={"mix": mix, "mix_prob": 1.0, "preset": preset})
    run = replace(run, preset=run.preset if preset else [])
    classifier = build(run.settings, CLASSES, packs["train"].mean, None)
    training = FoldTraining(classifier, run, 0, packs, ROWS, tmp_path / "backbone")

    def drawn(epoch: int) -> list[np.ndarray]:
        training.progress.epoch = epoch
        with closing(training.batches()) as made:
            order, shown = np.argsort(made.order), [made[step] for step in range(len(made))]
            dropout = np.array(classifier.dropout.seed_generator.state)
            images, targets = (np.concatenate([batch[part] for batch in shown])[order] for part in (0, 1))
        return [made.order, dropout, images, *([targets] if mix != "none" else [])]

    with training.loader:
        first, second, again = drawn(0), drawn(1), drawn(0)
    assert all(np.array_equal(*pair) for pair in zip(first, again, strict=True))
    assert not any(np.array_equal(*pair) for pair in zip(first, second, strict=True))


def test_a_checkpoint_of_another_run_is_refused(whole: Whole, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is of another run"):
        trained(whole.killed(10, tmp_path, seed=5), whole.packs)


def test_a_driver_on_both_sides_is_refused(tmp_path: Path, packs: dict[str, Pack]) -> None:
    overlapping = FoldIndices(np.arange(30), np.arange(30, COUNT))
    with pytest.raises(InputError, match="driver p3 is on both sides"):
        train_fold(run_of(tmp_path), 0, packs, overlapping, None, PredictSettings(), tmp_path)


def test_a_wrong_layer_name_in_a_late_stage_ends_before_the_first_epoch(tmp_path: Path, packs: dict[str, Pack]) -> None:
    run = run_of(tmp_path, stages=[{}, {"freeze_until": "stage9"}])
    with pytest.raises(InputError, match="stage9 is no layer or block"):
        trained(run, packs)
    assert not (run.fold(0) / "checkpoint.h5").exists()


def test_selecting_an_epoch_is_labelled(whole: Whole) -> None:
    manifest = read_json(whole.run.fold(0) / "manifest.json")
    assert manifest["chosen_on_validation"] == "validation drivers"
    best = min(float(row["val_loss"]) for row in history(whole.run))
    assert manifest["log_loss"]["centre"] == pytest.approx(best, abs=1e-5)


def test_views_on_the_device_are_the_views_of_an_array(tmp_path: Path, packs: dict[str, Pack]) -> None:
    run = run_of(tmp_path)
    classifier = build(run.settings, CLASSES, (80.0,) * 3, None)
    images, rows = packs["train"].images.open(), np.array([5, 0, 40])
    found = Predictor(classifier, ["ten_crop"], SIZE, (32, 40), Columns(SWAP, "swap_left_right"))(images, rows)
    crops = cut_all(np.asarray(images[rows]), "ten_crop", (32, 40))
    each = np.stack([np.asarray(classifier(crop, training=False)) for crop in crops])
    assert np.allclose(found["centre"], each[0], atol=1e-6)
    assert np.allclose(found["five_crop"], each[:5].mean(axis=0), atol=1e-6)
    swapped = np.concatenate([each[:5], each[5:][..., SWAP]])
    assert np.allclose(found["ten_crop"], swapped.mean(axis=0), atol=1e-6)
    kept = Predictor(classifier, ["ten_crop"], SIZE, (32, 40))(images, rows)
    assert np.allclose(kept["ten_crop"], each.mean(axis=0), atol=1e-6)
    assert "ten_crop_swap" not in kept  # without flipped pairs nothing can be swapped


def batches(run: Run, packs: dict[str, Pack], epoch: int = 0) -> TrainingBatches:
    pack = packs["train"]
    inputs = AugmentedInputs(pack.images.open(), run.settings, run.preset, epoch)
    return TrainingBatches(inputs, ROWS.training, one_hot(pack.labels, CLASSES), run.settings, SWAP, epoch)


def test_an_epoch_sees_every_training_row_once(tmp_path: Path, packs: dict[str, Pack]) -> None:
    run = run_of(tmp_path, batch_size=7)
    epoch = batches(run, packs)
    assert len(epoch) == 5
    assert sorted(epoch.order) == list(ROWS.training)
    sizes = [len(epoch[i][0]) for i in range(len(epoch))]
    assert sizes == [7, 7, 7, 7, 4]
    assert not np.array_equal(epoch.order, batches(run, packs, 1).order)


@pytest.mark.parametrize("hflip", ["none", "keep_labels", "swap_left_right"])
def test_labels_follow_flipped_images(tmp_path: Path, packs: dict[str, Pack], hflip: str) -> None:
    run = run_of(tmp_path)
    augment = run.settings.augment.model_copy(update={"hflip": hflip, "preset": None})
    run = replace(run, settings=run.settings.model_copy(update={"augment": augment}), preset=[])
    for images, targets, _ in (batches(run, packs)[i] for i in range(4)):
        bright = images.mean(axis=3)
        left = bright[:, :, :20].sum(axis=(1, 2)) > bright[:, :, 20:].sum(axis=(1, 2))
        top = bright[:, :16].sum(axis=(1, 2)) > bright[:, 16:].sum(axis=(1, 2))
        quadrant = np.where(top, np.where(left, 0, 1), np.where(left, 2, 3))
        assert np.array_equal(targets.argmax(axis=1), quadrant) == (hflip != "keep_labels")


def test_balanced_class_weights() -> None:
    targets = one_hot(np.array([0] * 6 + [1] * 2 + [3] * 4), 4)
    weights = class_weights(targets, "balanced")
    assert np.allclose(weights, [12 / 24, 12 / 8, 0, 12 / 16])
    assert np.allclose(class_weights(targets, "none"), 1)


def test_each_class_weighs_the_same_in_sum_where_labels_are_shares() -> None:
    targets = np.random.default_rng(0).dirichlet([0.1, 0.5, 1, 3], 50).astype(np.float32)
    assert np.allclose((targets * class_weights(targets, "balanced")).sum(axis=0), 50 / 4, rtol=1e-5)


def test_label_shares_of_flipped_images_go_where_swap_says() -> None:
    """Class i becomes swap[i], also where going there and back are not the same."""
    targets, flipped = np.array([[0.7, 0.2, 0.1]] * 2, np.float32), np.array([True, False])
    assert np.allclose(flip_targets(targets, flipped, "swap_left_right", [1, 2, 0]), [[0.1, 0.7, 0.2], [0.7, 0.2, 0.1]])
    assert np.array_equal(flip_targets(targets, flipped, "keep_labels", [1, 2, 0]), targets)


def test_stages_take_from_train_what_they_leave_out() -> None:
    head = {"freeze_until": "head", "epochs": 1, "learning_rate": 0.01}
    content = {
        "backbone": "mobilenet", "input": {"pack": "64x64", "size": "64x64"},
        "train": {"epochs": 5, "stages": [head, {"normalization": "train"}]},
    }  # fmt: skip
    first, second = plan(parse(ModelSettings, content, "test"))
    assert (first.epochs, first.learning_rate, first.train_statistics) == (1, 0.01, False)
    assert (second.epochs, second.learning_rate, second.train_statistics) == (5, 0.001, True)


@pytest.mark.parametrize(
    ("train", "rates"),
    [
        ({"schedule": "constant"}, [0.1, 0.1, 0.1]),
        ({"schedule": "cosine"}, [0.1, 0.05157, 0.0]),
        ({"schedule": "cosine", "warmup": 0.5}, [0.002, 0.1, 0.0]),
        ({"schedule": "constant", "warmup": 0.5}, [0.002, 0.1, 0.1]),
    ],
)
def test_schedules(train: dict, rates: list[float]) -> None:
    content = {"backbone": "tiny", "weights": "none", "input": {"pack": "32x32", "size": "32x32"}, "train": train}
    rate = schedule(parse(ModelSettings, content, "test").train, 0.1, 100)
    found = [rate if isinstance(rate, float) else float(rate(at)) for at in (0, 49, 100)]
    assert found == pytest.approx(rates, abs=1e-6)


def test_a_finished_folds_weights_predict_the_same(whole: Whole, packs: dict[str, Pack]) -> None:
    run = whole.run
    classifier = build(run.settings, CLASSES, packs["train"].mean, None, load=False)
    load_state(run.fold(0) / "weights.h5", {"model": classifier.weights})
    again = Predictor(classifier, ["ten_crop"], SIZE, (32, 40), run.columns, 40)(packs["test"].pixels, np.arange(9))
    assert all(np.array_equal(again[tta], whole.found[f"test-{tta}"]) for tta in ("five_crop", "ten_crop"))


def test_a_torn_checkpoint_is_refused_in_one_sentence(tmp_path: Path, packs: dict[str, Pack]) -> None:
    run = run_of(tmp_path)
    run.fold(0).mkdir(parents=True)
    (run.fold(0) / "checkpoint.h5").write_bytes(b"torn")
    with pytest.raises(InputError, match="not a whole state file"):
        trained(run, packs)


def test_a_diverged_training_says_so(tmp_path: Path, packs: dict[str, Pack]) -> None:
    with pytest.raises(InputError, match=r"the loss became .*; lower the learning rate"):
        trained(run_of(tmp_path, optimizer="sgd", learning_rate=10.0, weight_decay=1e30, epochs=3), packs)


@pytest.mark.parametrize(
    "mix", [pytest.param(mix, marks=pytest.mark.slow) for mix in ("mixup", "cutmix", "same_class_halves")]
)
def test_mixing_repeats_and_resumes_after_a_kill(tmp_path: Path, packs: dict[str, Pack], mix: str) -> None:
    def mixed(mix: str) -> Run:
        run = run_of(tmp_path / mix, epochs=2, workers=1)
        return changed(run, augment={"mix": mix, "hflip": "swap_left_right"})

    made = whole_of(mixed(mix), packs)
    assert made.ends_alike(1, tmp_path / "invalid", workers=3)
    assert not same(made.found, trained(mixed("none"), packs))
