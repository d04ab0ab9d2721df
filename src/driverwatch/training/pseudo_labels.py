"""Pseudo-labels (Lee 2013; soft ones: distillation): images without labels with what finished runs, the teachers, predict.

A teacher's model of another fold was trained on this fold's validation drivers, and what it says of test images carries their
labels over. So fold k's student is trained on the teachers' fold k models' pseudo-labels alone, and its OOF score is honest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from driverwatch import run as runs
from driverwatch.config.model import ModelSettings
from driverwatch.config.training import PseudoSettings
from driverwatch.config.types import TtaSet
from driverwatch.data import splits
from driverwatch.data.context import Context, open_packs
from driverwatch.data.folds import FoldTable
from driverwatch.data.pack import Pack
from driverwatch.errors import InputError
from driverwatch.inference import predictions
from driverwatch.inference.predictions import Predictions, default_tta_of, prediction_path
from driverwatch.io.manifests import read_json
from driverwatch.io.paths import Places, plain_name
from driverwatch.run import Run


@dataclass(frozen=True)
class PseudoLabels:
    """Images without labels that a fold is trained on, and the targets that teachers gave them."""

    indices: (
        np.ndarray
    )  # int (T,), ascending: of the training pack's rows, and numbered on from their end for test images
    targets: np.ndarray  # float32 (T, C)
    confidence: float  # mean top probability of those taken, by their teachers
    offered: int  # images that teachers spoke of
    tests: int  # images of the test pack

    def __str__(self) -> str:
        return f"{len(self.indices)} of {self.offered} images without labels (the teachers' mean confidence {self.confidence:.3f})"

    def facts(self, classes: tuple[str, ...]) -> dict[str, Any]:
        """For manifests: how many were taken, how sure the teachers were, and how many of each class they named."""
        counts = np.bincount(self.targets.argmax(axis=1), minlength=len(classes)).tolist()
        said = {"images": len(self.indices), "of": self.offered, "mean_confidence": round(self.confidence, 4)}
        return said | {"per_class": dict(zip(classes, counts, strict=True))}


@dataclass(frozen=True)
class RunTeacher:
    """A finished run under one TTA set."""

    run: Run
    tta: TtaSet
    folds: int

    @property
    def name(self) -> str:
        return self.run.name

    @property
    def count(self) -> int:
        return self.run.settings.train.splits.models(self.folds)

    @property
    def facts(self) -> dict[str, Any]:
        return {"tta": self.tta, "chosen_on_validation": self.run.uses_validation}

    def predictions(self, number: int, kind: str) -> Predictions:
        """Of `kind` images (`test`, or `validation` ones of fold `number`), by models that fold `number`'s student may ask."""
        path = prediction_path(self.run.fold(number), kind, self.tta)
        return predictions.read(path, self.run.predicted(number, self.tta))


@dataclass(frozen=True)
class EnsembleTeacher:
    """What `make pseudo-labels` wrote: runs put together by a pipeline, which for fold k was fitted without fold k."""

    folder: Path
    checksum: str  # of the folds
    made_of: str  # checksum of the weights that spoke, and of how they were put together
    count: int  # of folds
    facts: dict[str, Any]

    @property
    def name(self) -> str:
        return self.folder.name

    def path(self, number: int, kind: str) -> Path:
        return self.folder / f"fold{number}-{kind}.h5"

    def origin(self, number: int) -> dict[str, str]:
        """What a file must say of itself: another fold's models know the labels that this fold holds out."""
        return {"folds": self.checksum, "pseudo_labels": self.name, "made_of": self.made_of, "fold": str(number)}

    def predictions(self, number: int, kind: str) -> Predictions:
        """As a run's."""
        try:
            return predictions.read(self.path(number, kind), self.origin(number))
        except InputError as error:
            raise InputError(f"{error} (of teachers: make pseudo-labels NAME={self.name} MODELS=...)") from error


Teacher: TypeAlias = RunTeacher | EnsembleTeacher  # predicts images without labels, by fold


def tta_of(teacher: Run, settings: PseudoSettings) -> TtaSet:
    """The TTA set that a teacher teaches with."""
    return default_tta_of(teacher) if settings.tta == "auto" else settings.tta


def kinds_of(settings: PseudoSettings) -> tuple[str, ...]:
    return ("validation", "test") if settings.images == "both" else (settings.images,)


def identity(teachers: Sequence[Teacher], settings: PseudoSettings | None) -> dict[str, Any]:
    """What a student's run repeats of its teachers: the checksums of every fold's predictions, by teacher and kind of images.

    Raises `InputError`: predictions missing, damaged, or of other weights than the teacher ended with.
    """
    found: dict[str, Any] = {}
    if settings is None:
        return found
    for teacher in teachers:
        found[teacher.name] = dict(teacher.facts)
        for kind in kinds_of(settings):
            said = [teacher.predictions(number, kind) for number in range(teacher.count)]
            found[teacher.name][kind] = [predictions.checksum(made) for made in said]
    return found


@dataclass(frozen=True)
class Unlabelled:
    """Images that teachers may speak of: names by row of the test pack, and of the training pack's validation rows."""

    test: np.ndarray
    train: np.ndarray
    validation: np.ndarray  # row numbers of the training pack

    def of(self, kind: str) -> tuple[np.ndarray, np.ndarray]:
        """Names and joined row numbers."""
        if kind == "test":
            return self.test, len(self.train) + np.arange(len(self.test))
        return self.train[self.validation], self.validation


def fold_labels(
    student: Run, number: int, teachers: Sequence[Teacher], there: Unlabelled, labelled: int
) -> PseudoLabels | None:
    """What fold `number` of a student is trained on images without labels; None where its settings ask for none.

    Args:
        labelled: number of labelled images that the fold is trained on.

    Raises:
        InputError: predictions other than those the student was started with, of other images, or none sure enough.
    """
    settings = student.settings.train.pseudo
    if settings is None:
        return None
    parts, names, rows = [], [], []
    for kind in kinds_of(settings):
        named, numbers = there.of(kind)
        said = [part for teacher in teachers for part in _pseudo_labels(student, number, teacher, kind, named)]
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
    return PseudoLabels(numbers, shares[order].astype(np.float32), float(top.mean()), len(mean), len(there.test))


def _pseudo_labels(student: Run, number: int, teacher: Teacher, kind: str, names: np.ndarray) -> list[np.ndarray]:
    """A teacher's probabilities (N, C) of the named images, from each fold that may teach fold `number`.

    A student without validation drivers is trained on the pseudo-labels of all of them.
    """
    recorded = (student.learned_from or {})["teachers"][teacher.name]
    on_all = student.settings.train.splits.kind == "all"
    found = []
    for fold in range(len(recorded[kind])) if on_all else [number]:
        made = teacher.predictions(fold, kind)
        if predictions.checksum(made) != recorded[kind][fold]:
            raise InputError(
                f"{made.where}: is not what {student.name} was started with; restore it, or add FORCE=1 to "
                "the command that trains the student"
            )
        found.append(made.aligned_to(list(names)))
    return found


def select(probabilities: np.ndarray, names: np.ndarray, labelled: int, settings: PseudoSettings) -> np.ndarray:
    """Rows of (N, C) probabilities that are trained on, ascending: sure enough, the most confident first, up to the ratio.

    Of equally confident ones the first by name (N,) are taken, so that the order of rows decides nothing.
    """
    top, named = probabilities.max(axis=1), probabilities.argmax(axis=1)
    order = np.lexsort((names.astype(str), -top))
    order = order[top[order] >= settings.threshold]
    limit = int(settings.ratio * labelled)
    if settings.class_balance:
        limit //= probabilities.shape[1]
        order = np.concatenate([order[named[order] == one][:limit] for one in range(probabilities.shape[1])])
        return np.sort(order)
    return np.sort(order[:limit])


def _nothing(probabilities: np.ndarray, labelled: int, settings: PseudoSettings) -> str:
    """Why no image is taken, and what to do."""
    if not len(probabilities):
        return "there is no image without a label to train on; leave train.pseudo out"
    surest = float(probabilities.max())
    if surest < settings.threshold:
        return (
            f"nothing to train on: no image reaches train.pseudo.threshold {settings.threshold:g}, the surest has "
            f"{surest:.4f}; lower the threshold"
        )
    shared = f", shared among {probabilities.shape[1]} classes," if settings.class_balance else ""
    return (
        f"nothing to train on: train.pseudo.ratio {settings.ratio:g} of {labelled} labelled images{shared} allows none; "
        "raise the ratio"
    )


@dataclass(frozen=True)
class FoldIndices:
    """Row numbers in the training pack, and what is trained on images without labels besides."""

    training: np.ndarray
    validation: np.ndarray
    fold_labels: PseudoLabels | None = None
    sample_weights: np.ndarray | None = None  # of images' losses, float32 by such a row; None: all 1

    def refuse_shared(self, drivers: np.ndarray, run: Run, number: int) -> None:
        """Refuse a driver, given each row's, on both sides."""
        if both := set(drivers[self.training]) & set(drivers[self.validation]):
            raise InputError(f"{run.fold(number)}: driver {min(both)} is on both sides; restore {run.name}'s fold file")
        if self.fold_labels is not None and np.isin(self.fold_labels.indices, self.training).any():
            raise ValueError("a labelled image cannot have a pseudo-label")

    def shown(self) -> np.ndarray:
        """Rows that training shows; those of the test pack are numbered on from the training pack's."""
        return self.training if self.fold_labels is None else np.concatenate([self.training, self.fold_labels.indices])

    def is_pseudo_label(self, count: int) -> np.ndarray:
        """Which of the training pack's `count` rows and the test pack's after them have pseudo-labels, bool."""
        found = np.zeros(count + (self.fold_labels.tests if self.fold_labels else 0), bool)
        if self.fold_labels is not None:
            found[self.fold_labels.indices] = True
        return found

    def targets(self, labels: np.ndarray, classes: int) -> np.ndarray:
        """Label shares float32 by such a row: labels, pseudo-labels, and 0 for images that are not shown.

        `labels`: int (N,), of the training pack.
        """
        found = np.zeros((len(self.is_pseudo_label(len(labels))), classes), np.float32)
        found[self.training] = np.eye(classes, dtype=np.float32)[labels[self.training]]
        if self.fold_labels is not None:
            found[self.fold_labels.indices] = self.fold_labels.targets
        return found


@dataclass(frozen=True)
class Student:
    """A run that is about to be trained, and what it is trained on."""

    context: Context
    name: str
    settings: ModelSettings
    folds: FoldTable
    packs: dict[str, Pack]  # of the run's input size, by kind


def checked_teachers(student: Student) -> list[Teacher]:
    """The teachers that `train.pseudo` names; none where it is not set.

    Raises `InputError`: one that is missing, not finished, on other folds, classes or images, or that was trained on
    drivers whom the student holds out.
    """
    pseudo, train = student.settings.train.pseudo, student.settings.train
    if pseudo is None:
        return []
    for name in pseudo.runs:
        _check_run(student, name)
    if pseudo.labels and train.splits.kind in ("shuffle_split", "reshuffled"):
        raise InputError("train.pseudo.labels: was made by folds, and shuffled ones hold others out; name runs")
    found = open_teachers(student.context.places, student.settings, student.folds)
    for teacher in found:
        _check_images(student, teacher)
    return found


def open_teachers(places: Places, settings: ModelSettings, folds: FoldTable) -> list[Teacher]:
    """The same, unchecked and without packs: for a fold's process, whose run began with `checked_teachers`."""
    asked = settings.train.pseudo
    if asked is None:
        return []
    if asked.labels:
        return [open_teacher_ensemble(places, asked.labels, folds)]
    found = [runs.load(places.run(plain_name(name, "train.pseudo.runs"))) for name in asked.runs]
    return [RunTeacher(run, tta_of(run, asked), folds.count) for run in found]


def open_teacher_ensemble(places: Places, name: str, folds: FoldTable) -> EnsembleTeacher:
    """The teacher ensemble whose pseudo-labels `make pseudo-labels NAME=` wrote.

    Raises `InputError`: not there, or made on other folds.
    """
    folder = places.pseudo_labels(name)
    if not (folder / "manifest.json").is_file():
        writes = f"make pseudo-labels NAME={name} MODELS=... writes it"
        raise InputError(f"train.pseudo.labels: {folder} is not there; {writes}")
    made = read_json(folder / "manifest.json")
    if made.get("folds") != folds.checksum or not isinstance(made.get("identity"), str):
        again = f"make pseudo-labels NAME={name} MODELS=... again"
        raise InputError(f"{folder}: was made on other folds than today's; {again}")
    facts = {key: made.get(key) for key in ("runs", "pipeline")}
    facts["chosen_on_validation"] = bool(made.get("chosen_on_validation"))
    return EnsembleTeacher(folder, folds.checksum, made["identity"], folds.count, facts)


def _check_images(student: Student, teacher: Teacher) -> None:
    """Raise `InputError` for a teacher with predictions of other images than the student's packs hold, or without them."""
    train, test, settings = student.packs["train"], student.packs["test"], student.settings.train
    mine = splits.of(settings, student.folds)
    for kind in kinds_of(settings.pseudo) if settings.pseudo else ():
        for fold in range(teacher.count):
            asked = test.names if kind == "test" else train.names[mine.indices(train.drivers, fold)[1]]
            if other := set(teacher.predictions(fold, kind).names.tolist()) ^ set(asked.tolist()):
                strange = f"{min(other)}, {len(other)} in all"
                raise InputError(
                    f"{teacher.name}: predicts other {kind} images in fold {fold} than the student's pack holds ({strange}); make "
                    "both packs alike (SKIP_INVALID=), then make the pseudo-labels again"
                )


def _check_run(student: Student, name: str) -> None:
    if name == student.name:
        raise InputError(f"train.pseudo.runs: {name} cannot teach itself; give the student another name with RUN=")
    teacher = runs.load(student.context.places.run(plain_name(name, "train.pseudo.runs")))
    for fold in range(teacher.settings.train.splits.models(student.folds.count)):
        teacher.manifest(fold)  # raises if the fold is not finished
    key = teacher.settings.input.key
    packs = student.packs if key == student.settings.input.key else open_packs(student.context, key)[1]
    teacher.refuse_other_inputs(student.folds.checksum, {kind: pack.checksum for kind, pack in packs.items()})
    if list(teacher.classes) != list(student.context.settings.classes):
        raise InputError(f"{teacher.folder}: has other classes than {student.name}; leave it out of train.pseudo.runs")
    _check_drivers(student, teacher)


def _check_drivers(student: Student, teacher: Run) -> None:
    """Raise `InputError` for a teacher that knows labels of validation drivers; a student without any may have any teacher."""
    mine, theirs = (splits.of(one.train, student.folds).validation for one in (student.settings, teacher.settings))
    if student.settings.train.splits.kind != "all" and mine != theirs:
        raise InputError(
            f"{teacher.folder}: its models were trained on drivers that {student.name} holds out, whose labels they would carry "
            "over; a teacher needs its student's train.splits (and for subsets its train.seed)"
        )
