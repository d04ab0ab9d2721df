"""Commands that look for better settings: a search over many trainings, a learning-rate range test in one."""

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
    trials: Annotated[int, typer.Option(min=1, max=10_000, help="in all, earlier ones included")] = 20,
    name: Annotated[str | None, typer.Option(help="of the search; default: the model's")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="of the suggestions, and of the fresh folds")] = 0,
    dataset: Dataset = "statefarm",
    data: Data = None,
    overrides: Overrides = "",
    weights: Weights = None,
    skip: Annotated[int | None, typer.Option(help="number of a running trial to give up")] = None,
    force: Force = False,
    engine: Engine = None,
    address: Address = None,
    gpus: Gpus = None,
    cpus: Cpus = None,
    memory: Memory = 0,
) -> None:
    """Search settings by OOF log loss, and score the best on folds that the search did not see."""
    from driverwatch.experiments.search import search as run_search
    from driverwatch.experiments.search import space_of
    from driverwatch.experiments.search_space import SearchRequest

    there, run_works = cluster_options(engine, address, gpus, cpus, memory), None
    if there is not None:
        from driverwatch.remote.ray_tasks import search_on_cluster

        run_works = search_on_cluster(weights, there)
    request = SearchRequest(model, space_of(model, space), name or model, trials, seed, weights, force, skip)
    run_search(making(dataset, data), model_settings(model, overrides), request, run_works)


@app.command()
def lr_find(
    model: str,
    fold: Annotated[int, typer.Option(help="whose training photos")] = 0,
    low: Annotated[float, typer.Option(help="lowest rate")] = 1e-7,
    high: Annotated[float, typer.Option(help="highest rate")] = 1.0,
    points: Annotated[int, typer.Option(min=20, max=10_000, help="steps")] = 100,
    dataset: Dataset = "statefarm",
    data: Data = None,
    overrides: Overrides = "",
    weights: Weights = None,
) -> None:
    """Train at rising learning rates, one step each, and plot the loss."""
    from driverwatch.training.lr_finder import find_rates

    find_rates(making(dataset, data), model, model_settings(model, overrides), fold, low, high, points, weights)
