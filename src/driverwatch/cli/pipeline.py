"""Commands of the way from images to an uploaded submission, in the order in which they are needed."""

from pathlib import Path
from typing import Annotated, Any

import typer

from driverwatch.cli import options
from driverwatch.errors import InputError

app = typer.Typer()


@app.command()
def synthetic(
    dataset: options.Dataset = "demo",
    data: options.Data = None,
    drivers: int = 27,
    test_drivers: int = 8,
    clips: int = 1,
    frames: int = 3,
    size: str = "240x320",
    seed: int = 0,
    force: options.Force = False,
) -> None:
    """Draw a competition in Kaggle's layout."""
    from driverwatch.data.prepare import draw
    from driverwatch.data.synthetic import SyntheticOptions

    draw(options.context_of(dataset, data), SyntheticOptions(drivers, test_drivers, clips, frames, size, seed), force)


@app.command("data")
def fetch(
    dataset: options.Dataset = "statefarm",
    data: options.Data = None,
    client: options.Client = "",
    dry_run: Annotated[bool, typer.Option(help="check alone whether it could be had")] = False,
) -> None:
    """Download, unpack and verify a competition."""
    from driverwatch.submission.download import check_download, download_competition

    if dry_run:
        check_download(options.context_of(dataset, data))
        return
    download_competition(options.context_of(dataset, data), client)


@app.command()
def subset(
    source: Annotated[Path, typer.Option(**options.PATH, help="the full download")],
    dataset: options.Dataset = "statefarm_mini",
    data: options.Data = None,
) -> None:
    """Pick a data set's training images out of a larger download."""
    from driverwatch.data.prepare import pick_subset

    pick_subset(options.context_of(dataset, data), source)


@app.command()
def folds(
    dataset: options.Dataset = "statefarm",
    data: options.Data = None,
    force: options.Force = False,
    skip_invalid: options.SkipBroken = False,
) -> None:
    """Write the driver folds, or check those there."""
    from driverwatch.data.prepare import make_folds

    make_folds(options.context_of(dataset, data), force, skip_invalid)


@app.command()
def pack(
    dataset: options.Dataset = "statefarm",
    data: options.Data = None,
    size: str | None = None,
    model: str | None = None,
    overrides: options.Overrides = "",
    force: options.Force = False,
    skip_invalid: options.SkipBroken = False,
) -> None:
    """Pack the images into HDF5."""
    from driverwatch.data.prepare import make_packs

    make_packs(options.context_of(dataset, data), size, model, overrides, force, skip_invalid)


@app.command(hidden=True)
def preflight(
    models: Annotated[str, typer.Argument(help="one model, or several separated by spaces")],
    dataset: options.Dataset = "statefarm",
    data: options.Data = None,
    overrides: options.Overrides = "",
    weights: options.Weights = None,
) -> None:
    """Refuse what cannot be trained, and have its weights here, before folds and packs are made for it."""
    from driverwatch.data.prepare import refuse_unready
    from driverwatch.models.weight_files import ready
    from driverwatch.training.tracking import refuse_missing

    wanted = [options.model_settings(name, overrides) for name in models.split()]
    for settings in wanted:
        refuse_missing(settings)
    for settings in refuse_unready(options.context_of(dataset, data), wanted):
        ready(settings, weights)


@app.command()
def train(
    models: Annotated[str, typer.Argument(help="one model, or several separated by spaces")],
    dataset: options.Dataset = "statefarm",
    data: options.Data = None,
    run: str | None = None,
    overrides: options.Overrides = "",
    weights: options.Weights = None,
    fold: options.Fold = None,
    force: options.Force = False,
    study: str | None = None,
    engine: options.Engine = None,
    address: options.Address = None,
    gpus: options.Gpus = None,
    cpus: options.Cpus = None,
    memory: options.Memory = 0,
) -> None:
    """Train every fold of a run, or of several, that is not finished, and predict."""
    names, there = models.split(), options.cluster_options(engine, address, gpus, cpus, memory)
    if run and len(names) != 1:
        raise InputError(f"RUN={run}: names one model's run, and MODELS are {', '.join(names)}; leave it out")
    from driverwatch.training.train import TrainRequest, train_in_turn

    context = options.context_of(dataset, data, study)
    settings = [options.model_settings(each, overrides) for each in names]
    how: dict[str, Any] = {"context": context, "weights": weights, "fold": fold, "force": force}
    requests = [TrainRequest(name=run or each, settings=own, **how) for each, own in zip(names, settings, strict=True)]
    if there is None:
        train_in_turn(requests)
        return
    from driverwatch.remote.ray_tasks import train_on_cluster

    train_on_cluster(requests, there)


@app.command(hidden=True)
def train_fold(
    run: Annotated[Path, typer.Option(**options.PATH, help="folder of a run that `train` has started and holds")],
    fold: Annotated[int, typer.Option()],
    parent_pipe: Annotated[int, typer.Option(help="pipe that closes when `train` is gone")],
    weights: options.Weights = None,
) -> None:
    """One fold, in this process; `train` calls it."""
    from driverwatch.training.fold_runner import exit_with_parent
    from driverwatch.training.train import train_one_fold

    exit_with_parent(parent_pipe)
    try:
        train_one_fold(run, fold, weights)
    except KeyboardInterrupt:  # Ctrl-C is for `train` too, which speaks for both
        raise SystemExit(1) from None


@app.command()
def linear_probe(
    model: str,
    dataset: options.Dataset = "statefarm",
    data: options.Data = None,
    run: str | None = None,
    overrides: options.Overrides = "",
    weights: options.Weights = None,
    truncate_at: Annotated[str | None, typer.Option(help="last layer kept of the backbone")] = None,
    head: Annotated[str, typer.Option(help="linear_probe or dense")] = "linear_probe",
    fold: options.Fold = None,
    force: options.Force = False,
) -> None:
    """Compute features once, fit a head on them per fold, and predict."""
    from driverwatch.training.linear_probe import linear_probe_settings
    from driverwatch.training.train import TrainRequest
    from driverwatch.training.train import train as step

    settings = linear_probe_settings(options.model_settings(model, overrides), head, truncate_at)
    about: dict[str, Any] = {"context": options.context_of(dataset, data), "settings": settings}
    step(TrainRequest(**about, name=run or f"{model}-features", weights=weights, fold=fold, force=force))


@app.command()
def predict(
    run: str,
    dataset: options.Dataset = "statefarm",
    data: options.Data = None,
    tta: options.Tta = "ten_crop",
    fold: options.Fold = None,
    batch_size: str = "auto",
    overrides: options.Overrides = "",
    study: str | None = None,
    shards: Annotated[int | None, typer.Option(min=1, help="tasks that a cluster makes of it (4)")] = None,
    engine: options.Engine = None,
    address: options.Address = None,
    gpus: options.Gpus = None,
    cpus: options.Cpus = None,
    memory: options.Memory = 0,
) -> None:
    """Predict with a trained run under other views."""
    there = options.cluster_options(engine, address, gpus, cpus, memory)
    context, asked = options.making(dataset, data, study), options.predict_settings(tta, batch_size, overrides)
    if there is not None:
        from driverwatch.remote.ray_tasks import predict_on_cluster

        predict_on_cluster(context, run, asked, fold, shards or 4, there)
        return
    if shards is not None:
        raise InputError(f"SHARDS={shards}: is for ENGINE=ray; add that, or leave it out")
    from driverwatch.inference.predict_run import predict as step

    step(context, run, asked, fold)


@app.command()
def ensemble(
    models: options.Models = "",
    name: str | None = None,
    dataset: options.Dataset = "statefarm",
    data: options.Data = None,
    tta: str | None = None,
    fold: options.Fold = None,
    blend: Annotated[str | None, typer.Option(help="how runs become one row per image")] = None,
    class_balance: Annotated[
        str | None, typer.Option(help="embeddings that distinguish drivers, to balance classes in each, or none")
    ] = None,
    knn: Annotated[
        str | None, typer.Option(help="features that images are smoothed over their nearest by, or none")
    ] = None,
    calibrate: Annotated[str | None, typer.Option(help="none, temperature or bias")] = None,
    clip: Annotated[str | None, typer.Option(help="lowest probability of a submission, or fitted")] = None,
    weights: options.Weights = None,
) -> None:
    """Blend runs into a checked submission."""
    from driverwatch.submission.build import make_ensemble

    chosen = options.one_tta_set(tta)
    name = name or ("ensemble" if fold is None else f"ensemble-fold{fold}")
    changes = options.changes_of(blend, class_balance, knn, calibrate, clip)
    make_ensemble(options.making(dataset, data, weights=weights), models.split(), name, chosen, fold, changes)


@app.command()
def submissions(models: options.Models = "", dataset: options.Dataset = "statefarm", data: options.Data = None) -> None:
    """Write every run's TTA sets and fold models as submissions."""
    from driverwatch.submission.build import make_submissions

    make_submissions(options.making(dataset, data), models.split())


@app.command()
def check(file: options.Submission, dataset: options.Dataset = "statefarm", data: options.Data = None) -> None:
    """Check a submission file."""
    from driverwatch.submission.build import check_submission

    check_submission(options.context_of(dataset, data), file)


@app.command()
def submit(
    file: options.Submission,
    message: Annotated[str, typer.Option(help="one line, shown on Kaggle and in the ledger")],
    dataset: options.Dataset = "statefarm",
    data: options.Data = None,
    client: options.Client = "",
    every: Annotated[float, typer.Option(min=0.1, help="seconds between two looks at Kaggle's list")] = 20,
    wait: Annotated[float, typer.Option(min=0, help="seconds to wait for the score")] = 1800,
    force: options.Force = False,
    dry_run: Annotated[bool, typer.Option(help="check alone whether it could go up")] = False,
) -> None:
    """Upload a submission and note its score in the ledger."""
    from driverwatch.submission.submit import Wait, check_upload
    from driverwatch.submission.submit import submit as submit_file

    if dry_run:
        return check_upload(options.context_of(dataset, data), file, message)
    return submit_file(options.context_of(dataset, data), file, message, client, Wait(every, wait), force)
