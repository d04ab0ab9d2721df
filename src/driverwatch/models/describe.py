"""A backbone's layers, told one by one: what may be frozen and cut, and what each stage of training freezes."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from driverwatch.config.backbones import BACKBONES, Backbone
from driverwatch.config.model import ModelSettings
from driverwatch.errors import InputError, nearest
from driverwatch.io.console import say, table, width
from driverwatch.models.build_backbone import single_tensor_layers
from driverwatch.models.pretrained import build_backbone
from driverwatch.models.weight_files import refuse_size


@dataclass(frozen=True)
class LayerDescription:
    """One layer of a backbone."""

    name: str
    block: str  # the block end at which it is frozen and cut along with its block; empty after the last
    shape: tuple[int, ...]  # of its output, without the batch
    parameters: int
    frozen: tuple[bool, ...]  # in each stage of training
    legal_cut: bool


def described(settings: ModelSettings) -> list[LayerDescription]:
    """Describe the layers of a model's backbone, in order, down to its cut; built with random weights.

    Raises:
        InputError: an unknown or illegal cut, a stage that freezes at no layer of the backbone.
    """
    from driverwatch.models.freezing import check_names, frozen_count  # Keras, which the table of backbones needs not

    if settings.weights != "none":
        refuse_size(settings)
    backbone = build_backbone(settings, None, load=False)
    layers = backbone.layers
    for stage in settings.train.stages:
        check_names(layers, stage)
    counts = [frozen_count(layers, stage.freeze_until) for stage in settings.train.stages]
    legal = set(single_tensor_layers(backbone))
    blocks = _blocks([layer.name for layer in layers], BACKBONES[settings.backbone].freeze_points)
    return [
        LayerDescription(
            layer.name, block, _shape(layer), layer.count_params(), tuple(i < c for c in counts), layer.name in legal
        )
        for i, (layer, block) in enumerate(zip(layers, blocks, strict=True))
    ]


def _blocks(names: list[str], ends: tuple[str, ...]) -> list[str]:
    """For each layer, the next block end at or after it."""
    blocks, block = [], ""
    for name in reversed(names):
        block = name if name in ends else block
        blocks.append(block)
    return blocks[::-1]


def _shape(layer: Any) -> tuple[int, ...]:
    return tuple(layer.output.shape[1:])


Rows = list[list[str]]
# the most wanted first: a narrow terminal drops from the end; True: numbers, aligned to the right
COLUMNS = {
    "backbone": False,
    "px": True,
    "params": True,
    "MB": True,
    "top-1": True,
    "top-5": True,
    "depth": True,
    "width": True,
    "least px": True,
    "licence": False,
    "scaling": False,
    "weights": False,
}


def print_backbones() -> None:
    """Print the table's columns that a person chooses by, as many as the terminal is wide enough for."""
    rows = [_facts(name, row) for name, row in BACKBONES.items()]
    left_out = _print(COLUMNS, rows)
    say(
        "\npx: side the weights were trained at, and the least that can be built; params, MB: of the ImageNet network, float32;"
    )
    say(
        "top-1, top-5: % accuracy on ImageNet as published; depth: layers on its longest path; width: channels of its features."
    )
    if left_out:
        say(f"A wider terminal, or a file, also gets {', '.join(left_out)}.")


def print_backbone(name: str) -> None:
    """Print all that the table says of one backbone.

    Raises:
        InputError: no such backbone.
    """
    if name not in BACKBONES:
        raise InputError(f"MODEL={name}: no such backbone{nearest(name, list(BACKBONES))}; make backbones lists them")
    row = BACKBONES[name]
    facts = dict(zip(COLUMNS, _facts(name, row), strict=True)) | {
        "constructor": row.constructor,
        "block ends": " ".join(row.freeze_points),
        "cuts of the top": " ".join(row.top_cuts),
        "auxiliary at": " ".join(row.auxiliary),
        "files": " or ".join(row.backbone.names),
        "files with top": " or ".join(row.whole.names),
        "download": row.backbone.url,
        "checksum": row.backbone.checksum,
        "checkpoint": row.checkpoint,
    }
    wide = max(map(len, facts))
    for fact, value in facts.items():
        say(f"{fact:{wide}}  {value or '-'}")


def _facts(name: str, row: Backbone) -> list[str]:
    counted = f"{(row.parameters or row.backbone_parameters) / 1e6:.2f} M"
    scores = [f"{score:.1f}" if score else "" for score in (row.top1, row.top5)]
    sizes = [str(row.depth), str(row.width), str(row.smallest)]
    return [
        name,
        str(row.native),
        counted,
        f"{row.megabytes:.1f}",
        *scores,
        *sizes,
        row.licence,
        row.scaling_mode,
        _weights(row),
    ]


def _weights(row: Backbone) -> str:
    if row.downloads:
        return "download"
    return " or ".join(row.weight_files) or "none"


def print_layers(model: str, overrides: str) -> None:
    """Print a model's backbone layer by layer; it is built with random weights, so that none need be there."""
    from driverwatch.config.loading import load
    from driverwatch.config.model import ModelSettings
    from driverwatch.data.context import CONFIGS
    from driverwatch.models import backend

    settings = load(ModelSettings, CONFIGS / "models", model, overrides)
    backend.start()

    layers = described(settings)
    stages = {f"stage {number}": False for number in range(1, len(settings.train.stages) + 1)}
    columns = {"layer": True, "name": False, "block": False, "output": True, "params": True, **stages, "cut": False}
    rows = []
    for number, layer in enumerate(layers, start=1):
        learns = [_learns(layer.parameters, frozen) for frozen in layer.frozen]
        shape = "x".join(map(str, layer.shape))
        rows.append(
            [str(number), layer.name, layer.block, shape, f"{layer.parameters:,}", *learns, "cut" * layer.legal_cut]
        )
    left_out = _print(columns, rows, keep=("layer", "name"))
    say(f"\n{sum(layer.parameters for layer in layers):,} parameters in {len(layers)} layers of {settings.backbone}.")
    say(
        "freeze_until takes a name, a block, a number or a share of layers; cut takes a layer marked so; the head learns."
    )
    if left_out:
        say(f"A wider terminal, or a file, also gets {', '.join(left_out)}.")


def _learns(parameters: int, frozen: bool) -> str:
    return "" if not parameters else "frozen" if frozen else "learns"


def _print(columns: dict[str, bool], rows: Rows, keep: Iterable[str] = ("backbone",)) -> list[str]:
    """Print a table, without the last columns where the terminal is too narrow for them; return their names."""
    lines, left_out = table(columns, rows, keep, width())
    for line in lines:
        say(line)
    return left_out
