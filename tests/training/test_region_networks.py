"""Networks that look at regions: one backbone, a head for each, cached, resumed, explained; with one region as before."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from support.packs import CLASSES, SIZE
from support.project import SMALL, Verb
from support.training import ROWS, apart, changed, counts_as_pretrained, history, run_of, trained, whole_of

from driverwatch.config.loading import parse
from driverwatch.config.model import ModelSettings
from driverwatch.data.pack import ImageBlock, Pack
from driverwatch.data.regions import split
from driverwatch.data.tta import cut, cut_all, tta_set
from driverwatch.inference.class_activation import heat, of_classifier
from driverwatch.inference.feature_cache import FeatureCache, tta_pass
from driverwatch.inference.predict import Predictor
from driverwatch.models.classifier import Classifier, build
from driverwatch.models.split_network import FrozenPart, GridPooling, SplitPoint, TrainedPart
from driverwatch.run import Run
from driverwatch.training import fold as folds
from driverwatch.training.pseudo_labels import FoldIndices, PseudoLabels

pytestmark = pytest.mark.keras
REGIONAL = ["--set", f"{SMALL} input.regions=[whole,wheel] augment.hflip=swap_left_right predict.tta=ten_crop"]
MEAN = (80.0,) * 3


def settings_of(regions: list[str], head: dict | None = None, **content: object) -> ModelSettings:
    wanted = {"backbone": "tiny", "weights": "none", "input": {"pack": "36x44", "size": "32x40", "regions": regions}}
    return parse(ModelSettings, {**wanted, "head": head or {}, **content}, "test")


def classifier_of(regions: int, head: dict | None = None, **content: object) -> Classifier:
    keras.utils.set_random_seed(7)
    return build(settings_of([f"r{i}" for i in range(regions)], head, **content), CLASSES, MEAN, None)


def noise(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)


def logits(classifier: Classifier, images: np.ndarray) -> np.ndarray:
    """Log-probabilities less their mean: what the heads add up to, whatever constant the softmax takes."""
    found = np.log(np.asarray(classifier(images, training=False), np.float64))
    return found - found.mean(axis=1, keepdims=True)


@pytest.mark.parametrize("pooling", ["average", "flatten"])
def test_each_head_sees_its_own_region(pooling: str) -> None:
    """Another picture in one region moves the logits by that region's kernel times what the backbone says of it, no more."""
    classifier = classifier_of(3, {"pooling": pooling})
    images = noise(2, 96, 40)
    kernels = np.split(np.asarray(classifier.top.kernel, np.float64), 3)

    def features(tiles: np.ndarray) -> np.ndarray:
        return np.asarray(classifier.pool(classifier.backbone(classifier.scaling(tiles), training=False)), np.float64)

    for region in range(3):
        changed, rows = images.copy(), slice(32 * region, 32 * (region + 1))
        changed[:, rows] = 0
        moved = (features(changed[:, rows]) - features(images[:, rows])) @ kernels[region]
        moved -= moved.mean(axis=1, keepdims=True)
        assert np.abs(moved).max() > 1e-3
        assert np.allclose(logits(classifier, changed) - logits(classifier, images), moved, atol=1e-4)


def test_the_backbone_is_shared_and_the_heads_are_not() -> None:
    one, three = classifier_of(1), classifier_of(3)
    assert one.backbone.count_params() == three.backbone.count_params()
    assert tuple(three.top.kernel.shape) == (3 * one.top.kernel.shape[0], CLASSES)


def test_one_region_is_computed_as_before() -> None:
    classifier, images = classifier_of(1), noise(3, 32, 40)
    features = classifier.pool(classifier.backbone(classifier.scaling(images), training=False))
    assert np.array_equal(classifier(images, training=False), classifier.top(features))
    packed = noise(2, *SIZE, seed=1)
    found = Predictor(classifier, ["five_crop"], SIZE, (32, 40))(packed, np.array([1, 0]))["five_crop"]
    each = [np.asarray(classifier(crops, training=False)) for crops in cut_all(packed, "five_crop", (32, 40))]
    assert np.allclose(found, np.mean(each, axis=0)[::-1], atol=1e-6)


def test_views_on_the_device_are_those_of_an_array() -> None:
    classifier, mosaics = classifier_of(2), noise(3, 2 * SIZE[0], SIZE[1])
    predictor = Predictor(classifier, ["ten_crop", "multi_scale"], SIZE, (32, 40))
    found = predictor(mosaics, np.array([2, 0]))
    for name, close in (("ten_crop", 1e-6), ("multi_scale", 1e-4)):  # resized pixels may be 1 apart
        tta = tta_set(name, SIZE, (32, 40))
        each = [np.asarray(classifier(cut(mosaics, view, (32, 40), 2), training=False)) for view in tta]
        assert np.allclose(found[name], np.mean(each, axis=0)[[2, 0]], atol=close)


@pytest.mark.parametrize("layer", [None, "stage2_relu"])
def test_the_halves_are_the_whole(layer: str | None) -> None:
    classifier, images = classifier_of(3), noise(2, 96, 40)
    frozen, tail = FrozenPart(classifier, SplitPoint(layer, 0)), TrainedPart(classifier, SplitPoint(layer, 0))
    between = frozen.predict_on_batch(images)
    assert between.shape == (2, *frozen.features)
    assert between.shape[1] == 3 * (64 if layer is None else 8)
    assert np.allclose(tail.predict_on_batch(between), classifier.predict_on_batch(images), atol=1e-6)


def test_an_auxiliary_classifier_is_asked_about_each_region() -> None:
    content = {"backbone": "googlenet", "weights": "none"}
    wanted = {"pack": "64x64", "size": "64x64", "regions": ["a", "b"]}
    classifier = build(parse(ModelSettings, {**content, "input": wanted}, "test"), CLASSES, MEAN, None)
    images, labels = noise(3, 128, 64), np.eye(CLASSES, dtype=np.float32)[[0, 2, 1]]
    said = np.asarray(classifier(images, training=True))
    assert said.shape == (3, 1 + 2 * 2, CLASSES)
    assert np.allclose(said.sum(axis=2), 1, atol=1e-5)
    classifier.compile("sgd", keras.losses.CategoricalCrossentropy())
    losses = -np.log(said[np.arange(3), :, [0, 2, 1]]).mean(axis=0)
    assert float(classifier.compute_loss(images, labels, said)) == pytest.approx(
        losses[0] + 0.3 * (losses[1:3].mean() + losses[3:].mean()), rel=1e-5
    )


def pack_of(folder: Path, count: int, kind: str) -> Pack:
    """Two regions an image: one says whether the class is 0, 1 or 2, 3, the other which of the two; neither alone says all."""
    random, labels = np.random.default_rng(len(kind)), np.arange(count) % CLASSES
    images = random.integers(0, 90, (count, 2 * SIZE[0], SIZE[1], 3), np.uint8)
    for image, label in zip(images, labels, strict=True):
        for region, bit in enumerate((label // 2, label % 2)):
            left = 3 + 22 * bit
            image[36 * region + 8 : 36 * region + 26, left : left + 16] += 150
    path = folder / f"{kind}.h5"
    with h5py.File(path, "w") as file:
        offset = file.create_dataset("images", data=images).id.get_offset()
    names = np.array([f"{kind}{i}.jpg" for i in range(count)])
    drivers = np.array([f"p{i // 8}" for i in range(count)])
    block = ImageBlock(str(path), offset, images.shape)
    return Pack(block, names, labels, drivers, MEAN, (60.0,) * 3, kind, "folds")


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pack]:
    folder = tmp_path_factory.mktemp("mosaics")
    return {"train": pack_of(folder, 48, "train"), "test": pack_of(folder, 9, "test")}


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """Runs of two regions on a backbone that counts as pretrained: the same random weights for each."""
    made = classifier_of(2, {"pooling": "flatten"})
    counts_as_pretrained(made, monkeypatch)

    def run(name: str, **train: object) -> Run:
        training = {"optimizer": "adam", "learning_rate": 0.003, "epochs": 2, "batch_size": 8, **train}
        settings = settings_of(["up", "down"], {"pooling": "flatten"}, weights="imagenet", train=training)
        folder = tmp_path / name / "run"
        boxes = {"up": [0.0, 0.0, 0.5, 1.0], "down": [0.5, 0.0, 1.0, 1.0]}
        return replace(run_of(tmp_path / name), settings=settings, folder=folder, regions=boxes)

    return run


def test_both_regions_together_say_what_neither_says(runs: Callable[..., Run], packs: dict[str, Pack]) -> None:
    run = runs("both", stages=[{"freeze_until": "head", "fit": "linear_probe", "l2": [0.03]}])
    found = trained(run, packs, tta="five_crop")["validation-five_crop"]
    labels = packs["train"].labels[32:]
    assert (found.argmax(axis=1) == labels).mean() > 0.9
    classifier = build(run.settings, CLASSES, MEAN, None, load=False)
    folds.load_state(run.fold(0) / "weights.h5", {"model": classifier.weights})
    whole = Predictor(classifier, ["five_crop"], SIZE, (32, 40))(packs["train"].pixels, np.arange(32, 48))
    assert np.allclose(whole["five_crop"], found, atol=1e-5)  # the head of cached features is the classifier's
    blind = np.array(packs["train"].pixels)
    blind[:, SIZE[0] :] = 45
    lost = Predictor(classifier, ["centre"], SIZE, (32, 40))(blind, np.arange(32, 48))["centre"]
    assert (lost.argmax(axis=1) // 2 == labels // 2).mean() > 0.9
    assert (lost.argmax(axis=1) == labels).mean() < 0.8


@pytest.mark.parametrize("until", [pytest.param(until, marks=pytest.mark.slow) for until in ("head", "stage2")])
def test_cached_and_uncached_training_agree(runs: Callable[..., Run], packs: dict[str, Pack], until: str) -> None:
    stages = [{"freeze_until": until}]
    plain = trained(runs("plain", stages=stages), packs)
    cached = trained(runs("cached", stages=stages, augmentation_passes=2, cache_dtype="float32"), packs)
    assert apart(plain, cached) < 2e-4


@pytest.mark.parametrize("cached", [pytest.param(passes, marks=pytest.mark.slow) for passes in (None, 2)])
def test_pseudo_labels_join_two_packs_of_mosaics(
    runs: Callable[..., Run], packs: dict[str, Pack], cached: int | None
) -> None:
    """A student of regions is trained on taken test mosaics; confident right labels of all test images help it."""
    labels = packs["test"].labels
    rows = len(packs["train"].names) + np.arange(len(labels))
    fold_labels = PseudoLabels(rows, np.eye(CLASSES, dtype=np.float32)[labels], 1.0, len(labels), len(labels))
    stages, pseudo_labels = [{"freeze_until": "stage2"}], {"runs": ["teacher"], "weight": 2.0}
    student = runs(
        f"student{cached}", stages=stages, augmentation_passes=cached, cache_dtype="float32", pseudo=pseudo_labels
    )
    alone = runs(f"alone{cached}", stages=stages, augmentation_passes=cached, cache_dtype="float32")
    found = trained(student, packs, rows=FoldIndices(ROWS.training, ROWS.validation, fold_labels))
    plain = trained(alone, packs)
    assert found.keys() == plain.keys()
    assert {row["pseudo_images"] for row in history(student)} == {"9"}
    right, before = (made["test-centre"][np.arange(9), labels].mean() for made in (found, plain))
    assert right > before


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mixup", "cutmix", "same_class_halves"])
def test_mixed_mosaics_train(runs: Callable[..., Run], packs: dict[str, Pack], kind: str) -> None:
    found = trained(changed(runs(kind), augment={"mix": kind, "mix_prob": 1.0}), packs)
    assert np.isfinite(found["validation-centre"]).all()
    assert apart(trained(runs("plain"), packs), found) > 1e-4


def test_features_of_regions_lie_side_by_side(tmp_path: Path, packs: dict[str, Pack]) -> None:
    """As neighbours are looked for in them: the grid's places of each region, region after region."""
    classifier, one = classifier_of(2), classifier_of(1)
    one.backbone.set_weights(classifier.backbone.get_weights())
    halves = [FrozenPart(made, SplitPoint(None, 0), GridPooling(1, 2, name="grid")) for made in (classifier, one)]
    view = tta_set("centre", SIZE, (32, 40))[0]
    cache = FeatureCache(tmp_path / "feature_caches", halves[0], "float32")
    found = cache.outputs(packs["test"], tta_pass(view, (32, 40), 2), "features").array
    tiles = cut(split(packs["test"].pixels, 2), view, (32, 40))
    assert np.allclose(found, halves[1].predict_on_batch(tiles).reshape(9, -1), atol=1e-5)
    assert found.shape == (9, *halves[0].features)


@pytest.mark.slow
def test_a_killed_fold_ends_as_an_uninterrupted_one(
    runs: Callable[..., Run], packs: dict[str, Pack], tmp_path: Path
) -> None:
    stages = [{"freeze_until": "head", "fit": "linear_probe"}, {"freeze_until": "stage2", "normalization": "train"}]
    whole = whole_of(runs("whole", stages=stages, augmentation_passes=1), packs)
    assert whole.ends_alike(2, tmp_path / "killed")


def test_boxes_are_part_of_a_run_and_the_whole_frame_is_none(runs: Callable[..., Run]) -> None:
    run = runs("run")
    moved = replace(run, regions={**run.regions, "up": [0.0, 0.0, 0.4, 1.0]})
    assert run.identity != moved.identity
    assert run.claim["regions"] == run.regions
    frame = replace(run, regions={"whole": [0.0, 0.0, 1.0, 1.0]})
    assert frame.identity == replace(run, regions={}).identity
    assert "regions" not in frame.claim


@pytest.mark.parametrize("head", [{}, {"pooling": "flatten"}, {"dense": [8]}])
def test_class_activation_maps_of_regions(head: dict) -> None:
    """Class activations add up to the logits over all regions; occlusion is hottest in the region that decides."""
    classifier = classifier_of(2, head)
    image = noise(1, 64, 40)[0]
    network = of_classifier(classifier)
    if "dense" not in head:
        summed = np.mean if head == {} else np.sum
        found = [split(heat(network, image, label)[0][None], 2) for label in range(CLASSES)]
        assert found[0].shape == (2, 2, 2)
        added = np.array([sum(summed(tile) for tile in tiles) for tiles in found])
        assert np.allclose(added - added.mean(), logits(classifier, image[None])[0], atol=1e-4)
        return
    block = classifier.hidden[0].layers[0]
    kernel = np.array(block.kernel)
    kernel[: len(kernel) // 2] = 0  # deaf to the first region
    block.kernel.assign(kernel)
    found, how = heat(network, image, 1)
    assert how == "occlusion"
    first, second = split(found[None], 2)
    assert first.shape == (32, 40)
    assert np.abs(first).max() < 1e-6 < np.abs(second).max()


@pytest.fixture
def regional(verb: Verb, data: Path, project: Path) -> list[str | Path]:
    """Options of a data set with regions, two folds of it, and a pack of the frame and the wheel."""
    drawn = project / "configs" / "datasets" / "demo.yaml"
    drawn.write_text(drawn.read_text().replace("folds: 3", "folds: 2"))
    place: list[str | Path] = ["--dataset", "demo", "--data", data]
    assert verb("folds", *place).returncode == 0
    missing = verb("train", "tiny", *place, *REGIONAL)
    assert missing.returncode == 2
    assert "no pack; run make pack SIZE=40x52-whole+wheel DATASET=demo first" in missing.stderr
    made = verb("pack", *place, "--size", "40x52-whole+wheel")
    assert made.returncode == 0, made.stderr
    return place


def moved(project: Path) -> None:
    """Give the wheel another box than it was packed with."""
    drawn = project / "configs" / "datasets" / "demo.yaml"
    drawn.write_text(drawn.read_text().replace("[0.3, 0.4, 0.9, 1]", "[0.35, 0.4, 0.9, 1]"))


@pytest.mark.line
def test_packs_of_regions_are_held_against_the_data_sets_boxes(
    verb: Verb, regional: list[str | Path], project: Path
) -> None:
    """A moved box and an unknown name are one sentence each."""
    assert "up to date" in verb("pack", "--model", "tiny", *regional, *REGIONAL).stdout
    wrong = verb("pack", *regional, "--size", "40x52-whole+weel")
    assert wrong.returncode == 2
    assert re.search(r"weel is no region of this data set .* did you mean wheel", wrong.stderr)
    assert verb("pack", *regional, "--size", "40x52-wheel+wheel").returncode == 2
    moved(project)
    packed = verb("pack", *regional, "--size", "40x52-whole+wheel")
    assert packed.returncode == 2
    assert "regions.wheel.0: 0.3 -> 0.35" in packed.stderr


@pytest.mark.line
@pytest.mark.slow
def test_regions_through_the_command_line(verb: Verb, regional: list[str | Path], data: Path, project: Path) -> None:
    """Trained, predicted, shown."""

    def good(*arguments: str | Path) -> str:
        made = verb(*arguments)
        assert made.returncode == 0, made.stderr
        return made.stdout

    assert "2 of 2 folds finished" in good("train", "tiny", *regional, *REGIONAL)
    good("ensemble", *regional, "--name", "regions")
    (project / "maps").mkdir()
    image = sorted((data / "imgs" / "test").glob("*.jpg"))[0]
    shown = good("classify", "--run", "tiny", "--dataset", "demo", "--cam", "maps", image)
    assert "by class activation" in shown
    assert (project / "maps" / f"{image.stem}.png").is_file()
    moved(project)
    refused = verb("predict", "tiny", "--dataset", "demo")
    assert refused.returncode == 2
    assert "regions.wheel.0: 0.3 -> 0.35" in refused.stderr
