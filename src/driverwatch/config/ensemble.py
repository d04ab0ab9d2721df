"""Settings of putting runs together, and where images are compared with each other: every default once, with its reason."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from driverwatch.config.loading import Strict, parse
from driverwatch.config.types import Name, TtaSet
from driverwatch.errors import InputError
from driverwatch.metrics import FLOOR


class EmbeddingSource(NamedTuple):
    """Where images are compared: a model's pretrained backbone, its last layer kept, the places its map is averaged over."""

    model: str
    cut: str | None
    grid: tuple[int, int]  # rows, columns

    @property
    def file(self) -> str:
        """Name of its features' file."""
        cut = "" if self.cut is None else f"-{self.cut.replace('/', '_')}"
        return f"{self.model}{cut}-{self.grid[0]}x{self.grid[1]}.h5"


def embedding_source(text: str) -> EmbeddingSource:
    """`"mobilenet_v2:block_13_expand_relu:2x2"`: a model in configs/models; a cut (else its own); a grid (else 1x1).

    Raises:
        ValueError: anything else.
    """
    found = re.fullmatch(r"([A-Za-z0-9][\w.-]*)(?::([A-Za-z_][\w./-]*))?(?::([1-9]\d?)x([1-9]\d?))?", text)
    if found is None:
        raise ValueError("must be <model>, <model>:<cut>, <model>:<rows>x<columns> or <model>:<cut>:<rows>x<columns>")
    model, cut, rows, columns = found.groups()
    return EmbeddingSource(model, cut, (int(rows or 1), int(columns or 1)))


def _backbone(text: object) -> object:
    if isinstance(text, str):
        embedding_source(text)
    return text


EmbeddingSpec = Annotated[str, BeforeValidator(_backbone)]  # like mobilenet_v2:block_13_expand_relu:2x2, plain ImageNet


class KnnSettings(Strict):
    """k-NN smoothing, for test sets made of clips (docs/explain/post-processing.md); null is chosen on validation drivers."""

    embeddings: EmbeddingSpec  # where images are compared; `make knn` computes them
    method: Literal["average", "clusters"] = "average"  # clusters: those that agree on a class share one prediction
    k: Annotated[int, Field(ge=0, le=1000)] | None = None  # neighbours; they grow with the frames that a clip has
    weights: Literal["equal", "similar"] | None = None  # similar: nearer images weigh more
    mean: Literal["arithmetic", "geometric"] | None = None  # of probabilities, or of their logarithms
    rounds: Annotated[int, Field(ge=1, le=2)] | None = None  # in the second, neighbours' neighbours come in
    # before balance as well as after it: classes are then counted on smoothed rows
    smooth_before_balancing: bool = False
    # how often that and balance are gone through; with 2 or more a temperature is fitted after each smoothing
    passes: Annotated[int, Field(ge=1, le=5)] = 1

    @model_validator(mode="after")
    def _fits(self) -> "KnnSettings":
        if self.method == "clusters" and (self.weights or self.mean or self.rounds):
            raise ValueError("method: clusters takes no weights, mean or rounds; leave them out")
        if self.passes > 1 and not self.smooth_before_balancing:
            raise ValueError("passes of 2 or more need smooth_before_balancing: true")
        return self

    @model_serializer(mode="wrap")
    def _sparse(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Checksums of what was put together before these settings came stay as they are."""
        as_before = {"smooth_before_balancing": False, "passes": 1}.items()
        return {key: value for key, value in handler(self).items() if (key, value) not in as_before}


def _clip(level: object) -> object:
    if level != "fitted" and not (isinstance(level, float) and FLOOR <= level <= 0.1):
        raise ValueError("must be a probability from 1e-5 to 0.1, or fitted")
    return level


Clip = Annotated[float | str, BeforeValidator(_clip)]
BlendName = Literal["mean", "geometric", "weighted", "weighted_geometric", "greedy", "per_class"]
BLEND_NAMES: tuple[BlendName, ...] = get_args(BlendName)
Calibration = Literal["none", "temperature", "bias"]
CALIBRATION_NAMES: tuple[Calibration, ...] = get_args(Calibration)


class PipelineSettings(Strict):
    """What happens to the members' probabilities on their way to one row per image."""

    blend: BlendName = "mean"  # what no label decides; make blends says what the others score
    # features that tell drivers apart: classes are balanced within each; null: not
    class_balance: EmbeddingSpec | None = None
    knn: KnnSettings | None = None  # null: each image by itself, as single images in use are
    calibrate: Calibration = "none"  # what no label decides, as above
    # lowest probability of a submission, or fitted out of fold; no printed loss tells lower ones apart
    clip: Clip = FLOOR

    @model_validator(mode="after")
    def _balanced(self) -> "PipelineSettings":
        if self.knn and self.knn.smooth_before_balancing and not self.class_balance:
            raise ValueError("knn.smooth_before_balancing needs class_balance; leave it out, or name its embeddings")
        return self

    @property
    def embeddings(self) -> list[str]:
        """Where images are compared with each other, each once."""
        asked = [self.class_balance, self.knn.embeddings if self.knn else None]
        return list(dict.fromkeys(text for text in asked if text is not None))


def kept_settings(pipeline: object, where: Path) -> PipelineSettings:
    """The settings that a submission was made with, from what its manifest `where` says under `pipeline`.

    Raises:
        InputError: it says none, or none of this version.
    """
    kept = pipeline.get("settings") if isinstance(pipeline, dict) else None
    if not isinstance(kept, dict):
        lacks = "does not say the settings of its post-processing, as manifests from before they were kept"
        raise InputError(f"{where}: {lacks}; make ensemble writes it again")
    return parse(PipelineSettings, kept, f"{where}: pipeline.settings")


class EnsembleSettings(PipelineSettings):
    """`configs/ensembles/<name>.yaml`."""

    runs: Annotated[list[Name], Field(min_length=1)]  # finished runs that take part
    tta: Literal["auto", TtaSet] = "auto"  # auto: ten_crop where flipped, else five_crop, or the best there is

    @property
    def tta_set(self) -> TtaSet | None:
        """The TTA set asked for; None: each run's own."""
        return None if self.tta == "auto" else self.tta

    @property
    def pipeline(self) -> dict[str, Any]:
        """`PipelineSettings` alone, as plain data."""
        return self.model_dump(include=set(PipelineSettings.model_fields))
