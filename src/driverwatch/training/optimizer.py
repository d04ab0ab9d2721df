"""Optimizers (SGD, Adam, AdamW) with learning rates by depth, stages planned, schedules, and a moving average of weights (EMA)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import keras

from driverwatch.config.model import ModelSettings
from driverwatch.config.training import Stage, TrainSettings
from driverwatch.models.classifier import Classifier, Learner
from driverwatch.models.freezing import check_names, frozen_count

Rate: TypeAlias = "float | keras.optimizers.schedules.LearningRateSchedule"


def make_optimizer(
    train: TrainSettings, rate: Rate, factors: dict[str, float], average: float | None = None
) -> keras.optimizers.Optimizer:
    """SGD with Nesterov momentum (the fine-tuning guide's), Adam or AdamW; weight decay never touches biases and normalisation.

    Args:
        factors: factor on the rate by variable path; 1 for those not named.
        average: momentum of an exponential moving average of the weights, kept beside them; None: there is none.
    """
    more: dict[str, Any] = {} if average is None else {"use_ema": True, "ema_momentum": average}
    if train.optimizer == "sgd":
        more |= {"momentum": train.momentum, "nesterov": train.momentum > 0}
    made: Any = KINDS[train.optimizer](rate, weight_decay=train.weight_decay, **more)
    made.by_path = factors
    if made.weight_decay:
        made.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return made


class _ByDepth:
    """Multiplies each variable's update, weight decay included, by its factor.

    It must be the update: under Adam a gradient times a constant gives the same update.
    """

    by_path: ClassVar[dict[str, float]] = {}

    def build(self: Any, variables: list[Any]) -> None:
        super().build(variables)  # type: ignore[misc]
        self.factors = [self.by_path.get(variable.path, 1.0) for variable in variables]

    def update_step(self: Any, gradient: Any, variable: Any, learning_rate: Any) -> None:
        rate = learning_rate * self.factors[self._get_variable_index(variable)]
        if self.weight_decay and self._use_weight_decay(variable):
            self.assign_sub(variable, variable * self.weight_decay * rate)
        super().update_step(gradient, variable, rate)  # type: ignore[misc]

    def _apply_weight_decay(self, variables: list[Any]) -> None:
        """Keras' own decay, at the plain rate: done in `update_step` instead."""

    def finalize_variable_values(self, variables: list[Any]) -> None:
        """Nothing: Keras puts the average in place of the weights after every `fit`, which is one epoch here."""

    def take_average(self, variables: list[Any]) -> None:
        """Put the moving average in place of the weights."""
        super().finalize_variable_values(variables)  # type: ignore[misc]


KINDS: dict[str, Any] = {
    kind.__name__.lower(): type(kind.__name__, (_ByDepth, kind), {})
    for kind in (keras.optimizers.SGD, keras.optimizers.Adam, keras.optimizers.AdamW)
}


@dataclass(frozen=True)
class StagePlan:
    """One stage with everything filled in."""

    number: int
    settings: Stage
    epochs: int
    learning_rate: float
    normalization: str
    stop: int  # epochs that are trained of those that the schedule is made for

    @property
    def freeze_until(self) -> str | int | float | None:
        return self.settings.freeze_until

    @property
    def train_statistics(self) -> bool:
        return self.normalization != "frozen"

    @property
    def name(self) -> str:
        until = self.freeze_until
        if until == "head":
            return "head by logistic regression" if self.settings.fit == "linear_probe" else "head alone"
        if isinstance(until, float):
            return f"{until:.0%} of the layers frozen"
        return "nothing frozen" if until is None else f"frozen to {until}"


def plan(settings: ModelSettings) -> list[StagePlan]:
    """Fill each stage's gaps from `train`: normalisation is frozen where weights are pretrained, trained where not."""
    plans: list[StagePlan] = []
    train, default = settings.train, "train" if settings.weights == "none" else "frozen"
    for number, stage in enumerate(train.stages):
        rate = stage.learning_rate or train.learning_rate
        epochs = train.epochs_of(stage)
        plans.append(StagePlan(number, stage, epochs, rate, stage.normalization or default, train.planned[number]))
    return plans


def check(classifier: Classifier, stages: list[StagePlan]) -> None:
    """Refuse layer names that the backbone does not have, in whatever stage, before the first one is trained."""
    for stage in stages:
        check_names(classifier.backbone.layers, stage.settings)


def untouched(classifier: Classifier, stages: list[StagePlan], number: int) -> bool:
    """Whether what stage `number` freezes was frozen in every stage before it: then it is the same in every fold."""
    frozen = [frozen_count(classifier.backbone.layers, stage.freeze_until) for stage in stages[: number + 1]]
    return min(frozen) == frozen[-1]


def lr_multipliers(classifier: Classifier, stage: StagePlan) -> dict[str, float]:
    """Factor on the learning rate by variable (its path): a layer has that of the first boundary at or above it, else 1."""
    layers = classifier.backbone.layers
    bounds = sorted((frozen_count(layers, until), factor) for until, factor in stage.settings.lr_multipliers.items())
    factors: dict[str, float] = {}
    for i, layer in enumerate(layers):
        factor = next((factor for bound, factor in bounds if i < bound), 1.0)
        factors |= {weight.path: factor for weight in layer.trainable_weights}
    return factors


def prepare(learner: Learner, stage: StagePlan, train: TrainSettings, steps: int, factors: dict[str, float]) -> None:
    """Compile what is already frozen for a stage of `stage.epochs` x `steps` steps, with a new optimizer."""
    total = stage.epochs * steps
    averages = train.average_weights == "ema" and stage.settings.fit == "gradient"  # a linear probe takes no steps
    average = 1 - 1 / max(1.0, train.average_span * total) if averages else None
    compile_at(learner, train, schedule(train, stage.learning_rate, total), factors, average)


def compile_at(
    learner: Learner, train: TrainSettings, rate: Rate, factors: dict[str, float], average: float | None = None
) -> None:
    """Compile with a new optimizer at a rate, or one that follows a schedule; `average` as `make_optimizer` takes it."""
    optimizer = make_optimizer(train, rate, factors, average)
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=train.label_smoothing)
    accuracy = keras.metrics.CategoricalAccuracy("accuracy")  # from a string it would be made in a step, traced twice
    learner.compile(optimizer, loss, weighted_metrics=[accuracy])
    learner.optimizer.build(learner.trainable_variables)  # not ours where Keras put a loss scale around it


def take_average(learner: Learner) -> None:
    """Put the moving average of the trained weights in their place, where the optimizer keeps one.

    Statistics of normalisation are not averaged: they are moving averages themselves, or frozen, or measured again.
    """
    if _keeps_average(learner):
        _inner(learner).take_average(learner.trainable_variables)


@contextmanager
def averaged(learner: Learner) -> Iterator[None]:
    """For a while, the same; then the trained weights again."""
    variables = learner.trainable_variables if _keeps_average(learner) else []
    trained = [keras.ops.convert_to_numpy(variable) for variable in variables]
    take_average(learner)
    try:
        yield
    finally:
        for variable, value in zip(variables, trained, strict=True):
            variable.assign(value)


def _inner(learner: Learner) -> Any:
    """The optimizer itself: under float16 Keras puts a loss scale around it."""
    return getattr(learner.optimizer, "inner_optimizer", learner.optimizer)


def _keeps_average(learner: Learner) -> bool:
    return bool(_inner(learner).use_ema)


def schedule(train: TrainSettings, rate: float, steps: int) -> Rate:
    """The rate over `steps` steps: constant, or cosine down to 0 (Loshchilov & Hutter 2017), with a linear rise before.

    The rise's first step already moves (`rate` / rise), its last one is at `rate` and the cosine's first: so a rise of one
    step is none, and of however few steps at least one is the cosine's.
    """
    rise = round(train.warmup * steps)
    floor = 0.0 if train.schedule == "cosine" else 1.0
    if train.schedule == "constant" and rise <= 1:
        return rate
    if rise <= 1:
        return keras.optimizers.schedules.CosineDecay(rate, steps, alpha=floor)
    return keras.optimizers.schedules.CosineDecay(
        rate / rise, steps - rise + 1, alpha=floor, warmup_target=rate, warmup_steps=rise - 1
    )
