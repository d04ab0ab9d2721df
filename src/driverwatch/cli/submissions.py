"""From predictions to Kaggle."""

from typing import Annotated

import typer

from driverwatch.cli.options import (
    Client,
    Data,
    Dataset,
    Fold,
    Force,
    Models,
    Submission,
    Weights,
    changes_of,
    context_of,
    making,
    one_view_set,
)

app = typer.Typer()


@app.command()
def ensemble(
    models: Models = "",
    name: str | None = None,
    dataset: Dataset = "statefarm",
    data: Data = None,
    views: str | None = None,
    fold: Fold = None,
    blend: Annotated[str | None, typer.Option(help="how runs become one row per image")] = None,
    balance: Annotated[
        str | None, typer.Option(help="features that drivers are told apart by, to balance classes in each, or none")
    ] = None,
    neighbours: Annotated[
        str | None, typer.Option(help="features that images are smoothed over their nearest by, or none")
    ] = None,
    calibrate: Annotated[str | None, typer.Option(help="none, temperature or bias")] = None,
    clip: Annotated[str | None, typer.Option(help="lowest probability of a submission, or fitted")] = None,
    weights: Weights = None,
) -> None:
    """Blend runs into a checked submission."""
    from driverwatch.steps.submit import make_ensemble

    chosen = None if views is None else one_view_set(views)
    name = name or ("ensemble" if fold is None else f"ensemble-fold{fold}")
    changes = changes_of(blend, balance, neighbours, calibrate, clip)
    make_ensemble(making(dataset, data, weights=weights), models.split(), name, chosen, fold, changes)


@app.command()
def teach(
    name: str,
    models: Models = "",
    dataset: Dataset = "statefarm",
    data: Data = None,
    views: str | None = None,
    blend: str | None = None,
    balance: str | None = None,
    neighbours: str | None = None,
    calibrate: str | None = None,
    weights: Weights = None,
) -> None:
    """Keep what runs, put together as in an ensemble, make of images without labels, for students to learn from."""
    from driverwatch.ensemble.teacher_ensemble import make_pseudo_labels

    chosen = None if views is None else one_view_set(views)
    changes = changes_of(blend, balance, neighbours, calibrate, None)
    make_pseudo_labels(making(dataset, data, weights=weights), models.split(), name, chosen, changes)


@app.command()
def blends(
    models: Models = "",
    dataset: Dataset = "statefarm",
    data: Data = None,
    views: Annotated[
        str, typer.Option(help="view sets, each a member of its own; default: each run's honest one")
    ] = "",
) -> None:
    """Print what every blend and calibration of runs scores on drivers left out."""
    from driverwatch.experiments.compare_blends import compare_blends

    chosen = [one_view_set(each) for each in dict.fromkeys(views.split())]
    compare_blends(making(dataset, data), models.split(), chosen)


@app.command()
def neighbours(
    features: Annotated[str, typer.Option(help="<model>[:<cut>][:<rows>x<columns>], separated by spaces")],
    models: Models = "",
    dataset: Dataset = "statefarm",
    data: Data = None,
    weights: Weights = None,
) -> None:
    """Compute features of all images, and print what smoothing over neighbours in them scores on drivers left out."""
    from driverwatch.experiments.compare_knn import compare_knn

    compare_knn(making(dataset, data), features.split(), models.split(), weights)


@app.command()
def submissions(models: Models = "", dataset: Dataset = "statefarm", data: Data = None) -> None:
    """Write every run's view sets and fold models as submissions."""
    from driverwatch.steps.submit import make_submissions

    make_submissions(making(dataset, data), models.split())


@app.command()
def check(file: Submission, dataset: Dataset = "statefarm", data: Data = None) -> None:
    """Check a submission file."""
    from driverwatch.steps.submit import check_submission

    check_submission(context_of(dataset, data), file)


@app.command()
def submit(
    file: Submission,
    message: Annotated[str, typer.Option(help="one line, shown on Kaggle and in the ledger")],
    dataset: Dataset = "statefarm",
    data: Data = None,
    client: Client = "",
    every: Annotated[float, typer.Option(min=0.1, help="seconds between two looks at Kaggle's list")] = 20,
    wait: Annotated[float, typer.Option(min=0, help="seconds to wait for the score")] = 1800,
    force: Force = False,
) -> None:
    """Upload a submission and note its score in the ledger."""
    from driverwatch.submission.submit import Wait
    from driverwatch.submission.submit import submit as submit_file

    submit_file(context_of(dataset, data), file, message, client, Wait(every, wait), force)


@app.command()
def score(models: Models = "", dataset: Dataset = "statefarm", data: Data = None) -> None:
    """Print out-of-fold scores per run, view set, fold, driver and class."""
    from driverwatch.ensemble.score_members import print_scores

    print_scores(making(dataset, data), models.split())


@app.command()
def report(dataset: Dataset = "statefarm", data: Data = None) -> None:
    """Write one HTML page of whatever is built: scores, confusions, learning curves, levers, folds, settings."""
    from driverwatch.report.report_page import write_report

    write_report(context_of(dataset, data))


@app.command()
def views(run: str, dataset: Dataset = "statefarm", data: Data = None) -> None:
    """Compare a run's view sets: log loss out of fold against the centre view, and cost."""
    from driverwatch.experiments.compare_tta import compare_tta

    compare_tta(making(dataset, data), run)
