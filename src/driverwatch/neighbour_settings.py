"""Settings of smoothing over neighbours, and where images are compared with each other."""

import re
from typing import Annotated, Literal, NamedTuple

from pydantic import BeforeValidator, Field, model_validator

from driverwatch.typed_yaml import Strict


class Trunk(NamedTuple):
    """Where images are compared: a model's pretrained trunk, its last layer kept, the places its map is averaged over."""

    model: str
    cut: str | None
    grid: tuple[int, int]  # rows, columns

    @property
    def file(self) -> str:
        """Name of its features' file."""
        cut = "" if self.cut is None else f"-{self.cut.replace('/', '_')}"
        return f"{self.model}{cut}-{self.grid[0]}x{self.grid[1]}.h5"


def trunk_of(text: str) -> Trunk:
    """`"mobilenet_v2:block_13_expand_relu:2x2"`: a model in configs/models; a cut (else its own); a grid (else 1x1).

    Raises:
        ValueError: anything else.
    """
    found = re.fullmatch(r"([A-Za-z0-9][\w.-]*)(?::([A-Za-z_][\w./-]*))?(?::([1-9]\d?)x([1-9]\d?))?", text)
    if found is None:
        raise ValueError("must be <model>, <model>:<cut>, <model>:<rows>x<columns> or <model>:<cut>:<rows>x<columns>")
    model, cut, rows, columns = found.groups()
    return Trunk(model, cut, (int(rows or 1), int(columns or 1)))


def _trunk(text: object) -> object:
    if isinstance(text, str):
        trunk_of(text)
    return text


Features = Annotated[str, BeforeValidator(_trunk)]  # like mobilenet_v2:block_13_expand_relu:2x2, plain ImageNet


class NeighbourSettings(Strict):
    """Smoothing over neighbours, for test sets made of clips (docs/neighbours.md); null is chosen on held-out drivers."""

    features: Features
    method: Literal["average", "clusters"] = "average"  # clusters: those that agree on a class share one prediction
    k: Annotated[int, Field(ge=0, le=1000)] | None = None  # neighbours; they grow with the frames that a clip has
    weights: Literal["equal", "similar"] | None = None  # similar: nearer images weigh more
    mean: Literal["arithmetic", "geometric"] | None = None  # of probabilities, or of their logarithms
    rounds: Annotated[int, Field(ge=1, le=2)] | None = None  # in the second, neighbours' neighbours come in

    @model_validator(mode="after")
    def _fits(self) -> "NeighbourSettings":
        if self.method == "clusters" and (self.weights or self.mean or self.rounds):
            raise ValueError("method: clusters takes no weights, mean or rounds; leave them out")
        return self
