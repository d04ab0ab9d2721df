"""From packs to predictions: every fold of a run in turn, one process each."""

import subprocess
import sys
from pathlib import Path

from driverwatch.artifacts import locked
from driverwatch.errors import InputError
from driverwatch.models import weights as weight_files
from driverwatch.settings import ModelSettings, PredictSettings, ViewSet, load
from driverwatch.steps.context import CONFIGS, Context, open_packs
from driverwatch.terminal import say
from driverwatch.training import run as runs
from driverwatch.vision.augment import read_policy


def train(
    context: Context,
    model: str,
    run_name: str | None,
    overrides: str,
    weights: Path | None,
    fold: int | None,
    force: bool,
) -> None:
    """Train the folds of a run that are not finished; refuse to go on with a run that was begun with something else."""
    settings = load(ModelSettings, CONFIGS / "models", model, overrides)
    folds, packs = open_packs(context, settings.input.pack)
    policy = read_policy(CONFIGS / "policies", settings.augment.policy)
    wanted = runs.identity(
        settings,
        context.settings,
        policy,
        folds.digest,
        {k: p.digest for k, p in packs.items()},
        weight_files.identity(settings, weights),
    )
    if fold is not None and not 0 <= fold < folds.count:
        raise InputError(f"FOLD={fold}: expected 0 to {folds.count - 1}")
    folder = context.places.run(run_name or model)
    with locked(folder):
        runs.begin(folder, wanted, fold, force)
        run = runs.load(folder)
        for number in [fold] if fold is not None else range(folds.count):
            if not run.finished(number):
                _in_own_process(context, run, number, weights, settings)
    done = [number for number in range(folds.count) if run.finished(number)]
    say(
        f"{folder}: {len(done)} of {folds.count} folds finished; next: "
        + (
            f"make score DATASET={context.dataset}, make ensemble DATASET={context.dataset}"
            if len(done) == folds.count
            else f"make train MODEL={model} RUN={run.name} for the others"
        )
    )


def _in_own_process(
    context: Context, run: runs.Run, number: int, weights: Path | None, settings: ModelSettings
) -> None:
    """A fold in a process of its own: memory goes back, a crash costs one fold."""
    command = [
        sys.executable,
        "-m",
        "driverwatch",
        "train-fold",
        "--dataset",
        context.dataset,
        "--run",
        run.name,
        "--fold",
        str(number),
        "--views",
        settings.predict.views,
        "--batch-size",
        str(settings.predict.batch_size),
        "--workers",
        str(settings.train.workers),
    ]
    command += ["--weights", str(weights)] if weights else []
    status = subprocess.run(command, check=False).returncode
    if status != 0:
        raise InputError(
            f"{run.fold(number)}: fold {number} ended with status {status} (its own words stand above); "
            "the same command goes on from its last finished epoch"
        )


def train_one_fold(
    context: Context, run_name: str, fold: int, weights: Path | None, views: ViewSet, batch_size: int, workers: int
) -> None:
    """What a fold's process does. `train` holds the run's lock meanwhile."""
    from driverwatch.models import backend

    backend.start()
    from driverwatch.training.fold import Rows, train_fold

    run = runs.load(context.places.run(run_name))
    folds, packs = open_packs(context, run.settings.input.pack)
    training, held_out = folds.rows(packs["train"].drivers, fold)
    threads = run.settings.train.model_copy(update={"workers": workers})
    run = runs.with_settings(run, run.settings.model_copy(update={"train": threads}))
    train_fold(
        run,
        fold,
        packs,
        Rows(training, held_out),
        weight_files.find(run.settings, weights),
        PredictSettings(views=views, batch_size=batch_size),
    )


def predict(context: Context, run_name: str, views: ViewSet, fold: int | None, batch_size: int) -> None:
    """Predict with an existing run's folds under other views; the settings are those the run was trained with."""
    from driverwatch.models import backend

    backend.start()
    from driverwatch.models.classifier import build, load_state
    from driverwatch.training.outcome import write_predictions

    run = runs.load(context.places.run(run_name))
    folds, packs = open_packs(context, run.settings.input.pack)
    if {kind: pack.digest for kind, pack in packs.items()} != run.packs:
        raise InputError(
            f"{run.folder}: was trained on another pack than {context.places.pack(run.settings.input.pack)}; "
            "pack the photos it was trained on, or train a new RUN="
        )
    numbers = [number for number in range(folds.count) if run.finished(number) and fold in (None, number)]
    if not numbers:
        raise InputError(f"{run.folder}: no finished fold to predict with; run make train first")
    if views == "ten_crop" and run.settings.augment.mirror == "none":
        say(
            f"{run.name}: ten_crop averages mirrored views, but training never mirrored; five_crop is written beside it"
        )
    options = PredictSettings(views=views, batch_size=batch_size)
    with locked(run.folder):
        for number in numbers:
            classifier = build(run.settings, len(run.classes), packs["train"].mean, None, load=False)
            load_state(run.fold(number) / "weights.h5", {"model": classifier.weights})
            _, held_out = folds.rows(packs["train"].drivers, number)
            losses = write_predictions(classifier, run, number, packs, held_out, options)
            say(f"{run.name} fold {number}: held-out log loss " + ", ".join(f"{k} {v:.4f}" for k, v in losses.items()))
