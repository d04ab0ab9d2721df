"""How much a random split flatters: the same simple classifier, once on photos dealt at random, once on drivers left out.

Frames of one clip are near-duplicates. Dealt at random, nearly every held-out photo has a neighbour in training that shows the
same moment, so that looking it up looks like knowing (Kaufman et al. 2012, doi:10.1145/2382577.2382579, call it leakage).
"""

from collections.abc import Callable, Iterable

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline

from driverwatch.errors import InputError

THUMBNAIL = (24, 32)  # height, width: hands are a pixel or two, cars and clothes are what is left
COMPONENTS = 100  # that logistic regression takes of a thumbnail's 2,304 numbers: seconds for it, not minutes
Classifier = Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]
"""Known rows (T, F), their labels (T,), asked rows (A, F), C -> probabilities (A, C): `nearest`, `logistic`."""


def features(thumbnails: Iterable[np.ndarray]) -> np.ndarray:
    """uint8 (24, 32, 3) each -> float32 (N, 2304) in 0-1."""
    return np.stack([image.ravel() for image in thumbnails]).astype(np.float32) / 255


def dealt(count: int, folds: int, seed: int = 0) -> np.ndarray:
    """A random split: `count` photos shuffled and dealt to `folds` folds of equal size (to one), int (count,).

    Raises:
        InputError: fewer photos than folds.
    """
    if count < folds:
        raise InputError(f"leakage: {folds} folds need as many photos, got {count}")
    found = np.empty(count, np.int64)
    for fold, (_, held_out) in enumerate(KFold(folds, shuffle=True, random_state=seed).split(np.empty(count))):
        found[held_out] = fold
    return found


def nearest(known: np.ndarray, labels: np.ndarray, asked: np.ndarray, classes: int) -> np.ndarray:
    """The label of the nearest known row, Euclidean; of equally near ones the first.

    Args:
        known: float (T, F), one row at least.
        labels: int (T,), 0..C-1.
        asked: float (A, F).

    Returns:
        float32 (A, C): 1 for the label, 0 for the others.
    """
    search = KNeighborsClassifier(1, algorithm="brute").fit(known, labels)
    return np.eye(classes, dtype=np.float32)[search.predict(asked)] if len(asked) else np.empty((0, classes))


def logistic(known: np.ndarray, labels: np.ndarray, asked: np.ndarray, classes: int) -> np.ndarray:
    """Multinomial logistic regression on whitened principal components, with scikit-learn's own penalty (C = 1).

    Args:
        known: float (T, F), two rows at least.
        labels: int (T,), 0..C-1.
        asked: float (A, F).

    Returns:
        float64 (A, C), rows sum to 1; 0 for classes that no known row has.
    """
    found, there = np.zeros((len(asked), classes)), np.unique(labels)
    if len(there) == 1 or not len(asked):  # scikit-learn fits no single class
        found[:, there] = 1
        return found
    components = PCA(min(COMPONENTS, *known.shape), whiten=True, random_state=0)
    found[:, there] = (
        make_pipeline(components, LogisticRegression(max_iter=1000)).fit(known, labels).predict_proba(asked)
    )
    return found


def held_out(
    classifier: Classifier, rows: np.ndarray, labels: np.ndarray, folds: np.ndarray, classes: int
) -> np.ndarray:
    """Each row's probabilities by a classifier that learnt from the other folds alone: float64 (N, C).

    Args:
        rows: float (N, F).
        labels: int (N,), 0..C-1.
        folds: int (N,): which fold holds the row out.

    Raises:
        InputError: one fold alone, so that nothing is left to learn from.
    """
    if len(np.unique(folds)) < 2:
        raise InputError("leakage: expected at least two folds, got one; nothing is left to learn from")
    found = np.empty((len(folds), classes))
    for fold in np.unique(folds):
        asked = folds == fold
        found[asked] = classifier(rows[~asked], labels[~asked], rows[asked], classes)
    return found
