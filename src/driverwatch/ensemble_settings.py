"""Settings of putting runs together: every default once, with its reason on the line."""

from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field

from driverwatch.metrics import FLOOR
from driverwatch.neighbour_settings import Features, NeighbourSettings
from driverwatch.setting_types import Name, ViewSet
from driverwatch.typed_yaml import Strict


def _clip(level: object) -> object:
    if level != "fitted" and not (isinstance(level, float) and 1e-6 <= level <= 0.1):
        raise ValueError("must be a probability from 1e-6 to 0.1, or fitted")
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
    calibrate: Calibration = "none"  # likewise
    clip: Clip = FLOOR  # lowest probability of a submission, or fitted out of fold

    @property
    def features(self) -> list[str]:
        """Where images are compared with each other, each once."""
        asked = [self.balance, self.neighbours.features if self.neighbours else None]
        return list(dict.fromkeys(text for text in asked if text is not None))


class EnsembleSettings(ChainSettings):
    """`configs/ensembles/<name>.yaml`."""

    runs: Annotated[list[Name], Field(min_length=1)]
    views: Literal["auto", ViewSet] = "auto"  # auto: ten_crop where training mirrored, else five_crop
