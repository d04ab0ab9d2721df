"""Train one fold: stage by stage, epoch by epoch, a checkpoint after each, the validation drivers predicted at the end."""

import json
import math
import time
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from driverwatch.config.model import PredictSettings
from driverwatch.data.augment import Inputs, epoch_mixing
from driverwatch.data.pack import Pack
from driverwatch.errors import InputError
from driverwatch.inference.feature_cache import Outputs
from driverwatch.inference.predict import write_predictions
from driverwatch.io.atomic import locked, write_json
from driverwatch.io.console import Meter, say
from driverwatch.io.manifests import checksum_of_file, provenance
from driverwatch.metrics import accuracy, log_loss
from driverwatch.models.backend import deterministic, is_finite, load_state, write_state
from driverwatch.models.classifier import Classifier, Learner, build
from driverwatch.models.devices import ONE, Devices, accelerators, devices
from driverwatch.models.freezing import freeze
from driverwatch.run import DIVERGED, Run, seeded
from driverwatch.training.augment_workers import Loader, TrainingSource
from driverwatch.training.cached_stages import CachedStage, StageCaching
from driverwatch.training.checkpoint import HistoryLog, Progress, is_over, judged, resumed, told, uniform_loss, way_out
from driverwatch.training.data_loader import TrainingBatches, class_weights, flip_targets, one_hot
from driverwatch.training.epoch import (
    HALFWAY_LOG_SECONDS,
    RECALIBRATION_BATCHES,
    EpochBar,
    TimeRemaining,
    recalibrate_batch_norm,
    reseed,
    time_remaining,
    train_epoch,
)
from driverwatch.training.linear_probe import Sample, fit_linear_probe
from driverwatch.training.optimizer import StagePlan, averaged, check, lr_multipliers, plan, prepare, take_average
from driverwatch.training.pseudo_labels import FoldIndices


def train_fold(
    run: Run,
    number: int,
    packs: dict[str, Pack],
    indices: FoldIndices,
    weights: Path | None,
    predict: PredictSettings,
    feature_caches: Path,
    others: int = 0,
) -> None:
    """Train fold `number` (or resume from its last epoch), then predict its validation drivers and the test images.

    Writes under `run.fold(number)`: `checkpoint.h5` (removed at the end), `weights.h5`, `history.csv`, `tensorboard/`,
    predictions per TTA set, and last `manifest.json`, whose presence means finished. The caller holds the run's lock.

    Args:
        feature_caches: folder of cached backbone outputs, shared by folds and runs.
        others: folds to be trained after this one, for the estimate of the time left.
    """
    folder, made_by = run.fold(number), provenance()
    indices.refuse_shared(packs["train"].drivers, run, number)
    with locked(folder):
        (folder / DIVERGED).unlink(missing_ok=True)
        mine = seeded(run, number)
        deterministic(mine.settings.train.seed)
        on = devices(run.settings.train.devices, run.settings.train.batch_size)
        resumes = (folder / "checkpoint.h5").is_file()
        mean = packs["train"].mean
        classifier = build(run.settings, len(run.classes), mean, weights, load=not resumes, scope=on.scope())
        training = FoldTraining(
            classifier, mine, number, packs, indices, feature_caches, time_remaining(run, others), on
        )
        progress = training.train()
        write_state(folder / "weights.h5", {"model": classifier.weights}, run.origin)
        start = time.monotonic()
        predictor = training.caching.predictor(training.cached, predict)
        losses = write_predictions(predictor, run, number, packs, indices.validation, predict.test)
        facts = _outcome(run, training, predict) | {"log_loss": losses, "predicted_by": predictor.computed_by}
        facts["seconds"] = facts["training_seconds"] + time.monotonic() - start
        write_json(folder / "manifest.json", facts | made_by)
        run.sweep(number)
        if progress.diverged:
            say(told(f"{run.name} fold {number}", progress.diverged))


def _outcome(run: Run, training: "FoldTraining", predict: PredictSettings) -> dict[str, Any]:
    """What the fold was made of and what came of it."""
    number, progress, labels = training.number, training.progress, training.indices.fold_labels
    return {
        "run": run.name,
        "fold": number,
        "settings": {**run.settings.model_dump(), "predict": predict.model_dump()},
        **run.claim,
        "weights": checksum_of_file(run.fold(number) / "weights.h5"),
        "chosen_on_validation": "validation drivers" if run.uses_validation else None,
        "out_of_fold": None if run.settings.train.splits.scored else f"no score: {run.settings.train.splits.unscored}",
        "step_seconds": progress.history[-1]["step_seconds"],
        "training_seconds": sum(epoch["seconds"] for epoch in progress.history),
        "backend": keras.backend.backend(),
        "seed": training.run.settings.train.seed,  # of models that are trained on every driver, each its own
        "pseudo_labels": labels and labels.facts(run.classes),
        "trainable_parameters": sum(int(np.prod(w.shape)) for w in training.classifier.trainable_weights),
        "devices": training.devices.count,
        "accelerators": accelerators()[: training.devices.count],
        "diverged": progress.diverged,
    }


class FoldTraining:
    """The epochs of one fold, resumable after any of them."""

    def __init__(
        self,
        classifier: Classifier,
        run: Run,
        number: int,
        packs: dict[str, Pack],
        indices: FoldIndices,
        feature_caches: Path,
        before: TimeRemaining | None = None,
        on: Devices = ONE,
    ) -> None:
        self.before, self.devices = before or time_remaining(run, 0), on
        self.classifier, self.run, self.number, self.indices = classifier, run, number, indices
        self.pack, self.test = packs["train"], packs["test"]
        self.shown, self.targets = indices.shown(), indices.targets(self.pack.labels, len(run.classes))
        self.settings, self.folder = run.settings.train, run.fold(number)
        self.checkpoint = self.folder / "checkpoint.h5"
        self.stages = plan(run.settings)
        check(classifier, self.stages)  # a wrong name ends here, not after an hour
        images = len(self.pack.names) + len(self.test.names)
        self.caching = StageCaching(classifier, run, self.stages, feature_caches, self.devices, images)
        self.learner: Learner = classifier
        self.cached: CachedStage | None = None
        self.progress = Progress()
        shown_packs = (self.pack, self.test) if self.shown.max() >= len(self.pack.names) else (self.pack,)
        shown = TrainingSource(shown_packs, run.settings, run.preset, indices.training)
        self.loader = Loader(shown, len(self.shown) * sum(run.settings.train.planned))

    def train(self) -> Progress:
        """Train every stage that is not behind us, from the checkpoint if there is one."""
        if self.checkpoint.is_file():
            self.progress = resumed(self.checkpoint, self.run.identity, self.number)
            say(f"{self.run.name} fold {self.number}: resumes after epoch {self.progress.epoch}")
        if self.indices.fold_labels:
            more, also = len(self.shown) / len(self.indices.training), self.indices.fold_labels
            say(f"{self.run.name} fold {self.number}: trained on {also} too, {more:.2f} times the steps per epoch")
        log = HistoryLog(self.folder, self.progress.history)
        with self.loader:
            for stage in self.stages:
                if self._is_over(stage) and stage.number + 1 < len(self.settings.stages):
                    continue
                self.begin_stage(stage)
                while not self._is_over(stage):
                    self._epoch(stage)
                    log.write(self.progress.history)
        if self.settings.select == "best":
            load_state(self.folder / "best.h5", {"model": self.classifier.weights})
            self.cached = None  # its backbone may be another than the last stage's
        return self.progress

    def _is_over(self, stage: StagePlan) -> bool:
        """Whether a stage is behind us: read off the history."""
        return is_over(self.progress.history, stage.number, stage.stop, self.settings.patience)

    def begin_stage(self, stage: StagePlan) -> None:
        """Freeze, split and compile; take weights, and within a stage the optimizer too, from the checkpoint."""
        freeze(self.classifier, stage.freeze_until, stage.train_statistics)
        self.devices.synchronize(self.classifier)
        resumes = any(row["stage"] == stage.number for row in self.progress.history)
        if self.progress.epoch:
            load_state(self.checkpoint, {"model": self.classifier.weights})
        self.cached = self.caching.cached_stage(stage)
        self.learner = self.cached.tail if self.cached else self.classifier
        steps = -(-len(self.shown) // self.settings.batch_size)
        with self.devices.scope():
            prepare(self.learner, stage, self.settings, steps, lr_multipliers(self.classifier, stage))
        if len(self.indices.validation):
            self.centre = self.caching.validation_predictor(self.cached)
            self.source = self.centre.source(self.pack)
        if resumes:
            load_state(self.checkpoint, self._state())

    def _state(self) -> dict[str, list[Any]]:
        return {"model": self.classifier.weights, "optimizer": self.learner.optimizer.variables}

    def _epoch(self, stage: StagePlan) -> None:
        """Train one epoch, score the validation drivers, keep everything in one checkpoint."""
        start, progress = time.monotonic(), self.progress
        if self.cached is not None and stage.settings.fit == "linear_probe":
            train = partial(self._fit_linear_probe, stage, self.caching.features(self.cached, self.pack))
        else:
            train = partial(self._train_by_gradient, stage, *self._shown())
        ready, cpu = time.monotonic(), time.process_time()  # what frozen layers cost, once for all folds, lies behind
        loss, right = train()
        seconds = time.monotonic() - ready, time.process_time() - cpu
        with averaged(self.learner):
            validation = self._validate()
        self._refuse_overflow(stage, {"the validation loss": validation[0] or 0.0})
        progress.epoch += 1
        progress.history.append({
            "epoch": progress.epoch, "stage": stage.number, "loss": loss, "accuracy": right,
            "val_loss": validation[0], "val_accuracy": validation[1],
            "step_seconds": seconds[0] * self.settings.batch_size / len(self.shown),
            "cache_seconds": ready - start, "training_seconds": seconds[0], "training_cpu_seconds": seconds[1],
            "seconds": time.monotonic() - start,
            **({"pseudo_images": len(self.indices.fold_labels.indices)} if self.indices.fold_labels else {}),
        })  # fmt: skip
        self._save_checkpoint(stage)

    def _validate(self) -> tuple[float, float] | tuple[None, None]:
        """Log loss and accuracy on the validation drivers, where there are any."""
        if not len(self.indices.validation):
            return None, None
        found = self.centre(self.source, self.indices.validation)["centre"]
        labels = self.pack.labels[self.indices.validation]
        return log_loss(found, labels), accuracy(found, labels)

    def batches(self) -> TrainingBatches:
        """Those of the epoch that is next, with its dropout; for the caller to close."""
        return self._batches(*self._shown())

    def _batches(self, inputs: Inputs, targets: np.ndarray) -> TrainingBatches:
        epoch, run, is_pseudo_label = self.progress.epoch, self.run, self.indices.is_pseudo_label(len(self.pack.names))
        reseed(self.classifier, (self.settings.seed, epoch), self.devices)
        about = inputs, self.shown, targets, run.settings, run.swap, epoch, is_pseudo_label, self.loader.threads
        return TrainingBatches(*about, self.indices.sample_weights)

    def _shown(self) -> tuple[Inputs, np.ndarray]:
        """Inputs and label shares of the epoch that is next; rows with pseudo-labels, after those of the pack, are never mixed."""
        epoch, targets, labelled = self.progress.epoch, self.targets, len(self.pack.names)
        if mixing := epoch_mixing(self.run.settings, self.pack, self.indices.training, epoch):
            targets = np.concatenate([mixing.targets(targets[:labelled]), targets[labelled:]])
        if self.cached is None:
            return self.loader.inputs(epoch), targets
        return self.caching.inputs(self.cached, self.loader.shown.packs, epoch), targets

    def _train_by_gradient(self, stage: StagePlan, inputs: Inputs, targets: np.ndarray) -> tuple[float, float]:
        """One epoch by gradient on inputs and label shares (N, C); training loss and accuracy."""
        rows = self.shown
        penalty = sum(float(each) for each in self.learner.losses)
        with closing(self._batches(inputs, targets)) as batches:
            loss, right = self._fit(stage, batches)
            whole = 0.0 if is_finite(self.classifier.weights) else math.nan
            self._refuse_overflow(stage, {"the loss": loss, "a weight": whole})
            self._judge(stage, loss - penalty, float(batches.weight_sums.sum()) / len(rows))
            if stage.normalization == "recalibrated":
                count = max(1, min(RECALIBRATION_BATCHES, len(rows) // self.settings.batch_size))
                with averaged(self.learner):
                    recalibrate_batch_norm(self.learner, (batches[step][0] for step in range(count)))
        return loss, right

    def _judge(self, stage: StagePlan, loss: float, weight: float) -> None:
        """Take note of a training loss far above that of a uniform guess, whose samples weigh `weight` on average."""
        progress, classifier = self.progress, self.classifier
        uniform = uniform_loss(
            len(self.run.classes), weight, self.learner.auxiliary_weight * len(classifier.auxiliaries)
        )
        progress.diverged = judged(progress.diverged, progress.epoch + 1, loss, uniform, self._way_out(stage))

    def _refuse_overflow(self, stage: StagePlan, found: dict[str, float]) -> None:
        """Refuse an epoch that left, by name, something that is no finite number."""
        for what, value in found.items():
            if not math.isfinite(value):
                epoch = self.progress.epoch + 1
                write_json(self.folder / DIVERGED, {"epoch": epoch})
                raise InputError(f"{self.folder}: {what} became {value} in epoch {epoch}; {self._way_out(stage)}")

    def _way_out(self, stage: StagePlan) -> str:
        return way_out(self.run.name, stage.number, stage.settings.learning_rate, stage.learning_rate)

    def _fit(self, stage: StagePlan, batches: TrainingBatches) -> tuple[float, float]:
        """Training loss and accuracy of one epoch, with a progress bar."""
        label = f"fold {self.number}, epoch {self.progress.epoch + 1} of {sum(self.before.planned)}"
        with Meter(label, len(self.shown), whose=self.run.name, patience=HALFWAY_LOG_SECONDS, end=False) as meter:
            bar = EpochBar(meter, self.settings.batch_size, self.before, self.progress.history, stage.number)
            return train_epoch(self.learner, batches, bar, self.devices)

    def _fit_linear_probe(self, stage: StagePlan, draws: list[Outputs]) -> tuple[float, float]:
        """The softmax by logistic regression on cached features of labelled images; training loss and accuracy."""
        rows, run = self.indices.training, self.run
        made = [draw(rows) for draw in draws]
        features, flipped = (np.concatenate(parts) for parts in zip(*made, strict=True))
        targets = np.tile(one_hot(self.pack.labels[rows], len(run.swap)), (len(made), 1))
        targets = flip_targets(targets, flipped, run.settings.augment.hflip, run.swap)
        labels, weights = targets.argmax(axis=1), targets @ class_weights(targets, self.settings.class_weights)
        if self.indices.sample_weights is not None:
            weights = weights * np.tile(self.indices.sample_weights[rows], len(made))
        drivers = np.tile(self.pack.drivers[rows], len(made))
        found = fit_linear_probe(Sample(features, labels, weights), drivers, len(run.swap), stage.settings.l2)
        self.classifier.top.kernel.assign(found.kernel)
        self.classifier.top.bias.assign(found.bias)
        say(f"{run.name} fold {self.number}: logistic regression on {features.shape[1]} features, l2 {found.l2:g}")
        predicted = found(features)
        return log_loss(predicted, labels), accuracy(predicted, labels)

    def _save_checkpoint(self, stage: StagePlan) -> None:
        progress, kept = self.progress, self.progress.history[-1]
        if self.settings.select == "best" and kept["val_loss"] < progress.best:
            progress.best = kept["val_loss"]
            with averaged(self.learner):
                write_state(self.folder / "best.h5", {"model": self.classifier.weights}, self.run.origin)
        if self._is_over(stage):
            take_average(self.learner)  # what a stage leaves to the next one, or to the predictions
        write_state(
            self.checkpoint, self._state(), {"run": self.run.identity, "progress": json.dumps(asdict(progress))}
        )
        validation = "no validation drivers"
        if kept["val_loss"] is not None:
            validation = f"validation drivers {kept['val_loss']:.3f} (accuracy {kept['val_accuracy']:.1%})"
        said = f"{self.run.name} fold {self.number}, epoch {progress.epoch} ({stage.name}): loss {kept['loss']:.3f}"
        say(f"{said}, {validation}, {kept['seconds']:.0f} s")
