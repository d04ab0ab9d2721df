"""From settings to better ones: a search over many trainings, a range test of the learning rate in one."""

from typing import Annotated

import typer

from driverwatch.cli.options import (
    Address,
    Cpus,
    Data,
    Dataset,
    Engine,
    Force,
    Gpus,
    Memory,
    Overrides,
    Weights,
    cluster_options,
    making,
    model_settings,
)

app = typer.Typer()


@app.command()
def search(
    model: str,
    space: Annotated[str | None, typer.Option(help="names configs/searches/<name>.yaml; default: the model's")] = None,
    trials: Annotated[int, typer.Option(min=1, max=10_000, help="that there shall be, earlier ones included")] = 20,
    name: Annotated[str | None, typer.Option(help="of the search; default: the model's")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="of what is tried, and of the fresh folds")] = 0,
    dataset: Dataset = "statefarm",
    data: Data = None,
    overrides: Overrides = "",
    weights: Weights = None,
    skip: Annotated[int | None, typer.Option(help="number of a trial that is given up")] = None,
    force: Force = False,
    engine: Engine = None,
    address: Address = None,
    gpus: Gpus = None,
    cpus: Cpus = None,
    memory: Memory = 0,
) -> None:
    """Search settings by out-of-fold loss, and score the best on folds that the search did not see."""
    from driverwatch.steps.search import search as step
    from driverwatch.steps.search import space_of
    from driverwatch.steps.search_space import Asked

    there, crew = cluster_options(engine, address, gpus, cpus, memory), None
    if there is not None:
        from driverwatch.remote.ray_tasks import search_on_cluster

        crew = search_on_cluster(weights, there)
    asked = Asked(model, space_of(model, space), name or model, trials, seed, weights, force, skip)
    step(making(dataset, data), model_settings(model, overrides), asked, crew)


@app.command()
def lr_find(
    model: str,
    fold: Annotated[int, typer.Option(help="whose training photos")] = 0,
    low: Annotated[float, typer.Option(help="least rate")] = 1e-7,
    high: Annotated[float, typer.Option(help="greatest rate")] = 1.0,
    points: Annotated[int, typer.Option(min=20, max=10_000, help="steps")] = 100,
    dataset: Dataset = "statefarm",
    data: Data = None,
    overrides: Overrides = "",
    weights: Weights = None,
) -> None:
    """Train at rising rates, a step each, and plot what the loss makes of it."""
    from driverwatch.steps.lr_find import find_rates

    between = (low, high)
    find_rates(making(dataset, data), model, model_settings(model, overrides), fold, between, points, weights)
