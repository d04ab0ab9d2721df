"""What there is."""

from typing import Annotated

import typer

from driverwatch.cli.options import Data, Dataset, context_of

app = typer.Typer()


@app.command()
def status(
    dataset: Dataset = "statefarm",
    data: Data = None,
    as_json: Annotated[bool, typer.Option("--json", help="the same as JSON")] = False,
) -> None:
    """Show what there is: photos, folds, packs, every run and fold, submissions; what is stale, and why."""
    from driverwatch.steps.status_text import print_status

    print_status(context_of(dataset, data), as_json)
