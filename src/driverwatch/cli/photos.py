"""From photos to packs."""

from pathlib import Path
from typing import Annotated

import typer

from driverwatch.cli.options import PATH, Client, Data, Dataset, Force, Models, Overrides, SkipBroken, context_of

app = typer.Typer()


@app.command()
def sample(
    dataset: Dataset = "drawn",
    data: Data = None,
    drivers: int = 36,
    test_drivers: int = 8,
    clips: int = 1,
    frames: int = 4,
    size: str = "120x160",
    seed: int = 0,
    force: Force = False,
) -> None:
    """Draw a competition in Kaggle's layout."""
    from driverwatch.data.sample import SampleOptions
    from driverwatch.steps.prepare import draw

    draw(context_of(dataset, data), SampleOptions(drivers, test_drivers, clips, frames, size, seed), force)


@app.command("data")
def fetch(dataset: Dataset = "statefarm", data: Data = None, client: Client = "") -> None:
    """Download, unpack and verify a competition."""
    from driverwatch.submission.download import download_competition

    download_competition(context_of(dataset, data), client)


@app.command()
def subset(
    source: Annotated[Path, typer.Option(**PATH, help="the full download")],
    dataset: Dataset = "statefarm_mini",
    data: Data = None,
) -> None:
    """Pick a data set's training photos out of a larger download."""
    from driverwatch.steps.prepare import pick_subset

    pick_subset(context_of(dataset, data), source)


@app.command()
def folds(
    dataset: Dataset = "statefarm", data: Data = None, force: Force = False, skip_broken: SkipBroken = False
) -> None:
    """Write the driver folds, or check those there."""
    from driverwatch.steps.prepare import make_folds

    make_folds(context_of(dataset, data), force, skip_broken)


@app.command()
def pack(
    dataset: Dataset = "statefarm",
    data: Data = None,
    size: str | None = None,
    model: str | None = None,
    overrides: Overrides = "",
    force: Force = False,
    skip_broken: SkipBroken = False,
) -> None:
    """Pack the photos into HDF5."""
    from driverwatch.steps.prepare import make_packs

    make_packs(context_of(dataset, data), size, model, overrides, force, skip_broken)


@app.command("leakage")
def print_leakage(dataset: Dataset = "statefarm", data: Data = None) -> None:
    """Show how much a random split flatters: the same simple classifiers on it and on the driver folds."""
    from driverwatch.experiments.leakage import print_leakage as step

    step(context_of(dataset, data))


@app.command()
def photo(
    image: Annotated[str, typer.Argument(help="a photo's name in the data set's tables, or its path")],
    models: Models = "",
    name: Annotated[
        str | None, typer.Option(help="the submission whose chain is followed; default: the least loss out of fold")
    ] = None,
    dataset: Dataset = "statefarm",
    data: Data = None,
) -> None:
    """Show one photo's way through the line, as far as it is built: table, fold, pack, models, chain, submissions."""
    from driverwatch.report.trace_image import trace_image

    trace_image(context_of(dataset, data), image, models.split(), name)
