"""The teachers of a run with pseudo-labels: finished runs, or a teacher ensemble; opened, and checked before training."""

from collections.abc import Callable
from dataclasses import dataclass

from driverwatch.artifacts import Places, plain_name, read_json
from driverwatch.data import splits
from driverwatch.data.folds import FoldTable
from driverwatch.data.pack import Pack
from driverwatch.errors import InputError
from driverwatch.settings import ModelSettings
from driverwatch.training import run as runs
from driverwatch.training.pseudo import RunTeacher, TaughtTeacher, Teacher, kinds_of, views_of
from driverwatch.training.run import Run


@dataclass(frozen=True, kw_only=True)
class Student:
    """A run that is about to be trained, and what it is trained on.

    Args:
        packs: of the run's input size, by kind.
        open_packs: the folds and packs of another size, by its key.
    """

    name: str
    settings: ModelSettings
    classes: tuple[str, ...]
    places: Places
    folds: FoldTable
    packs: dict[str, Pack]
    open_packs: Callable[[str], tuple[FoldTable, dict[str, Pack]]]


def checked_teachers(student: Student) -> list[Teacher]:
    """The teachers that `train.pseudo` names; none where it is not set.

    Raises:
        InputError: one that is missing, not finished, on other folds, classes or images, or that was trained on drivers
            whom the student holds out.
    """
    pseudo, train = student.settings.train.pseudo, student.settings.train
    if pseudo is None:
        return []
    for name in pseudo.runs:
        _check_run(student, name)
    if pseudo.taught and train.splits.kind in ("subsets", "redrawn"):
        raise InputError("train.pseudo.taught: was made by folds, and drawn ones hold others out; name runs instead")
    found = open_teachers(student.places, student.settings, student.folds)
    for teacher in found:
        _check_images(student, teacher)
    return found


def open_teachers(places: Places, settings: ModelSettings, folds: FoldTable) -> list[Teacher]:
    """The same, unchecked and without packs: for a fold's process, whose run began with `checked_teachers`."""
    asked = settings.train.pseudo
    if asked is None:
        return []
    if asked.taught:
        return [open_teacher_ensemble(places, asked.taught, folds)]
    found = [runs.load(places.run(plain_name(name, "train.pseudo.runs"))) for name in asked.runs]
    return [RunTeacher(run, views_of(run, asked), folds.count) for run in found]


def open_teacher_ensemble(places: Places, name: str, folds: FoldTable) -> TaughtTeacher:
    """The teacher ensemble whose pseudo-labels `make teach NAME=` wrote.

    Raises:
        InputError: not there, or made on other folds.
    """
    folder = places.taught(name)
    if not (folder / "manifest.json").is_file():
        raise InputError(f"train.pseudo.taught: {folder} is not there; make teach NAME={name} MODELS=... writes it")
    made = read_json(folder / "manifest.json")
    if made.get("folds") != folds.digest or not isinstance(made.get("identity"), str):
        raise InputError(f"{folder}: was made on other folds than today's; make teach NAME={name} MODELS=... again")
    facts = {"runs": made.get("runs"), "chain": made.get("chain"), "selected_on": bool(made.get("selected_on"))}
    return TaughtTeacher(folder, folds.digest, made["identity"], folds.count, facts)


def _check_images(student: Student, teacher: Teacher) -> None:
    """Raise `InputError` for a teacher with predictions of other images than the student's packs hold, or without them."""
    train, test, settings = student.packs["train"], student.packs["test"], student.settings.train
    mine = splits.of(settings, student.folds)
    for kind in kinds_of(settings.pseudo) if settings.pseudo else ():
        for fit in range(teacher.fits):
            asked = test.names if kind == "test" else train.names[mine.rows(train.drivers, fit)[1]]
            if other := set(teacher.said(fit, kind).names.tolist()) ^ set(asked.tolist()):
                raise InputError(
                    f"{teacher.name}: predicts other {kind} images in fold {fit} than the student's pack holds ("
                    f"{min(other)}, {len(other)} in all); make both packs alike (SKIP_BROKEN=), then teach again"
                )


def _check_run(student: Student, name: str) -> None:
    if name == student.name:
        raise InputError(f"train.pseudo.runs: {name} cannot teach itself; give the student another name with RUN=")
    teacher = runs.load(student.places.run(plain_name(name, "train.pseudo.runs")))
    for fit in range(teacher.settings.train.splits.fits(student.folds.count)):
        teacher.manifest(fit)  # raises if the fold is not finished
    key = teacher.settings.input.key
    packs = student.packs if key == student.settings.input.key else student.open_packs(key)[1]
    teacher.refuse_strangers(student.folds.digest, {kind: pack.digest for kind, pack in packs.items()})
    if list(teacher.classes) != list(student.classes):
        raise InputError(f"{teacher.folder}: has other classes than {student.name}; leave it out of train.pseudo.runs")
    _check_drivers(student, teacher)


def _check_drivers(student: Student, teacher: Run) -> None:
    """Raise `InputError` for a teacher that knows labels of validation drivers; a student without any may have any teacher."""
    mine, theirs = (splits.of(one.train, student.folds).held_out for one in (student.settings, teacher.settings))
    if student.settings.train.splits.kind != "all" and mine != theirs:
        raise InputError(
            f"{teacher.folder}: its models were trained on drivers that {student.name} holds out, whose labels they would carry "
            "over; a teacher needs its student's train.splits (and for subsets its train.seed)"
        )
