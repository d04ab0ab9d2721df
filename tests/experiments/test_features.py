"""`make linear-probe` and `make study` end to end, on synthetic images and a pretrained network with weights drawn at random."""

import csv
from pathlib import Path

import numpy as np
import pytest
from support.project import QUICK, Verb

from driverwatch.io.manifests import read_json
from driverwatch.models.squeezenet import squeezenet

pytestmark = [pytest.mark.keras, pytest.mark.line]
SMALL = "input.pack=36x48 input.size=32x40 train.batch_size=16 augment.hflip=none predict.tta=five_crop"

STUDY = """
settings:
  input: {pack: 36x48, size: 32x40}
  train: {optimizer: adam, learning_rate: 1e-4, epochs: 1, augmentation_passes: 1}
  predict: {tta: centre}
head: {freeze_until: head, fit: linear_probe, l2: [0.1]}
models:
  squeezenet: {backbone: squeezenet, freeze_until: [head, fire5_concat]}
"""


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A folder with a file of SqueezeNet's layers, names and shapes; its features are those of random convolutions."""
    random, folder = np.random.default_rng(0), tmp_path / "weights"
    folder.mkdir()
    arrays = {}
    for layer in squeezenet(input_shape=(32, 40, 3)).layers:
        for weight in layer.weights:
            fan = np.prod(weight.shape[:-1]) if len(weight.shape) > 1 else 1
            scale = (2 / fan) ** 0.5 if len(weight.shape) > 1 else 0.0
            arrays[f"{layer.name}/{weight.name}"] = random.normal(0, 1, weight.shape).astype("float32") * np.float32(
                scale
            )
    np.savez(folder / "squeezenet_v1.0_imagenet.npz", **arrays)
    return folder


@pytest.fixture
def place(verb: Verb, project: Path, data: Path) -> list[str | Path]:
    """Options that name the synthetic competition, with two folds to save time."""
    settings = project / "configs" / "datasets" / "demo.yaml"
    settings.write_text(settings.read_text().replace("folds: 3", "folds: 2"))
    options: list[str | Path] = ["--dataset", "demo", "--data", data]
    good(verb, "folds", *options)
    return options


def good(verb: Verb, *arguments: str | Path) -> str:
    made = verb(*arguments)
    assert made.returncode == 0, made.stderr
    return made.stdout


@pytest.mark.slow
def test_features_then_an_ensemble(verb: Verb, place: list[str | Path], weights: Path, project: Path) -> None:
    good(verb, "pack", *place, "--size", "36x48")
    asked = [*place, "--weights", weights, "--set", SMALL]
    said = good(verb, "linear-probe", "squeezenet", *asked)
    assert said.count("logistic regression on 512 features") == 2
    assert (
        said.count("frozen layers, 120 images") == 10
    )  # each view once, at half way and at the end, whatever the folds
    assert "2 of 2 folds finished" in said
    good(verb, "ensemble", *place, "--name", "features")
    with (project / "submissions/demo/features.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 40
    manifest = read_json(project / "submissions/demo/features.json")
    assert "squeezenet-features" in str(manifest)
    again = good(verb, "linear-probe", "squeezenet", *asked)
    assert "linear_probe" not in again
    assert "frozen layers" not in again
    wrong = verb("linear-probe", "squeezenet", *asked, "--head", "logistics", "--run", "x")
    assert wrong.returncode == 2
    assert "HEAD=logistics: expected linear_probe or dense" in wrong.stderr


@pytest.mark.slow
def test_a_dense_head_on_features_of_an_earlier_layer(
    verb: Verb, place: list[str | Path], weights: Path, project: Path
) -> None:
    good(verb, "pack", *place, "--size", "36x48")
    asked = [
        *place,
        "--weights",
        weights,
        "--set",
        SMALL,
        "--truncate-at",
        "fire5_concat",
        "--head",
        "dense",
        "--fold",
        "0",
    ]
    assert "head alone" in good(verb, "linear-probe", "squeezenet", *asked, "--run", "early")
    made = read_json(project / "build/demo/runs/early/fold0/manifest.json")
    assert made["settings"]["truncate_at"] == "fire5_concat"
    assert made["trainable_parameters"] == 256 * 256 + 256 + 256 * 10 + 10


@pytest.mark.slow
def test_neighbours_are_looked_for_among_features(
    verb: Verb, finished: list[str], weights: Path, project: Path
) -> None:
    """`make knn`, and an ensemble over them, on runs that are there."""
    small = "backbone: squeezenet\ninput: {pack: 40x52, size: 36x48}\n"
    (project / "configs/models/small.yaml").write_text(small)
    good(verb, "train", "tiny", *finished, "--run", "other", "--set", f"{QUICK} train.seed=1")
    early = verb("ensemble", *finished, "--knn", "small:fire3_concat:2x2")
    assert early.returncode == 2
    assert "small-fire3_concat-2x2.h5: no such features; make knn" in early.stderr
    asked = ["knn", *finished, "--models", "tiny other", "--weights", weights]
    said = good(verb, *asked, "--embeddings", "small:fire3_concat:2x2 small")
    assert said.count("small-fire3_concat-2x2.h5: 160 images, 512 features") == 1
    assert said.count("2 driver folds") == 6
    made = read_json(project / "build/demo/knn.json")
    plain = [line for line in made["knn"] if line["way"] == "none"]
    assert [line["difference"] for line in plain] == [0.0] * 6
    assert "160 images" not in good(verb, *asked, "--embeddings", "small:fire3_concat:2x2")  # they are there
    said = good(verb, "ensemble", *finished, "--name", "smooth", "--knn", "small:fire3_concat:2x2")
    assert "mean, smoothed over neighbours of" in said
    facts = read_json(project / "submissions/demo/smooth.json")["pipeline"]["steps"]["knn"]
    assert facts["embeddings"] == "small:fire3_concat:2x2"
    flat = verb("knn", *finished, "--embeddings", "small:9x9", "--weights", weights)
    assert flat.returncode == 2
    assert "expected a map of at least 9x9 cells" in flat.stderr


@pytest.mark.slow
def test_a_study_writes_its_table_and_stays_out_of_ensembles(
    verb: Verb, place: list[str | Path], weights: Path, project: Path
) -> None:
    (project / "configs/studies/mini.yaml").write_text(STUDY)
    good(verb, "study", "mini", *place, "--weights", weights)
    results = project / "experiments/results/demo"
    page = (results / "study-mini.md").read_text()
    head, tuned = (line.split("|") for line in page.splitlines() if line.startswith("| squeezenet, "))
    assert head[1].strip() == "squeezenet, whole backbone"
    assert tuned[1].strip() == "squeezenet, fire5_concat"
    assert head[2].strip() == "0.01 M"
    low, high = (float(word) for word in head[4].split(" to "))
    assert low < float(head[3]) < high
    difference = float(tuned[5].split("(")[0])
    assert difference == pytest.approx(float(tuned[3]) - float(head[3]), abs=2e-3)
    assert "linear_probe" not in good(verb, "study", "mini", *place, "--weights", weights)
    assert page.split("| squeezenet")[1:] == (results / "study-mini.md").read_text().split("| squeezenet")[1:]
    (project / "configs/studies/wrong.yaml").write_text(STUDY.replace("fire5_concat", "fire55_concat"))
    wrong = verb("study", "wrong", *place, "--weights", weights)
    assert wrong.returncode == 2
    assert "wrong-squeezenet-fire55_concat: freeze_until: fire55_concat is no layer or block" in wrong.stderr
    assert not (project / "build/demo/studies/wrong").exists()
    (project / "configs/studies/headless.yaml").write_text(STUDY.replace("[head, fire5", "[fire5"))
    assert "must begin with head" in verb("study", "headless", *place, "--weights", weights).stderr
    nothing = verb("ensemble", *place)
    assert nothing.returncode == 2
    assert "no run is there" in nothing.stderr
