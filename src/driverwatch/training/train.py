"""Train a run: refuse what does not fit, hold its folder, have each fold that is not finished trained by a `FoldRunner`."""

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, NamedTuple

from driverwatch import run as runs
from driverwatch.config.model import ModelSettings, read_preset
from driverwatch.data import folds as fold_file
from driverwatch.data import splits
from driverwatch.data.context import CONFIGS, Context, open_context, open_packs
from driverwatch.data.pack import manifest_of, refuse_absent, refuse_moved, stamp
from driverwatch.data.tta import Columns
from driverwatch.errors import InputError
from driverwatch.io.atomic import locked
from driverwatch.models import weight_files
from driverwatch.run import open_run, refuse_fold
from driverwatch.training import fold_runner, label_issues, precision, pseudo_labels, tracking
from driverwatch.training.fold_runner import FoldProcess, FoldRunner
from driverwatch.training.pseudo_labels import Student, checked_teachers, open_teachers
from driverwatch.training.run_summary import print_summary


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """A run to be trained: on which data set, by which settings, under which name, and what of it."""

    context: Context
    settings: ModelSettings
    name: str
    weights: Path | None = None  # folder of local weight files
    fold: int | None = None  # the one to train; None: each
    force: bool = False  # train again what is there
    # where their number was chosen, if on another run's validation drivers; the run repeats it
    epochs: dict[str, Any] | None = None


class Done(NamedTuple):
    """A finished run's identity and the number of its folds."""

    identity: dict[str, Any]
    folds: int


def finished_run(request: TrainRequest) -> Done | None:
    """The run's identity if every fold is finished with exactly these inputs, else None.

    With None the caller opens everything and says what is wrong; a run with teachers or a list of label issues is always
    looked at closely.
    """
    context, settings = request.context, request.settings
    folder, learned = context.places.run(request.name), {"epochs": request.epochs} if request.epochs else None
    if settings.precision == "auto":
        if not (folder / "run.json").is_file():
            return None
        settings = _with_precision(request)
    if settings.train.pseudo is not None or settings.train.label_issues != "none":
        return None
    try:
        folds = fold_file.glance(context.places.folds, tuple(context.settings.classes))
        count = settings.train.splits.models(folds.count)
        if not all((folder / f"fold{number}" / "manifest.json").is_file() for number in range(count)):
            return None
        packs = {kind: _checksum(context, settings.input.key, kind, folds.checksum) for kind in ("train", "test")}
        preset = read_preset(CONFIGS / "presets", settings.augment.preset)[1]
        found = weight_files.identity(settings, request.weights)
        wanted = runs.identity(settings, context.settings, preset, folds.checksum, packs, found, learned)
    except (InputError, OSError):
        return None
    return Done(wanted, count) if runs.is_as_started(folder, wanted) else None


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


def train(request: TrainRequest, last: bool = True) -> None:
    """Train the folds of a run that are not finished; refuse to continue with one that was started with something else.

    Args:
        last: whether the command ends with this run, and says so.
    """
    start, context = time.monotonic(), request.context
    with started_run(request) as held:
        for number in filter(held.run.finished, held.asked):
            held.found(number)
        _train_unfinished(request, held)
    if last:
        print_summary(context, held.run, held.folds, time.monotonic() - start)


def _train_unfinished(request: TrainRequest, held: "LockedRun") -> None:
    """Have those asked for that are not finished trained, `train.parallel_folds` at once.

    The first that fails ends the command when those beside it have ended; no other begins.
    """
    unfinished = [number for number in held.asked if not held.run.finished(number)]
    if not unfinished:
        return
    fold_runner.write(request.context.places, held.run, request.settings, request.weights, held.asked)
    at_once = min(request.settings.train.parallel_folds, len(unfinished))
    runner: FoldRunner = request.context.runner or FoldProcess(beside=at_once > 1)

    def trained(number: int) -> None:
        runner.run_fold(held.run, number, held.lock)
        held.found(number)

    if at_once == 1:  # in this thread
        for number in unfinished:
            trained(number)
        return
    with ThreadPoolExecutor(at_once) as pool:
        folds = [pool.submit(trained, number) for number in unfinished]
        try:
            for fold in as_completed(folds):
                fold.result()
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            if not isinstance(error, InputError):
                runner.stop()
            raise


class LockedRun(NamedTuple):
    """A run that is held for one writer: the folds asked for, of `folds` in all, and the lock, as `locked` yields it."""

    run: runs.Run
    asked: list[int]
    folds: int
    lock: int

    def found(self, number: int) -> None:
        """Verify a finished fold's weights, and remove what it no longer needs."""
        self.run.verify(number)
        self.run.sweep(number)


@contextmanager
def started_run(request: TrainRequest) -> Iterator[LockedRun]:
    """Hold a run, started with these settings or found to be. Raises as `train`."""
    folder, fold = request.context.places.run(request.name), request.fold
    weight_files.find(request.settings, request.weights)
    tracking.refuse_missing(request.settings)
    refuse_flipping(request.context, request.settings)
    wanted, count = _wanted(request)
    with locked(folder) as lock:
        runs.begin(folder, wanted, fold, request.force)
        run = runs.load(folder)
        with tracking.tracked(request.context, run, count, request.settings.tracking):
            yield LockedRun(run, [fold] if fold is not None else list(range(count)), count, lock)


def _with_precision(request: TrainRequest) -> ModelSettings:
    """The request's settings, with `precision: auto` decided; a single fold that is trained again keeps its run's."""
    folder, classes = request.context.places.run(request.name), len(request.context.settings.classes)
    return precision.resolved(request.settings, folder, classes, request.force and request.fold is None)


def _wanted(request: TrainRequest) -> Done:
    """What the run is to be; packs are opened unless it is finished and nothing has changed."""
    if not request.force and (done := finished_run(request)):
        refuse_fold(request.fold, done.folds)
        return done
    context, settings = request.context, request.settings
    folds, packs = open_packs(context, settings.input.key)
    count = splits.of(settings.train, folds).count
    refuse_fold(request.fold, count)
    settings = _with_precision(request)
    student = Student(context, request.name, settings, folds, packs)
    teachers = pseudo_labels.identity(checked_teachers(student), settings.train.pseudo)
    doubted = label_issues.identity(context, settings, packs["train"])
    made: dict[str, Any] = {"teachers": teachers, "epochs": request.epochs, "label_issues": doubted}
    learned_from = {key: facts for key, facts in made.items() if facts}
    preset, found = read_augmentation(context, settings), weight_files.identity(settings, request.weights)
    checksums = {kind: pack.checksum for kind, pack in packs.items()}
    about = settings, context.settings, preset, folds.checksum, checksums, found, learned_from or None
    return Done(runs.identity(*about), count)


def read_augmentation(context: Context, settings: ModelSettings) -> list[dict[str, dict[str, Any]]]:
    """A model's preset as plain data, each transform tried. Raises as `refuse_flipping`, and for transforms that fail."""
    from driverwatch.data.augment import load_preset  # brings the library, a second or more

    refuse_flipping(context, settings)
    return load_preset(CONFIGS / "presets", settings.augment.preset)


def refuse_flipping(context: Context, settings: ModelSettings) -> None:
    """Refuse flipping that needs pairs of classes which the data set does not name."""
    if settings.augment.hflip == "swap_left_right" and not context.settings.left_right_pairs:
        raise InputError(
            f"augment.hflip: swap_left_right needs left_right_pairs in configs/datasets/{context.dataset}.yaml; use keep_labels or "
            "none"
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
        raise InputError(f"{run.fold(fold)}: is finished; FORCE=1 FOLD={fold} trains it again")
    run = runs.executed(run, how.settings)
    if run.settings.predict.test:
        refuse_absent(packs["test"].images)
    backend.start()
    from driverwatch.training.fold import train_fold
    from driverwatch.training.pseudo_labels import FoldIndices

    training, validation = splits.of(run.settings.train, folds).indices(packs["train"].drivers, fold)
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


def train_in_turn(requests: Iterable[TrainRequest]) -> None:
    """Train runs one after the other here, those that teach others first. Raises as `train`."""
    wanted = {request.name: request for request in requests}
    order = teachers_first({name: request.settings for name, request in wanted.items()})
    while order.is_active():
        for name in order.get_ready():
            train(wanted[name])
            order.done(name)


def teachers_first(wanted: dict[str, ModelSettings]) -> "TopologicalSorter[str]":
    """Runs, each after those among them that teach it.

    Raises:
        InputError: runs that teach each other.
    """
    teachers = {name: made.train.pseudo.runs if made.train.pseudo else [] for name, made in wanted.items()}
    order = TopologicalSorter(
        {name: [one for one in asked if one in wanted and one != name] for name, asked in teachers.items()}
    )
    try:
        order.prepare()
    except CycleError as error:
        raise InputError(f"MODELS: teach each other: {', '.join(error.args[1])}; train.pseudo.runs") from error
    return order
