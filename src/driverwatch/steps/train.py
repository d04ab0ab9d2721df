"""From packs to predictions: every fold of a run in turn, one process each."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from driverwatch.data import splits
from driverwatch.data.folds import FoldTable
from driverwatch.data.pack import Pack
from driverwatch.errors import InputError
from driverwatch.models import weights as weight_files
from driverwatch.settings import ModelSettings, PredictSettings
from driverwatch.steps.context import CONFIGS, Context, open_packs
from driverwatch.steps.teachers import opened, teachers
from driverwatch.terminal import say
from driverwatch.training import pseudo
from driverwatch.training import run as runs
from driverwatch.vision.augment import read_policy
from driverwatch.vision.views import Columns
from driverwatch.writing import locked, sweep_partials


def train(
    context: Context,
    settings: ModelSettings,
    name: str,
    weights: Path | None,
    fold: int | None,
    force: bool,
    epochs: dict[str, Any] | None = None,
) -> None:
    """Train the folds of run `name` that are not finished; refuse to go on with a run that was begun with something else.

    Args:
        epochs: where their number was chosen, if on another run's held-out drivers; the run repeats it.
    """
    folder = context.places.run(name)
    weight_files.find(settings, weights)
    folds, packs = open_packs(context, settings.input.key)
    count = splits.of(settings.train, folds).count
    refuse_fold(fold, count)
    taught = pseudo.identity(teachers(context, settings, name, folds, packs), settings.train.pseudo)
    learned_from = {key: made for key, made in (("teachers", taught), ("epochs", epochs)) if made}
    wanted = _identity(context, settings, folds, packs, weights, learned_from or None)
    del packs  # each fold's process opens them itself
    with locked(folder) as lock:
        runs.begin(folder, wanted, fold, force)
        claimed = runs.load(folder)
        for number in [fold] if fold is not None else range(count):
            if not claimed.finished(number):
                _in_own_process(context, claimed, number, weights, settings, lock)
            claimed.verify(number)
            claimed.sweep(number)
    done = sum(claimed.finished(number) for number in range(count))
    rest = f"make score DATASET={context.dataset}, make ensemble DATASET={context.dataset}"
    rest = rest if done == count else "the same command without FOLD= trains the others"
    scored = settings.train.splits.scored
    fits = "folds" if scored else f"models ({settings.train.splits.unscored}, so without an out-of-fold score)"
    say(f"{folder}: {done} of {count} {fits} finished; next: {rest}")


def _identity(
    context: Context,
    settings: ModelSettings,
    folds: FoldTable,
    packs: dict[str, Pack],
    weights: Path | None,
    learned_from: dict[str, Any] | None,
) -> dict[str, object]:
    policy = read_augmentation(context, settings)
    digests = {kind: pack.digest for kind, pack in packs.items()}
    found = weight_files.identity(settings, weights)
    return runs.identity(settings, context.settings, policy, folds.digest, digests, found, learned_from)


def read_augmentation(context: Context, settings: ModelSettings) -> list[dict[str, dict[str, Any]]]:
    """A model's policy as plain data; refuses mirroring that needs pairs of classes which the data set does not name."""
    if settings.augment.mirror == "swap" and not context.settings.mirrored_pairs:
        raise InputError(
            f"augment.mirror: swap needs mirrored_pairs in configs/datasets/{context.dataset}.yaml; use keep or none"
        )
    Columns(context.settings.swap()).sets_of(settings.predict.views)
    return read_policy(CONFIGS / "policies", settings.augment.policy)


def refuse_fold(fold: int | None, count: int) -> None:
    if fold is not None and not 0 <= fold < count:
        raise InputError(f"FOLD={fold}: expected 0 to {count - 1}")


def _in_own_process(
    context: Context, run: runs.Run, number: int, weights: Path | None, settings: ModelSettings, lock: int
) -> None:
    """A fold in a process of its own: memory goes back, a crash costs one fold.

    It inherits the run's lock, so that nobody else writes there while it lives, and one end of a pipe, which tells it when
    this process is gone, however it went.
    """
    leash, held = os.pipe()
    predict = settings.predict
    command = [sys.executable, "-m", "driverwatch", "train-fold", "--dataset", context.dataset, "--run", run.name]
    command += ["--fold", str(number), "--views", " ".join(predict.views), "--batch-size", str(predict.batch_size)]
    command += ["--workers", str(settings.train.workers), *(["--weights", str(weights)] if weights else [])]
    command += ["--leash", str(leash), *(["--study", context.places.study] if context.places.study else [])]
    try:
        status = subprocess.run(command, check=False, pass_fds=[lock, leash]).returncode
    finally:
        os.close(leash)
        os.close(held)
    if status != 0:
        raise InputError(
            f"{run.fold(number)}: fold {number} ended with status {status} (its own words stand above); "
            "that mended, the same command without FORCE=1 goes on from its last finished epoch"
        )


def _end_with(leash: int) -> None:
    """End this process, at once, when the other end of the pipe is closed: nothing it writes can be left half written."""

    def wait() -> None:
        os.read(leash, 1)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def train_one_fold(
    context: Context, name: str, fold: int, weights: Path | None, predict: PredictSettings, workers: int, leash: int
) -> None:
    """What a fold's process does. `train` holds the run's lock meanwhile."""
    from driverwatch.models import backend

    _end_with(leash)
    run, folds, packs = open_run(context, name)
    if run.finished(fold):
        raise InputError(f"{run.fold(fold)}: is finished; make train FORCE=1 FOLD={fold} trains it anew")
    backend.start()
    from driverwatch.training.fold import Rows, train_fold

    training, held_out = splits.of(run.settings.train, folds).rows(packs["train"].drivers, fold)
    unlabelled = pseudo.Unlabelled(packs["test"].names, packs["train"].names, held_out)
    said = pseudo.lesson(run, fold, opened(context, run.settings, folds), unlabelled, len(training))
    rows = Rows(training, held_out, said)
    found = weight_files.find(run.settings, weights)
    train_fold(runs.with_workers(run, workers), fold, packs, rows, found, predict, context.places.trunks)


def open_run(context: Context, name: str) -> tuple[runs.Run, FoldTable, dict[str, Pack]]:
    """A run with the folds and packs it was begun with; others are refused."""
    run = runs.load(context.places.run(name))
    folds, packs = open_packs(context, run.settings.input.key)
    run.refuse_strangers(folds.digest, {kind: pack.digest for kind, pack in packs.items()})
    return run, folds, packs


def predict(context: Context, name: str, options: PredictSettings, fold: int | None) -> None:
    """Predict with an existing run's folds under other views; the settings are those the run was trained with."""
    from driverwatch.models import backend

    run, folds, packs = open_run(context, name)
    split = splits.of(run.settings.train, folds)
    refuse_fold(fold, split.count)
    run.columns.sets_of(options.views)  # what cannot be had is refused before Keras starts
    numbers = [number for number in range(split.count) if run.finished(number) and fold in (None, number)]
    if not numbers:
        raise InputError(f"{run.folder}: no finished fold to predict with; run make train first")
    backend.start()
    from driverwatch.models.classifier import build
    from driverwatch.models.state import load_state
    from driverwatch.training.outcome import whole_predictor, write_predictions

    with locked(run.folder):
        for number in numbers:
            sweep_partials(run.fold(number))
            file = run.verify(number)
            classifier = build(run.settings, len(run.classes), packs["train"].mean, None, load=False)
            load_state(file, {"model": classifier.weights})
            _, held_out = split.rows(packs["train"].drivers, number)
            predictor = whole_predictor(classifier, run, options.views, options.batch_size)
            losses = write_predictions(predictor, run, number, packs, held_out)
            found = ", ".join(f"{k} {v:.4f}" for k, v in losses.items())
            say(f"{run.name} fold {number}: " + (f"held-out log loss {found}" if found else "test images predicted"))
