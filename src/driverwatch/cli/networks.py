"""Networks: what there is, their weights, what they see."""

from pathlib import Path
from typing import Annotated

import typer

from driverwatch.cli.options import PATH, Data, Dataset, Fold, Force, Overrides, Weights, making
from driverwatch.errors import InputError
from driverwatch.paths import user_paths, user_text

app = typer.Typer()


@app.command()
def backbones(model: Annotated[str | None, typer.Argument(help="one backbone, with all its facts")] = None) -> None:
    """Print the backbone table, or all of one row."""
    from driverwatch.steps.networks import print_backbone, print_backbones

    print_backbones() if model is None else print_backbone(model)


@app.command()
def layers(model: str, overrides: Overrides = "") -> None:
    """Print a model's layers: blocks, shapes, parameters, what each stage freezes, where it may be cut."""
    from driverwatch.steps.networks import print_layers

    print_layers(model, overrides)


@app.command()
def convert(
    file: Annotated[Path, typer.Argument(**PATH, help="a public PyTorch checkpoint")],
    model: Annotated[str, typer.Option(help="the backbone that it holds")],
    weights: Annotated[Path, typer.Option(**PATH, help="folder that the weight file goes to")],
) -> None:
    """Make a weight file of a public PyTorch checkpoint."""
    from driverwatch.steps.convert import convert as step

    step(file, model, weights)


@app.command()
def classify(
    images: Annotated[list[str], typer.Argument(metavar="PATH...", help="photos, patterns of them, and folders")],
    model: Annotated[str | None, typer.Option(help="a backbone, for ImageNet's classes")] = None,
    run: Annotated[str | None, typer.Option(help="a trained run, for the driver classes")] = None,
    dataset: Dataset = "statefarm",
    data: Data = None,
    fold: Fold = None,
    weights: Weights = None,
    heatmap: Annotated[
        str | None,
        typer.Option(parser=user_text, metavar="PATH", help="file, folder or pattern with {image} for overlays"),
    ] = None,
    label: Annotated[str | None, typer.Option("--class", help="class of the overlays; default: the likeliest")] = None,
    top: Annotated[int, typer.Option(min=1, help="classes to print")] = 5,
) -> None:
    """Print the likeliest classes of photos, and draw where they are seen."""
    from driverwatch.steps.classify import Request, classify_drivers, classify_imagenet

    request = Request([path for text in images for path in user_paths(text)], top, label, heatmap)
    if (model is None) == (run is None):
        got = "neither" if model is None else "both"
        raise InputError(
            f"classify: expected MODEL=<backbone> (ImageNet's classes) or RUN=<run> (the driver classes), got {got}"
        )
    if model is not None:
        classify_imagenet(request, model, weights)
    elif run is not None:
        classify_drivers(request, making(dataset, data), run, fold)


@app.command()
def export(
    run: str,
    dataset: Dataset = "statefarm",
    data: Data = None,
    fold: Fold = None,
    file: Annotated[
        Path | None, typer.Option(**PATH, help="a .keras or .onnx file; default: in build/<dataset>/export")
    ] = None,
    force: Force = False,
) -> None:
    """Write a run's fold models as one file that loads without this project."""
    from driverwatch.steps.export import export as step

    step(making(dataset, data), run, fold, file, force)


@app.command()
def serve(
    run: str,
    dataset: Dataset = "statefarm",
    data: Data = None,
    fold: Fold = None,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="of 127.0.0.1; 0: any that is free")] = 8000,
) -> None:
    """Show a page on this machine that takes a photo and answers with probabilities and a heat map."""
    from driverwatch.steps.serve import serve as step

    step(making(dataset, data), run, fold, port)
