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

    plan = {
        "dataset": dataset,
        "model": model,
        "run": run or model,
        "overrides": overrides,
        "views": views,
        "hours": hours,
    }
    listed = {"earlier": earlier.split(), "packages": None if packages is None else packages.split()}
    given = {"account": account, "name": name, "vendor": vendor, "machine": machine, **listed}
    settings = model_settings(model, overrides)
    make_notebook(context_of(dataset, data), settings, _known(plan), _known(given), weights)


def _known(options: dict[str, Any]) -> dict[str, Any]:
    """Those that were given; the others have their defaults elsewhere."""
    return {key: value for key, value in options.items() if value is not None}


@app.command()
def take(
    source: Annotated[Path, typer.Argument(**PATH, help="a run's folder, or one that holds runs")],
    dataset: Dataset = "statefarm",
    data: Data = None,
    run: Annotated[str | None, typer.Option(help="one of the runs there")] = None,
    force: Force = False,
) -> None:
    """Check runs that were trained elsewhere, and bring them in beside those here."""
    from driverwatch.remote.import_runs import take as step

    step(making(dataset, data), source, run, force)
