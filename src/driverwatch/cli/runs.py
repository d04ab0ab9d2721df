"""From packs to predictions."""

from typing import Annotated

import typer

from driverwatch.cli.options import (
    Data,
    Dataset,
    Fold,
    Force,
    Overrides,
    Views,
    Weights,
    context_of,
    model_settings,
    predict_settings,
)
from driverwatch.errors import InputError

app = typer.Typer()


@app.command()
def preview(
    model: Annotated[str | None, typer.Option(help="whose settings")] = None,
    run: Annotated[str | None, typer.Option(help="a run that was begun; beside a model: the sheet's name")] = None,
    dataset: Dataset = "statefarm",
    data: Data = None,
    overrides: Overrides = "",
    fold: Annotated[int, typer.Option(help="whose training photos")] = 0,
) -> None:
    """Draw what training sees of one photo per class, epoch by epoch."""
    from driverwatch.steps.preview import preview_model, preview_run

    if model is not None:
        preview_model(context_of(dataset, data), model_settings(model, overrides), run or model, fold)
    elif run is None or overrides:
        raise InputError("preview: expected MODEL=<model> with any SET=, or RUN=<run> alone, as it was begun")
    else:
        preview_run(context_of(dataset, data), run, fold)


@app.command()
def train(
    model: str,
    dataset: Dataset = "statefarm",
    data: Data = None,
    run: str | None = None,
    overrides: Overrides = "",
    weights: Weights = None,
    fold: Fold = None,
    force: Force = False,
    study: str | None = None,
) -> None:
    """Train every fold of a run that is not finished, and predict."""
    from driverwatch.steps.train import train as step

    step(context_of(dataset, data, study), model_settings(model, overrides), run or model, weights, fold, force)


@app.command(hidden=True)
def train_fold(
    run: Annotated[str, typer.Option()],
    fold: Annotated[int, typer.Option()],
    views: Annotated[str, typer.Option()],
    batch_size: Annotated[int, typer.Option()],
    workers: Annotated[int, typer.Option()],
    leash: Annotated[int, typer.Option(help="pipe that closes when `train` is gone")],
    dataset: Dataset = "statefarm",
    weights: Weights = None,
    study: str | None = None,
) -> None:
    """One fold, in this process; `train` calls it."""
    from driverwatch.steps.train import train_one_fold

    context = context_of(dataset, None, study)
    train_one_fold(context, run, fold, weights, predict_settings(views, batch_size), workers, leash)


@app.command()
def features(
    model: str,
    dataset: Dataset = "statefarm",
    data: Data = None,
    run: str | None = None,
    overrides: Overrides = "",
    weights: Weights = None,
    cut: Annotated[str | None, typer.Option(help="last layer kept of the backbone")] = None,
    head: Annotated[str, typer.Option(help="logistic or dense")] = "logistic",
    fold: Fold = None,
    force: Force = False,
) -> None:
    """Compute features once, fit a head on them per fold, and predict."""
    from driverwatch.steps.features import feature_settings
    from driverwatch.steps.train import train as step

    settings = feature_settings(model_settings(model, overrides), head, cut)
    step(context_of(dataset, data), settings, run or f"{model}-features", weights, fold, force)


@app.command()
def study(
    name: Annotated[str, typer.Argument(help="names configs/studies/<name>.yaml")] = "freezing",
    dataset: Dataset = "statefarm_mini",
    data: Data = None,
    weights: Weights = None,
) -> None:
    """Train a study's runs, as far as they are not finished, and write its table."""
    from driverwatch.steps.study import run_study

    run_study(context_of(dataset, data), name, weights)


@app.command()
def best(dataset: Dataset = "statefarm", data: Data = None, weights: Weights = None) -> None:
    """Follow a data set's recipe to its submissions, going on from whatever is built."""
    from driverwatch.steps.recipe import make_best

    make_best(context_of(dataset, data), weights)


@app.command()
def levers(
    dataset: Dataset = "statefarm_mini",
    data: Data = None,
    weights: Weights = None,
    train: Annotated[bool, typer.Option(help="train what is not finished first")] = False,
) -> None:
    """Write the table of levers, each with what it is worth out of fold."""
    from driverwatch.steps.levers import write_levers

    write_levers(context_of(dataset, data), train, weights)


@app.command()
def final(
    run: str,
    dataset: Dataset = "statefarm",
    data: Data = None,
    overrides: Overrides = "",
    weights: Weights = None,
    fold: Fold = None,
) -> None:
    """Train on all drivers, with the epochs that did best on a finished run's held-out drivers."""
    from driverwatch.steps.final import make_final

    make_final(context_of(dataset, data), run, overrides, weights, fold)


@app.command()
def pseudo(
    run: str,
    rounds: Annotated[int, typer.Option(min=1, max=20, help="each taught by the one before")] = 1,
    dataset: Dataset = "statefarm",
    data: Data = None,
    overrides: Overrides = "",
    weights: Weights = None,
) -> None:
    """Train rounds of pseudo-labels from a run on, and compare them out of fold."""
    from driverwatch.steps.pseudo import run_rounds

    run_rounds(context_of(dataset, data), run, rounds, overrides, weights)


@app.command()
def predict(
    run: str,
    dataset: Dataset = "statefarm",
    views: Views = "ten_crop",
    fold: Fold = None,
    batch_size: int = 20,
    study: str | None = None,
) -> None:
    """Predict with a trained run under other views."""
    from driverwatch.steps.train import predict as step

    step(context_of(dataset, None, study), run, predict_settings(views, batch_size), fold)
