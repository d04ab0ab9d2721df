"""Words that settings are written in: sizes, regions, TTA sets, names."""

import re
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field

from driverwatch.errors import nearest

TtaSet = Literal["centre", "multi_scale", "five_crop", "shifts", "ten_crop", "ten_crop_keep", "ten_crop_swap"]
TTA_SETS: tuple[TtaSet, ...] = get_args(TtaSet)  # smallest first; what they are stands in data/tta.py
EngineName = Literal["auto", "keras", "openvino"]  # what computes forward passes of finished networks
ExportFormat = Literal["keras", "onnx", "openvino", "litert"]
SIZE = r"[1-9]\d{0,4}x[1-9]\d{0,4}"  # height x width
REGION = r"[a-z][a-z0-9_]{0,30}"
KEY = rf"{SIZE}(-{REGION}(\+{REGION})*)?"  # of a pack: the size of each region, and the regions unless it is the frame alone
WHOLE = "whole"  # the region that every data set has: the frame itself


def _size(text: object) -> object:
    if not isinstance(text, str) or not re.fullmatch(SIZE, text):
        raise ValueError("must be <height>x<width> in pixels, like 224x298")
    return text


def known_name(names: list[str], kind: str, name: str) -> str:
    """The name, if it is one of `names`; else a ValueError that lists them and the nearest."""
    if name not in names:
        raise ValueError(f"must be a {kind} ({', '.join(names)}){nearest(name, names)}")
    return name


def _each_once(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise ValueError("must name each region once")
    return names


def _tta_sets(names: object) -> object:
    """One name or several."""
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not names:
        raise ValueError(f"must be one or several of {', '.join(TTA_SETS)}")
    return [known_name(list(TTA_SETS), "TTA set", str(name)) for name in names]


Size = Annotated[str, BeforeValidator(_size)]
Region = Annotated[str, Field(pattern=f"^{REGION}$")]
Regions = Annotated[list[Region], Field(min_length=1, max_length=7), AfterValidator(_each_once)]  # a folder is named so
TtaSets = Annotated[list[TtaSet], BeforeValidator(_tta_sets)]
Share = Annotated[float, Field(ge=0, lt=1)]
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
Name = Annotated[str, Field(pattern=f"^{NAME}$", max_length=100)]


def pixels(size: str) -> tuple[int, int]:
    """`"224x298"` -> `(224, 298)`: height, width. Of a pack's key, `"224x298-head+wheel"`, those of one region."""
    height, width = re.split("[@-]", size)[0].split("x")
    return int(height), int(width)


def key_of(size: str, regions: list[str]) -> str:
    """Name the pack that holds these regions of each image, each resized to `size`: `224x298`, or `224x298-whole+head`."""
    return size if regions == [WHOLE] else f"{size}-{'+'.join(regions)}"


def larger_of(key: str) -> str | None:
    """The key of the pack that one is resized from: `224x298-head` of `180x240@224x298-head`; None: it is made of images."""
    return key.partition("@")[2] or None


def regions_of(key: str) -> list[str]:
    """The regions in the pack of this key, in their order."""
    _, dash, names = key.partition("-")
    return names.split("+") if dash else [WHOLE]
