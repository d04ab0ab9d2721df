"""What there is to choose from: the backbone table, and a model's layers one by one."""

from collections.abc import Iterable

from driverwatch.backbones import BACKBONES, Backbone
from driverwatch.errors import InputError, nearest
from driverwatch.terminal import say
from driverwatch.wording import table, width

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
        "top-1, top-5: % right on ImageNet as published; depth: layers on its longest path; width: channels of its features."
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
        "files": " or ".join(row.trunk.names),
        "files with top": " or ".join(row.whole.names),
        "download": row.trunk.url,
        "digest": row.trunk.digest,
        "checkpoint": row.checkpoint,
    }
    wide = max(map(len, facts))
    for fact, value in facts.items():
        say(f"{fact:{wide}}  {value or '-'}")


def _facts(name: str, row: Backbone) -> list[str]:
    counted = f"{(row.parameters or row.trunk_parameters) / 1e6:.2f} M"
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
    """Print a model's trunk layer by layer; it is built with random weights, so that none need be there."""
    from driverwatch.models import backend
    from driverwatch.settings import ModelSettings
    from driverwatch.steps.context import CONFIGS
    from driverwatch.typed_yaml import load

    settings = load(ModelSettings, CONFIGS / "models", model, overrides)
    backend.start()
    from driverwatch.models.layers import described

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
