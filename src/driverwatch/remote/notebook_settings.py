"""What a Kaggle notebook is to train, and how it goes up; every default once, with its unit or reason on the line."""

from typing import Annotated

from pydantic import Field, model_validator

from driverwatch.setting_types import Name
from driverwatch.typed_yaml import Strict

LIMIT = 12.0  # hours of a GPU session; past them Kaggle ends it and keeps no output
SLUG = r"[a-z0-9]+(-[a-z0-9]+)*"  # what Kaggle makes of a title: lower case, single hyphens
LONGEST = 50  # characters of a title
SHORTEST = 6

Account = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=50)]
Slug = Annotated[str, Field(pattern=f"^{SLUG}$", min_length=SHORTEST, max_length=LONGEST)]
Reference = Annotated[str, Field(pattern=rf"^[A-Za-z0-9][A-Za-z0-9_-]*/{SLUG}$", max_length=120)]  # account/slug
Package = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]


class Plan(Strict):
    """What a notebook trains: make's variables, repeated in its first cell."""

    notebook: Reference  # itself, to say how its output is fetched
    dataset: Name
    model: Name
    run: Name
    overrides: str = ""  # SET=
    views: str = ""  # VIEWS=: more view sets, predicted once every fold is trained
    hours: Annotated[float, Field(gt=0, le=LIMIT)] = 11.0  # of the session's 12; the rest is for starting and saving


class Publication(Strict):
    """How a notebook and its data set go up."""

    account: Account
    name: Slug  # of the notebook, and with -files of its data set
    machine: Name = "NvidiaTeslaT4"  # two T4, of which one trains; NvidiaTeslaP100 is one larger, older GPU
    earlier: list[Reference] = []  # notebooks whose output this one goes on from
    packages: list[Package] = ["simplejpeg"]  # what Kaggle's image lacks, at the versions installed here
    vendor: bool = False  # whether their wheels travel along; else Kaggle's machine fetches them
    pythons: list[Annotated[str, Field(pattern=r"^3\.\d{1,2}$")]] = ["3.11", "3.12", "3.13"]  # Kaggle's may be any

    @property
    def notebook(self) -> str:
        return f"{self.account}/{self.name}"

    @property
    def files(self) -> str:
        """The attached data set."""
        return f"{self.account}/{self.name}-files"

    @model_validator(mode="after")
    def _fits(self) -> "Publication":
        if len(self.name) + len("-files") > LONGEST:
            raise ValueError(f"name must have at most {LONGEST - len('-files')} characters: its data set adds -files")
        return self
