"""Pseudo-labels: test images with what finished runs, the teachers, make of them. Imports no Keras.

Lee 2013 ("Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method for Deep Neural Networks"), in rounds.

A teacher's model of another fold was trained on this fold's held-out drivers, and what it says of test images carries their
labels over. So fold k's student is taught by the teachers' fold k models alone, and its out-of-fold score stays honest.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from driverwatch.errors import InputError
from driverwatch.inference import predictions
from driverwatch.inference.paths import prediction_path
from driverwatch.inference.predictions import Predictions
from driverwatch.settings import PseudoSettings, ViewSet
from driverwatch.training.run import Run


@dataclass(frozen=True)
class Lesson:
    """What a fit learns from test images: `rows` (T,) of their pack, ascending, and `targets` float32 (T, C)."""

    rows: np.ndarray
    targets: np.ndarray
    confidence: float  # mean top probability of those taken, by their teachers
    offered: int  # test images that there are

    def __str__(self) -> str:
        return f"{len(self.rows)} of {self.offered} test images (the teachers' mean confidence {self.confidence:.3f})"

    def facts(self, classes: tuple[str, ...]) -> dict[str, Any]:
        """For manifests: how many were taken, how sure the teachers were, and how many of each class they named."""
        counts = np.bincount(self.targets.argmax(axis=1), minlength=len(classes)).tolist()
        said = {"images": len(self.rows), "of": self.offered, "mean_confidence": round(self.confidence, 4)}
        return said | {"per_class": dict(zip(classes, counts, strict=True))}


def views_of(teacher: Run, settings: PseudoSettings) -> ViewSet:
    """The view set that a teacher teaches with."""
    return teacher.settings.honest_views if settings.views == "auto" else settings.views


def identity(teachers: list[Run], settings: PseudoSettings | None, folds: int) -> dict[str, Any]:
    """What a student's run repeats of its teachers: the digest of every fit's test predictions, by teacher.

    Raises:
        InputError: predictions missing, damaged, or of other weights than the teacher ended with.
    """
    found: dict[str, Any] = {}
    if settings is None:
        return found
    for teacher in teachers:
        views = views_of(teacher, settings)
        fits = range(teacher.settings.train.splits.fits(folds))
        digests = [predictions.digest(_read(teacher, number, views)) for number in fits]
        found[teacher.name] = {"views": views, "selected_on": teacher.looks_at_held_out, "predictions": digests}
    return found


def _read(teacher: Run, number: int, views: ViewSet) -> Predictions:
    return predictions.read(prediction_path(teacher.fold(number), "test", views), teacher.predicted(number, views))


def lesson(student: Run, number: int, teachers: list[Run], names: np.ndarray, labelled: int) -> Lesson | None:
    """What fit `number` of a student learns from test images; None where its settings ask for none.

    Args:
        names: (N,) of the test pack's images, in its order.
        labelled: number of labelled images that the fit is trained on.

    Raises:
        InputError: predictions other than those the student was begun with, of other images, or none sure enough.
    """
    settings = student.settings.train.pseudo
    if settings is None:
        return None
    parts = [part for teacher in teachers for part in _taught(student, number, teacher, names)]
    mean = np.mean(parts, axis=0, dtype=np.float64)
    mean /= mean.sum(axis=1, keepdims=True)
    rows = select(mean, names, labelled, settings)
    if not len(rows):
        raise InputError(f"{student.fold(number)}: {_nothing(mean, labelled, settings)}")
    taken = mean[rows]
    top = taken.max(axis=1)
    shares = np.eye(taken.shape[1])[taken.argmax(axis=1)] if settings.kind == "hard" else taken
    return Lesson(rows, shares.astype(np.float32), float(top.mean()), len(names))


def _taught(student: Run, number: int, teacher: Run, names: np.ndarray) -> list[np.ndarray]:
    """A teacher's probabilities (N, C) of the test images, from each fit that may teach fit `number`.

    A student that leaves nobody out is taught by all of them.
    """
    begun = (student.learned_from or {})["teachers"][teacher.name]
    everyone = student.settings.train.splits.kind == "all"
    found = []
    for fit in range(len(begun["predictions"])) if everyone else [number]:
        made = _read(teacher, fit, begun["views"])
        if predictions.digest(made) != begun["predictions"][fit]:
            raise InputError(
                f"{made.where}: is not what {student.name} was begun with; restore it, or make train FORCE=1 "
                f"RUN={student.name} begins anew"
            )
        found.append(made.aligned_to(list(names)))
    return found


def select(probabilities: np.ndarray, names: np.ndarray, labelled: int, settings: PseudoSettings) -> np.ndarray:
    """Rows of (N, C) probabilities that are learnt from, ascending: sure enough, the most confident first, up to the ratio.

    Of equally confident ones the first by name (N,) are taken, so that the order of rows decides nothing.
    """
    top, named = probabilities.max(axis=1), probabilities.argmax(axis=1)
    order = np.lexsort((names.astype(str), -top))
    order = order[top[order] >= settings.threshold]
    limit = int(settings.ratio * labelled)
    if settings.balance:
        limit //= probabilities.shape[1]
        order = np.concatenate([order[named[order] == one][:limit] for one in range(probabilities.shape[1])])
        return np.sort(order)
    return np.sort(order[:limit])


def _nothing(probabilities: np.ndarray, labelled: int, settings: PseudoSettings) -> str:
    """Why no image is taken, and what to do."""
    if not len(probabilities):
        return "there is no test image to learn from; leave train.pseudo out"
    surest = float(probabilities.max())
    if surest < settings.threshold:
        return (
            f"nothing to learn from: no test image reaches train.pseudo.threshold {settings.threshold:g}, the surest has "
            f"{surest:.4f}; lower the threshold"
        )
    shared = f", shared among {probabilities.shape[1]} classes," if settings.balance else ""
    return (
        f"nothing to learn from: train.pseudo.ratio {settings.ratio:g} of {labelled} labelled images{shared} allows none; "
        "raise the ratio"
    )
