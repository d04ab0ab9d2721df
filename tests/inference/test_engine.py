"""The prediction engine: OpenVINO's answers are Keras' own, or Keras computes; files say which, and never hold both."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.packs import CLASSES, COUNT, pack_of
from support.training import run_of

from driverwatch.config.types import EngineName
from driverwatch.data.pack import Pack
from driverwatch.data.tta import View
from driverwatch.errors import InputError
from driverwatch.inference import class_activation, predict, predictions
from driverwatch.inference import engine as engines
from driverwatch.inference.engine import Engine
from driverwatch.inference.feature_cache import FeatureCache, tta_pass
from driverwatch.inference.predictions import prediction_path
from driverwatch.models.backend import write_state
from driverwatch.models.classifier import Classifier, build
from driverwatch.models.split_network import FoldEnsemble, FrozenPart, SplitPoint
from driverwatch.run import Run

pytestmark = pytest.mark.keras
needs_openvino = pytest.mark.skipif(not importlib.util.find_spec("openvino"), reason="make setup EXTRAS=openvino")


def network(folder: Path) -> Classifier:
    return build(run_of(folder).settings, CLASSES, (80.0,) * 3, None)


def images(count: int = 4, size: tuple[int, int] = (32, 40)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *size, 3), np.uint8)


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pack]:
    folder = tmp_path_factory.mktemp("packs")
    return {"train": pack_of(folder, COUNT, "train"), "test": pack_of(folder, 9, "test")}


def folds_of(folder: Path, several: list[Classifier]) -> Run:
    """A run whose folds have these weights, and no predictions."""
    run = run_of(folder)
    for number, one in enumerate(several):
        run.fold(number).mkdir(parents=True)
        write_state(run.fold(number) / "weights.h5", {"model": one.weights}, {})
    return run


def predicted(run: Run, several: list[Classifier], packs: dict[str, Pack], engine: EngineName) -> dict[str, Any]:
    """Ten-crop of the test images by all folds together, and of the first fold's validation drivers, by file."""
    asked: Any = (run, ["ten_crop"], 30, engine)
    predict.predict_together(predict.whole_predictor(FoldEnsemble(several), *asked), run, [0, 1], packs["test"])
    found = {}
    for number, one in enumerate(several):
        predict.write_predictions(predict.whole_predictor(one, *asked), run, number, packs, np.arange(8))
        for kind in ("validation", "test"):
            found[f"{kind}{number}"] = predictions.read(prediction_path(run.fold(number), kind, "ten_crop"), {})
    return found


@needs_openvino
@pytest.mark.parametrize(("precision", "tried"), [("float32", True), ("mixed_bfloat16", False)])
def test_a_network_in_bfloat16_stays_with_keras_unless_openvino_is_asked_for(precision: str, tried: bool) -> None:
    import keras

    layers = [keras.layers.Conv2D(2, 3, dtype=precision), keras.layers.Dense(3, dtype="float32")]
    model = keras.Sequential([keras.Input((8, 8, 3)), *layers])
    assert Engine(model, 4, "auto", engines.PAYS_FROM_PASSES).converts is tried
    assert Engine(model, 4, "openvino").converts


@pytest.mark.slow
@needs_openvino
def test_openvino_predicts_what_keras_predicts(tmp_path: Path, packs: dict[str, Pack]) -> None:
    several = [network(tmp_path) for _ in range(2)]
    found, wanted = (
        predicted(folds_of(tmp_path / engine, several), several, packs, engine)  # type: ignore[arg-type]
        for engine in ("openvino", "keras")
    )
    for file, made in found.items():
        assert np.abs(made.probabilities - wanted[file].probabilities).max() < 1e-5, file
        assert (made.probabilities.argmax(1) == wanted[file].probabilities.argmax(1)).all()
        assert np.ptp(made.probabilities, axis=0).max() > 1e-3
        assert made.origin["engine"].startswith("openvino ")
        assert made.origin["engine"].endswith(", float32")
        assert wanted[file].origin["engine"].startswith("keras ")


@pytest.mark.slow
@needs_openvino
def test_files_of_another_engine_are_predicted_again_and_none_twice(
    tmp_path: Path, packs: dict[str, Pack], monkeypatch: pytest.MonkeyPatch
) -> None:
    several = [network(tmp_path) for _ in range(2)]
    run = folds_of(tmp_path / "openvino", several)
    made = predicted(run, several, packs, "keras")
    assert {one.origin["engine"].split()[0] for one in made.values()} == {"keras"}
    again = predicted(run, several, packs, "openvino")
    assert {one.origin["engine"].split()[0] for one in again.values()} == {"openvino"}
    monkeypatch.setattr(engines, "converted", lambda *_: pytest.fail("converted, though all is there"))
    predicted(run, several, packs, "openvino")


def test_a_network_that_openvino_computes_wrongly_is_kerass(
    tmp_path: Path, packs: dict[str, Pack], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was expected of OpenVINO, by then in file names' origins, is stated and resumed as Keras'."""
    monkeypatch.setattr(engines, "converts", lambda asked, passes: asked == "openvino")
    monkeypatch.setattr(engines.importlib.metadata, "version", lambda _: "1")
    monkeypatch.setattr(engines, "converted", lambda model, _: lambda batch: 0.99 * model.predict_on_batch(batch))
    several = [network(tmp_path) for _ in range(2)]
    run = folds_of(tmp_path / "refused", several)
    refused = predicted(run, several, packs, "openvino")
    said = capsys.readouterr().out
    assert "OpenVINO is not used: its answer differs from Keras' by 0.01 of the largest number" in said
    wanted = predicted(folds_of(tmp_path / "keras", several), several, packs, "keras")
    for file, made in refused.items():
        assert np.array_equal(made.probabilities, wanted[file].probabilities)
        assert made.origin == wanted[file].origin
    passes: list[int] = []
    monkeypatch.setattr(predict.Predictor, "__call__", lambda *_: passes.append(1))
    assert predicted(run, several, packs, "openvino").keys() == refused.keys()
    assert passes == []  # refused again, it finds Keras' files


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda *_: lambda batch: np.full((len(batch), CLASSES), np.nan, np.float32), "differs from Keras' by nan"),
        (lambda *_: 1 / 0, r"the network cannot be converted \(division by zero\); Keras computes"),
    ],
)
def test_whatever_goes_wrong_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: Any, said: str
) -> None:
    monkeypatch.setattr(engines, "converts", lambda *_: True)
    monkeypatch.setattr(engines, "converted", answer)
    classifier = network(tmp_path)
    classifier.compile()
    tried = Engine(classifier, 4, "openvino")
    assert np.array_equal(tried(images()), classifier.predict_on_batch(images()))
    assert re.search(said, capsys.readouterr().out)
    assert tried.name.startswith("keras ")
    tried(images())
    assert capsys.readouterr().out == ""


def test_auto_takes_openvino_where_it_pays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier, there = network(tmp_path), True
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda _: object() if there else None)

    def takes(asked: EngineName, passes: int) -> bool:
        return Engine(classifier, 4, asked, passes).converts

    pays = engines.PAYS_FROM_PASSES
    assert [takes("auto", pays), takes("auto", pays - 1), takes("openvino", 1), takes("keras", pays)] == [
        True,
        False,
        True,
        False,
    ]
    monkeypatch.setattr(engines, "on_processor", lambda: False)
    assert not takes("auto", pays)
    there = False
    assert not takes("auto", pays)
    with pytest.raises(InputError, match=r"predict\.engine: openvino: is not installed; make setup EXTRAS=openvino"):
        takes("openvino", 1)


@needs_openvino
def test_batches_that_are_not_full_are_filled_up(tmp_path: Path) -> None:
    classifier = network(tmp_path)
    classifier.compile()
    tried = Engine(classifier, 4, "openvino")
    found = tried(images(4))
    assert tried.name.startswith("openvino ")
    assert np.array_equal(tried(images(4)[:3]), found[:3])


@needs_openvino
def test_cached_features_of_each_engine_have_their_own_place(tmp_path: Path, packs: dict[str, Pack]) -> None:
    frozen, draw = (
        FrozenPart(network(tmp_path), SplitPoint("stage2_relu", 0)),
        tta_pass(View(0, 0, False, 32, 40), (32, 40)),
    )
    ours, keras = (FeatureCache(tmp_path / "caches", frozen, "float32", engine) for engine in ("openvino", "keras"))
    found, wanted = (cache.outputs(packs["train"], draw, "x").array for cache in (ours, keras))
    assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max()
    assert ours.folder != keras.folder
    assert [len(list(cache.folder.glob("*.h5"))) for cache in (ours, keras)] == [1, 1]
    assert ours.computed_by.startswith("openvino ")


@pytest.mark.slow
@needs_openvino
def test_many_images_are_classified_by_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From so many on that converting pays."""
    monkeypatch.setattr(engines, "PAYS_FROM_PASSES", 20)
    several = [network(tmp_path) for _ in range(2)]
    run = folds_of(tmp_path / "folds", several)
    files = [run.fold(number) / "weights.h5" for number in (0, 1)]
    about: Any = (run.settings, CLASSES, (0.0, 0.0, 0.0), files)
    pictures = images(20)
    found = class_activation.probabilities(class_activation.resident(*about, 20), pictures)
    wanted = class_activation.probabilities(class_activation.networks_of_run(*about), pictures)
    kinds = [
        type(one.probabilities)
        for one in (*class_activation.resident(*about, 20)(), *class_activation.resident(*about)())
    ]
    assert [kind is Engine for kind in kinds] == [True, True, False, False]
    assert np.allclose(found, wanted, atol=1e-5)
    assert np.ptp(wanted, axis=0).max() > 1e-3
