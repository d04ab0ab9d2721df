"""A search space held against the settings that it varies: what a trial's settings are, and what may not be varied."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from driverwatch.artifacts import digest_of
from driverwatch.errors import InputError
from driverwatch.search_settings import Dimension, SearchSettings
from driverwatch.settings import ModelSettings
from driverwatch.typed_yaml import parse, put

FIXED = {
    "predict": "decides no weights",
    "train.workers": "decides no result",
    "train.loader": "decides no result",
    "train.seed": "is luck, which new folds would take back",
    "train.splits": "is what trials are compared on",
    "train.pseudo": "has teachers that know the fold file's folds alone",
    "train.select": "lets held-out drivers choose the epoch, and the search would be flattered by them twice",
    "train.patience": "lets held-out drivers choose the epoch, and the search would be flattered by them twice",
}


@dataclass(frozen=True)
class Asked:
    """What `make search` is told beside the model's settings."""

    model: str
    space: str  # names configs/searches/<space>.yaml
    name: str  # of the search
    trials: int  # that there shall be, those of earlier commands included
    seed: int
    weights: Path | None
    force: bool = False
    skip: int | None = None  # number of a trial that is given up


class Space:
    """Dotted settings with what they may be, each value of which fits the model's own settings."""

    def __init__(self, own: ModelSettings, asked: SearchSettings, where: str) -> None:
        """Hold a space against a model.

        Args:
            where: the space's file, for sentences.

        Raises:
            InputError: settings that may not be varied, that are not there, or values that they do not take.
        """
        self.own, self.asked, self.where = own, asked, where
        self.keys = list(asked.space)
        _refuse_unfit(own)
        for key in self.keys:
            if reason := next((FIXED[fixed] for fixed in FIXED if f"{key}.".startswith(f"{fixed}.")), None):
                raise InputError(f"{where}: space.{key}: {reason}; leave it out")
        for _ in self.variants():
            pass  # each is parsed
        self.whole = {key for key in self.keys if self._is_whole(key, asked.space[key])}

    def variants(self) -> Iterator[tuple[str, ModelSettings]]:
        """The model's settings, and what becomes of them by each value that stands for its dimension, alone; with a name."""
        yield "the model's own settings", self.own
        for key, dimension in self.asked.space.items():
            for value in dimension.tried:
                yield f"space.{key}={json.dumps(value)}", self._with({key: value})

    def settings(self, values: dict[str, Any]) -> ModelSettings:
        """The model's settings with these values. Raises `InputError` where they do not fit together."""
        return self._with(values)

    def _with(self, values: dict[str, Any]) -> ModelSettings:
        content, where = self.own.model_dump(), f"{self.where}: space"
        for key, value in values.items():
            put(content, key, value, f"{where}.{key}", ModelSettings)
        return parse(ModelSettings, content, where)

    def _is_whole(self, key: str, dimension: Dimension) -> bool:
        """Whether a range is of whole numbers, since its setting takes no others."""
        if dimension.choices is not None:
            return False
        try:
            self._with({key: dimension.between})
        except InputError:
            if dimension.step is not None and dimension.step != int(dimension.step):
                raise InputError(
                    f"{self.where}: space.{key}: takes whole numbers, so step must be one, got {dimension.step:g}"
                ) from None
            return True
        return False


def _refuse_unfit(own: ModelSettings) -> None:
    """Refuse a model whose trials could not be compared, or scored on other folds."""
    train = own.train
    if not train.splits.scored:
        raise InputError("train.splits: a search compares out-of-fold scores; it must be folds")
    if train.pseudo is not None:
        raise InputError(f"train.pseudo: {FIXED['train.pseudo']}, so no winner could be scored on others; leave it out")
    if train.looks_at_held_out:
        raise InputError(
            f'train.select: best (or patience) {FIXED["train.select"]}; SET="train.select=last train.patience=null"'
        )


def structure(settings: ModelSettings) -> str:
    """Digest of what decides whether a network can be built and frozen as asked."""
    made = settings.model_dump(include={"backbone", "weights", "cut", "input", "head"})
    stages = [stage.model_dump(include={"freeze_until", "rate_factors", "fit"}) for stage in settings.train.stages]
    return digest_of([made, stages, settings.train.cache_trunk])
