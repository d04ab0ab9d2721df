"""Pseudo-labels: test images with what finished runs, the teachers, make of them. Imports no Keras.

Lee 2013 ("Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method for Deep Neural Networks"), in rounds.

A teacher's model of another fold was trained on this fold's held-out drivers, and what it says of test images carries their
labels over. So fold k's student is taught by the teachers' fold k models alone, and its out-of-fold score stays honest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from driverwatch.errors import InputError
from driverwatch.inference import predictions
from driverwatch.inference.paths import prediction_path
from driverwatch.inference.predictions import Predictions
from driverwatch.setting_types import ViewSet
from driverwatch.train_settings import PseudoSettings
from driverwatch.training.predicted import default_views
from driverwatch.training.run import Run


@dataclass(frozen=True)
class Lesson:
    """What a fit learns from images without labels.

    Args:
        rows: (T,), ascending: of the training pack for held-out images, and numbered on from its end for test images.
        targets: float32 (T, C).
        confidence: mean top probability of those taken, by their teachers.
        offered: images that teachers spoke of.
        tests: images of the test pack.
    """

    rows: np.ndarray
    targets: np.ndarray
    confidence: float
    offered: int
    tests: int

    def __str__(self) -> str:
        return f"{len(self.rows)} of {self.offered} images without labels (the teachers' mean confidence {self.confidence:.3f})"

    def facts(self, classes: tuple[str, ...]) -> dict[str, Any]:
        """For manifests: how many were taken, how sure the teachers were, and how many of each class they named."""
        counts = np.bincount(self.targets.argmax(axis=1), minlength=len(classes)).tolist()
        said = {"images": len(self.rows), "of": self.offered, "mean_confidence": round(self.confidence, 4)}
        return said | {"per_class": dict(zip(classes, counts, strict=True))}


class Teacher(Protocol):
    """Who says what images without labels show, by fit: one model, or several put together."""

    @property
    def name(self) -> str: ...

    @property
    def fits(self) -> int: ...

    @property
    def facts(self) -> dict[str, Any]: ...

    def said(self, number: int, kind: str) -> Predictions:
        """Of `kind` images (`test`, or `held_out` ones of fit `number`), by models that fit `number`'s student may ask."""


@dataclass(frozen=True)
class RunTeacher:
    """A finished run under one view set."""

    run: Run
    views: ViewSet
    folds: int

    @property
    def name(self) -> str:
        return self.run.name

    @property
    def fits(self) -> int:
        return self.run.settings.train.splits.fits(self.folds)

    @property
    def facts(self) -> dict[str, Any]:
        return {"views": self.views, "selected_on": self.run.looks_at_held_out}

    def said(self, number: int, kind: str) -> Predictions:
        path = prediction_path(self.run.fold(number), kind, self.views)
        return predictions.read(path, self.run.predicted(number, self.views))


@dataclass(frozen=True)
class TaughtTeacher:
    """What `make teach` wrote: runs put together by a chain, which for fold k was fitted without fold k."""

    folder: Path
    digest: str  # of the folds
    made_of: str  # digest of the weights that spoke, and of how they were put together
    fits: int
    facts: dict[str, Any]

    @property
    def name(self) -> str:
        return self.folder.name

    def path(self, number: int, kind: str) -> Path:
        return self.folder / f"fold{number}-{kind}.h5"

    def origin(self, number: int) -> dict[str, str]:
        """What a file must say of itself: another fold's models know the labels that this fold holds out."""
        return {"folds": self.digest, "taught": self.name, "made_of": self.made_of, "fold": str(number)}

    def said(self, number: int, kind: str) -> Predictions:
        try:
            return predictions.read(self.path(number, kind), self.origin(number))
        except InputError as error:
            raise InputError(f"{error} (of teachers: make teach NAME={self.name} MODELS=...)") from error


def views_of(teacher: Run, settings: PseudoSettings) -> ViewSet:
    """The view set that a teacher teaches with."""
    return default_views(teacher) if settings.views == "auto" else settings.views


def kinds_of(settings: PseudoSettings) -> tuple[str, ...]:
    return ("held_out", "test") if settings.images == "both" else (settings.images,)


def identity(teachers: Sequence[Teacher], settings: PseudoSettings | None) -> dict[str, Any]:
    """What a student's run repeats of its teachers: the digests of every fit's predictions, by teacher and kind of images.

    Raises:
        InputError: predictions missing, damaged, or of other weights than the teacher ended with.
    """
    found: dict[str, Any] = {}
    if settings is None:
        return found
    for teacher in teachers:
        said = {
            kind: [predictions.digest(teacher.said(number, kind)) for number in range(teacher.fits)]
            for kind in kinds_of(settings)
        }
        found[teacher.name] = {**teacher.facts, **said}
    return found


@dataclass(frozen=True)
class Unlabelled:
    """Images that teachers may speak of: names by row of the test pack, and of the training pack's held-out rows."""

    test: np.ndarray
    train: np.ndarray
    held_out: np.ndarray  # row numbers of the training pack

    def of(self, kind: str) -> tuple[np.ndarray, np.ndarray]:
        """Names and joined row numbers."""
        if kind == "test":
            return self.test, len(self.train) + np.arange(len(self.test))
        return self.train[self.held_out], self.held_out


def lesson(student: Run, number: int, teachers: Sequence[Teacher], there: Unlabelled, labelled: int) -> Lesson | None:
    """What fit `number` of a student learns from images without labels; None where its settings ask for none.

    Args:
        labelled: number of labelled images that the fit is trained on.

    Raises:
        InputError: predictions other than those the student was begun with, of other images, or none sure enough.
    """
    settings = student.settings.train.pseudo
    if settings is None:
        return None
    parts, names, rows = [], [], []
    for kind in kinds_of(settings):
        named, numbers = there.of(kind)
        said = [part for teacher in teachers for part in _taught(student, number, teacher, kind, named)]
        parts.append(np.mean(said, axis=0, dtype=np.float64))
        names.append(named)
        rows.append(numbers)
    mean = np.concatenate(parts)
    mean /= mean.sum(axis=1, keepdims=True)
    chosen = select(mean, np.concatenate(names), labelled, settings)
    if not len(chosen):
        raise InputError(f"{student.fold(number)}: {_nothing(mean, labelled, settings)}")
    taken, order = mean[chosen], np.argsort(np.concatenate(rows)[chosen])
    top = taken.max(axis=1)
    shares = np.eye(taken.shape[1])[taken.argmax(axis=1)] if settings.kind == "hard" else taken
    numbers = np.concatenate(rows)[chosen][order]
    return Lesson(numbers, shares[order].astype(np.float32), float(top.mean()), len(mean), len(there.test))


def _taught(student: Run, number: int, teacher: Teacher, kind: str, names: np.ndarray) -> list[np.ndarray]:
    """A teacher's probabilities (N, C) of the named images, from each fit that may teach fit `number`.

    A student that leaves nobody out is taught by all of them.
    """
    begun = (student.learned_from or {})["teachers"][teacher.name]
    everyone = student.settings.train.splits.kind == "all"
    found = []
    for fit in range(len(begun[kind])) if everyone else [number]:
        made = teacher.said(fit, kind)
        if predictions.digest(made) != begun[kind][fit]:
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
        return "there is no image without a label to learn from; leave train.pseudo out"
    surest = float(probabilities.max())
    if surest < settings.threshold:
        return (
            f"nothing to learn from: no image reaches train.pseudo.threshold {settings.threshold:g}, the surest has "
            f"{surest:.4f}; lower the threshold"
        )
    shared = f", shared among {probabilities.shape[1]} classes," if settings.balance else ""
    return (
        f"nothing to learn from: train.pseudo.ratio {settings.ratio:g} of {labelled} labelled images{shared} allows none; "
        "raise the ratio"
    )
