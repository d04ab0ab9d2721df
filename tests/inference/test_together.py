"""Several fold models over one pass: what they have in common is computed once, and each says what it says alone."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from support.packs import CLASSES, COUNT, SIZE, pack_of
from support.predicting import killed_at
from support.training import run_of

from driverwatch.config.loading import parse
from driverwatch.config.model import ModelSettings
from driverwatch.config.types import TtaSet
from driverwatch.data.pack import Pack
from driverwatch.inference import predict, predictions
from driverwatch.inference.predict import Predictor
from driverwatch.inference.predictions import prediction_path
from driverwatch.models.backend import write_state
from driverwatch.models.classifier import Classifier, build
from driverwatch.models.split_network import FoldEnsemble, shared_prefix
from driverwatch.run import Run

pytestmark = pytest.mark.keras
TTA: list[TtaSet] = ["five_crop"]


def classifiers(settings: ModelSettings, common: int, count: int = 3) -> list[Classifier]:
    """Networks whose first `common` layers hold the same weights, and whose others and heads do not."""
    made = []
    for number in range(count):
        keras.utils.set_random_seed(number)
        made.append(build(settings, CLASSES, (80.0,) * 3, None))
        for layer, like in list(zip(made[-1].backbone.layers, made[0].backbone.layers, strict=True))[:common]:
            layer.set_weights(like.get_weights())
    return made


@pytest.mark.parametrize(
    ("common", "halved", "regions"),
    [
        (0, "not", ["whole"]),
        (4, "in the backbone", ["whole", "head"]),
        (1000, "at the head", ["whole"]),
        pytest.param(0, "not", ["whole", "head"], marks=pytest.mark.slow),
        pytest.param(4, "in the backbone", ["whole"], marks=pytest.mark.slow),
        pytest.param(1000, "at the head", ["whole", "head"], marks=pytest.mark.slow),
    ],
)
def test_together_they_say_what_each_says_alone(common: int, halved: str, regions: list[str], tmp_path: Path) -> None:
    content = {
        "backbone": "tiny", "weights": "none", "input": {"pack": "36x44", "size": "32x40", "regions": regions},
        "head": {"dense": [5]},
    }  # fmt: skip
    settings = parse(ModelSettings, content, "test")
    several = classifiers(settings, common)
    together, layers = FoldEnsemble(several), several[0].backbone.layers
    first = next(i for i, layer in enumerate(layers) if layer.weights)  # those before it hold nothing that could differ
    assert shared_prefix(several) == max(
        first, next((i for i in range(common, len(layers)) if layers[i].weights), len(layers))
    )
    cut = together.cut
    assert halved == ("not" if cut is None else "in the backbone" if cut.layer else "at the head")
    images = np.random.default_rng(0).integers(0, 256, (7, len(regions) * 36, 44, 3), np.uint8)
    found = Predictor(together, TTA, SIZE, (32, 40), crops_at_once=15)(images, np.arange(7))["five_crop"]
    each = [Predictor(one, TTA, SIZE, (32, 40), crops_at_once=15)(images, np.arange(7)) for one in several]
    alone = np.stack([said["five_crop"] for said in each], axis=1)
    assert found.shape == (7, 3, CLASSES)
    assert np.ptp(alone, axis=1).max() > 1e-3
    assert np.allclose(found, alone, rtol=0, atol=1e-6)


Predicting = tuple[list[Classifier], list[Predictor]]


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pack]:
    """With enough test images for three shards."""
    folder = tmp_path_factory.mktemp("packs")
    return {"train": pack_of(folder, COUNT, "train"), "test": pack_of(folder, 17, "test")}


@pytest.fixture(scope="module")
def predicting(tmp_path_factory: pytest.TempPathFactory) -> Predicting:
    """Two folds' classifiers, and the predictors of both together and of each alone, compiled once."""
    run = run_of(tmp_path_factory.mktemp("predicting"))
    made = classifiers(run.settings, 4, 2)
    return made, [predict.whole_predictor(each, run, TTA, 20) for each in (FoldEnsemble(made), *made)]


def folds_of(folder: Path, predicting: Predicting) -> Run:
    """A run's two folds, of which weights are there and nothing is predicted."""
    run = run_of(folder)
    for number, one in enumerate(predicting[0]):
        run.fold(number).mkdir(parents=True)
        write_state(run.fold(number) / "weights.h5", {"model": one.weights}, {})
    return run


def predicted(run: Run, predicting: Predicting, packs: dict[str, Pack]) -> dict[str, bytes]:
    """What is in the folds' folders once all is predicted."""
    together, *alone = predicting[1]
    predict.predict_together(together, run, [0, 1], packs["test"])
    for number, one in enumerate(alone):
        predict.write_predictions(one, run, number, packs, np.arange(8))
    found = [path for number in (0, 1) for path in sorted(run.fold(number).glob("*.h5")) if path.name != "weights.h5"]
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in found}


def test_test_images_pass_once_for_all_folds(
    predicting: Predicting, packs: dict[str, Pack], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[tuple[str, int]] = []
    real = Predictor.__call__

    def counted(self: Predictor, source: Any, rows: np.ndarray, label: str = "") -> Any:
        passes.append((type(self.model.classifier).__name__, len(rows)))
        return real(self, source, rows, label)

    monkeypatch.setattr(Predictor, "__call__", counted)
    monkeypatch.setattr(predict, "SHARD_IMAGES", 8)
    run = folds_of(tmp_path / "together", predicting)
    predicted(run, predicting, packs)
    assert passes == [("FoldEnsemble", 8), ("FoldEnsemble", 8), ("FoldEnsemble", 1), *[("Classifier", 8)] * 2]
    passes.clear()
    predicted(run, predicting, packs)
    assert passes == []

    alone = folds_of(tmp_path / "alone", predicting)
    for number, one in enumerate(predicting[1][1:]):
        predict.write_predictions(one, alone, number, packs, np.arange(8))
        for kind in ("validation", "test"):
            rows = [
                predictions.read(prediction_path(place.fold(number), kind, "five_crop"), {}).probabilities
                for place in (run, alone)
            ]
            assert np.allclose(*rows, rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def undisturbed(
    predicting: Predicting, packs: dict[str, Pack], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(predict, "SHARD_IMAGES", 8)
        return predicted(folds_of(tmp_path_factory.mktemp("whole"), predicting), predicting, packs)


@pytest.mark.parametrize("write", [1, 4, 7, 12, 13, 18])
def test_killed_on_the_way_it_ends_as_undisturbed(
    predicting: Predicting,
    undisturbed: dict[str, bytes],
    packs: dict[str, Pack],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write: int,
) -> None:
    monkeypatch.setattr(predict, "SHARD_IMAGES", 8)
    run = folds_of(tmp_path, predicting)
    with killed_at(write, monkeypatch):
        predicted(run, predicting, packs)
    assert predicted(run, predicting, packs) == undisturbed
    assert not list(run.folder.glob("fold*/.shard-*"))
