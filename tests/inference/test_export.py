"""`export`: a file that gives the line's own probabilities, says what it is, and loads where nothing of this project is."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from support.fabricated import fabricated
from support.places import ROOT

from driverwatch import run as runs
from driverwatch.config.dataset import DatasetSettings
from driverwatch.data.context import open_context
from driverwatch.errors import InputError
from driverwatch.inference.export import KINDS, export
from driverwatch.run import Run

pytestmark = pytest.mark.keras
FRAMES = np.random.default_rng(5).integers(0, 256, (3, 40, 56, 3), np.uint8)
STRANGER = """
import json, sys, zipfile
import keras, numpy as np
model = keras.saving.load_model(sys.argv[1], safe_mode=True)
frames = np.load(sys.argv[2])
np.savez(sys.argv[3], call=np.asarray(model(frames)), predict=model.predict(frames.astype(np.float32), verbose=0))
assert not [name for name in sys.modules if name.startswith("driverwatch")]
print(json.loads(zipfile.ZipFile(sys.argv[1]).read("driverwatch.json"))["classes"]["c9"])
"""


def line_says(run: Run, frames: np.ndarray, folds: tuple[int, ...], regions: int = 1) -> np.ndarray:
    """What prediction gives of packed frames on the centre view, averaged over folds."""
    from driverwatch.inference.predict import Predictor
    from driverwatch.models.backend import load_state
    from driverwatch.models.classifier import build

    classifier = build(run.settings, len(run.classes), (0, 0, 0), None, load=False)
    rows = []
    for fold in folds:
        load_state(run.fold(fold) / "weights.h5", {"model": classifier.weights})
        predictor = Predictor(classifier, ["centre"], (40, 56), (32, 48))
        rows.append(predictor(frames, np.arange(len(frames)))["centre"])
    return np.asarray(np.mean(rows, axis=0))


def loaded(path: Path) -> Any:
    import keras

    return keras.saving.load_model(path)


@pytest.fixture(scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory, demo_settings: DatasetSettings) -> Path:
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        fabricated(demo_settings, "hand")
    return folder / "build"


@pytest.fixture
def run(project: Path, _made: Path) -> Run:
    shutil.copytree(_made, project / "build")
    return runs.load(Path("build/demo/runs/hand"))


@pytest.mark.slow
def test_a_stranger_gets_what_the_line_says(
    run: Run, demo_settings: DatasetSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export(open_context("demo", None), "hand", None, None, False)
    said = capsys.readouterr().out
    file = Path("build/demo/export/hand.keras")
    assert f"{file}: hand, mean of 2 fold models" in said
    assert "40 px high and 56 px wide" in said
    assert [p.name for p in sorted(file.parent.iterdir())] == [".hand.keras.lock", "hand.keras"]
    np.save(tmp_path / "frames.npy", FRAMES)
    command = [
        sys.executable,
        "-I",
        "-W",
        "ignore",
        "-c",
        STRANGER,
        file,
        tmp_path / "frames.npy",
        tmp_path / "said.npz",
    ]
    ended = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == demo_settings.classes["c9"]
    wanted, found = line_says(run, FRAMES, (0, 2)), np.load(tmp_path / "said.npz")
    assert np.ptp(wanted, axis=0).max() > 1e-3  # images differ, so that equal rows say something
    for how in ("call", "predict"):
        assert np.allclose(found[how], wanted, atol=1e-5), how
    assert np.allclose(found["call"].sum(axis=1), 1, atol=1e-5)


def test_what_lies_inside(run: Run, demo_settings: DatasetSettings) -> None:
    export(open_context("demo", None), "hand", 2, None, False)
    file = Path("build/demo/export/hand-fold2.keras")
    facts = json.loads(zipfile.ZipFile(file).read("driverwatch.json"))
    assert list(facts["classes"].items()) == list(demo_settings.classes.items())
    assert facts["input"]["shape"] == [40, 56, 3]
    assert facts["input"]["regions"] == {"whole": [0, 0, 1, 1]}
    assert (facts["folds"], facts["trained_at"], facts["run"]) == ([2], ["c2"], "hand")
    assert facts["weights"] == [run.manifest(2)["weights"]]
    assert facts["settings"] == run.settings.model_dump()
    assert facts["commit"] is None or isinstance(facts["commit"], str)
    assert np.allclose(np.asarray(loaded(file)(FRAMES)), line_says(run, FRAMES, (2,)), atol=1e-5)
    assert not np.allclose(line_says(run, FRAMES, (2,)), line_says(run, FRAMES, (0,)), atol=1e-2)


HEADS: list[dict[str, Any]] = [
    {"head": {"pooling": "flatten", "dropout": 0.4}},
    {"head": {"dense": [6, 5], "normalization": True, "dropout": 0.5}},
    {"input": {"pack": "40x56", "size": "40x56"}},
    {"input": {"pack": "40x56", "size": "32x48", "regions": ["whole", "head"]}},
    {"backbone": "squeezenet"},  # BGR
    {"mean": "dataset"},
]


@pytest.mark.slow
@pytest.mark.parametrize("changed", HEADS, ids=lambda changed: str(list(changed.values()))[:40])
def test_heads_regions_and_channel_orders(
    project: Path, demo_settings: DatasetSettings, changed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command holds the file against the line by itself; here with everything that its graph is made of."""
    fabricated(demo_settings, "hand", (0,), **changed)
    mean = (100.0, 90.0, 80.0) if "mean" in changed else (0.0, 0.0, 0.0)
    monkeypatch.setattr("driverwatch.inference.predict_run.channel_mean", lambda *_: mean)
    export(open_context("demo", None), "hand", None, None, False)
    model = loaded(Path("build/demo/export/hand.keras"))
    regions = 2 if "regions" in changed.get("input", {}) else 1
    assert model.input_shape == (None, regions * 40, 56, 3)
    found = np.asarray(model(np.repeat(FRAMES, regions, axis=1)))
    assert found.shape == (3, 10)
    assert np.ptp(found, axis=0).max() > 1e-3


def test_a_file_that_would_lie_is_not_written(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that answers with other probabilities stands for whatever goes wrong between here and the file."""
    there = Path("build/demo/export/hand.keras")
    there.parent.mkdir(parents=True)
    there.write_text("an earlier one")
    monkeypatch.setattr(
        "driverwatch.inference.exported_model.read", lambda *_: lambda images: np.full((len(images), 10), 0.1)
    )
    with pytest.raises(InputError, match=r"hand\.keras: not written, since it would give other probabilities"):
        export(open_context("demo", None), "hand", None, None, False)
    monkeypatch.setattr(
        "driverwatch.inference.exported_model.read", lambda *_: lambda images: np.full((len(images), 10), np.nan)
    )
    with pytest.raises(InputError, match="by up to nan"):
        export(open_context("demo", None), "hand", None, None, False)
    assert there.read_text() == "an earlier one"
    assert [p.name for p in sorted(there.parent.iterdir())] == [".hand.keras.lock", "hand.keras"]


def test_wrong_requests_are_one_sentence(run: Run, tmp_path: Path) -> None:
    context, mine = open_context("demo", None), tmp_path / "mine.keras"
    mine.write_text("somebody's")
    for fold, file, said in [
        (1, None, r"FOLD=1 is not finished \(finished: 0, 2\)"),
        (None, tmp_path / "x.h5", r"FILE=.*x.h5: expected a name that ends in .keras or .onnx or .xml or .tflite"),
        (None, mine, "is there already; choose another name, or replace it with FORCE=1"),
    ]:
        with pytest.raises(InputError, match=said):
            export(context, "hand", fold, file, False)
    with pytest.raises(InputError, match="no such run; there are: hand"):
        export(context, "foot", None, None, False)
    (run.fold(0) / "weights.h5").write_bytes(b"damaged")
    with pytest.raises(InputError, match="is not what fold 0 was trained to"):
        export(context, "hand", None, None, False)
    assert mine.read_text() == "somebody's"


def test_onnx_gives_the_same(run: Run) -> None:
    onnxruntime, onnx = (pytest.importorskip(name, reason="make setup EXTRAS=onnx") for name in ("onnxruntime", "onnx"))
    pytest.importorskip("tf2onnx", reason="make setup EXTRAS=onnx")
    file = Path("hand.onnx")
    export(open_context("demo", None), "hand", None, file, False)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: FRAMES.astype(np.float32)})[0]
    assert np.allclose(found, line_says(run, FRAMES, (0, 2)), atol=1e-5)
    one = session.run(None, {session.get_inputs()[0].name: FRAMES[:1].astype(np.float32)})[0]
    assert np.allclose(one, found[:1], atol=1e-6)  # batches of any length
    (said,) = onnx.load(str(file)).metadata_props
    assert json.loads(said.value)["run"] == "hand"


def test_onnx_without_its_packages_is_one_sentence(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InputError, match="needs the package onnx; make setup EXTRAS=onnx installs it"):
        export(open_context("demo", None), "hand", None, Path("hand.onnx"), False)
    assert not list(Path().glob("*.onnx"))


@pytest.mark.slow
def test_openvino_gives_the_same(run: Run) -> None:
    openvino = pytest.importorskip("openvino", reason="make setup EXTRAS=openvino")
    export(open_context("demo", None), "hand", None, None, False, "openvino")
    file = Path("build/demo/export/hand.xml")
    assert sorted(p.name for p in file.parent.iterdir() if not p.name.startswith(".")) == ["hand.bin", "hand.xml"]
    network = openvino.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = network(FRAMES.astype(np.float32))[0]
    assert np.allclose(found, line_says(run, FRAMES, (0, 2)), atol=1e-5)
    assert np.allclose(network(FRAMES[:1].astype(np.float32))[0], found[:1], atol=1e-6)  # batches of any length
    said = openvino.Core().read_model(file).get_rt_info("driverwatch").astype(str)
    assert json.loads(said)["run"] == "hand"


def test_litert_gives_the_same(run: Run) -> None:
    litert = pytest.importorskip("ai_edge_litert.interpreter", reason="make setup EXTRAS=litert")
    export(open_context("demo", None), "hand", 2, None, False, "litert")
    file = Path("build/demo/export/hand-fold2.tflite")
    interpreter = litert.Interpreter(model_path=str(file))
    interpreter.allocate_tensors()
    (given,), (said,) = interpreter.get_input_details(), interpreter.get_output_details()
    for frame, wanted in zip(FRAMES, line_says(run, FRAMES, (2,)), strict=True):
        interpreter.set_tensor(given["index"], frame[None].astype(np.float32))
        interpreter.invoke()
        assert np.allclose(interpreter.get_tensor(said["index"])[0], wanted, atol=1e-5)
    assert json.loads(zipfile.ZipFile(file).read("driverwatch.json"))["folds"] == [2]


@pytest.mark.parametrize(("form", "package"), [("openvino", "openvino"), ("litert", "ai_edge_litert.interpreter")])
def test_formats_without_their_packages_are_one_sentence(
    run: Run, monkeypatch: pytest.MonkeyPatch, form: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    said = rf"FORMAT={form}: needs the package [a-z-]+; make setup EXTRAS={form} installs it"
    with pytest.raises(InputError, match=said):
        export(open_context("demo", None), "hand", None, None, False, form)
    assert [p.name for p in Path("build/demo/export").iterdir()] == [f".hand{KINDS[form]}.lock"]


def test_format_and_name_must_fit(run: Run) -> None:
    context = open_context("demo", None)
    with pytest.raises(InputError, match=r"FORMAT=tflight: expected one of keras, onnx, openvino, litert"):
        export(context, "hand", None, None, False, "tflight")
    with pytest.raises(InputError, match=r"FILE=hand\.onnx: expected a name that ends in \.tflite"):
        export(context, "hand", None, Path("hand.onnx"), False, "litert")


@pytest.mark.slow
def test_the_pages_examples_answer_as_the_line_does(run: Run) -> None:
    """As printed, each in a process that cannot import this project; the image is a pack's, so that resizing changes nothing."""
    for package in ("tf2onnx", "onnxruntime", "openvino", "ai_edge_litert"):
        pytest.importorskip(package, reason='make setup EXTRAS="onnx openvino litert"')
    page = (ROOT / "docs" / "how-to" / "predict-export-serve.md").read_text()
    examples = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(examples) == len(KINDS)
    for form in KINDS:
        export(open_context("demo", None), "hand", None, None, False, form)
    for path in Path("build/demo/export").glob("hand.*"):
        path.rename(path.with_stem("efficientnet_lite0_96x128"))
    image = Path("build/demo/data/imgs/test/img_1003.jpg")
    image.parent.mkdir(parents=True)
    image.write_bytes(cv2.imencode(".png", FRAMES[0][..., ::-1])[1].tobytes())
    wanted = dict(zip(run.classes, line_says(run, FRAMES[:1], (0, 2))[0], strict=True))
    for example in examples:
        command = [sys.executable, "-I", "-W", "ignore", "-c", example]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found = {name: float(probability) for name, probability in map(str.split, said.splitlines())}
        assert found == pytest.approx(wanted, abs=1e-4), example
