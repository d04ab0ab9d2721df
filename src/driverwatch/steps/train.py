"""From packs to predictions: every fold of a run in turn."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from driverwatch.data import splits
from driverwatch.data.folds import FoldTable
from driverwatch.data.pack import Pack
from driverwatch.errors import InputError
from driverwatch.models import weights as weight_files
from driverwatch.settings import ModelSettings, PredictSettings
from driverwatch.steps import execution
from driverwatch.steps.context import CONFIGS, Context, open_context, open_packs
from driverwatch.steps.finished import finished_identity
from driverwatch.steps.fold_runner import FoldProcess
from driverwatch.steps.summary import print_summary
from driverwatch.terminal import say
from driverwatch.training import pseudo
from driverwatch.training import run as runs
from driverwatch.training.teachers import Student, checked_teachers, open_teachers
from driverwatch.vision.views import Columns
from driverwatch.wording import ending
from driverwatch.writing import locked, sweep_partials


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
    """Train the folds of run `name` that are not finished; refuse to go on with a run that was begun with something else.

    Args:
        epochs: where their number was chosen, if on another run's held-out drivers; the run repeats it.
        last: whether the command ends with this run, and says so.
    """
    start = time.monotonic()
    with begun(context, settings, name, weights, fold, force, epochs) as claim:
        if not all(map(claim.run.finished, claim.asked)):
            execution.write(context.places, claim.run, settings, weights, claim.asked)
        for number in claim.asked:
            if not claim.run.finished(number):
                (context.runner or FoldProcess()).run_fold(claim.run, number, claim.lock)
            claim.found(number)
    if last:
        print_summary(context, claim.run, claim.fits, time.monotonic() - start)


class Claim(NamedTuple):
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
def begun(
    context: Context,
    settings: ModelSettings,
    name: str,
    weights: Path | None,
    fold: int | None,
    force: bool,
    epochs: dict[str, Any] | None = None,
) -> Iterator[Claim]:
    """Hold run `name`, begun with these settings or found to be. Arguments and errors are those of `train`."""
    folder = context.places.run(name)
    weight_files.find(settings, weights)
    refuse_mirroring(context, settings)
    wanted, count = _wanted(context, settings, name, weights, fold, force, epochs)
    with locked(folder) as lock:
        runs.begin(folder, wanted, fold, force)
        yield Claim(runs.load(folder), [fold] if fold is not None else list(range(count)), count, lock)


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
    if not force and (done := finished_identity(context, settings, name, weights, learned or None)):
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
    taught = pseudo.identity(checked_teachers(student), settings.train.pseudo)
    learned_from = {key: made for key, made in (("teachers", taught), ("epochs", epochs)) if made}
    return _identity(context, settings, folds, packs, weights, learned_from or None), count


def _identity(
    context: Context,
    settings: ModelSettings,
    folds: FoldTable,
    packs: dict[str, Pack],
    weights: Path | None,
    learned_from: dict[str, Any] | None,
) -> dict[str, Any]:
    policy = read_augmentation(context, settings)
    digests = {kind: pack.digest for kind, pack in packs.items()}
    found = weight_files.identity(settings, weights)
    return runs.identity(settings, context.settings, policy, folds.digest, digests, found, learned_from)


def read_augmentation(context: Context, settings: ModelSettings) -> list[dict[str, dict[str, Any]]]:
    """A model's policy as plain data, each transform tried. Raises as `refuse_mirroring`, and for transforms that fail."""
    from driverwatch.vision.augment import read_policy  # brings the library, a second or more

    refuse_mirroring(context, settings)
    return read_policy(CONFIGS / "policies", settings.augment.policy)


def refuse_mirroring(context: Context, settings: ModelSettings) -> None:
    """Refuse mirroring that needs pairs of classes which the data set does not name."""
    if settings.augment.mirror == "swap" and not context.settings.mirrored_pairs:
        raise InputError(
            f"augment.mirror: swap needs mirrored_pairs in configs/datasets/{context.dataset}.yaml; use keep or none"
        )
    Columns(context.settings.swap()).sets_of(settings.predict.views)


def refuse_fold(fold: int | None, count: int) -> None:
    if fold is not None and not 0 <= fold < count:
        raise InputError(f"FOLD={fold}: expected 0 to {count - 1}")


def train_one_fold(folder: Path, fold: int, weights: Path | None = None) -> None:
    """What a `FoldRunner` has done, in this process, with a run that is begun and held for it.

    Args:
        folder: of the run, in the project that is the working directory.
        weights: folder of local weight files, where it is not the one that `execution.json` names.
    """
    from driverwatch.models import backend

    how = execution.read(folder)
    context = open_context(how.dataset, None, how.study)
    run, folds, packs = open_run(context, folder.name)
    if run.finished(fold):
        raise InputError(f"{run.fold(fold)}: is finished; make train FORCE=1 FOLD={fold} trains it anew")
    run = runs.executed(run, how.settings)
    backend.start()
    from driverwatch.training.fold import train_fold
    from driverwatch.training.rows import Rows

    training, held_out = splits.of(run.settings.train, folds).rows(packs["train"].drivers, fold)
    unlabelled = pseudo.Unlabelled(packs["test"].names, packs["train"].names, held_out)
    said = pseudo.lesson(run, fold, open_teachers(context.places, run.settings, folds), unlabelled, len(training))
    rows = Rows(training, held_out, said)
    found = weight_files.find(run.settings, weights or (Path(how.weights) if how.weights else None))
    train_fold(run, fold, packs, rows, found, run.settings.predict, context.places.trunks, how.others(run, fold))


def open_run(context: Context, name: str) -> tuple[runs.Run, FoldTable, dict[str, Pack]]:
    """A run with the folds and packs it was begun with; others are refused."""
    run = runs.load(context.places.run(name))
    folds, packs = open_packs(context, run.settings.input.key)
    run.refuse_strangers(folds.digest, {kind: pack.digest for kind, pack in packs.items()})
    return run, folds, packs


def predict(context: Context, name: str, options: PredictSettings, fold: int | None) -> None:
    """Predict with an existing run's folds under other views; the settings are those the run was trained with."""
    from driverwatch.models import backend

    start = time.monotonic()
    run, split, packs, numbers = asked_to_predict(context, name, options, fold)
    backend.start()
    from driverwatch.models.halves import Together
    from driverwatch.training.outcome import predict_together, whole_predictor, write_predictions

    with locked(run.folder):
        for number in numbers:
            sweep_partials(run.fold(number))
        classifiers = trained_classifiers(run, numbers, packs["train"])
        if len(numbers) > 1:
            together = whole_predictor(Together(classifiers), run, options.views, options.batch_size)
            predict_together(together, run, numbers, packs["test"])
        for number, classifier in zip(numbers, classifiers, strict=True):
            _, held_out = split.rows(packs["train"].drivers, number)
            predictor = whole_predictor(classifier, run, options.views, options.batch_size)
            losses = write_predictions(predictor, run, number, packs, held_out)
            found = ", ".join(f"{k} {v:.4f}" for k, v in losses.items())
            say(f"{run.name} fold {number}: " + (f"held-out log loss {found}" if found else "test images predicted"))
    ending(time.monotonic() - start, None, [f"make views DATASET={context.dataset} RUN={run.name}"])


def asked_to_predict(
    context: Context, name: str, options: PredictSettings, fold: int | None
) -> tuple[runs.Run, splits.Splits, dict[str, Pack], list[int]]:
    """A run, its split and packs, and those of its finished fits that are asked to predict.

    Raises:
        InputError: none is finished, or views that cannot be had: before Keras starts.
    """
    run, folds, packs = open_run(context, name)
    split = splits.of(run.settings.train, folds)
    refuse_fold(fold, split.count)
    run.columns.sets_of(options.views)
    numbers = [number for number in range(split.count) if run.finished(number) and fold in (None, number)]
    if not numbers:
        raise InputError(f"{run.folder}: no finished fold to predict with; run make train first")
    return run, split, packs, numbers


def trained_classifiers(run: runs.Run, numbers: list[int], pack: Pack) -> list[Any]:
    """The classifiers of finished fits, with the weights that they were trained to. Keras must have been started."""
    from driverwatch.models.classifier import build
    from driverwatch.models.state import load_state

    made = []
    for number in numbers:
        made.append(build(run.settings, len(run.classes), pack.mean, None, load=False))
        load_state(run.verify(number), {"model": made[-1].weights})
    return made
