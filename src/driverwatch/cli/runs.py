"""From packs to predictions."""

from pathlib import Path
from typing import Annotated

import typer

from driverwatch.cli.options import (
    PATH,
    Address,
    Cpus,
    Data,
    Dataset,
    Engine,
    Fold,
    Force,
    Gpus,
    Memory,
    Overrides,
    Views,
    Weights,
    cluster_options,
    context_of,
    making,
    model_settings,
    numbers,
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
        preview_model(making(dataset, data), model_settings(model, overrides), run or model, fold)
    elif run is None or overrides:
        raise InputError("preview: expected MODEL=<model> with any SET=, or RUN=<run> alone, as it was begun")
    else:
        preview_run(making(dataset, data), run, fold)


@app.command()
def train(
    models: Annotated[str, typer.Argument(help="one model, or several separated by spaces")],
    dataset: Dataset = "statefarm",
    data: Data = None,
    run: str | None = None,
    overrides: Overrides = "",
    weights: Weights = None,
    fold: Fold = None,
    force: Force = False,
    study: str | None = None,
    engine: Engine = None,
    address: Address = None,
    gpus: Gpus = None,
    cpus: Cpus = None,
    memory: Memory = 0,
) -> None:
    """Train every fold of a run, or of several, that is not finished, and predict."""
    names, there = models.split(), cluster_options(engine, address, gpus, cpus, memory)
    if run and len(names) != 1:
        raise InputError(f"RUN={run}: names one model's run, and MODELS are {', '.join(names)}; leave it out")
    context, wanted = context_of(dataset, data, study), {run or name: model_settings(name, overrides) for name in names}
    if there is None and len(wanted) == 1:
        from driverwatch.steps.train import train as step

        [(name, settings)] = wanted.items()
        step(context, settings, name, weights, fold, force)
        return
    if there is None:
        from driverwatch.steps.train_many import train_in_turn

        train_in_turn(context, wanted, weights, fold, force)
        return
    from driverwatch.remote.ray_tasks import train_on_cluster

    train_on_cluster(context, wanted, weights, fold, force, there)


@app.command()
def node(
    address: Annotated[
        str | None, typer.Option(help="of the first machine, with its port; default: is the first")
    ] = None,
    ip: Annotated[str | None, typer.Option(help="by which other machines reach this one")] = None,
    port: Annotated[int, typer.Option(help="that the first machine listens at")] = 6379,
    cpus: Annotated[int | None, typer.Option(min=1, help="cores that it lends; default: all")] = None,
    folder: Annotated[
        Path | None, typer.Option(**PATH, help="for copies of the asking machine's files; then none is shared")
    ] = None,
) -> None:
    """Lend this machine to a cluster until Ctrl-C."""
    from driverwatch.remote.ray_cluster import start_node

    start_node(address, ip, port, cpus, folder)


@app.command(hidden=True)
def train_fold(
    run: Annotated[Path, typer.Option(**PATH, help="folder of a run that `train` has begun and holds")],
    fold: Annotated[int, typer.Option()],
    leash: Annotated[int, typer.Option(help="pipe that closes when `train` is gone")],
    weights: Weights = None,
) -> None:
    """One fold, in this process; `train` calls it."""
    from driverwatch.steps.fold_runner import end_with
    from driverwatch.steps.train import train_one_fold

    end_with(leash)
    try:
        train_one_fold(run, fold, weights)
    except KeyboardInterrupt:  # Ctrl-C is for `train` too, which speaks for both
        raise SystemExit(1) from None


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
    from driverwatch.experiments.freezing_study import run_study

    run_study(making(dataset, data), name, weights)


@app.command()
def curve(
    model: str,
    counts: Annotated[str, typer.Option(help="numbers of drivers to learn from, besides all")] = "3 6 10",
    dataset: Dataset = "statefarm_mini",
    data: Data = None,
    overrides: Overrides = "",
    weights: Weights = None,
) -> None:
    """Train on more and more drivers, and write how the loss of new ones falls."""
    from driverwatch.experiments.data_scaling import run_data_scaling

    settings = model_settings(model, overrides)
    run_data_scaling(making(dataset, data), model, settings, numbers("COUNTS", counts), weights)


@app.command()
def best(dataset: Dataset = "statefarm", data: Data = None, weights: Weights = None) -> None:
    """Follow a data set's recipe to its submissions, going on from whatever is built."""
    from driverwatch.experiments.reproduce import reproduce

    reproduce(context_of(dataset, data), weights)


@app.command()
def levers(
    dataset: Dataset = "statefarm_mini",
    data: Data = None,
    weights: Weights = None,
    train: Annotated[bool, typer.Option(help="train what is not finished first")] = False,
) -> None:
    """Write the table of levers, each with what it is worth out of fold."""
    from driverwatch.experiments.ablations import run_ablations

    run_ablations(making(dataset, data), train, weights)


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
    from driverwatch.experiments.refit import refit

    refit(making(dataset, data), run, overrides, weights, fold)


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
    from driverwatch.experiments.pseudo_label_rounds import run_rounds

    run_rounds(making(dataset, data), run, rounds, overrides, weights)


@app.command()
def predict(
    run: str,
    dataset: Dataset = "statefarm",
    data: Data = None,
    views: Views = "ten_crop",
    fold: Fold = None,
    batch_size: int = 20,
    study: str | None = None,
    shards: Annotated[int | None, typer.Option(min=1, help="tasks that a cluster makes of it (4)")] = None,
    engine: Engine = None,
    address: Address = None,
    gpus: Gpus = None,
    cpus: Cpus = None,
    memory: Memory = 0,
) -> None:
    """Predict with a trained run under other views."""
    there = cluster_options(engine, address, gpus, cpus, memory)
    context, asked = making(dataset, data, study), predict_settings(views, batch_size)
    if there is not None:
        from driverwatch.remote.ray_tasks import predict_on_cluster

        predict_on_cluster(context, run, asked, fold, shards or 4, there)
        return
    if shards is not None:
        raise InputError(f"SHARDS={shards}: is for ENGINE=ray; add that, or leave it out")
    from driverwatch.steps.train import predict as step

    step(context, run, asked, fold)
