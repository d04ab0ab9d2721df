"""Settings of putting runs together, and where images are compared with each other: every default once, with its reason."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from driverwatch.config.loading import Strict, parse
from driverwatch.config.types import Name, ViewSet
from driverwatch.errors import InputError
from driverwatch.metrics import FLOOR


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

    features: Features  # where images are compared; `make neighbours` computes them
    method: Literal["average", "clusters"] = "average"  # clusters: those that agree on a class share one prediction
    k: Annotated[int, Field(ge=0, le=1000)] | None = None  # neighbours; they grow with the frames that a clip has
    weights: Literal["equal", "similar"] | None = None  # similar: nearer images weigh more
    mean: Literal["arithmetic", "geometric"] | None = None  # of probabilities, or of their logarithms
    rounds: Annotated[int, Field(ge=1, le=2)] | None = None  # in the second, neighbours' neighbours come in
    before_balance: bool = False  # before balance as well as after it: classes are then counted on smoothed rows

    @model_validator(mode="after")
    def _fits(self) -> "NeighbourSettings":
        if self.method == "clusters" and (self.weights or self.mean or self.rounds):
            raise ValueError("method: clusters takes no weights, mean or rounds; leave them out")
        return self

    @model_serializer(mode="wrap")
    def _sparse(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Digests of what was put together before this setting came stay as they are."""
        return {key: value for key, value in handler(self).items() if key != "before_balance" or value}


def _clip(level: object) -> object:
    if level != "fitted" and not (isinstance(level, float) and FLOOR <= level <= 0.1):
        raise ValueError("must be a probability from 1e-5 to 0.1, or fitted")
    return level


Clip = Annotated[float | str, BeforeValidator(_clip)]
BlendName = Literal["mean", "geometric", "weighted", "weighted_geometric", "greedy", "per_class"]
BLEND_NAMES: tuple[BlendName, ...] = get_args(BlendName)
Calibration = Literal["none", "temperature", "bias"]
CALIBRATION_NAMES: tuple[Calibration, ...] = get_args(Calibration)


class ChainSettings(Strict):
    """What happens to the members' probabilities on their way to one row per image."""

    blend: BlendName = "mean"  # what no label decides; make blends says what the others score
    balance: Features | None = None  # features that tell drivers apart: classes are balanced within each; null: not
    neighbours: NeighbourSettings | None = None  # null: each image by itself, as single photos in use are
    calibrate: Calibration = "none"  # what no label decides, as above
    clip: Clip = (
        FLOOR  # lowest probability of a submission, or fitted out of fold; no printed loss tells lower ones apart
    )

    @model_validator(mode="after")
    def _balanced(self) -> "ChainSettings":
        if self.neighbours and self.neighbours.before_balance and not self.balance:
            raise ValueError("neighbours.before_balance needs balance; leave it out, or name features for balance")
        return self

    @property
    def features(self) -> list[str]:
        """Where images are compared with each other, each once."""
        asked = [self.balance, self.neighbours.features if self.neighbours else None]
        return list(dict.fromkeys(text for text in asked if text is not None))


def kept_settings(chain: object, where: Path) -> ChainSettings:
    """The settings that a submission was made with, from what its manifest `where` says under `chain`.

    Raises:
        InputError: it says none, or none of this version.
    """
    kept = chain.get("settings") if isinstance(chain, dict) else None
    if not isinstance(kept, dict):
        raise InputError(
            f"{where}: does not say the settings of its post-processing, as manifests from before they were kept; make ensemble "
            "writes it again"
        )
    return parse(ChainSettings, kept, f"{where}: chain.settings")


class EnsembleSettings(ChainSettings):
    """`configs/ensembles/<name>.yaml`."""

    runs: Annotated[list[Name], Field(min_length=1)]  # finished runs that take part
    views: Literal["auto", ViewSet] = "auto"  # auto: ten_crop where mirrored, else five_crop, or the best there is

    @property
    def view_set(self) -> ViewSet | None:
        """The view set asked for; None: each run's own."""
        return None if self.views == "auto" else self.views

    @property
    def chain(self) -> dict[str, Any]:
        """`ChainSettings` alone, as plain data."""
        return self.model_dump(include=set(ChainSettings.model_fields))
