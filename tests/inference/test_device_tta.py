"""View sets on the device: the crops of the host, each computed once, and the same files after any kill."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from support.packs import CLASSES, SIZE, SWAP
from support.predicting import killed_at
from support.training import run_of

from driverwatch.config.types import TTA_SETS, TtaSet
from driverwatch.data import tta as host
from driverwatch.data.pack import Pack
from driverwatch.data.regions import join
from driverwatch.data.tta import Columns, View, cut, cut_all, unique
from driverwatch.errors import InputError
from driverwatch.inference import predict
from driverwatch.inference import predict as outcome
from driverwatch.inference.feature_cache import tta_pass
from driverwatch.inference.predict import Predictor, TtaViews
from driverwatch.io.atomic import write_text
from driverwatch.models.classifier import Classifier, build
from driverwatch.run import Run

pytestmark = pytest.mark.keras
INPUT = (32, 40)
IMAGES = np.random.default_rng(0).integers(0, 256, (3, *SIZE, 3), np.uint8)


class Pixels:
    """Stands for a classifier of so many regions: what it is shown is what it says."""

    def __init__(self, regions: int = 1) -> None:
        self.regions = regions

    def __call__(self, crops: Any, training: bool) -> Any:
        assert keras.backend.standardize_dtype(crops.dtype) == "uint8"
        return ops.reshape(crops, (-1, self.regions * int(np.prod(INPUT)) * 3))


@pytest.mark.parametrize("regions", [1, 3])
def test_the_device_cuts_what_the_host_cuts(regions: int) -> None:
    """Of mosaics each region for itself: three images are one of three regions."""
    tta = unique(TTA_SETS, SIZE, INPUT)
    tta += [view._replace(flipped=True) for view in tta if view.size != INPUT]
    mosaics = join(IMAGES, regions)
    shown: Any = TtaViews(Pixels(regions), tta, INPUT)(mosaics)  # type: ignore[arg-type]
    found = ops.convert_to_numpy(shown).reshape(3 // regions, len(tta), regions * INPUT[0], INPUT[1], 3)
    for number, view in enumerate(tta):
        apart = np.abs(found[:, number].astype(int) - cut(mosaics, view, INPUT, regions)).max()
        assert apart <= (view.size != INPUT)  # where nothing is resized the pixels are equal


@pytest.mark.parametrize("to", [(20, 30), (50, 61), (20, 61)])
def test_resizing_is_keras_own(to: tuple[int, int]) -> None:
    """Its bilinear one, with `antialias`: TensorFlow's, JAX's or PyTorch's, whichever is installed."""
    mine = ops.convert_to_numpy(predict.resized(ops.convert_to_tensor(IMAGES), to)).astype(int)
    theirs = ops.image.resize(
        IMAGES.astype("float32"), to, interpolation="bilinear", antialias=True, data_format="channels_last"
    )
    assert np.abs(mine - ops.convert_to_numpy(theirs)).max() <= 0.51
    assert np.abs(mine - host.resized(IMAGES, to)).max() <= 1


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="XLA by TensorFlow's name")
def test_resizing_compiles_under_xla() -> None:
    """Keras compiles so on a GPU; TensorFlow's own resizing with antialias has no kernel there."""
    import tensorflow as tf

    compiled = tf.function(lambda images: predict.resized(images, INPUT), jit_compile=True)
    assert np.abs(compiled(IMAGES).numpy().astype(int) - host.resized(IMAGES, INPUT)).max() <= 1


def fold_of(folder: Path, hflip: str = "none") -> tuple[Run, Classifier]:
    """A run, and a classifier that nobody trained: the same one every time."""
    run = run_of(folder)
    augment = run.settings.augment.model_copy(update={"hflip": hflip})
    keras.utils.set_random_seed(0)
    write_text(run.fold(0) / "weights.h5", "its checksum is all that is asked for")
    run = replace(run, settings=run.settings.model_copy(update={"augment": augment}))
    return run, build(run.settings, CLASSES, (80.0,) * 3, None)


def test_one_pass_gives_every_set_that_its_views_make(tmp_path: Path, packs: dict[str, Pack]) -> None:
    _, classifier = fold_of(tmp_path)
    images, rows = packs["train"].images.open(), np.array([5, 0, 40])
    asked: list[TtaSet] = ["ten_crop", "shifts", "multi_scale"]
    predictor = Predictor(classifier, asked, SIZE, INPUT, Columns(SWAP, "keep_labels"))
    assert len(predictor.unique) == 1 + 4 + 4 + 5 + 2  # each view once: 9 shifts, their five flipped, two other scales
    found = predictor(images, rows)
    assert list(found) == list(TTA_SETS)
    for name, made in found.items():
        crops = cut_all(np.asarray(images[rows]), name, INPUT)
        each = np.stack([np.asarray(classifier(crop, training=False)) for crop in crops])
        if name == "ten_crop_swap":
            each[5:] = each[5:][..., SWAP]
        assert np.allclose(made, each.mean(axis=0), atol=1e-4 if name == "multi_scale" else 1e-6)
        assert made.sum(axis=1) == pytest.approx(1)
    assert np.array_equal(found["ten_crop"], found["ten_crop_keep"])
    assert np.abs(found["ten_crop"] - found["ten_crop_swap"]).max() > 1e-3
    swapped = Predictor(classifier, asked, SIZE, INPUT, Columns(SWAP, "swap_left_right"))(images, rows)
    assert np.array_equal(swapped["ten_crop"], found["ten_crop_swap"])
    assert np.array_equal(swapped["ten_crop_keep"], found["ten_crop_keep"])
    none = predictor(images, rows[:0])
    assert {made.shape for made in none.values()} == {(0, CLASSES)}


def test_a_set_that_cannot_be_had_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    _, classifier = fold_of(tmp_path)
    with pytest.raises(InputError, match="names no left_right_pairs"):
        Predictor(classifier, ["ten_crop_swap"], SIZE, INPUT, Columns([0, 1, 2, 3], "keep_labels"))


def predicted(predictor: Predictor, run: Run, packs: dict[str, Pack]) -> dict[str, bytes]:
    """What is in the fold's folder once it is predicted."""
    outcome.write_predictions(predictor, run, 0, packs, np.arange(32, 48))
    return {path.name: path.read_bytes() for path in sorted(run.fold(0).glob("*.h5")) if path.name != "weights.h5"}


Predicting = dict[tuple[TtaSet, ...], Predictor]


@pytest.fixture(scope="module")
def predicting(tmp_path_factory: pytest.TempPathFactory) -> Predicting:
    """One classifier's predictors by what they are asked for, compiled once; two say the same in another order."""
    run, classifier = fold_of(tmp_path_factory.mktemp("predicting"), "swap_left_right")
    asked: list[tuple[TtaSet, ...]] = [("ten_crop", "shifts"), ("shifts", "ten_crop"), ("five_crop",), ("shifts",)]
    return {tta: outcome.whole_predictor(classifier, run, tta, 40) for tta in asked}


@pytest.fixture(scope="module")
def undisturbed(
    predicting: Predicting, packs: dict[str, Pack], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(outcome, "SHARD_IMAGES", 5)
        run, _ = fold_of(tmp_path_factory.mktemp("whole"), "swap_left_right")
        return predicted(predicting["ten_crop", "shifts"], run, packs)


@pytest.mark.parametrize(
    "write", [1, 9, 10, 14, 20, 24, 30]
)  # in the first shard, later ones, whole files, test images
def test_a_killed_prediction_ends_as_an_uninterrupted_one(
    predicting: Predicting,
    undisturbed: dict[str, bytes],
    tmp_path: Path,
    packs: dict[str, Pack],
    monkeypatch: pytest.MonkeyPatch,
    write: int,
) -> None:
    monkeypatch.setattr(outcome, "SHARD_IMAGES", 5)
    assert len(undisturbed) == 2 * 6
    run, _ = fold_of(tmp_path, "swap_left_right")
    with killed_at(write, monkeypatch):
        predicted(predicting["ten_crop", "shifts"], run, packs)
    assert predicted(predicting["shifts", "ten_crop"], run, packs) == undisturbed
    assert not list(run.fold(0).glob(".shard-*"))


def test_what_another_pass_left_is_not_taken(
    predicting: Predicting, tmp_path: Path, packs: dict[str, Pack], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed under five crops, asked for shifts: the shards of five crops and of centre are of other batches."""
    monkeypatch.setattr(outcome, "SHARD_IMAGES", 5)
    whole = predicted(predicting["shifts",], fold_of(tmp_path / "whole", "swap_left_right")[0], packs)
    run, _ = fold_of(tmp_path / "invalid", "swap_left_right")
    with killed_at(3, monkeypatch):
        predicted(predicting["five_crop",], run, packs)
    assert predicted(predicting["shifts",], run, packs) == whole


@pytest.mark.parametrize(
    ("hflip", "asked"), [("none", "ten_crop_swap"), ("none", "shifts"), ("keep_labels", "ten_crop")]
)
def test_flipped_views_of_a_network_that_never_saw_one_are_reported(
    tmp_path: Path, packs: dict[str, Pack], capsys: pytest.CaptureFixture[str], hflip: str, asked: TtaSet
) -> None:
    run, classifier = fold_of(tmp_path, hflip)
    predicted(outcome.whole_predictor(classifier, run, [asked], 40), run, packs)
    assert ("flipped views of ten_crop_swap mislead" in capsys.readouterr().out) == (asked == "ten_crop_swap")


def test_caches_of_crops_keep_their_names() -> None:
    """A crop that is not resized is told from others by what told it before views had a size."""
    assert tta_pass(View(2, 3, False, *INPUT), INPUT).identity == [2, 3, False, 32, 40]
    seen: list[Any] = [tta_pass(view, INPUT).identity for view in unique(TTA_SETS, SIZE, INPUT)]
    assert len({str(identity) for identity in seen}) == len(seen)
    resized: Callable[..., Any] = tta_pass(View(0, 0, False, *SIZE), INPUT).cutting(IMAGES)
    assert np.array_equal(resized(np.array([1]))[0][0], cut_all(IMAGES, "multi_scale", INPUT)[1, 1])
