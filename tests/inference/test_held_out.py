"""Labelled images are recognised by their pixels, and answered by the fold model that never saw their driver."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from support.project import Verb

from driverwatch.data import splits
from driverwatch.data.context import open_context
from driverwatch.data.images import examine
from driverwatch.inference import predictions
from driverwatch.inference.predict_run import fold_models, recogniser
from driverwatch.report.serve import _answers
from driverwatch.run import open_run


def shares(said: str) -> list[float]:
    """The probabilities of a table of all classes, sorted by class, in percent."""
    lines = [line.split() for line in said.splitlines() if line.endswith("%")]
    return [float(words[-1][:-1]) for words in sorted(lines, key=lambda words: words[1])]


@pytest.mark.keras
def test_each_answer_is_out_of_fold(finished: list[str], verb: Verb, project: Path) -> None:
    """Under another name too; test images by the mean of all fold models."""
    context = open_context("demo", Path("data"))
    run, folds, packs = open_run(context, "tiny")
    split, pack = splits.of(run.settings.train, folds), packs["train"]
    models = fold_models(context, "tiny", None)
    answers = _answers(context, models, None)
    for fold in (0, 1):
        row = int(np.flatnonzero([driver in split.validation[fold] for driver in pack.drivers])[0])
        [path] = Path("data").rglob(pack.names[row])
        shutil.copy2(path, "renamed.jpg")
        kept = predictions.read(run.fold(fold) / "validation-centre.h5", {})
        wanted = 100 * kept.probabilities[list(kept.names).index(pack.names[row])]
        made = verb("classify", "--run", "tiny", "--dataset", "demo", "--top", "10", "renamed.jpg")
        assert made.returncode == 0, made.stderr
        assert shares(made.stdout) == pytest.approx(wanted, abs=0.02)
        said = f"driver {pack.drivers[row]}: answered by fold {fold} alone, which never saw this driver"
        assert said in made.stdout
        served = answers(Path("renamed.jpg").read_bytes(), ".jpg", None)
        assert 100 * served.probabilities == pytest.approx(wanted, abs=0.02)
        assert said in served.traits[0]
        other = verb(
            "classify", "--run", "tiny", "--dataset", "demo", "--fold", str(1 - fold), "--cam", "map.png", "renamed.jpg"
        )
        assert "in the training set of every model asked, so the answer is optimistic" in other.stdout
    kept = [predictions.read(run.fold(fold) / "test-centre.h5", {}) for fold in (0, 1)]
    [path] = Path("data").rglob(kept[0].names[0])
    made = verb("classify", "--run", "tiny", "--dataset", "demo", "--top", "10", path)
    assert shares(made.stdout) == pytest.approx(100 * np.mean([k.probabilities[0] for k in kept], axis=0), abs=0.02)
    assert "driver" not in made.stdout
    image = examine(path, None).pixels
    assert image is not None
    assert recogniser(context, models)(image) == ((), ())


def test_without_its_pack_every_image_is_a_new_one(finished: list[str], project: Path) -> None:
    context = open_context("demo", Path("data"))
    models = fold_models(context, "tiny", None)
    image = examine(next(Path("data").rglob("imgs/train/*/*.jpg")), None).pixels
    assert image is not None
    assert recogniser(context, models)(image).said
    shutil.rmtree(project / "build/demo/pack")
    assert recogniser(context, models)(image) == ((), ())
