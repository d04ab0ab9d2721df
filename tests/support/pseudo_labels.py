"""Teachers of pseudo-labels as files alone: what their finished folds leave."""

from pathlib import Path

import numpy as np

from driverwatch.config.loading import parse
from driverwatch.config.model import ModelSettings
from driverwatch.inference import predictions
from driverwatch.inference.predictions import Predictions, prediction_path
from driverwatch.io.atomic import write_json
from driverwatch.run import Run
from driverwatch.training.pseudo_labels import Unlabelled

CLASSES, FOLDS = tuple("abc"), 3
NAMES = np.array([f"test{i:02d}.jpg" for i in range(12)])
TRAIN = np.array([f"train{i:02d}.jpg" for i in range(9)])  # three images for each fold to hold out, in turn


def settings_of(**train: object) -> ModelSettings:
    content = {"backbone": "tiny", "weights": "none", "input": {"pack": "36x44", "size": "32x40"}, "train": train}
    return parse(ModelSettings, content, "test")


def run_of(folder: Path, **train: object) -> Run:
    return Run(folder, settings_of(**train), CLASSES, [0, 1, 2], [], "folds", {"train": "t", "test": "u"}, None)


def shares(seed: int, count: int = len(NAMES)) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet([0.4] * 3, count).astype(np.float32)


def there(number: int, test: np.ndarray = NAMES, train: np.ndarray = TRAIN) -> Unlabelled:
    """The images without labels of fit `number`; every third training image is held out by it."""
    return Unlabelled(test, train, np.flatnonzero([int(name[5:7]) % FOLDS == number for name in train]))


def tell(
    run: Run,
    number: int,
    rows: np.ndarray,
    names: np.ndarray = NAMES,
    tta: str = "five_crop",
    validation: np.ndarray | None = None,
) -> None:
    """Leave what a finished fold leaves: a manifest, and predictions of the test images and of validation ones."""
    content = {"settings": run.settings.model_dump(), **run.claim, "weights": f"w{number}"}
    write_json(run.fold(number) / "manifest.json", content)
    made = Predictions(names, rows, run.predicted(number, tta))
    predictions.write(made, prediction_path(run.fold(number), "test", tta))
    mine = TRAIN[there(number).validation] if number < FOLDS else TRAIN[:0]
    predicted = shares(200 + number, len(mine)) if validation is None else validation
    predictions.write(
        Predictions(mine, predicted, run.predicted(number, tta)), prediction_path(run.fold(number), "validation", tta)
    )
