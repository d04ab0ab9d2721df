"""From what is built to what people read: the status, and pages."""

from typing import Annotated

import typer

from driverwatch.cli.options import Data, Dataset, Models, Weights, context_of, making, one_view_set

app = typer.Typer()


@app.command()
def status(
    dataset: Dataset = "statefarm",
    data: Data = None,
    as_json: Annotated[bool, typer.Option("--json", help="the same as JSON")] = False,
) -> None:
    """Show what there is: images, folds, packs, every run and fold, submissions; what is stale, and why."""
    from driverwatch.report.status import print_status

    print_status(context_of(dataset, data), as_json)


@app.command()
def review(
    models: Models = "",
    dataset: Dataset = "statefarm",
    data: Data = None,
    views: Annotated[str | None, typer.Option(help="one view set for all; default: each run's honest one")] = None,
    features: Annotated[
        str | None, typer.Option(help="where neighbours are looked for; default: the first built that fit")
    ] = None,
    heatmaps: Annotated[int, typer.Option(min=0, help="of so many photos of most loss and entropy; starts Keras")] = 0,
    weights: Weights = None,
) -> None:
    """Write a page to look through photos by loss, disagreement and entropy."""
    from driverwatch.report.review_page import write_review

    chosen = None if views is None else one_view_set(views)
    write_review(making(dataset, data, weights=weights), models.split(), chosen, features, heatmaps)
