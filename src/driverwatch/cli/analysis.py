"""Commands that try, compare and search: leakage, previews, studies, ablations, searches, blends, label issues, scores."""

from typing import Annotated

import typer

from driverwatch.cli import options
from driverwatch.errors import InputError

app = typer.Typer()


@app.command("leakage")
def print_leakage(dataset: options.Dataset = "statefarm", data: options.Data = None) -> None:
    """Show how optimistic a random split is: the same simple classifiers on it and on the driver folds."""
    from driverwatch.experiments.leakage import print_leakage as step

    step(options.context_of(dataset, data))


@app.command()
def preview(
    model: Annotated[str | None, typer.Option(help="whose settings")] = None,
    run: Annotated[str | None, typer.Option(help="a run that was started; beside a model: the sheet's name")] = None,
    dataset: options.Dataset = "statefarm",
    data: options.Data = None,
    overrides: options.Overrides = "",
    fold: Annotated[int, typer.Option(help="whose training images")] = 0,
) -> None:
    """Draw what training sees of one image per class, epoch by epoch."""
    from driverwatch.report.contact_sheets import preview_model, preview_run

    if model is not None:
        preview_model(options.making(dataset, data), options.model_settings(model, overrides), run or model, fold)
    elif run is None or overrides:
        raise InputError("preview: expected MODEL=<model> with any SET=, or RUN=<run> alone, as it was started")
    else:
        preview_run(options.making(dataset, data), run, fold)


@app.command()
def study(
    name: Annotated[str, typer.Argument(help="names configs/studies/<name>.yaml")] = "freezing",
    dataset: options.Dataset = "statefarm_mini",
    data: options.Data = None,
    weights: options.Weights = None,
) -> None:
    """Train a study's runs, as far as they are not finished, and write its table."""
    from driverwatch.experiments.freezing_study import run_study

    run_study(options.making(dataset, data), name, weights)


@app.command()
def data_scaling(
    model: str,
    n_drivers: Annotated[str, typer.Option(help="numbers of drivers to train on, besides all")] = "3 6 10",
    dataset: options.Dataset = "statefarm_mini",
    data: options.Data = None,
    overrides: options.Overrides = "",
    weights: options.Weights = None,
) -> None:
    """Train on more and more drivers, and write how the loss of new ones falls."""
    from driverwatch.experiments.data_scaling import run_data_scaling

    settings = options.model_settings(model, overrides)
    run_data_scaling(options.making(dataset, data), model, settings, options.numbers("N_DRIVERS", n_drivers), weights)


@app.command()
def reproduce(
    dataset: options.Dataset = "statefarm",
    data: options.Data = None,
    weights: options.Weights = None,
    name: Annotated[str | None, typer.Option(help="of the recipe; default: the data set's")] = None,
) -> None:
    """Follow a data set's recipe to its submissions, resuming from whatever is built."""
    from driverwatch.experiments.experiment import reproduce as step

    step(options.context_of(dataset, data), weights, name)


@app.command()
def ablation(
    dataset: options.Dataset = "statefarm_mini",
    data: options.Data = None,
    weights: options.Weights = None,
    train: Annotated[bool, typer.Option(help="train what is not finished first")] = False,
) -> None:
    """Write the table of ablations, each with what it is worth out of fold."""
    from driverwatch.experiments.ablations import run_ablations

    run_ablations(options.making(dataset, data), train, weights)


@app.command()
def refit(
    run: str,
    dataset: options.Dataset = "statefarm",
    data: options.Data = None,
    overrides: options.Overrides = "",
    weights: options.Weights = None,
    fold: options.Fold = None,
) -> None:
    """Train on all drivers, with the epochs that did best on a finished run's validation drivers."""
    from driverwatch.experiments.refit import refit

    refit(options.making(dataset, data), run, overrides, weights, fold)


@app.command()
def pseudo_rounds(
    run: str,
    rounds: Annotated[int, typer.Option(min=1, max=20, help="each trained on the pseudo-labels of the one before")] = 1,
    dataset: options.Dataset = "statefarm",
    data: options.Data = None,
    overrides: options.Overrides = "",
    weights: options.Weights = None,
) -> None:
    """Train rounds of pseudo-labels from a run on, and compare them out of fold."""
    from driverwatch.experiments.pseudo_label_rounds import run_rounds

    run_rounds(options.making(dataset, data), run, rounds, overrides, weights)


@app.command()
def search(
    model: str,
    space: Annotated[str | None, typer.Option(help="names configs/searches/<name>.yaml; default: the model's")] = None,
    trials: Annotated[int, typer.Option(min=1, max=10_000, help="in all, earlier ones included")] = 20,
    name: Annotated[str | None, typer.Option(help="of the search; default: the model's")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="of the suggestions, and of the fresh folds")] = 0,
    dataset: options.Dataset = "statefarm",
    data: options.Data = None,
    overrides: options.Overrides = "",
    weights: options.Weights = None,
    skip_trial: Annotated[int | None, typer.Option(help="number of a running trial to give up")] = None,
    force: options.Force = False,
    engine: options.Engine = None,
    address: options.Address = None,
    gpus: options.Gpus = None,
    cpus: options.Cpus = None,
    memory: options.Memory = 0,
) -> None:
    """Search settings by OOF log loss, and score the best on folds that the search did not see."""
    from driverwatch.experiments.search import search as run_search
    from driverwatch.experiments.search import space_of
    from driverwatch.experiments.search_trials import SearchRequest

    there, run_works = options.cluster_options(engine, address, gpus, cpus, memory), None
    if there is not None:
        from driverwatch.remote.ray_tasks import search_on_cluster

        run_works = search_on_cluster(there)
    request = SearchRequest(model, space_of(model, space), name or model, trials, seed, weights, force, skip_trial)
    run_search(options.making(dataset, data), options.model_settings(model, overrides), request, run_works)


@app.command()
def lr_find(
    model: str,
    fold: Annotated[int, typer.Option(help="whose training images")] = 0,
    lr_min: Annotated[float, typer.Option(help="lowest rate")] = 1e-7,
    lr_max: Annotated[float, typer.Option(help="highest rate")] = 1.0,
    lr_steps: Annotated[int, typer.Option(min=20, max=10_000, help="steps")] = 100,
    dataset: options.Dataset = "statefarm",
    data: options.Data = None,
    overrides: options.Overrides = "",
    weights: options.Weights = None,
) -> None:
    """Train at rising learning rates, one step each, and plot the loss."""
    from driverwatch.training.lr_finder import find_rates

    find_rates(
        options.making(dataset, data),
        model,
        options.model_settings(model, overrides),
        fold,
        lr_min,
        lr_max,
        lr_steps,
        weights,
    )


@app.command()
def pseudo_labels(
    name: str,
    models: options.Models = "",
    dataset: options.Dataset = "statefarm",
    data: options.Data = None,
    tta: str | None = None,
    blend: str | None = None,
    class_balance: str | None = None,
    knn: str | None = None,
    calibrate: str | None = None,
    weights: options.Weights = None,
) -> None:
    """Keep what runs, put together as in an ensemble, make of images without labels, for students to train on."""
    from driverwatch.ensemble.teacher_ensemble import make_pseudo_labels

    chosen = options.one_tta_set(tta)
    changes = options.changes_of(blend, class_balance, knn, calibrate, None)
    make_pseudo_labels(options.making(dataset, data, weights=weights), models.split(), name, chosen, changes)


@app.command()
def blends(
    models: options.Models = "",
    dataset: options.Dataset = "statefarm",
    data: options.Data = None,
    tta: Annotated[str, typer.Option(help="TTA sets, each a member of its own; default: each run's honest one")] = "",
) -> None:
    """Print what every blend and calibration of runs scores on drivers left out."""
    from driverwatch.experiments.compare import compare_blends

    chosen = [options.one_tta_set(each) for each in dict.fromkeys(tta.split())]
    compare_blends(options.making(dataset, data), models.split(), chosen)


@app.command()
def knn(
    embeddings: Annotated[
        str, typer.Option(help="<model>[:<cut>][:<rows>x<columns>], separated by spaces")
    ] = "efficientnet_lite0",
    models: options.Models = "",
    dataset: options.Dataset = "statefarm",
    data: options.Data = None,
    weights: options.Weights = None,
) -> None:
    """Compute features of all images, and print what smoothing over neighbours in them scores on drivers left out."""
    from driverwatch.experiments.compare import compare_knn

    compare_knn(options.making(dataset, data), embeddings.split(), models.split(), weights)


@app.command("label-issues")
def list_label_issues(
    name: Annotated[str, typer.Argument(help="a submission, whose out-of-fold probabilities judge the labels")],
    dataset: options.Dataset = "statefarm",
    data: options.Data = None,
    force: options.Force = False,
) -> None:
    """List probable label errors and ambiguous images by confident learning, for `train.label_issues`."""
    from driverwatch.experiments.confident_learning import write_label_issues

    write_label_issues(options.context_of(dataset, data), name, force)


@app.command()
def score(
    models: options.Models = "",
    dataset: options.Dataset = "statefarm",
    data: options.Data = None,
    details: Annotated[bool, typer.Option(help="by TTA set, fold, driver and class as well")] = False,
) -> None:
    """Print out-of-fold scores per run, and of the best submission where test labels are known."""
    from driverwatch.report.score_runs import print_scores

    print_scores(options.making(dataset, data), models.split(), details)


@app.command()
def tta(run: str, dataset: options.Dataset = "statefarm", data: options.Data = None) -> None:
    """Compare a run's TTA sets: OOF log loss against the centre view, and cost."""
    from driverwatch.experiments.compare import compare_tta

    compare_tta(options.making(dataset, data), run)
