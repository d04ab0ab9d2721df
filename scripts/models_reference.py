"""The reference of all networks, as Markdown: read off the backbone table."""

from driverwatch.config.backbones import BACKBONES, PYTORCH, STORAGE, Backbone
from scripts.markdown import table

HEAD = f"""\
# Models and weights

Every network that `backbone:` can name, with its size, input, preprocessing, licence and the source of its ImageNet weights.
`make backbones MODEL=resnet101` prints more on one, `make layers MODEL=resnet101` its layers and where it may be frozen or
truncated. A model is a network with a recipe: `make train MODEL=resnet50` takes `configs/models/resnet50.yaml`.

## Where weights come from

Weights are looked for in this order:

1. **A local file**: `WEIGHTS=<folder>`, under the official file name or one of `other_files` in the backbone table.
2. **An installed package**, where the table names one.
3. **Keras' download**, from `{STORAGE}`, on first use.

A file of an official name must have the official checksum. Files of other names are compared with the network array by array
before anything is loaded, since Keras matches by position and a file with two layers exchanged would load without an error. Layers
that a file leaves at zero are refused, with the truncation points that are legal.

*PyTorch checkpoint* means: fetch the named file from `{PYTORCH}`, then run
`make convert FILE=<checkpoint>.pth MODEL=<network> WEIGHTS=<folder>`. *None* means that the network trains from scratch
(`weights: none`). No trained driver models are published: retraining is [measured in minutes](../hardware.md).

## Preprocessing

Preprocessing belongs to the weights and is part of the network, so that no command can apply the wrong one. Pixels come in as
RGB, 0 to 255.

| name | channels | subtracted | divided by |
| --- | --- | --- | --- |
"""
NAMES = {
    "tf": "Keras' `tf` mode",
    "caffe": "Keras' `caffe` mode",
    "torch": "Keras' `torch` mode",
    "raw": "none outside of the network",
    "lite": "EfficientNet-Lite's release",
    "squeezenet": "SqueezeNet v1.0's Caffe release",
}
COLUMNS = (
    "network",
    "parameters, M",
    "backbone alone, M",
    "input, px",
    "least, px",
    "preprocessing",
    "top-1, %",
    "licence",
    "weights",
)
BELOW = """\
*Parameters* count the whole network with its 1000-way classifier, *backbone alone* what this project keeps of it. *Input* is the
side that the weights were trained at; other sizes work, from *least* up. *Top-1* is the published ImageNet accuracy. *Licence* is
that of the weights as they were released; a blank cell is unknown or not applicable.

`make docs` writes this page from `src/driverwatch/config/backbones.csv`.
"""


def models_page() -> str:
    """`docs/reference/models.md`, whole."""
    scalings = {row.scaling_mode: row.scaling for row in BACKBONES.values()}
    means = [
        (
            f"`{mode}`: {NAMES[mode]}" if mode in NAMES else f"`{mode}`",
            one.order.upper(),
            _numbers(one.mean),
            _numbers(one.std),
        )
        for mode, one in scalings.items()
    ]
    preprocessing = "".join(f"| {' | '.join(line)} |\n" for line in means)
    networks = table(COLUMNS, [_cells(name, row) for name, row in BACKBONES.items()])
    return f"{HEAD}{preprocessing}\n## Networks\n\n{len(BACKBONES)} networks.\n\n{networks}\n\n{BELOW}"


def _cells(name: str, row: Backbone) -> list[str]:
    whole = f"{row.parameters / 1e6:.2f}" if row.parameters else ""
    top1 = f"{row.top1:.1f}" if row.top1 else ""
    return [
        f"`{name}`",
        whole,
        f"{row.backbone_parameters / 1e6:.2f}",
        str(row.native),
        str(row.smallest),
        f"`{row.scaling_mode}`",
        top1,
        row.licence,
        _source(row),
    ]


def _source(row: Backbone) -> str:
    """Where the backbone's weights are had, besides a file of one's own."""
    package = getattr(row, "package", None)
    sources = [f"package `{package.name}`"] if package else []
    sources += ["Keras' download"] if row.downloads else []
    sources += [f"PyTorch checkpoint `{row.checkpoint_file}`"] if row.checkpoint else []
    return ", ".join(sources) or ("local file" if row.weight_files else "none")


def _numbers(values: tuple[float, float, float]) -> str:
    """One number where all three are equal."""
    found = [f"{value:g}" for value in values]
    return found[0] if len(set(found)) == 1 else ", ".join(found)
