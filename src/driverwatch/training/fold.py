"""Train one fold: stage by stage, epoch by epoch, a bundle after each, the held-out drivers predicted at the end."""

import json
import math
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from driverwatch.artifacts import digest_of_file, provenance
from driverwatch.data.pack import Pack
from driverwatch.errors import InputError
from driverwatch.inference.predict import Predictor
from driverwatch.metrics import accuracy, log_loss
from driverwatch.models.backend import deterministic
from driverwatch.models.classifier import Classifier, build, frozen_count, load_state, write_state
from driverwatch.settings import PredictSettings, pixels
from driverwatch.terminal import say
from driverwatch.training.batches import TrainingBatches
from driverwatch.training.history import HistoryLog
from driverwatch.training.outcome import write_predictions
from driverwatch.training.run import Run
from driverwatch.training.stages import StagePlan, plan, prepare
from driverwatch.writing import locked, write_json


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
    folder, made_by = run.fold(number), provenance()
    drivers = packs["train"].drivers
    if both := set(drivers[rows.training]) & set(drivers[rows.held_out]):
        raise InputError(f"{folder}: driver {min(both)} is trained on and held out; restore {run.name}'s fold file")
    with locked(folder):
        deterministic(run.settings.train.seed)
        resumes = (folder / "bundle.h5").is_file()
        classifier = build(run.settings, len(run.classes), packs["train"].mean, weights, load=not resumes)
        for stage in plan(run.settings):
            frozen_count(classifier.trunk.layers, stage.freeze_until)  # a wrong name ends here, not after an hour
        progress = FoldTraining(classifier, run, number, packs["train"], rows).train()
        if run.settings.train.select == "best":
            load_state(folder / "best.h5", {"model": classifier.weights})
        write_state(folder / "weights.h5", {"model": classifier.weights}, run.origin)
        start = time.monotonic()
        losses = write_predictions(classifier, run, number, packs, rows.held_out, predict)
        facts = _outcome(run, number, progress, predict) | {"log_loss": losses}
        facts["seconds"] = facts["training_seconds"] + time.monotonic() - start
        write_json(folder / "manifest.json", facts | made_by)
        run.sweep(number)


def _outcome(run: Run, number: int, progress: Progress, predict: PredictSettings) -> dict[str, Any]:
    """What the fold was made of and what came of it."""
    return {
        "run": run.name,
        "fold": number,
        "settings": {**run.settings.model_dump(), "predict": predict.model_dump()},
        **run.claim,
        "weights": digest_of_file(run.fold(number) / "weights.h5"),
        "selected_on": "held-out drivers" if run.settings.train.looks_at_held_out else None,
        "step_seconds": progress.history[-1]["step_seconds"],
        "training_seconds": sum(epoch["seconds"] for epoch in progress.history),
        "backend": keras.backend.backend(),
    }


class FoldTraining:
    """The epochs of one fold, resumable after any of them."""

    def __init__(self, classifier: Classifier, run: Run, number: int, pack: Pack, rows: Rows) -> None:
        self.classifier, self.run, self.number, self.pack, self.rows = classifier, run, number, pack, rows
        self.settings, self.folder = run.settings.train, run.fold(number)
        self.bundle = self.folder / "bundle.h5"
        self.images = pack.images.open()  # once: should somebody pack anew, this file stays as it was opened
        sizes = pixels(run.settings.input.pack), pixels(run.settings.input.size)
        self.centre = Predictor(classifier, "centre", *sizes, crops_at_once=64)
        self.progress = Progress()

    def train(self) -> Progress:
        """Train every stage that is not behind us, from the bundle if there is one."""
        if self.bundle.is_file():
            kept = load_state(self.bundle, {})
            if kept.get("run") != self.run.identity:
                raise InputError(f"{self.bundle}: is of another run than this folder's; make train FORCE=1 begins anew")
            try:
                self.progress = Progress(**json.loads(kept["progress"]))
                stages = [row["stage"] for row in self.progress.history]
            except (LookupError, TypeError, ValueError) as error:
                raise InputError(
                    f"{self.bundle}: not a whole bundle ({error}); make train FORCE=1 FOLD={self.number}"
                ) from error
            if len(stages) != self.progress.epoch:
                raise InputError(f"{self.bundle}: not a whole bundle; make train FORCE=1 FOLD={self.number}")
            say(f"{self.run.name} fold {self.number}: goes on after epoch {self.progress.epoch}")
        log = HistoryLog(self.folder, self.progress.history)
        for stage in plan(self.run.settings):
            if self._is_over(stage) and stage.number + 1 < len(self.settings.stages):
                continue
            self._enter(stage)
            while not self._is_over(stage):
                self._epoch(stage)
                log.write(self.progress.history)
        return self.progress

    def _is_over(self, stage: StagePlan) -> bool:
        """Whether a stage has had its epochs, or `patience` of them without a better held-out loss: read off the history."""
        losses = [row["held_out_loss"] for row in self.progress.history if row["stage"] == stage.number]
        stalled = len(losses) - 1 - int(np.argmin(losses)) if losses else 0
        patience = self.settings.patience
        return len(losses) >= stage.epochs or (patience is not None and stalled >= patience)

    def _enter(self, stage: StagePlan) -> None:
        """Freeze and compile; take weights, and within a stage the optimizer too, from the bundle."""
        prepare(self.classifier, stage, self.settings, -(-len(self.rows.training) // self.settings.batch_size))
        if any(row["stage"] == stage.number for row in self.progress.history):
            load_state(self.bundle, self._state())
        elif self.progress.epoch:
            load_state(self.bundle, {"model": self.classifier.weights})

    def _state(self) -> dict[str, list[Any]]:
        return {"model": self.classifier.weights, "optimizer": self.classifier.optimizer.variables}

    def _epoch(self, stage: StagePlan) -> None:
        """Train one epoch, score the held-out drivers, keep everything in one bundle."""
        start, run, progress, labels = time.monotonic(), self.run, self.progress, self.pack.labels
        reseed(self.classifier, (self.settings.seed, progress.epoch))
        batches = TrainingBatches(
            self.images, self.rows.training, labels, run.settings, run.policy, run.swap, progress.epoch
        )
        fitted = self.classifier.fit(batches, shuffle=False, verbose=1 if sys.stdout.isatty() else 0).history
        step_seconds = (time.monotonic() - start) / len(batches)
        if not math.isfinite(fitted["loss"][-1]):
            raise InputError(
                f"{self.folder}: the loss became {fitted['loss'][-1]} in epoch {progress.epoch + 1}; lower the learning rate "
                'of that stage, for example SET="train.learning_rate=1e-4", under another RUN='
            )
        found, labels = self.centre(self.images, self.rows.held_out)["centre"], labels[self.rows.held_out]
        progress.epoch += 1
        progress.history.append({
            "epoch": progress.epoch, "stage": stage.number, "loss": fitted["loss"][-1], "accuracy": fitted["accuracy"][-1],
            "held_out_loss": log_loss(found, labels), "held_out_accuracy": accuracy(found, labels),
            "step_seconds": step_seconds, "seconds": time.monotonic() - start,
        })  # fmt: skip
        self._keep(stage)

    def _keep(self, stage: StagePlan) -> None:
        progress, kept = self.progress, self.progress.history[-1]
        if self.settings.select == "best" and kept["held_out_loss"] < progress.best:
            progress.best = kept["held_out_loss"]
            write_state(self.folder / "best.h5", {"model": self.classifier.weights}, self.run.origin)
        write_state(self.bundle, self._state(), {"run": self.run.identity, "progress": json.dumps(asdict(progress))})
        say(
            f"{self.run.name} fold {self.number}, epoch {progress.epoch} ({stage.name}): loss {kept['loss']:.3f}, "
            f"held-out drivers {kept['held_out_loss']:.3f} ({kept['held_out_accuracy']:.1%} right), {kept['seconds']:.0f} s"
        )


def reseed(classifier: Classifier, seed: tuple[int, ...]) -> None:
    """Derive every dropout's random state from `seed`, so that an epoch's randomness does not depend on what ran before."""
    state = np.random.default_rng(seed).integers(2**31, size=2).astype("uint32")
    for layer in classifier._flatten_layers():
        generator = getattr(layer, "seed_generator", None)
        if generator is not None:
            generator.state.assign(state)
