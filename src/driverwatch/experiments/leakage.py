"""Leakage: how optimistic a random split is, shown by the same simple classifiers on it and on the driver folds.

Frames of one clip are near-duplicates. In a random split almost every validation frame has a near-duplicate in the training
set, so memorisation alone scores well (leakage: Kaufman et al. 2012, doi:10.1145/2382577.2382579).
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, PredefinedSplit
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from driverwatch.config.loading import Strict
from driverwatch.data import competition
from driverwatch.data import folds as fold_tables
from driverwatch.data.competition import ImageTable
from driverwatch.data.context import Context, absent
from driverwatch.data.images import examine
from driverwatch.errors import InputError, listed
from driverwatch.experiments.experiment import Interval, Number, Record, record_facts
from driverwatch.io.atomic import write_json
from driverwatch.io.console import close, say, table, tell, track
from driverwatch.io.prefetch import in_threads
from driverwatch.metrics import interval, oof_score

THUMBNAIL = (24, 32)  # height, width in px: hands are a pixel or two, cars and clothes are what is left
COMPONENTS = 100  # principal ones of a thumbnail's 2,304 numbers: a twentieth of the work, 1 to 2 % less accuracy
FITTED_ON = 4_000  # training images that components are computed on, evenly spread: more cost seconds and move no score
NEAREST, LOGISTIC = "nearest neighbour", "logistic regression"
Split = Any  # KFold or PredefinedSplit of scikit-learn
CLASSIFIERS: dict[str, Callable[[], Any]] = {
    NEAREST: lambda: KNeighborsClassifier(1, algorithm="brute"),  # of equally near images the first
    LOGISTIC: lambda: make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
}
COLUMNS = {"classifier": False, "split": False, "accuracy": True, "log loss": True, "95 % over drivers": True}


class SplitScore(Strict):
    """Accuracy of a classifier on a split, 0-1, and log loss with its 95 % interval over drivers where there is one."""

    classifier: str
    split: str
    accuracy: Number
    log_loss: Number | None = None
    interval: Interval | None = None

    def cells(self) -> list[str]:
        """The score as text, a cell for each of `COLUMNS`."""
        known = [] if self.log_loss is None or self.interval is None else [
            f"{self.log_loss:.3f}", "{:.3f} to {:.3f}".format(*self.interval)
        ]  # fmt: skip
        return [self.classifier, self.split, f"{self.accuracy:.1%}", *(known or ["", ""])]


class Leakage(Record):
    """The record of `make leakage`; `thumbnail` is width x height in px."""

    fold_file: str
    thumbnail: str
    rows: list[SplitScore]


def print_leakage(context: Context) -> None:
    """Print accuracy and log loss of both classifiers on thumbnails, on a random split and on the driver folds; record them.

    Raises `InputError`: no fold file, a data set without drivers, or images that cannot be read.
    """
    start = time.monotonic()
    images = _labelled_images(context)
    folds = fold_tables.read(context.places.folds, images)
    labels, drivers = images.frame["label"].to_numpy(), images.frame["driver"].to_numpy(object)
    pixels = _thumbnails(context, list(images.frame["path"]))
    splits = {
        "random": KFold(folds.count, shuffle=True, random_state=0),
        "drivers": PredefinedSplit([folds.of_driver[driver] for driver in drivers]),
    }
    rows = compared_splits(pixels, labels, drivers, splits, len(images.classes))
    path, (height, width) = context.places.result("leakage"), THUMBNAIL
    facts = record_facts(context, len(labels), drivers, folds.count)
    record = Leakage(**facts, fold_file=folds.checksum[:12], thumbnail=f"{width}x{height}", rows=rows)
    write_json(path, record.model_dump())
    say(
        f"{context.dataset}: {len(labels)} images of {len(folds.frame)} drivers, {width}x{height} thumbnails, {folds.count} folds\n"
        f"drivers as in {context.places.folds} (checksum {folds.checksum[:12]}), random by seed 0"
    )
    say("\n".join(table(COLUMNS, [row.cells() for row in rows], COLUMNS, 0)[0]))
    tell(meaning(rows))
    close(path, "the same figures", time.monotonic() - start, then=[f"make train MODEL=tiny DATASET={context.dataset}"])


def compared_splits(
    pixels: np.ndarray, labels: np.ndarray, drivers: np.ndarray, splits: dict[str, Split], classes: int
) -> list[SplitScore]:
    """A score for each classifier and split; one without probabilities has no log loss that means anything.

    Args:
        pixels: float32 (N, F).
        labels: int (N,), 0..C-1.
        drivers: (N,).
        classes: C.
    """
    found = {split: out_of_fold(pixels, labels, folds, classes) for split, folds in splits.items()}
    rows = []
    for name in CLASSIFIERS:
        for split in splits:
            losses, loss, _, right = oof_score(found[split][name], labels, drivers)
            known = loss if name == LOGISTIC else None
            bounds = None if known is None else list(interval(losses, drivers))
            rows.append(SplitScore(classifier=name, split=split, accuracy=right, log_loss=known, interval=bounds))
    return rows


def meaning(rows: list[SplitScore]) -> str:
    """What the scores of `compared_splits` come to, in a sentence."""
    accuracy = {(row.classifier, row.split): f"{row.accuracy:.1%}" for row in rows}
    random, drivers = (accuracy[NEAREST, split] for split in ("random", "drivers"))
    return (
        f"A random split would have promised {random} accuracy of the {NEAREST}; of drivers it has not seen it gets {drivers}: "
        "only the driver folds say what a new driver will get."
    )


def out_of_fold(pixels: np.ndarray, labels: np.ndarray, folds: Split, classes: int) -> dict[str, np.ndarray]:
    """Probabilities float64 (N, C) by classifier, each trained on the other folds alone; 0 for classes that these lack.

    Args:
        pixels: float32 (N, F); of each fold, the training images' principal components are taken.
        labels: int (N,), 0..C-1.
        classes: C.
    """
    found = {name: np.zeros((len(labels), classes)) for name in CLASSIFIERS}
    for train, validation in folds.split(pixels):
        fitted = pixels[train[:: -(-len(train) // FITTED_ON)]]
        components = PCA(min(COMPONENTS, *fitted.shape), random_state=0).fit(fitted).transform(pixels)
        several = len(np.unique(labels[train])) > 1  # logistic regression is of two classes or more
        for name, classifier in CLASSIFIERS.items():
            model = (classifier if several else DummyClassifier)().fit(components[train], labels[train])
            found[name][np.ix_(validation, model.classes_)] = model.predict_proba(components[validation])
    return found


def scaled(thumbnails: list[np.ndarray]) -> np.ndarray:
    """uint8 (24, 32, 3) each -> float32 (N, 2304) in 0-1."""
    return np.stack([image.ravel() for image in thumbnails]).astype(np.float32) / 255


def _labelled_images(context: Context) -> ImageTable:
    if context.settings.columns.driver is None:
        raise InputError(
            f"leakage: {context.dataset} names no drivers (columns.driver: null), so there is no driver split to compare with"
        )
    if sentence := absent(context):
        raise InputError(sentence)
    found, problems, _ = competition.read_train(context.settings, context.data)
    if problems:
        raise InputError(f"leakage: {len(problems)} table rows are invalid; make folds lists them:{listed(problems)}")
    return found


def _thumbnails(context: Context, paths: list[str]) -> np.ndarray:
    """float32 (N, 2304) in 0-1. Raises `InputError` that lists all images that cannot be read."""
    images = [*track(in_threads(lambda path: examine(context.data / path, THUMBNAIL), paths), len(paths), "read")]
    read = zip(paths, images, strict=True)
    if invalid := [f"{path}: {image.problem}" for path, image in read if image.pixels is None]:
        raise InputError(f"leakage: {len(invalid)} images are invalid; fix them (DATA=):{listed(sorted(invalid))}")
    return scaled([image.pixels for image in images if image.pixels is not None])
