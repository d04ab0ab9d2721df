"""Training on a tiny backbone, by the real code: learns, repeats, resumes, freezes."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from driverwatch.artifacts import read_json
from driverwatch.data.pack import ImageBlock, Pack
from driverwatch.errors import InputError
from driverwatch.inference import predictions
from driverwatch.inference.paths import prediction_path
from driverwatch.inference.predict import Predictor
from driverwatch.models.classifier import Classifier, build
from driverwatch.models.state import load_state
from driverwatch.settings import ModelSettings, PredictSettings
from driverwatch.training import fold as folds
from driverwatch.training.batches import TrainingBatches, class_weights, followed, one_hot
from driverwatch.training.fold import Rows, train_fold
from driverwatch.training.inputs import AugmentedInputs
from driverwatch.training.run import Run
from driverwatch.training.stages import plan, schedule
from driverwatch.typed_yaml import parse
from driverwatch.vision.views import Columns, cut_all

pytestmark = pytest.mark.keras
SIZE, COUNT, CLASSES = (36, 44), 48, 4
SWAP = [1, 0, 3, 2]  # top left and top right change places in a mirror, and so below


def pack_of(folder: Path, count: int, kind: str) -> Pack:
    """Images whose class is a bright quadrant: learnable in seconds, and left is told from right."""
    random = np.random.default_rng(len(kind))
    labels = np.arange(count) % CLASSES
    images = random.integers(0, 90, (count, *SIZE, 3), np.uint8)
    for image, label in zip(images, labels, strict=True):
        y, x = [(3, 3), (3, 25), (20, 3), (20, 25)][label]
        image[y : y + 12, x : x + 14] += 150
    path = folder / f"{kind}.h5"
    with h5py.File(path, "w") as file:
        offset = file.create_dataset("images", data=images).id.get_offset()
    names = np.array([f"{kind}{i}.jpg" for i in range(count)])
    drivers = np.array([f"p{i // 8}" for i in range(count)])
    return Pack(
        ImageBlock(str(path), offset, images.shape), names, labels, drivers, (80.0,) * 3, (60.0,) * 3, kind, "folds"
    )


@pytest.fixture
def packs(tmp_path: Path) -> dict[str, Pack]:
    return {"train": pack_of(tmp_path, COUNT, "train"), "test": pack_of(tmp_path, 9, "test")}


ROWS = Rows(np.arange(32), np.arange(32, COUNT))


def run_of(tmp_path: Path, **train: object) -> Run:
    content = {
        "backbone": "tiny", "weights": "none", "input": {"pack": "36x44", "size": "32x40"},
        "head": {"pooling": "flatten", "dropout": 0.3}, "augment": {"policy": "noise"},
        "train": {"optimizer": "adam", "learning_rate": 0.003, "epochs": 3, "batch_size": 8, **train},
    }  # fmt: skip
    policy = [{"RandomBrightnessContrast": {"p": 0.5}}]
    settings = parse(ModelSettings, content, "test")
    return Run(
        tmp_path / "run", settings, tuple("abcd"), SWAP, policy, "folds", {"train": "train", "test": "test"}, None
    )


def trained(run: Run, packs: dict[str, Pack]) -> dict[str, np.ndarray]:
    train_fold(run, 0, packs, ROWS, None, PredictSettings(batch_size=40), run.folder.parent / "trunk")
    with h5py.File(run.fold(0) / "weights.h5") as file:
        weights = {key: item[...] for key, item in file["model"].items()}
    for views in ("centre", "five_crop", "ten_crop"):
        made = predictions.read(prediction_path(run.fold(0), "test", views), {**run.origin, "views": views})
        weights[views] = made.probabilities
    return weights


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


def test_it_learns(tmp_path: Path, packs: dict[str, Pack]) -> None:
    run = run_of(tmp_path, epochs=12)
    trained(run, packs)
    manifest = read_json(run.fold(0) / "manifest.json")
    assert manifest["log_loss"]["five_crop"] < 0.3
    assert not (run.fold(0) / "bundle.h5").exists()
    with (run.fold(0) / "history.csv").open() as file:
        history = list(csv.DictReader(file))
    assert [row["epoch"] for row in history] == [str(i) for i in range(1, 13)]
    assert list((run.fold(0) / "tensorboard").glob("events*"))


def test_same_seed_same_weights_whatever_the_workers(tmp_path: Path, packs: dict[str, Pack]) -> None:
    one = trained(run_of(tmp_path / "a", workers=1), packs)
    assert same(one, trained(run_of(tmp_path / "b", workers=4), packs))
    assert not same(one, trained(run_of(tmp_path / "c", workers=1, seed=1), packs))


class Killed(BaseException):
    pass


def counts_as_pretrained(made: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on folds begin with this trunk's weights, as they would with a weight file's."""
    kept = [weight.numpy() for weight in made.trunk.weights]

    def loaded(*arguments: object, **keywords: object) -> Classifier:
        classifier = build(*arguments, **{**keywords, "load": False})
        for weight, value in zip(classifier.trunk.weights, kept, strict=True):
            weight.assign(value)
        return classifier

    monkeypatch.setattr(folds, "build", loaded)


@contextmanager
def killed_after(epochs: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Train inside of this: it ends when that many bundles are kept."""
    real, count = folds.write_state, 0

    def dies(path: Path, *arguments: object) -> None:
        nonlocal count
        real(path, *arguments)
        count += path.name == "bundle.h5"
        if count == epochs:
            raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(folds, "write_state", dies)
        yield


@pytest.mark.parametrize("after", [1, 2, 3, 4])
def test_a_killed_fold_ends_as_an_uninterrupted_one(
    tmp_path: Path, packs: dict[str, Pack], monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Killed after each epoch (the end of a stage and of training among them), with dropout, schedule and Adam's moments."""
    train = {"epochs": 2, "select": "best", "stages": [{}, {"freeze_until": "stage2", "learning_rate": 0.001}]}
    whole = trained(run_of(tmp_path / "whole", **train), packs)
    broken = run_of(tmp_path / "broken", **train)
    with killed_after(after, monkeypatch):
        trained(broken, packs)
    assert same(whole, trained(broken, packs))


def test_a_bundle_of_another_run_is_refused(
    tmp_path: Path, packs: dict[str, Pack], monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(folds, "write_predictions", dies)
    with pytest.raises(Killed):
        trained(run_of(tmp_path), packs)
    with pytest.raises(InputError, match="is of another run"):
        trained(run_of(tmp_path, seed=5), packs)


def test_a_driver_on_both_sides_is_refused(tmp_path: Path, packs: dict[str, Pack]) -> None:
    overlapping = Rows(np.arange(30), np.arange(30, COUNT))
    with pytest.raises(InputError, match="driver p3 is trained on and held out"):
        train_fold(run_of(tmp_path), 0, packs, overlapping, None, PredictSettings(), tmp_path)


def test_a_wrong_layer_name_in_a_late_stage_ends_before_the_first_epoch(tmp_path: Path, packs: dict[str, Pack]) -> None:
    run = run_of(tmp_path, stages=[{}, {"freeze_until": "stage9"}])
    with pytest.raises(InputError, match="stage9 is no layer or block"):
        trained(run, packs)
    assert not (run.fold(0) / "bundle.h5").exists()


def test_selecting_an_epoch_is_labelled(tmp_path: Path, packs: dict[str, Pack]) -> None:
    run = run_of(tmp_path, select="best")
    trained(run, packs)
    manifest = read_json(run.fold(0) / "manifest.json")
    assert manifest["selected_on"] == "held-out drivers"
    with (run.fold(0) / "history.csv").open() as file:
        best = min(float(row["held_out_loss"]) for row in csv.DictReader(file))
    assert manifest["log_loss"]["centre"] == pytest.approx(best, abs=1e-5)


def test_views_on_the_device_are_the_views_of_an_array(tmp_path: Path, packs: dict[str, Pack]) -> None:
    run = run_of(tmp_path)
    classifier = build(run.settings, CLASSES, (80.0,) * 3, None)
    images, rows = packs["train"].images.open(), np.array([5, 0, 40])
    found = Predictor(classifier, ["ten_crop"], SIZE, (32, 40), Columns(SWAP, "swap"))(images, rows)
    crops = cut_all(np.asarray(images[rows]), "ten_crop", (32, 40))
    each = np.stack([classifier.predict(np.ascontiguousarray(crop), verbose=0) for crop in crops])
    assert np.allclose(found["centre"], each[0], atol=1e-6)
    assert np.allclose(found["five_crop"], each[:5].mean(axis=0), atol=1e-6)
    swapped = np.concatenate([each[:5], each[5:][..., SWAP]])
    assert np.allclose(found["ten_crop"], swapped.mean(axis=0), atol=1e-6)
    kept = Predictor(classifier, ["ten_crop"], SIZE, (32, 40))(images, rows)
    assert np.allclose(kept["ten_crop"], each.mean(axis=0), atol=1e-6)
    assert "ten_crop_swap" not in kept  # without mirrored pairs nothing can be swapped


def batches(run: Run, packs: dict[str, Pack], epoch: int = 0) -> TrainingBatches:
    pack = packs["train"]
    inputs = AugmentedInputs(pack.images.open(), run.settings, run.policy, epoch)
    return TrainingBatches(inputs, ROWS.training, one_hot(pack.labels, CLASSES), run.settings, SWAP, epoch)


def test_an_epoch_sees_every_training_row_once(tmp_path: Path, packs: dict[str, Pack]) -> None:
    run = run_of(tmp_path, batch_size=7)
    epoch = batches(run, packs)
    assert len(epoch) == 5
    assert sorted(epoch.order) == list(ROWS.training)
    sizes = [len(epoch[i][0]) for i in range(len(epoch))]
    assert sizes == [7, 7, 7, 7, 4]
    assert not np.array_equal(epoch.order, batches(run, packs, 1).order)


@pytest.mark.parametrize("mirror", ["none", "keep", "swap"])
def test_labels_follow_mirrored_images(tmp_path: Path, packs: dict[str, Pack], mirror: str) -> None:
    run = run_of(tmp_path)
    augment = run.settings.augment.model_copy(update={"mirror": mirror, "policy": None})
    run = replace(run, settings=run.settings.model_copy(update={"augment": augment}), policy=[])
    for images, targets, _ in (batches(run, packs)[i] for i in range(4)):
        bright = images.mean(axis=3)
        left = bright[:, :, :20].sum(axis=(1, 2)) > bright[:, :, 20:].sum(axis=(1, 2))
        top = bright[:, :16].sum(axis=(1, 2)) > bright[:, 16:].sum(axis=(1, 2))
        quadrant = np.where(top, np.where(left, 0, 1), np.where(left, 2, 3))
        assert np.array_equal(targets.argmax(axis=1), quadrant) == (mirror != "keep")


def test_balanced_class_weights() -> None:
    targets = one_hot(np.array([0] * 6 + [1] * 2 + [3] * 4), 4)
    weights = class_weights(targets, "balanced")
    assert np.allclose(weights, [12 / 24, 12 / 8, 0, 12 / 16])
    assert np.allclose(class_weights(targets, "none"), 1)


def test_each_class_weighs_the_same_in_sum_where_labels_are_shares() -> None:
    targets = np.random.default_rng(0).dirichlet([0.1, 0.5, 1, 3], 50).astype(np.float32)
    assert np.allclose((targets * class_weights(targets, "balanced")).sum(axis=0), 50 / 4, rtol=1e-5)


def test_label_shares_of_mirrored_images_go_where_swap_says() -> None:
    """Class i becomes swap[i], also where going there and back are not the same."""
    targets, mirrored = np.array([[0.7, 0.2, 0.1]] * 2, np.float32), np.array([True, False])
    assert np.allclose(followed(targets, mirrored, "swap", [1, 2, 0]), [[0.1, 0.7, 0.2], [0.7, 0.2, 0.1]])
    assert np.array_equal(followed(targets, mirrored, "keep", [1, 2, 0]), targets)


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


def test_a_finished_folds_weights_predict_the_same(tmp_path: Path, packs: dict[str, Pack]) -> None:
    run = run_of(tmp_path)
    found = trained(run, packs)["five_crop"]
    classifier = build(run.settings, CLASSES, packs["train"].mean, None, load=False)
    load_state(run.fold(0) / "weights.h5", {"model": classifier.weights})
    again = Predictor(classifier, ["ten_crop"], SIZE, (32, 40), crops_at_once=40)(
        packs["test"].images.open(), np.arange(9)
    )
    assert np.array_equal(again["five_crop"], found)


def test_a_torn_bundle_is_refused_in_one_sentence(tmp_path: Path, packs: dict[str, Pack]) -> None:
    run = run_of(tmp_path)
    run.fold(0).mkdir(parents=True)
    (run.fold(0) / "bundle.h5").write_bytes(b"torn")
    with pytest.raises(InputError, match="not a whole state file"):
        trained(run, packs)


def test_a_diverged_training_says_so(tmp_path: Path, packs: dict[str, Pack]) -> None:
    with pytest.raises(InputError, match=r"the loss became .*; lower the learning rate"):
        trained(run_of(tmp_path, optimizer="sgd", learning_rate=10.0, weight_decay=1e30, epochs=3), packs)


@pytest.mark.parametrize("mix", ["mixup", "cutmix", "splice"])
def test_mixing_repeats_and_goes_on_after_a_kill(
    tmp_path: Path, packs: dict[str, Pack], monkeypatch: pytest.MonkeyPatch, mix: str
) -> None:
    def mixed(name: str, mix: str, **train: object) -> Run:
        run = run_of(tmp_path / name, epochs=2, **train)
        augment = run.settings.augment.model_copy(update={"mix": mix, "mirror": "swap"})
        return replace(run, settings=run.settings.model_copy(update={"augment": augment}))

    whole = trained(mixed("one", mix, workers=1), packs)
    broken = mixed("broken", mix, workers=3)
    with killed_after(1, monkeypatch):
        trained(broken, packs)
    assert same(whole, trained(broken, packs))
    assert not same(whole, trained(mixed("plain", "none"), packs))
