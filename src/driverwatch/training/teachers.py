"""Who teaches a run by pseudo-labels: finished runs, or what `make teach` made of some; opened and checked."""

from driverwatch.artifacts import plain_name, read_json
from driverwatch.data import splits
from driverwatch.data.folds import FoldTable
from driverwatch.data.pack import Pack
from driverwatch.errors import InputError
from driverwatch.settings import ModelSettings
from driverwatch.steps.context import Context, open_packs
from driverwatch.train_settings import TrainSettings
from driverwatch.training import run as runs
from driverwatch.training.pseudo import RunTeacher, TaughtTeacher, Teacher, kinds_of, views_of
from driverwatch.training.run import Run


def teachers(
    context: Context, settings: ModelSettings, student: str, folds: FoldTable, packs: dict[str, Pack]
) -> list[Teacher]:
    """Whom `train.pseudo` names.

    Raises:
        InputError: one that is not there, not finished, on other folds, classes or test images, or that was trained on
            drivers whom the student holds out.
    """
    if settings.train.pseudo is None:
        return []
    for name in settings.train.pseudo.runs:
        _check(context, settings, student, name, folds, packs)
    if settings.train.pseudo.taught and settings.train.splits.kind in ("subsets", "redrawn"):
        raise InputError("train.pseudo.taught: was made by folds, and drawn ones hold others out; name runs instead")
    found = opened(context, settings, folds)
    for teacher in found:
        refuse_other_images(teacher, settings.train, folds, packs)
    return found


def refuse_other_images(teacher: Teacher, settings: TrainSettings, folds: FoldTable, packs: dict[str, Pack]) -> None:
    """Refuse a teacher that speaks of other images than its student's packs hold, before anything is trained.

    Raises:
        InputError: such a teacher, or one whose predictions are not there.
    """
    mine = splits.of(settings, folds)
    for kind in kinds_of(settings.pseudo) if settings.pseudo else ():
        for number in range(teacher.fits):
            asked = packs["test"].names
            if kind == "held_out":
                asked = packs["train"].names[mine.rows(packs["train"].drivers, number)[1]]
            if strange := set(teacher.said(number, kind).names.tolist()) ^ set(asked.tolist()):
                raise InputError(
                    f"{teacher.name}: speaks of other {kind} images in fold {number} than the student's pack holds ("
                    f"{min(strange)}, {len(strange)} in all); make both packs alike (SKIP_BROKEN=), then teach again"
                )


def opened(context: Context, settings: ModelSettings, folds: FoldTable) -> list[Teacher]:
    """The same without looking at packs: for a fold's process, whose run was begun by `teachers`."""
    asked = settings.train.pseudo
    if asked is None:
        return []
    if asked.taught:
        return [open_taught(context, asked.taught, folds)]
    found = [runs.load(context.places.run(plain_name(name, "train.pseudo.runs"))) for name in asked.runs]
    return [RunTeacher(run, views_of(run, asked), folds.count) for run in found]


def open_taught(context: Context, name: str, folds: FoldTable) -> TaughtTeacher:
    """What `make teach NAME=` wrote.

    Raises:
        InputError: not there, or made on other folds.
    """
    folder = context.places.taught(name)
    if not (folder / "manifest.json").is_file():
        raise InputError(f"train.pseudo.taught: {folder} is not there; make teach NAME={name} MODELS=... writes it")
    made = read_json(folder / "manifest.json")
    if made.get("folds") != folds.digest or not isinstance(made.get("identity"), str):
        raise InputError(f"{folder}: was made on other folds than today's; make teach NAME={name} MODELS=... again")
    facts = {"runs": made.get("runs"), "chain": made.get("chain"), "selected_on": bool(made.get("selected_on"))}
    return TaughtTeacher(folder, folds.digest, made["identity"], folds.count, facts)


def _check(
    context: Context, settings: ModelSettings, student: str, name: str, folds: FoldTable, packs: dict[str, Pack]
) -> None:
    if name == student:
        raise InputError(f"train.pseudo.runs: {name} cannot teach itself; give the student another name with RUN=")
    teacher = runs.load(context.places.run(plain_name(name, "train.pseudo.runs")))
    for number in range(teacher.settings.train.splits.fits(folds.count)):
        teacher.manifest(number)  # or a sentence that it is not finished
    key = teacher.settings.input.key
    theirs = packs if key == settings.input.key else open_packs(context, key)[1]
    teacher.refuse_strangers(folds.digest, {kind: pack.digest for kind, pack in theirs.items()})
    if list(teacher.classes) != list(context.settings.classes):
        raise InputError(
            f"{teacher.folder}: tells other classes apart than {student}; leave it out of train.pseudo.runs"
        )
    if set(theirs["test"].names) != set(packs["test"].names):
        raise InputError(
            f"{teacher.folder}: its pack holds other test images than {student}'s; make both packs alike (SKIP_BROKEN=)"
        )
    _refuse_informed(settings, student, teacher, folds)


def _refuse_informed(settings: ModelSettings, student: str, teacher: Run, folds: FoldTable) -> None:
    """A student that leaves nobody out may learn from anybody."""
    mine, theirs = (splits.of(made.train, folds).held_out for made in (settings, teacher.settings))
    if settings.train.splits.kind != "all" and mine != theirs:
        raise InputError(
            f"{teacher.folder}: its models were trained on drivers that {student} holds out, whose labels they would carry "
            "over; a teacher needs its student's train.splits (and for subsets its train.seed)"
        )
