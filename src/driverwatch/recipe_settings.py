"""Settings of what is made of many runs: recipes, which end in submissions, and levers, which end in a table."""

from typing import Annotated

from pydantic import Field, model_validator

from driverwatch.settings import EnsembleSettings, Name
from driverwatch.typed_yaml import Strict


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
    submissions: Annotated[dict[Name, EnsembleSettings], Field(min_length=1)]

    @model_validator(mode="after")
    def _fits(self) -> "RecipeSettings":
        for name, submission in self.submissions.items():
            if strangers := [run for run in submission.runs if run not in self.runs]:
                raise ValueError(f"submissions.{name}.runs must be of this recipe's runs, got {', '.join(strangers)}")
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
    rows: Annotated[dict[str, list[LeverSettings]], Field(min_length=1)]  # by the kind of lever, a table each

    @model_validator(mode="after")
    def _fits(self) -> "LeversSettings":
        for row in (row for rows in self.rows.values() for row in rows):
            asked = {*row.before.runs, *row.after.runs}
            if asked & set(self.runs) and asked - set(self.runs):
                raise ValueError(f"rows: {row.lever}: must compare runs of this study, or none of them")
        return self
