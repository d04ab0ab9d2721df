"""Settings of what is made of many runs: recipes, which end in submissions, and levers, which end in a table."""

from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from driverwatch.ensemble_settings import EnsembleSettings
from driverwatch.setting_types import Name, ViewSet
from driverwatch.settings import ModelSettings
from driverwatch.typed_yaml import Strict, parse


class RunSettings(Strict):
    """A run by what `make train` is told of it."""

    model: Name  # MODEL
    set: str = ""  # SET

    def command(self, name: str, study: str | None = None) -> str:
        """What trains it, as typed in a shell."""
        words = ["make train", f"MODEL={self.model}", f"RUN={name}"]
        words += [f"STUDY={study}"] if study else []
        return " ".join([*words, *([f'SET="{self.set}"'] if self.set else [])])


class RecipeSettings(Strict):
    """`configs/recipes/<dataset>.yaml`: runs, trained in this order, and the submissions that are made of them."""

    runs: Annotated[dict[Name, RunSettings], Field(min_length=1)]
    taught: Annotated[dict[Name, EnsembleSettings], Field(default_factory=dict)]  # for runs with `train.pseudo.taught`
    submissions: Annotated[dict[Name, EnsembleSettings], Field(min_length=1)]

    @model_validator(mode="after")
    def _fits(self) -> "RecipeSettings":
        for kind, sides in (("submissions", self.submissions), ("taught", self.taught)):
            for name, side in sides.items():
                if strangers := [run for run in side.runs if run not in self.runs]:
                    raise ValueError(f"{kind}.{name}.runs must be of this recipe's runs, got {', '.join(strangers)}")
        return self


class LeverSettings(Strict):
    """One row of the table: the same thing without a lever and with it."""

    lever: str  # what is changed, in a few words
    before: EnsembleSettings
    after: EnsembleSettings
    kept: bool  # whether the recipe takes it
    why: str = ""  # what decided that, where it is not the row's own numbers


class LeversSettings(Strict):
    """`configs/levers/<dataset>.yaml`: the runs of this study, and what is compared; other runs are the data set's own."""

    runs: Annotated[dict[Name, RunSettings], Field(default_factory=dict)]
    taught: Annotated[
        dict[Name, EnsembleSettings], Field(default_factory=dict)
    ]  # of these runs, for those that learn from it
    rows: Annotated[dict[str, list[LeverSettings]], Field(min_length=1)]  # by the kind of lever, a table each

    @model_validator(mode="after")
    def _fits(self) -> "LeversSettings":
        for row in (row for rows in self.rows.values() for row in rows):
            asked = {*row.before.runs, *row.after.runs}
            if asked & set(self.runs) and asked - set(self.runs):
                raise ValueError(f"rows: {row.lever}: must compare runs of this study, or none of them")
        for name, side in self.taught.items():
            if strangers := [run for run in side.runs if run not in self.runs]:
                raise ValueError(f"taught.{name}.runs must be of this study's runs, got {', '.join(strangers)}")
        return self

    @property
    def views(self) -> dict[str, list[ViewSet]]:
        """View sets that rows ask of each of this study's runs, by name."""
        sides = [side for rows in self.rows.values() for row in rows for side in (row.before, row.after)]
        asked = [(run, side.view_set) for side in sides for run in side.runs if side.view_set and run in self.runs]
        return {run: list(dict.fromkeys(views for name, views in asked if name == run)) for run, _ in asked}


def _begins_with_head(depths: list[str]) -> list[str]:
    if depths[:1] != ["head"] or len(set(depths)) < len(depths):
        raise ValueError("must begin with head, which the others are compared with, and name each depth once")
    return depths


class StudyModel(Strict):
    """One network of a study: where to freeze it, `head` being its features alone."""

    backbone: str
    cut: str | None = None
    freeze_until: Annotated[list[str], AfterValidator(_begins_with_head)]


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
                content = {**self.settings, "backbone": model.backbone, "cut": model.cut}
                content["train"] = {**(content.get("train") or {}), "stages": stages}
                made[f"{study}-{name}-{depth}"] = parse(
                    ModelSettings, content, f"study {study}: {name} frozen to {depth}"
                )
        return made
