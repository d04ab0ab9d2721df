"""Whether a run is finished as it is asked for, told from manifests alone: without images, packs, pandas or Keras."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, NamedTuple

from driverwatch import run as runs
from driverwatch.config.model import ModelSettings, read_preset
from driverwatch.data import folds as fold_file
from driverwatch.data import splits
from driverwatch.data.context import CONFIGS, Context, open_context, open_packs
from driverwatch.data.folds import FoldTable
from driverwatch.data.pack import Pack, manifest_of, refuse_moved, stamp
from driverwatch.data.tta import Columns
from driverwatch.errors import InputError
from driverwatch.io.atomic import locked
from driverwatch.models import pretrained as weight_files
from driverwatch.run import open_run, refuse_fold
from driverwatch.training import fold_runner, label_issues, pseudo_labels
from driverwatch.training.fold_runner import FoldProcess
from driverwatch.training.pseudo_labels import Student, checked_teachers, open_teachers
from driverwatch.training.run_summary import print_summary


class Done(NamedTuple):
    """A finished run's identity and the number of its fits."""

    identity: dict[str, Any]
    fits: int


def finished_run(
    context: Context, settings: ModelSettings, name: str, weights: Path | None, learned_from: dict[str, Any] | None
) -> Done | None:
    """A run of exactly this that has finished every fit; None where anything differs, is missing, or must be looked at closely.

    With None the caller opens everything and says what is wrong; a run with teachers or a list of label issues is always
    looked at closely.
    """
    folder = context.places.run(name)
    if settings.train.pseudo is not None or settings.train.label_issues != "none":
        return None
    try:
        folds = fold_file.glance(context.places.folds, tuple(context.settings.classes))
        fits = settings.train.splits.fits(folds.count)
        if not all((folder / f"fold{number}" / "manifest.json").is_file() for number in range(fits)):
            return None
        packs = {kind: _checksum(context, settings.input.key, kind, folds.checksum) for kind in ("train", "test")}
        preset = read_preset(CONFIGS / "presets", settings.augment.preset)[1]
        found = weight_files.identity(settings, weights)
        wanted = runs.identity(settings, context.settings, preset, folds.checksum, packs, found, learned_from)
    except (InputError, OSError):
        return None
    return Done(wanted, fits) if runs.is_as_started(folder, wanted) else None


def _checksum(context: Context, size: str, kind: str, folds: str) -> str:
    """A pack's checksum, if its file is the one that packing left, under these folds.

    Raises:
        InputError: it is not, or cannot be told without reading it.
    """
    folder = context.places.pack(size)
    made = manifest_of(folder, kind, size)
    refuse_moved(folder / f"{kind}.h5", made, context.regions(size))
    if made["folds"] != folds or made.get("stamp") != stamp(folder / f"{kind}.h5"):
        raise InputError(f"{folder / kind}.h5: must be looked at")
    return str(made["checksum"])


def train(
    context: Context,
    settings: ModelSettings,
    name: str,
    weights: Path | None,
    fold: int | None,
    force: bool,
    epochs: dict[str, Any] | None = None,
    last: bool = True,
) -> None:
    """Train the folds of run `name` that are not finished; refuse to continue with a run that was started with something else.

    Args:
        epochs: where their number was chosen, if on another run's validation drivers; the run repeats it.
        last: whether the command ends with this run, and says so.
    """
    start = time.monotonic()
    with started_run(context, settings, name, weights, fold, force, epochs) as claim:
        if not all(map(claim.run.finished, claim.asked)):
            fold_runner.write(context.places, claim.run, settings, weights, claim.asked)
        for number in claim.asked:
            if not claim.run.finished(number):
                (context.runner or FoldProcess()).run_fold(claim.run, number, claim.lock)
            claim.found(number)
    if last:
        print_summary(context, claim.run, claim.fits, time.monotonic() - start)


class LockedRun(NamedTuple):
    """A run that is held for one writer: the fits asked for, of `fits` in all, and the lock, as `locked` yields it."""

    run: runs.Run
    asked: list[int]
    fits: int
    lock: int

    def found(self, number: int) -> None:
        """What a finished fit must be, and what it no longer needs."""
        self.run.verify(number)
        self.run.sweep(number)


@contextmanager
def started_run(
    context: Context,
    settings: ModelSettings,
    name: str,
    weights: Path | None,
    fold: int | None,
    force: bool,
    epochs: dict[str, Any] | None = None,
) -> Iterator[LockedRun]:
    """Hold run `name`, started with these settings or found to be. Arguments and errors are those of `train`."""
    folder = context.places.run(name)
    weight_files.find(settings, weights)
    refuse_flipping(context, settings)
    wanted, count = _wanted(context, settings, name, weights, fold, force, epochs)
    with locked(folder) as lock:
        runs.begin(folder, wanted, fold, force)
        yield LockedRun(runs.load(folder), [fold] if fold is not None else list(range(count)), count, lock)


def _wanted(
    context: Context,
    settings: ModelSettings,
    name: str,
    weights: Path | None,
    fold: int | None,
    force: bool,
    epochs: dict[str, Any] | None,
) -> tuple[dict[str, Any], int]:
    """What the run is to be of, and the number of its fits; packs are opened unless it is finished and nothing has changed."""
    learned = {"epochs": epochs} if epochs else {}
    if not force and (done := finished_run(context, settings, name, weights, learned or None)):
        refuse_fold(fold, done.fits)
        return done.identity, done.fits
    folds, packs = open_packs(context, settings.input.key)
    count = splits.of(settings.train, folds).count
    refuse_fold(fold, count)
    student = Student(
        name=name,
        settings=settings,
        classes=tuple(context.settings.classes),
        places=context.places,
        folds=folds,
        packs=packs,
        open_packs=partial(open_packs, context),
    )
    teacher_identity = pseudo_labels.identity(checked_teachers(student), settings.train.pseudo)
    doubted = label_issues.identity(context, settings, packs["train"])
    made: dict[str, Any] = {"teachers": teacher_identity, "epochs": epochs, "label_issues": doubted}
    learned_from = {key: facts for key, facts in made.items() if facts}
    return _identity(context, settings, folds, packs, weights, learned_from or None), count


def _identity(
    context: Context,
    settings: ModelSettings,
    folds: FoldTable,
    packs: dict[str, Pack],
    weights: Path | None,
    learned_from: dict[str, Any] | None,
) -> dict[str, Any]:
    preset = read_augmentation(context, settings)
    checksums = {kind: pack.checksum for kind, pack in packs.items()}
    found = weight_files.identity(settings, weights)
    return runs.identity(settings, context.settings, preset, folds.checksum, checksums, found, learned_from)


def read_augmentation(context: Context, settings: ModelSettings) -> list[dict[str, dict[str, Any]]]:
    """A model's preset as plain data, each transform tried. Raises as `refuse_flipping`, and for transforms that fail."""
    from driverwatch.data.augment import load_preset  # brings the library, a second or more

    refuse_flipping(context, settings)
    return load_preset(CONFIGS / "presets", settings.augment.preset)


def refuse_flipping(context: Context, settings: ModelSettings) -> None:
    """Refuse flipping that needs pairs of classes which the data set does not name."""
    if settings.augment.hflip == "swap_left_right" and not context.settings.left_right_pairs:
        raise InputError(
            f"augment.hflip: swap needs left_right_pairs in configs/datasets/{context.dataset}.yaml; use keep or none"
        )
    Columns(context.settings.swap()).sets_of(settings.predict.tta)


def train_one_fold(folder: Path, fold: int, weights: Path | None = None) -> None:
    """What a `FoldRunner` has done, in this process, with a run that is started and held for it.

    Args:
        folder: of the run, in the project that is the working directory.
        weights: folder of local weight files, where it is not the one that `execution.json` names.
    """
    from driverwatch.models import backend

    how = fold_runner.read(folder)
    context = open_context(how.dataset, None, how.study)
    run, folds, packs = open_run(context, folder.name)
    if run.finished(fold):
        raise InputError(f"{run.fold(fold)}: is finished; make train FORCE=1 FOLD={fold} trains it again")
    run = runs.executed(run, how.settings)
    backend.start()
    from driverwatch.training.fold import train_fold
    from driverwatch.training.pseudo_labels import FoldIndices

    training, validation = splits.of(run.settings.train, folds).rows(packs["train"].drivers, fold)
    training, sample_weights = label_issues.weighted_rows(run, packs, training)
    unlabelled = pseudo_labels.Unlabelled(packs["test"].names, packs["train"].names, validation)
    said = pseudo_labels.fold_labels(
        run, fold, open_teachers(context.places, run.settings, folds), unlabelled, len(training)
    )
    rows = FoldIndices(training, validation, said, sample_weights)
    found = weight_files.find(run.settings, weights or (Path(how.weights) if how.weights else None))
    train_fold(
        run, fold, packs, rows, found, run.settings.predict, context.places.feature_caches, how.others(run, fold)
    )


Wanted = dict[str, ModelSettings]  # by run


def train_in_turn(context: Context, wanted: Wanted, weights: Path | None, fold: int | None, force: bool) -> None:
    """Train runs one after the other here, those that teach others first. Raises as `train`."""
    order = teachers_first(wanted)
    while order.is_active():
        for name in order.get_ready():
            train(context, wanted[name], name, weights, fold, force)
            order.done(name)


def teachers_first(wanted: Wanted) -> "TopologicalSorter[str]":
    """Runs, each after those among them that teach it.

    Raises:
        InputError: runs that teach each other.
    """
    teachers = {name: made.train.pseudo.runs if made.train.pseudo else [] for name, made in wanted.items()}
    order = TopologicalSorter({name: [one for one in asked if one in wanted] for name, asked in teachers.items()})
    try:
        order.prepare()
    except CycleError as error:
        raise InputError(f"MODELS: teach each other: {', '.join(error.args[1])}; train.pseudo.runs") from error
    return order
