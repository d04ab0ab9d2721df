"""Settings of a search: which settings of a model are varied, within what, and when a trial is cut short."""

import json
import math
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
        if (self.choices is None) == (self.low is None and self.high is None):
            raise ValueError("must have either low and high, or choices")
        if self.choices is not None:
            self._refuse_bad_choices()
        else:
            self._refuse_bad_range()
        return self

    def _refuse_bad_choices(self) -> None:
        if self.log or self.step is not None:
            raise ValueError("log and step belong to low and high, not to choices")
        if len(set(self.words)) < len(self.words):
            raise ValueError("choices must name each value once")

    def _refuse_bad_range(self) -> None:
        if self.low is None or self.high is None or self.low >= self.high:
            raise ValueError(f"low must be below high, got low {self.low} and high {self.high}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log needs low above 0, and no step")
        steps = (self.high - self.low) / (self.step or (self.high - self.low))
        if abs(steps - round(steps)) > 1e-6:
            raise ValueError(f"step must lead from low to high exactly, got {steps:.6g} steps")

    @property
    def words(self) -> list[str]:
        """The choices as JSON, by which a search's log names them."""
        return [json.dumps(choice, sort_keys=True, ensure_ascii=False) for choice in self.choices or []]

    @property
    def tried(self) -> list[Any]:
        """Values that stand for all of them: the choices, or both ends of the range."""
        return [self.low, self.high] if self.choices is None else self.choices

    @property
    def between(self) -> float:
        """A number of the range that is no whole one, to ask whether the setting takes such."""
        middle = ((self.low or 0) + (self.high or 0)) / 2
        return middle if middle != math.floor(middle) else middle + min(0.25, (self.high - middle) / 2)  # type: ignore[operator]


class SearchSettings(Strict):
    """`configs/searches/<name>.yaml`: what `make search` varies of a model, and how it goes about it."""

    space: Annotated[dict[str, Dimension], Field(min_length=1)]  # by the dotted name of a model's setting
    startup: Annotated[int, Field(ge=1, le=1000)] = 6  # trials drawn at random, before the sampler goes by their losses
    # trials that have come as far, at least, before one that is worse than their median is cut short; null: none is
    prune_after: Annotated[int, Field(ge=1, le=1000)] | None = 4
