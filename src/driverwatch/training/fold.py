"""Train one fold: stage by stage, epoch by epoch, a bundle after each, the held-out drivers predicted at the end."""

import csv
import io
import json
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from driverwatch.artifacts import digest_of_file, locked, provenance, write_json, write_text
from driverwatch.data.pack import Pack
from driverwatch.inference import predictions
from driverwatch.inference.paths import prediction_path
from driverwatch.inference.predict import predict_views
from driverwatch.metrics import accuracy, log_loss
from driverwatch.models.backend import deterministic
from driverwatch.models.classifier import Classifier, build, load_state, write_state
from driverwatch.settings import PredictSettings, ViewSet, pixels
from driverwatch.terminal import say
from driverwatch.training.batches import TrainingBatches
from driverwatch.training.run import Run
from driverwatch.training.stages import StagePlan, plan, prepare


@dataclass
class Progress:
    """How far a fold has come; travels in the bundle beside weights and optimizer."""

    epoch: int = 0  # finished ones, over all stages
    history: list[dict[str, Any]] = field(default_factory=list)
    best: float = float("inf")


@dataclass(frozen=True)
class Rows:
    """Row numbers in the training pack."""

    training: np.ndarray
    held_out: np.ndarray


def train_fold(
    run: Run, number: int, packs: dict[str, Pack], rows: Rows, weights: Path | None, predict: PredictSettings
) -> None:
    """Train fold `number` (or go on from its last epoch), then predict its held-out drivers and the test images.

    Writes under `run.fold(number)`: `bundle.h5` (removed at the end), `weights.h5`, `history.csv`, `tensorboard/`,
    predictions per view set, and last `manifest.json`, whose presence means finished. The caller holds the run's lock.
    """
    start = time.monotonic()
    folder = run.fold(number)
    with locked(folder):
        deterministic(run.settings.train.seed)
        resumes = (folder / "bundle.h5").is_file()
        classifier = build(run.settings, len(run.classes), packs["train"].mean, weights, load=not resumes)
        progress = _stages(classifier, run, number, packs["train"], rows)
        if run.settings.train.select == "best":
            load_state(folder / "best.h5", {"model": classifier.weights})
        write_state(folder / "weights.h5", {"model": classifier.weights}, run.origin)
        losses = write_predictions(classifier, run, number, packs, rows.held_out, predict.views, predict.batch_size)
        write_json(
            folder / "manifest.json", _manifest(run, number, progress, losses, predict, time.monotonic() - start)
        )
        for spent in ("bundle.h5", "best.h5"):
            (folder / spent).unlink(missing_ok=True)


def _manifest(
    run: Run, number: int, progress: Progress, losses: dict[str, float], predict: PredictSettings, seconds: float
) -> dict[str, Any]:
    """What the fold was made of and what came of it."""
    return {
        "run": run.name,
        "fold": number,
        "settings": {**run.settings.model_dump(), "predict": predict.model_dump()},
        **run.origin,
        "pretrained": run.weights,
        "weights": digest_of_file(run.fold(number) / "weights.h5"),
        "selected_on": "held-out drivers" if run.settings.train.select == "best" else None,
        "log_loss": losses,
        "step_seconds": round(progress.history[-1]["step_seconds"], 4),
        "training_seconds": round(sum(epoch["seconds"] for epoch in progress.history), 1),
        "seconds": round(seconds, 1),
        "backend": keras.backend.backend(),
        **provenance(),
    }


def _stages(classifier: Classifier, run: Run, number: int, pack: Pack, rows: Rows) -> Progress:
    """Train every stage that is not behind us, from the bundle if there is one."""
    settings, bundle = run.settings.train, run.fold(number) / "bundle.h5"
    steps = -(-len(rows.training) // settings.batch_size)
    progress = Progress()
    if bundle.is_file():
        progress = Progress(**json.loads(_peek(bundle)["progress"]))
        say(f"{run.name} fold {number}: goes on after epoch {progress.epoch}")
    log = Log(run.fold(number), progress.history)
    for stage in plan(run.settings):
        last = stage.first_epoch + stage.epochs
        if progress.epoch >= last and stage.number + 1 < len(settings.stages):
            continue
        prepare(classifier, stage, settings, steps)
        if progress.epoch > stage.first_epoch:
            load_state(bundle, {"model": classifier.weights, "optimizer": classifier.optimizer.variables})
        elif progress.epoch:
            load_state(bundle, {"model": classifier.weights})
        while progress.epoch < last:
            _epoch(classifier, run, number, pack, rows, stage, progress)
            log.write(progress.history)
    return progress


def _peek(bundle: Path) -> dict[str, str]:
    return load_state(bundle, {})


def _epoch(
    classifier: Classifier, run: Run, number: int, pack: Pack, rows: Rows, stage: StagePlan, progress: Progress
) -> None:
    """Train one epoch, score the held-out drivers (centre view), keep everything in one bundle."""
    train, start = run.settings.train, time.monotonic()
    reseed(classifier, (train.seed, progress.epoch))
    batches = TrainingBatches(
        pack.images, rows.training, pack.labels, run.settings, run.policy, run.swap, progress.epoch
    )
    fitted = classifier.fit(batches, epochs=1, shuffle=False, verbose=1 if sys.stdout.isatty() else 0).history
    trained = time.monotonic() - start
    found = predict_views(classifier, pack.images, rows.held_out, "centre", pixels(run.settings.input.size), None, 64)[
        "centre"
    ]
    labels = pack.labels[rows.held_out]
    progress.history.append(
        {
            "epoch": progress.epoch + 1,
            "stage": stage.number,
            "loss": fitted["loss"][-1],
            "accuracy": fitted["accuracy"][-1],
            "held_out_loss": log_loss(found, labels),
            "held_out_accuracy": accuracy(found, labels),
            "step_seconds": trained / len(batches),
            "seconds": time.monotonic() - start,
        }
    )
    progress.epoch += 1
    folder, kept = run.fold(number), progress.history[-1]
    if train.select == "best" and kept["held_out_loss"] < progress.best:
        progress.best = kept["held_out_loss"]
        write_state(folder / "best.h5", {"model": classifier.weights}, run.origin)
    write_state(
        folder / "bundle.h5",
        {"model": classifier.weights, "optimizer": classifier.optimizer.variables},
        {"progress": json.dumps(progress.__dict__)},
    )
    say(
        f"{run.name} fold {number}, epoch {progress.epoch} ({stage.name}): loss {kept['loss']:.3f}, held-out drivers "
        f"{kept['held_out_loss']:.3f} ({kept['held_out_accuracy']:.1%} right), {kept['seconds']:.0f} s"
    )


def reseed(classifier: Classifier, seed: tuple[int, ...]) -> None:
    """Derive every dropout's random state from `seed`, so that an epoch's randomness does not depend on what ran before."""
    state = np.random.default_rng(seed).integers(2**31, size=2).astype("uint32")
    for layer in classifier._flatten_layers():
        generator = getattr(layer, "seed_generator", None)
        if generator is not None:
            generator.state.assign(state)


def write_predictions(
    classifier: Classifier,
    run: Run,
    number: int,
    packs: dict[str, Pack],
    held_out: np.ndarray,
    views: ViewSet,
    batch_size: int,
) -> dict[str, float]:
    """Predict the held-out drivers and the test images of a fold; return the held-out log loss by view set."""
    weights = digest_of_file(run.fold(number) / "weights.h5")
    swap = run.swap if run.settings.augment.mirror == "swap" else None
    losses: dict[str, float] = {}
    for kind, pack, rows in (
        ("held_out", packs["train"], held_out),
        ("test", packs["test"], np.arange(len(packs["test"].names))),
    ):
        by_set = predict_views(
            classifier,
            pack.images,
            rows,
            views,
            pixels(run.settings.input.size),
            swap,
            batch_size,
            f"{run.name} fold {number}: {views} of {kind.replace('_', '-')} images",
        )
        for name, probabilities in by_set.items():
            made = predictions.Predictions(
                pack.names[rows], probabilities, {**run.origin, "weights": weights, "views": name}
            )
            predictions.write(made, prediction_path(run.fold(number), kind, name))
            if kind == "held_out":
                losses[name] = log_loss(probabilities, pack.labels[rows])
    return losses


class Log:
    """`history.csv` and TensorBoard's scalars, both derived from the bundle's history."""

    def __init__(self, folder: Path, history: list[dict[str, Any]]) -> None:
        from tensorboard.summary import Writer

        self.folder = folder
        shutil.rmtree(folder / "tensorboard", ignore_errors=True)  # written again from the history: no epoch twice
        self.writer = Writer(str(folder / "tensorboard"))
        self.written = 0
        self.write(history)

    def write(self, history: list[dict[str, Any]]) -> None:
        """Bring both up to date with `history`."""
        for row in history[self.written :]:
            for name in row.keys() - {"epoch", "stage"}:
                self.writer.add_scalar(name, row[name], row["epoch"])
        self.writer.flush()
        self.written = len(history)
        if history:
            text = io.StringIO()
            table = csv.DictWriter(text, history[0].keys(), lineterminator="\n")
            table.writeheader()
            table.writerows(history)
            write_text(self.folder / "history.csv", text.getvalue())
