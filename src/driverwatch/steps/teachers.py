"""The finished runs that teach another one by pseudo-labels, opened and checked."""

from driverwatch.artifacts import plain_name
from driverwatch.data import splits
from driverwatch.data.folds import FoldTable
from driverwatch.data.pack import Pack
from driverwatch.errors import InputError
from driverwatch.settings import ModelSettings
from driverwatch.steps.context import Context, open_packs
from driverwatch.training import run as runs
from driverwatch.training.run import Run


def teachers(
    context: Context, settings: ModelSettings, student: str, folds: FoldTable, packs: dict[str, Pack]
) -> list[Run]:
    """The runs that `train.pseudo` names.

    Raises:
        InputError: one that is not there, not finished, on other folds, classes or test images, or that was trained on
            drivers whom the student holds out.
    """
    if settings.train.pseudo is None:
        return []
    return [_checked(context, settings, student, name, folds, packs) for name in settings.train.pseudo.runs]


def _checked(
    context: Context, settings: ModelSettings, student: str, name: str, folds: FoldTable, packs: dict[str, Pack]
) -> Run:
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
    return teacher


def _refuse_informed(settings: ModelSettings, student: str, teacher: Run, folds: FoldTable) -> None:
    """A student that leaves nobody out may learn from anybody."""
    mine, theirs = (splits.of(made.train, folds).held_out for made in (settings, teacher.settings))
    if settings.train.splits.kind != "all" and mine != theirs:
        raise InputError(
            f"{teacher.folder}: its models were trained on drivers that {student} holds out, whose labels they would carry "
            "over; a teacher needs its student's train.splits (and for subsets its train.seed)"
        )
