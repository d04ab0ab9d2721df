"""The backbone table: every network that `backbone:` can name, as plain data, read from `backbones.csv` beside this file.

Adding a backbone is one line of the table and one YAML in `configs/models/`. What its columns hold stands at the attributes of
`Backbone` and `WeightFiles`; a blank cell is "unknown" or "none".
"""

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

from driverwatch.errors import InputError, nearest, printable

TABLE = Path(__file__).with_name("backbones.csv")
STORAGE = "https://storage.googleapis.com/"
PYTORCH = "https://download.pytorch.org/models/"


@dataclass(frozen=True)
class Scaling:
    """What pretrained weights expect of their input: `(channels - mean) / std`, channels in the given order, from 0-255."""

    order: Literal["rgb", "bgr"]
    mean: tuple[float, float, float]  # in the given order
    std: tuple[float, float, float]


TF = Scaling("rgb", (127.5,) * 3, (127.5,) * 3)  # keras.applications mode "tf": [-1, 1]
CAFFE = Scaling("bgr", (103.939, 116.779, 123.68), (1.0,) * 3)  # mode "caffe": BGR minus ImageNet's mean
TORCH = Scaling("rgb", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))  # mode "torch": ImageNet's mean, deviation
RAW = Scaling("rgb", (0.0,) * 3, (1.0,) * 3)  # networks that scale in their own first layers
SQUEEZENET = Scaling("bgr", (104.0, 117.0, 123.0), (1.0,) * 3)  # the Caffe release of SqueezeNet v1.0
LITE = Scaling("rgb", (127.0,) * 3, (128.0,) * 3)  # the release of EfficientNet-Lite
SCALINGS = {"tf": TF, "caffe": CAFFE, "torch": TORCH, "raw": RAW, "squeezenet": SQUEEZENET, "lite": LITE}


@dataclass(frozen=True)
class WeightFiles:
    """Where a network's ImageNet weights are had.

    MobileNet's and MobileNetV2's checksums are those that a public flip states beside Keras' own checksums of the others: Keras
    names none for them, and they have not been held against the originals here, where there is no network.
    """

    download: str  # official file, a path below STORAGE, or empty
    checksum: str  # of the download: MD5, or SHA-256 where Keras names that
    others: tuple[str, ...]  # other_files: further names looked for in WEIGHTS=<folder>

    @property
    def official(self) -> str:
        """The download's file name, or empty."""
        return self.download.rsplit("/", 1)[-1]

    @property
    def url(self) -> str:
        return STORAGE + self.download if self.download else ""

    @property
    def names(self) -> tuple[str, ...]:
        """Names looked for in WEIGHTS=<folder>, first match wins."""
        return (*([self.official] if self.download else []), *self.others)


@dataclass(frozen=True)
class WeightPackage:
    """A package of the package index that carries the whole network's ImageNet weights."""

    name: str  # package
    file: str  # package_file, below the folder that packages are installed in
    checksum: str  # package_checksum: the file's SHA-256


@dataclass(frozen=True)
class Backbone:
    """One line of the table."""

    constructor: str  # dotted name, called with weights=None, include_top=..., input_shape=(h, w, 3)
    scaling_mode: str  # scaling: a name in SCALINGS
    native: int  # px, the side the weights were trained at
    smallest: int  # px, the smallest side it can be built for
    width: int  # channels of the backbone's output
    # convolutions and dense layers on the longest path of the whole network, the 50 of ResNet50: a separable convolution is
    # one, squeeze-and-excite layers lie on the path
    depth: int
    backbone_parameters: int  # without the top, statistics of normalisation included
    parameters: int | None  # of the whole network with its 1000-way top; None where there is no such network
    top1: float | None  # % accuracy on ImageNet's validation set, as Keras' documentation or the paper states
    top5: float | None
    licence: str  # of the weights, as they were released
    # block_ends, where it may be frozen and cut; `conv{1..3}_out`, `fire{2,4}` are several
    freeze_points: tuple[str, ...]
    top_cuts: tuple[str, ...]  # cuts that keep pretrained dense layers of the top
    auxiliary: tuple[str, ...]  # layers at which auxiliary classifiers hang in training
    checkpoint_file: str  # checkpoint: the public PyTorch one below PYTORCH that `make convert` makes other_files of
    package: WeightPackage | None
    backbone: WeightFiles  # columns download, checksum, other_files
    whole: WeightFiles  # the same with whole_: the network with its top

    @property
    def scaling(self) -> Scaling:
        return SCALINGS[self.scaling_mode]

    @property
    def weight_files(self) -> tuple[str, ...]:
        """Local names of the backbone's weights, first match wins."""
        return self.backbone.names

    @property
    def checkpoint(self) -> str:
        """URL of the public PyTorch checkpoint, or empty."""
        return PYTORCH + self.checkpoint_file if self.checkpoint_file else ""

    @property
    def downloads(self) -> bool:
        """Whether the backbone's weights can be downloaded."""
        return bool(self.backbone.download)

    @property
    def megabytes(self) -> float:
        """Size of the whole network's float32 weights (of the backbone's, where there is no top), in MiB as Keras' table counts."""
        return 4 * (self.parameters or self.backbone_parameters) / 2**20


def read(path: Path) -> dict[str, Backbone]:
    """Read the table.

    Raises:
        InputError: the first line that does not fit: where, what was expected, what was got.
    """
    rows: dict[str, Backbone] = {}
    if not path.is_file():
        way_out = "restore it (git checkout) or install the package again"
        raise InputError(f"{path}: the backbone table is not there; {way_out}")
    with path.open(encoding="utf-8", newline="") as file:
        lines = csv.reader(file, strict=True)
        try:
            for wanted, found in zip_longest(COLUMNS, next(lines, [])):
                if wanted != found:
                    expected = f"the column {wanted}" if wanted else "no more columns"
                    raise ValueError(f"expected {expected}, got {found or 'none'}")
            for cells in lines:
                name, row = _row(cells)
                if name in rows:
                    raise ValueError(f"name: {name} has a line already")
                rows[name] = row
        except (ValueError, csv.Error) as error:
            line = max(1, lines.line_num)
            raise InputError(f"{path}, line {line}: {printable(str(error))}; fix that line") from error
    return rows


def _row(cells: list[str]) -> tuple[str, Backbone]:
    if len(cells) != len(COLUMNS):
        raise ValueError(f"expected {len(COLUMNS)} cells, got {len(cells)}")
    values: list[Any] = []
    for (column, parse), cell in zip(COLUMNS.items(), cells, strict=True):
        try:
            values.append(parse(cell))
        except ValueError as error:
            raise ValueError(f"{column}: expected {error}, got {cell!r}") from error
    name, *facts = values
    package = facts[-9:-6]
    if any(package) and not all(package):
        raise ValueError(f"expected a package with its file and checksum or none of them, got {', '.join(package)}")
    both = [WeightFiles(*facts[-6:-3]), WeightFiles(*facts[-3:])]
    for files in both:
        if bool(files.download) != bool(files.checksum):
            found = f"{files.download!r} and {files.checksum!r}"
            raise ValueError(f"expected a download with its checksum or neither, got {found}")
    return name, Backbone(*[*facts[:-9], WeightPackage(*package) if all(package) else None, *both])


def _text(pattern: str, expected: str) -> Callable[[str], str]:
    def parse(cell: str) -> str:
        if not re.fullmatch(pattern, cell):
            raise ValueError(expected)
        return cell

    return parse


def _whole(cell: str) -> int:
    return int(_text(r"[1-9]\d*", "a whole number above 0")(cell))


def _share(cell: str) -> float:
    return float(_text(r"\d\d?\.\d\d?\d?", "a percentage like 71.3, or nothing")(cell))


def _or_none(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda cell: parse(cell) if cell else None


def _mode(cell: str) -> str:
    if cell not in SCALINGS:
        raise ValueError(f"one of {', '.join(SCALINGS)}{nearest(cell, list(SCALINGS))}")
    return cell


def _names(cell: str) -> tuple[str, ...]:
    """`pool1 conv{2,3}_out fire{4..6}` -> pool1, conv2_out, conv3_out, fire4, fire5, fire6."""
    expected = "names separated by single spaces, with {1..3} or {a,b} for several"
    word = r"[\w.-]*(\{(\d+\.\.\d+|\w+(,\w+)*)\}[\w.-]*)?"
    parts = cell.split(" ") if cell else []
    if not all(part and re.fullmatch(word, part) for part in parts):
        raise ValueError(expected)
    found: list[str] = []
    for part in parts:
        before, _, rest = part.partition("{")
        inside, _, after = rest.partition("}")
        first, dots, last = inside.partition("..")
        chosen = map(str, range(int(first), int(last) + 1)) if dots else inside.split(",")
        found += [before + each + after for each in chosen]
    return tuple(found)


_DOWNLOAD = _text(r"([\w.-]+/)+[\w.-]+\.h5|", f"a path below {STORAGE}, or nothing")
_CHECKSUM = _text(r"[0-9a-f]{32}|[0-9a-f]{64}|", "an MD5 or SHA-256 in hexadecimal digits, or nothing")
COLUMNS: dict[str, Callable[[str], Any]] = {
    "name": _text(r"[a-z][a-z0-9_]*", "small letters, digits and _"),
    "constructor": _text(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", "a dotted name"),
    "scaling": _mode,
    "native": _whole,
    "smallest": _whole,
    "width": _whole,
    "depth": _whole,
    "backbone_parameters": _whole,
    "parameters": _or_none(_whole),
    "top1": _or_none(_share),
    "top5": _or_none(_share),
    "licence": _text(r"[A-Za-z][\w. -]*|", "a licence's short name, or nothing"),
    "block_ends": _names,
    "top_cuts": _names,
    "auxiliary": _names,
    "checkpoint": _text(r"[\w-]+\.pth|", f"a file below {PYTORCH}, or nothing"),
    "package": _text(r"[a-z][a-z0-9-]*|", "a package's name, or nothing"),
    "package_file": _text(r"(\w+/)+[\w.-]+\.pth|", "a .pth file below the folder of packages, or nothing"),
    "package_checksum": _text(r"[0-9a-f]{64}|", "a SHA-256 in hexadecimal digits, or nothing"),
    "download": _DOWNLOAD,
    "checksum": _CHECKSUM,
    "other_files": _names,
    "whole_download": _DOWNLOAD,
    "whole_checksum": _CHECKSUM,
    "whole_other_files": _names,
}
BACKBONES = read(TABLE)
