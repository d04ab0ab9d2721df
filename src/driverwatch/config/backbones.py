"""The backbone table: every network that `backbone:` can name, as plain data, read from `backbones.csv` beside this file.

Adding a backbone is one line of the table and one YAML in `configs/models/`. What its columns hold stands at the attributes of
`Backbone` and `WeightFiles`; a blank cell is "unknown" or "none".
"""

import csv
import re
from dataclasses import dataclass
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


COLUMNS = (
    "name", "constructor", "scaling", "native", "smallest", "width", "depth", "backbone_parameters", "parameters", "top1", "top5",
    "licence", "block_ends", "top_cuts", "auxiliary", "checkpoint", "package", "package_file", "package_checksum",
    "download", "checksum", "other_files", "whole_download", "whole_checksum", "whole_other_files",
)  # fmt: skip
REQUIRED = ("native", "smallest", "width", "depth", "backbone_parameters")  # numbers that no network is without


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
            if (header := next(lines, [])) != list(COLUMNS):
                raise ValueError(f"expected the columns {','.join(COLUMNS)}, got {','.join(header) or 'none'}")
            for cells in lines:
                if len(cells) != len(COLUMNS):
                    raise ValueError(f"expected {len(COLUMNS)} cells, got {len(cells)}")
                if cells[0] in rows:
                    raise ValueError(f"name: {cells[0]} has a line already")
                rows[cells[0]] = _row(dict(zip(COLUMNS[1:], cells[1:], strict=True)))
        except (ValueError, csv.Error) as error:
            line = max(1, lines.line_num)
            raise InputError(f"{path}, line {line}: {printable(str(error))}; fix that line") from error
    return rows


def _row(cells: dict[str, Any]) -> Backbone:
    """The cells by column, blank ones of numbers as None; those of files and packages are last, as in the table."""
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", cells["constructor"]):
        raise ValueError(f"constructor: expected a dotted name, got {cells['constructor']!r}")
    if (mode := cells["scaling"]) not in SCALINGS:
        raise ValueError(f"scaling: expected one of {', '.join(SCALINGS)}{nearest(mode, list(SCALINGS))}, got {mode!r}")
    for column in (*REQUIRED, "parameters", "top1", "top5"):
        cells[column] = _number(column, cells[column])
    for column in ("block_ends", "top_cuts", "auxiliary", "other_files", "whole_other_files"):
        cells[column] = _names(column, cells[column])
    *package, download, checksum, others, whole_download, whole_checksum, whole_others = list(cells.values())[-9:]
    if any(package) and not all(package):
        raise ValueError(f"expected a package with its file and checksum or none of them, got {', '.join(package)}")
    both = [WeightFiles(download, checksum, others), WeightFiles(whole_download, whole_checksum, whole_others)]
    for files in both:
        if bool(files.download) != bool(files.checksum):
            found = f"{files.download!r} and {files.checksum!r}"
            raise ValueError(f"expected a download with its checksum or neither, got {found}")
    return Backbone(*[*cells.values()][:-9], *[WeightPackage(*package) if all(package) else None, *both])


def _number(column: str, cell: str) -> float | int | None:
    if not cell and column not in REQUIRED:
        return None
    whole = r"[1-9]\d*", "a whole number above 0"
    form, expected = (r"\d\d?\.\d+", "a percentage like 71.3, or nothing") if column in ("top1", "top5") else whole
    if not re.fullmatch(form, cell):
        raise ValueError(f"{column}: expected {expected}, got {cell!r}")
    return float(cell) if "." in cell else int(cell)


def _names(column: str, cell: str) -> tuple[str, ...]:
    """`pool1 conv{2,3}_out fire{4..6}` -> pool1, conv2_out, conv3_out, fire4, fire5, fire6."""
    word = r"[\w.-]*(\{(\d+\.\.\d+|\w+(,\w+)*)\}[\w.-]*)?"
    parts = cell.split(" ") if cell else []
    if not all(part and re.fullmatch(word, part) for part in parts):
        expected = "names separated by single spaces, with {1..3} or {a,b} for several"
        raise ValueError(f"{column}: expected {expected}, got {cell!r}")
    found: list[str] = []
    for part in parts:
        before, _, rest = part.partition("{")
        inside, _, after = rest.partition("}")
        first, dots, last = inside.partition("..")
        chosen = map(str, range(int(first), int(last) + 1)) if dots else inside.split(",")
        found += [before + each + after for each in chosen]
    return tuple(found)


BACKBONES = read(TABLE)
