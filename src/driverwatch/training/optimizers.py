"""Optimizers: the guides' SGD, Adam, AdamW; each with learning-rate factors by depth."""

from typing import Any, ClassVar, TypeAlias

import keras

from driverwatch.train_settings import TrainSettings

Rate: TypeAlias = "float | keras.optimizers.schedules.LearningRateSchedule"


def make_optimizer(train: TrainSettings, rate: Rate, factors: dict[str, float]) -> keras.optimizers.Optimizer:
    """SGD with Nesterov momentum (the fine-tuning guide's), Adam or AdamW; weight decay never touches biases and normalisation.

    Args:
        factors: factor on the rate by variable path; 1 for those not named.
    """
    momentum = {"momentum": train.momentum, "nesterov": train.momentum > 0} if train.optimizer == "sgd" else {}
    made: Any = KINDS[train.optimizer](rate, weight_decay=train.weight_decay, **momentum)
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


class SGD(_ByDepth, keras.optimizers.SGD):
    pass


class Adam(_ByDepth, keras.optimizers.Adam):
    pass


class AdamW(_ByDepth, keras.optimizers.AdamW):
    pass


KINDS = {"sgd": SGD, "adam": Adam, "adamw": AdamW}
