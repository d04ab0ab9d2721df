"""The command line: one verb per artefact; a verb's rooms are imported only when it is called."""

import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from driverwatch.errors import InputError, printable

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="From driver-camera photos to a Kaggle submission. `make help` lists the same steps as make targets.",
)

Dataset = Annotated[str, typer.Option(help="names configs/datasets/<name>.yaml")]
Data = Annotated[Path | None, typer.Option(help="where the data set's files lie on this machine")]
Weights = Annotated[Path | None, typer.Option(help="folder of local ImageNet weights")]
Overrides = Annotated[str, typer.Option("--set", help='changed settings, like "train.epochs=3"')]
Force = Annotated[bool, typer.Option(help="replace what is there")]
SkipBroken = Annotated[bool, typer.Option(help="go on without broken photos and table rows, and record them")]
Fold = Annotated[int | None, typer.Option(help="one fold alone")]
Client = Annotated[
    str, typer.Option(envvar="KAGGLE", help="the Kaggle client; default: the one make installs, or on PATH")
]
Models = Annotated[str, typer.Option(help="runs, separated by spaces; default: every finished one")]


def _context(dataset: str, data: Path | None, study: str | None = None) -> Any:
    from driverwatch.steps.context import open_context

    return open_context(dataset, data, study)


def _model_settings(model: str, overrides: str) -> Any:
    from driverwatch.settings import ModelSettings, load
    from driverwatch.steps.context import CONFIGS

    return load(ModelSettings, CONFIGS / "models", model, overrides)


def _predict_settings(views: str, batch_size: int) -> Any:
    from driverwatch.settings import PredictSettings, parse

    return parse(PredictSettings, {"views": views, "batch_size": batch_size}, "VIEWS")


@app.command()
def sample(
    dataset: Dataset = "drawn",
    data: Data = None,
    drivers: int = 36,
    test_drivers: int = 8,
    clips: int = 1,
    frames: int = 4,
    size: str = "120x160",
    seed: int = 0,
    force: Force = False,
) -> None:
    """Draw a competition in Kaggle's layout."""
    from driverwatch.data.sample import SampleOptions
    from driverwatch.steps.prepare import draw

    draw(_context(dataset, data), SampleOptions(drivers, test_drivers, clips, frames, size, seed), force)


@app.command("data")
def fetch(dataset: Dataset = "statefarm", data: Data = None, client: Client = "") -> None:
    """Download, unpack and verify a competition."""
    from driverwatch.steps.fetch import fetch as step

    step(_context(dataset, data), client)


@app.command()
def subset(
    source: Annotated[Path, typer.Option(help="the full download")],
    dataset: Dataset = "statefarm_mini",
    data: Data = None,
) -> None:
    """Pick a data set's training photos out of a larger download."""
    from driverwatch.steps.prepare import pick_subset

    pick_subset(_context(dataset, data), source)


@app.command()
def folds(
    dataset: Dataset = "statefarm", data: Data = None, force: Force = False, skip_broken: SkipBroken = False
) -> None:
    """Write the driver folds, or check those there."""
    from driverwatch.steps.prepare import make_folds

    make_folds(_context(dataset, data), force, skip_broken)


@app.command()
def pack(
    dataset: Dataset = "statefarm",
    data: Data = None,
    size: str | None = None,
    model: str | None = None,
    overrides: Overrides = "",
    force: Force = False,
    skip_broken: SkipBroken = False,
) -> None:
    """Pack the photos into HDF5."""
    from driverwatch.steps.prepare import make_packs

    make_packs(_context(dataset, data), size, model, overrides, force, skip_broken)


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
) -> None:
    """Train every fold of a run that is not finished, and predict."""
    from driverwatch.steps.train import train as step

    step(_context(dataset, data), _model_settings(model, overrides), run or model, weights, fold, force)


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

    settings = feature_settings(_model_settings(model, overrides), head, cut)
    step(_context(dataset, data), settings, run or f"{model}-features", weights, fold, force)


@app.command()
def study(
    name: Annotated[str, typer.Argument(help="names configs/studies/<name>.yaml")] = "freezing",
    dataset: Dataset = "statefarm_mini",
    data: Data = None,
    weights: Weights = None,
) -> None:
    """Train a study's runs, as far as they are not finished, and write its table."""
    from driverwatch.steps.study import run_study

    run_study(_context(dataset, data), name, weights)


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

    context = _context(dataset, None, study)
    train_one_fold(context, run, fold, weights, _predict_settings(views, batch_size), workers, leash)


@app.command()
def predict(
    run: str, dataset: Dataset = "statefarm", views: str = "ten_crop", fold: Fold = None, batch_size: int = 20
) -> None:
    """Predict with a trained run under other views."""
    from driverwatch.steps.train import predict as step

    step(_context(dataset, None), run, _predict_settings(views, batch_size), fold)


@app.command()
def ensemble(
    models: Models = "",
    name: str | None = None,
    dataset: Dataset = "statefarm",
    data: Data = None,
    views: str | None = None,
    fold: Fold = None,
) -> None:
    """Average runs into a checked submission."""
    from driverwatch.steps.submit import make_ensemble

    chosen = None if views is None else _predict_settings(views, 1).views
    name = name or ("ensemble" if fold is None else f"ensemble-fold{fold}")
    make_ensemble(_context(dataset, data), models.split(), name, chosen, fold)


@app.command()
def submissions(models: Models = "", dataset: Dataset = "statefarm", data: Data = None) -> None:
    """Write every run's view sets and fold models as submissions."""
    from driverwatch.steps.submit import make_submissions

    make_submissions(_context(dataset, data), models.split())


@app.command()
def check(file: Path, dataset: Dataset = "statefarm", data: Data = None) -> None:
    """Check a submission file."""
    from driverwatch.steps.submit import check_submission

    check_submission(_context(dataset, data), file)


@app.command()
def submit(
    file: Path,
    message: Annotated[str, typer.Option(help="one line, shown on Kaggle and in the ledger")],
    dataset: Dataset = "statefarm",
    data: Data = None,
    client: Client = "",
    every: Annotated[float, typer.Option(min=0.1, help="seconds between two looks at Kaggle's list")] = 20,
    wait: Annotated[float, typer.Option(min=0, help="seconds to wait for the score")] = 1800,
    force: Force = False,
) -> None:
    """Upload a submission and note its score in the ledger."""
    from driverwatch.steps.upload import Patience
    from driverwatch.steps.upload import submit as step

    step(_context(dataset, data), file, message, client, Patience(every, wait), force)


@app.command()
def score(models: Models = "", dataset: Dataset = "statefarm", data: Data = None) -> None:
    """Print out-of-fold scores per run, view set, fold, driver and class."""
    from driverwatch.steps.score import print_scores

    print_scores(_context(dataset, data), models.split())


@app.command()
def convert(
    file: Path,
    model: Annotated[str, typer.Option(help="the backbone that it holds")],
    weights: Annotated[Path, typer.Option(help="folder that the weight file goes to")],
) -> None:
    """Make a weight file of a public PyTorch checkpoint."""
    from driverwatch.steps.convert import convert as step

    step(file, model, weights)


@app.command()
def classify(
    images: Annotated[list[Path], typer.Argument(help="photos, and folders of photos")],
    model: Annotated[str | None, typer.Option(help="a backbone, for ImageNet's classes")] = None,
    run: Annotated[str | None, typer.Option(help="a trained run, for the driver classes")] = None,
    dataset: Dataset = "statefarm",
    fold: Fold = None,
    weights: Weights = None,
    heatmap: Annotated[str | None, typer.Option(help="file, folder or pattern with {image} for overlays")] = None,
    label: Annotated[str | None, typer.Option("--class", help="class of the overlays; default: the likeliest")] = None,
    top: Annotated[int, typer.Option(min=1, help="classes to print")] = 5,
) -> None:
    """Print the likeliest classes of photos, and draw where they are seen."""
    from driverwatch.steps.classify import Request, classify_drivers, classify_imagenet

    request = Request(images, top, label, heatmap)
    if (model is None) == (run is None):
        got = "neither" if model is None else "both"
        raise InputError(
            f"classify: expected MODEL=<backbone> (ImageNet's classes) or RUN=<run> (the driver classes), got {got}"
        )
    if model is not None:
        classify_imagenet(request, model, weights)
    elif run is not None:
        classify_drivers(request, _context(dataset, None), run, fold)


@app.command()
def backbones() -> None:
    """Print the backbone table."""
    from driverwatch.steps.networks import print_backbones

    print_backbones()


@app.command()
def layers(model: str, overrides: Overrides = "") -> None:
    """Print a model's layers: blocks, shapes, parameters, what each stage freezes, where it may be cut."""
    from driverwatch.steps.networks import print_layers

    print_layers(model, overrides)


def main() -> None:
    """Run a verb; bad input is one sentence on stderr and exit status 2 (`DEBUG=1` in the environment shows the traceback)."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    try:
        app()
    except InputError as error:
        _refuse(str(error))
    except OSError as error:  # of a place that no artefact's writer watches over
        from driverwatch.writing import reason, way_out

        place = f"{error.filename}: " if error.filename else ""
        _refuse(f"{place}{reason(error)}; {way_out(error)}, and run again")
    except MemoryError:
        _refuse(
            "not enough memory; close other programs, or lower predict.batch_size, train.batch_size or the pack's size"
        )
    except SystemExit as end:
        if end.code == 130:  # Ctrl-C
            print("driverwatch: interrupted; the same command goes on", file=sys.stderr)
        _flush()
        raise
    except Exception as error:  # a file that was edited or damaged in a way not thought of, or a defect
        words = " ".join(str(error).split())[:200]
        _refuse(
            f"unexpected {type(error).__name__} ({words}); DEBUG=1 shows where. If no file was edited or damaged, this is a "
            "defect: please report it with what DEBUG=1 shows"
        )


def _flush() -> None:
    """Find a standard output that is full now: at the interpreter's end it would be a traceback and status 120."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _refuse(f"standard output: {error.strerror}; what was asked for is done or goes on with the same command")


def _refuse(sentence: str) -> NoReturn:
    if os.environ.get("DEBUG"):
        traceback.print_exc()
    print("driverwatch: " + "\n".join(printable(line, 2000) for line in sentence.split("\n")), file=sys.stderr)
    sys.exit(2)
