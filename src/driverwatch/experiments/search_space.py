"""A search space checked against the model that it varies: Optuna's distributions, and the settings of a trial."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from driverwatch.config.experiments import Dimension, SearchSettings
from driverwatch.config.loading import parse, put
from driverwatch.config.model import ModelSettings
from driverwatch.errors import InputError

_OPTIMISTIC = "chooses the epoch on the validation drivers, which would make the search optimistic twice"
FIXED = {
    "predict": "decides no weights",
    "train.workers": "decides no result",
    "train.loader": "decides no result",
    "train.seed": "is luck, which fresh folds would take back",
    "train.splits": "is what trials are compared on",
    "train.pseudo": "has teachers that know the fold file's folds alone",
    "train.select": _OPTIMISTIC,
    "train.patience": _OPTIMISTIC,
}
"""Settings that no search varies, and the reason."""


@dataclass(frozen=True)
class SearchRequest:
    """What `make search` is asked for beside the model's settings."""

    model: str
    space: str  # names configs/searches/<space>.yaml
    name: str  # of the search
    trials: int  # in all, those of earlier commands included
    seed: int
    weights: Path | None = None
    force: bool = False
    skip: int | None = None  # number of a running trial to give up


def load_optuna() -> Any:
    """The package, an extra that is imported nowhere else. Raises `InputError`: it is not installed."""
    try:
        import optuna
    except ImportError as error:
        raise InputError("make search needs the package optuna; make setup EXTRAS=cluster installs it") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


class Space:
    """The settings that a search varies, by dotted key; every value of each was parsed with the model's other settings."""

    def __init__(self, own: ModelSettings, asked: SearchSettings, where: str) -> None:
        """Check the space `asked` (of the file `where`) against the model's own settings.

        Raises `InputError`: a setting that may not be varied or does not exist, or a value that it does not take.
        """
        self.own, self.asked, self.where = own, asked, where
        self.keys = list(asked.space)
        _refuse_unscored(own)
        for key in self.keys:
            if reason := next((FIXED[fixed] for fixed in FIXED if f"{key}.".startswith(f"{fixed}.")), None):
                raise InputError(f"{where}: space.{key}: {reason}; leave it out")
        for _ in self.variants():
            pass  # each is parsed
        self.whole = {
            key for key, one in asked.space.items() if one.choices is None and self._takes_no_fraction(key, one)
        }

    def variants(self) -> Iterator[tuple[str, ModelSettings]]:
        """The model's own settings, then each choice and each end of a range alone in them; with a name for sentences."""
        yield "the model's own settings", self.own
        for key, dimension in self.asked.space.items():
            for value in dimension.tried:
                yield f"space.{key}={json.dumps(value)}", self.settings({key: value})

    def settings(self, values: dict[str, Any]) -> ModelSettings:
        """The model's settings with these values by dotted key. Raises `InputError` where they do not fit together."""
        content, where = self.own.model_dump(), f"{self.where}: space"
        for key, value in values.items():
            put(content, key, value, f"{where}.{key}", ModelSettings)
        return parse(ModelSettings, content, where)

    def distributions(self) -> dict[str, Any]:
        """Optuna's distribution of each key."""
        kinds, found = load_optuna().distributions, dict[str, Any]()
        for key, one in self.asked.space.items():
            if one.choices is not None:
                found[key] = kinds.CategoricalDistribution(one.coded)
            elif key in self.whole:
                found[key] = kinds.IntDistribution(one.low, one.high, log=one.log, step=int(one.step or 1))
            else:
                found[key] = kinds.FloatDistribution(one.low, one.high, log=one.log, step=one.step)
        return found

    def values(self, params: dict[str, Any]) -> dict[str, Any]:
        """Settings by dotted key from a trial's parameters in Optuna; the inverse of `distributions`."""
        found = {}
        for key in self.keys:
            dimension = self.asked.space[key]
            if dimension.choices is not None:
                found[key] = dimension.choices[dimension.coded.index(params[key])]
            else:  # 12 digits: steps of 0.1 add up to 0.30000000000000004
                found[key] = int(params[key]) if key in self.whole else float(f"{params[key]:.12g}")
        return found

    def _takes_no_fraction(self, key: str, dimension: Dimension) -> bool:
        """Whether the setting takes whole numbers alone, found by trying a number between `low` and `high` that is none."""
        try:
            self.settings({key: math.nextafter(dimension.low or 0, math.inf)})
        except InputError:
            if dimension.step is not None and dimension.step != int(dimension.step):
                raise InputError(
                    f"{self.where}: space.{key}: takes whole numbers, so step must be one, got {dimension.step:g}"
                ) from None
            return True
        return False


def _refuse_unscored(own: ModelSettings) -> None:
    """Refuse a model whose trials could not be compared, or scored on fresh folds."""
    train = own.train
    if not train.splits.scored:
        raise InputError("train.splits: a search compares out-of-fold scores; it must be folds")
    if train.pseudo is not None:
        raise InputError(
            f"train.pseudo: {FIXED['train.pseudo']}, so no winner could be scored on fresh ones; leave it out"
        )
    if train.uses_validation:
        raise InputError(f'train.select: best (or patience) {_OPTIMISTIC}; SET="train.select=last train.patience=null"')
