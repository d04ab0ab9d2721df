"""Settings of a search: which settings of a model are varied, within what, and when a trial is pruned."""

import json
from typing import Annotated, Any

from pydantic import Field, model_validator

from driverwatch.typed_yaml import Strict

Number = int | float


class Dimension(Strict):
    """One setting that is varied: a range of numbers (`low`, `high`, and `log` or `step`), or `choices`."""

    low: Number | None = None  # least value; whole numbers where the setting takes no others
    high: Number | None = None  # greatest
    log: bool = False  # drawn evenly by order of magnitude, as learning rates should be
    step: Annotated[float, Field(gt=0)] | None = None  # only `low` and so many steps above it; null: anything between
    choices: Annotated[list[Any], Field(min_length=2)] | None = None  # instead of a range: values of any kind

    @model_validator(mode="after")
    def _fits(self) -> "Dimension":
        low, high = self.low, self.high
        if (self.choices is None) == (low is None and high is None):
            raise ValueError("must have either low and high, or choices")
        if self.choices is not None and (self.log or self.step is not None):
            raise ValueError("log and step belong to low and high, not to choices")
        if len(set(self.coded)) < len(self.coded):
            raise ValueError("choices must name each value once")
        if self.choices is None and (low is None or high is None or low >= high):
            raise ValueError(f"low must be below high, got low {low} and high {high}")
        if self.log and (low is None or low <= 0 or self.step is not None):
            raise ValueError("log needs low above 0, and no step")
        if self.step is not None and low is not None and high is not None:
            steps = (high - low) / self.step
            if abs(steps - round(steps)) > 1e-6:
                raise ValueError(f"step must lead from low to high exactly, got {steps:.6g} steps")
        return self

    @property
    def coded(self) -> list[Any]:
        """The choices as Optuna stores them: plain values, a list or mapping as JSON."""
        plain = str | int | float | None
        return [one if isinstance(one, plain) else json.dumps(one, sort_keys=True) for one in self.choices or []]

    @property
    def tried(self) -> list[Any]:
        """Values that stand for all of them: the choices, or both ends of the range."""
        return [self.low, self.high] if self.choices is None else self.choices


class SearchSettings(Strict):
    """`configs/searches/<name>.yaml`: what `make search` varies of a model, and how it goes about it."""

    space: Annotated[dict[str, Dimension], Field(min_length=1)]  # by the dotted name of a model's setting
    startup: Annotated[int, Field(ge=1, le=1000)] = 6  # trials drawn at random, before the sampler goes by their losses
    # trials that have come as far, at least, before one that is worse than their median is pruned; null: none is
    prune_after: Annotated[int, Field(ge=1, le=1000)] | None = 4
