"""Stages: what is frozen, which optimizer, which schedule; derived from settings and nothing else."""

from dataclasses import dataclass

import keras

from driverwatch.models.classifier import Classifier, freeze
from driverwatch.settings import ModelSettings, TrainSettings


@dataclass(frozen=True)
class StagePlan:
    """One stage with everything filled in."""

    number: int
    freeze_until: str | int | None
    epochs: int
    learning_rate: float
    train_statistics: bool

    @property
    def name(self) -> str:
        frozen = "nothing frozen" if self.freeze_until is None else f"frozen to {self.freeze_until}"
        return "head alone" if self.freeze_until == "head" else frozen


def plan(settings: ModelSettings) -> list[StagePlan]:
    """Fill each stage's gaps from `train`: normalisation is frozen where weights are pretrained, trained where not."""
    plans: list[StagePlan] = []
    train = settings.train
    for number, stage in enumerate(train.stages):
        normalization = stage.normalization or ("train" if settings.weights == "none" else "frozen")
        plans.append(
            StagePlan(
                number,
                stage.freeze_until,
                stage.epochs or train.epochs,
                stage.learning_rate or train.learning_rate,
                normalization == "train",
            )
        )
    return plans


def prepare(classifier: Classifier, stage: StagePlan, train: TrainSettings, steps: int) -> None:
    """Freeze and compile for a stage of `stage.epochs` x `steps` steps, with a new optimizer."""
    freeze(classifier, stage.freeze_until, stage.train_statistics)
    optimizer = make_optimizer(train, schedule(train, stage.learning_rate, stage.epochs * steps))
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=train.label_smoothing)
    classifier.compile(optimizer, loss, weighted_metrics=["accuracy"])
    optimizer.build(classifier.trainable_variables)


def schedule(
    train: TrainSettings, rate: float, steps: int
) -> "float | keras.optimizers.schedules.LearningRateSchedule":
    """The rate over `steps` steps: constant, or cosine down to 0 (Loshchilov & Hutter 2017), with a linear rise before."""
    rise = round(train.warmup * steps)
    floor = 0.0 if train.schedule == "cosine" else 1.0
    if train.schedule == "constant" and not rise:
        return rate
    if rise:
        return keras.optimizers.schedules.CosineDecay(
            0.0, steps - rise, alpha=floor, warmup_target=rate, warmup_steps=rise
        )
    return keras.optimizers.schedules.CosineDecay(rate, steps, alpha=floor)


def make_optimizer(
    train: TrainSettings, rate: "float | keras.optimizers.schedules.LearningRateSchedule"
) -> keras.optimizers.Optimizer:
    """SGD with Nesterov momentum (the fine-tuning guide's), Adam or AdamW; weight decay never touches biases and normalisation."""
    decay = train.weight_decay or None
    if train.optimizer == "sgd":
        made = keras.optimizers.SGD(rate, momentum=train.momentum, nesterov=train.momentum > 0, weight_decay=decay)
    elif train.optimizer == "adam":
        made = keras.optimizers.Adam(rate, weight_decay=decay)
    else:
        made = keras.optimizers.AdamW(rate, weight_decay=train.weight_decay)
    if made.weight_decay:
        made.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return made
