"""Settings of what is made of many runs: recipes, which end in submissions, and ablations, which end in a table."""

import json
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from driverwatch.config.ensemble import EnsembleSettings
from driverwatch.config.loading import Strict, parse
from driverwatch.config.model import ModelSettings
from driverwatch.config.types import Name, TtaSet


class RunSettings(Strict):
    """A run: what `make train` is given."""

    model: Name  # MODEL, of configs/models
    set: str = ""  # SET, what is changed of it

    def command(self, name: str, study: str | None = None) -> str:
        """What trains it, as typed in a shell."""
        words = ["make train", f"MODEL={self.model}", f"RUN={name}"]
        words += [f"STUDY={study}"] if study else []
        return " ".join([*words, *([f'SET="{self.set}"'] if self.set else [])])


class RecipeSettings(Strict):
    """`configs/recipes/<dataset>.yaml`: runs, trained in this order, and the submissions that are made of them."""

    runs: Annotated[dict[Name, RunSettings], Field(min_length=1)]
    # for runs with `train.pseudo.labels`
    pseudo_labels: Annotated[dict[Name, EnsembleSettings], Field(default_factory=dict)]
    submissions: Annotated[dict[Name, EnsembleSettings], Field(min_length=1)]  # by the name of the CSV

    @model_validator(mode="after")
    def _fits(self) -> "RecipeSettings":
        _refuse_unknown_runs("submissions", self.submissions, self.runs, "recipe")
        _refuse_unknown_runs("pseudo_labels", self.pseudo_labels, self.runs, "recipe")
        return self


def _refuse_unknown_runs(
    kind: str, sides: dict[str, EnsembleSettings], runs: dict[str, RunSettings], whose: str
) -> None:
    """Refuse what is put together of runs that are not named beside it."""
    for name, side in sides.items():
        if unknown := [run for run in side.runs if run not in runs]:
            raise ValueError(f"{kind}.{name}.runs must be of this {whose}'s runs, got {', '.join(unknown)}")


class AblationSettings(Strict):
    """One row of the table: the same thing without an ablation and with it."""

    ablation: str  # what is changed, in a few words
    before: EnsembleSettings  # without it
    after: EnsembleSettings  # with it, all else the same
    kept: bool  # whether the recipe takes it
    why: str = ""  # what decided that, where it is not the row's own numbers


class AblationsSettings(Strict):
    """`configs/ablations/<dataset>.yaml`: the runs of this study, and what is compared; other runs are the data set's own."""

    runs: Annotated[dict[Name, RunSettings], Field(default_factory=dict)]
    pseudo_labels: Annotated[dict[Name, EnsembleSettings], Field(default_factory=dict)]  # as in a recipe
    rows: Annotated[dict[str, list[AblationSettings]], Field(min_length=1)]  # by the kind of ablation, a table each

    @model_validator(mode="after")
    def _fits(self) -> "AblationsSettings":
        for row in (row for rows in self.rows.values() for row in rows):
            asked = {*row.before.runs, *row.after.runs}
            if asked & set(self.runs) and asked - set(self.runs):
                raise ValueError(f"rows: {row.ablation}: must compare runs of this study, or none of them")
        _refuse_unknown_runs("pseudo_labels", self.pseudo_labels, self.runs, "study")
        return self

    @property
    def tta(self) -> dict[str, list[TtaSet]]:
        """TTA sets by name that the ablations ask of each of this study's runs, each once."""
        found: dict[str, list[TtaSet]] = {}
        for side in (side for rows in self.rows.values() for row in rows for side in (row.before, row.after)):
            for run in side.runs:
                if side.tta_set and run in self.runs and side.tta_set not in found.setdefault(run, []):
                    found[run].append(side.tta_set)
        return found


def _begins_with_head(depths: list[str]) -> list[str]:
    if depths[:1] != ["head"] or len(set(depths)) < len(depths):
        raise ValueError("must begin with head, which the others are compared with, and name each depth once")
    return depths


class StudyModel(Strict):
    """One network of a study: where to freeze it, `head` being its features alone."""

    backbone: str  # as in a model's settings
    truncate_at: str | None = None  # likewise
    freeze_until: Annotated[list[str], AfterValidator(_begins_with_head)]  # a run each, `head` first


class StudySettings(Strict):
    """`configs/studies/<name>.yaml`: the same training for several networks, each frozen to several depths."""

    settings: dict[str, Any]  # what every run has in common, as in a model's YAML
    head: dict[str, Any]  # the first stage, which every run begins with
    models: dict[Name, StudyModel]

    def runs(self, study: str) -> dict[str, ModelSettings]:
        """Settings of each run by its name."""
        made = {}
        for name, model in self.models.items():
            for depth in model.freeze_until:
                stages = [self.head] if depth == "head" else [self.head, {"freeze_until": depth}]
                content = {**self.settings, "backbone": model.backbone, "truncate_at": model.truncate_at}
                content["train"] = {**(content.get("train") or {}), "stages": stages}
                where = f"study {study}: {name} frozen to {depth}"
                made[f"{study}-{name}-{depth}"] = parse(ModelSettings, content, where)
        return made


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
