"""Training on Kaggle's machines: what goes there, what comes back."""

from pathlib import Path
from typing import Annotated, Any

import typer

from driverwatch.cli.options import PATH, Data, Dataset, Force, Overrides, Weights, context_of, making, model_settings

app = typer.Typer()


@app.command()
def notebook(
    model: str,
    dataset: Dataset = "statefarm",
    data: Data = None,
    run: str | None = None,
    overrides: Overrides = "",
    weights: Weights = None,
    views: Annotated[str, typer.Option(help="more view sets to predict once it is trained")] = "",
    hours: Annotated[
        float | None, typer.Option(help="of the session's 12 until it stops by itself; default: 11")
    ] = None,
    account: Annotated[str | None, typer.Option(help="your name in Kaggle's addresses; default: the token's")] = None,
    name: Annotated[str | None, typer.Option(help="of the notebook; default: driverwatch-<run>")] = None,
    earlier: Annotated[str, typer.Option(help="notebooks (<account>/<name>) whose output it goes on from")] = "",
    packages: Annotated[str | None, typer.Option(help="that Kaggle's image lacks; default: simplejpeg")] = None,
    vendor: Annotated[bool, typer.Option(help="take their wheels along, for sessions without internet")] = False,
    machine: Annotated[str | None, typer.Option(help="Kaggle's name of the accelerator")] = None,
) -> None:
    """Write a notebook that trains a model on Kaggle, and the data set that it needs."""
    from driverwatch.remote.kaggle_notebook import make_notebook

    plan: dict[str, Any] = {
        "dataset": dataset,
        "model": model,
        "run": run or model,
        "overrides": overrides,
        "views": views,
    }
    plan |= {} if hours is None else {"hours": hours}  # what is not given has its default in the settings
    given = {
        "account": account,
        "name": name,
        "machine": machine,
        "packages": None if packages is None else packages.split(),
    }
    publication: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    publication |= {"earlier": earlier.split(), "vendor": vendor}
    make_notebook(context_of(dataset, data), model_settings(model, overrides), plan, publication, weights)


@app.command()
def take(
    source: Annotated[Path, typer.Argument(**PATH, help="a run's folder, or one that holds runs")],
    dataset: Dataset = "statefarm",
    data: Data = None,
    run: Annotated[str | None, typer.Option(help="one of the runs there")] = None,
    force: Force = False,
) -> None:
    """Check runs that were trained elsewhere, and import them beside those here."""
    from driverwatch.remote.import_runs import import_runs

    import_runs(making(dataset, data), source, run, force)
