"""Commands around it: status and pages, backbones, single images, exports, and training on other machines."""

from pathlib import Path
from typing import Annotated, Any

import typer

from driverwatch.cli import options
from driverwatch.errors import InputError
from driverwatch.io.paths import user_paths, user_text

app = typer.Typer()


@app.command()
def status(
    dataset: options.Dataset = "statefarm",
    data: options.Data = None,
    as_json: Annotated[bool, typer.Option("--json", help="the same as JSON")] = False,
) -> None:
    """Show what there is: images, folds, packs, every run and fold, submissions; what is stale, and why."""
    from driverwatch.report.status import print_status

    print_status(options.context_of(dataset, data), as_json)


@app.command()
def review(
    models: options.Models = "",
    dataset: options.Dataset = "statefarm",
    data: options.Data = None,
    tta: Annotated[str | None, typer.Option(help="one TTA set for all; default: each run's honest one")] = None,
    embeddings: Annotated[
        str | None, typer.Option(help="where neighbours are looked for; default: the first built that fit")
    ] = None,
    n_cams: Annotated[int, typer.Option(min=0, help="of so many images of most loss and entropy; starts Keras")] = 0,
    weights: options.Weights = None,
) -> None:
    """Write a page to look through images by loss, disagreement and entropy."""
    from driverwatch.report.review_page import write_review

    chosen = options.one_tta_set(tta)
    write_review(options.making(dataset, data, weights=weights), models.split(), chosen, embeddings, n_cams)


@app.command()
def trace(
    image: Annotated[str, typer.Argument(help="an image's name in the data set's tables, or its path")],
    models: options.Models = "",
    name: Annotated[
        str | None, typer.Option(help="the submission whose pipeline is followed; default: the least loss out of fold")
    ] = None,
    dataset: options.Dataset = "statefarm",
    data: options.Data = None,
) -> None:
    """Show one image's way through the line, as far as it is built: table, fold, pack, models, pipeline, submissions."""
    from driverwatch.report.trace_image import trace_image

    trace_image(options.context_of(dataset, data), image, models.split(), name)


@app.command()
def backbones(
    model: Annotated[str | None, typer.Argument(help="one backbone, with all its facts")] = None,
    weights: options.Weights = None,
) -> None:
    """Print the backbone table, or all of one row."""
    from driverwatch.models.describe import print_backbone, print_backbones

    print_backbones(weights) if model is None else print_backbone(model, weights)


@app.command()
def layers(model: str, overrides: options.Overrides = "") -> None:
    """Print a model's layers: blocks, shapes, parameters, what each stage freezes, where it may be cut."""
    from driverwatch.models.describe import print_layers

    print_layers(model, overrides)


@app.command()
def convert(
    file: Annotated[Path, typer.Argument(**options.PATH, help="a public PyTorch checkpoint")],
    model: Annotated[str, typer.Option(help="the backbone that it holds")],
    weights: Annotated[Path, typer.Option(**options.PATH, help="folder that the weight file goes to")],
) -> None:
    """Make a weight file of a public PyTorch checkpoint."""
    from driverwatch.models.convert_torch import convert as step

    step(file, model, weights)


@app.command()
def classify(
    images: Annotated[list[str], typer.Argument(metavar="PATH...", help="images, patterns of them, and folders")],
    model: Annotated[
        str | None, typer.Option(help="a backbone, for ImageNet's classes; default: one whose weights are here")
    ] = None,
    run: Annotated[str | None, typer.Option(help="a trained run, for the driver classes")] = None,
    dataset: options.Dataset = "statefarm",
    data: options.Data = None,
    fold: options.Fold = None,
    weights: options.Weights = None,
    cam: Annotated[
        str | None,
        typer.Option(parser=user_text, metavar="PATH", help="file, folder or pattern with {image} for overlays"),
    ] = None,
    label: Annotated[str | None, typer.Option("--class", help="class of the overlays; default: the likeliest")] = None,
    top: Annotated[int, typer.Option(min=1, help="classes to print")] = 5,
) -> None:
    """Print the likeliest classes of images, and draw where they are seen."""
    from driverwatch.inference.classify import Request, classify_drivers, classify_imagenet

    request = Request([path for text in images for path in user_paths(text)], top, label, cam)
    if model is not None and run is not None:
        raise InputError(
            "classify: expected MODEL=<backbone> (ImageNet's classes) or RUN=<run> (the driver classes), got both"
        )
    if run is None:
        classify_imagenet(request, model, weights)
    else:
        classify_drivers(request, options.making(dataset, data), run, fold)


@app.command()
def export(
    run: str,
    dataset: options.Dataset = "statefarm",
    data: options.Data = None,
    fold: options.Fold = None,
    file: Annotated[
        Path | None,
        typer.Option(**options.PATH, help="a .keras, .onnx, .xml or .tflite file; default: in build/<dataset>/export"),
    ] = None,
    form: Annotated[str | None, typer.Option("--format", help="keras, onnx, openvino or litert")] = None,
    force: options.Force = False,
) -> None:
    """Write a run's fold models as one file that loads without this project."""
    from driverwatch.inference.export import export as step

    step(options.making(dataset, data), run, fold, file, force, form)


@app.command()
def serve(
    run: str,
    dataset: options.Dataset = "statefarm",
    data: options.Data = None,
    fold: options.Fold = None,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="of 127.0.0.1; 0: any that is free")] = 8000,
) -> None:
    """Show a page on this machine that takes an image and answers with probabilities and a class activation map."""
    from driverwatch.report.serve import serve as step

    step(options.making(dataset, data), run, fold, port)


@app.command()
def notebook(
    model: str,
    dataset: options.Dataset = "statefarm",
    data: options.Data = None,
    run: str | None = None,
    overrides: options.Overrides = "",
    weights: options.Weights = None,
    tta: Annotated[str, typer.Option(help="more TTA sets to predict once it is trained")] = "",
    hours: Annotated[
        float | None, typer.Option(help="of the session's 12 until it stops by itself; default: 11")
    ] = None,
    account: Annotated[str | None, typer.Option(help="your name in Kaggle's addresses; default: the token's")] = None,
    name: Annotated[str | None, typer.Option(help="of the notebook; default: driverwatch-<run>")] = None,
    resume_from: Annotated[str, typer.Option(help="notebooks (<account>/<name>) whose output it resumes from")] = "",
    packages: Annotated[str | None, typer.Option(help="that Kaggle's image lacks; default: simplejpeg")] = None,
    vendor: Annotated[bool, typer.Option(help="take their wheels along, for sessions without internet")] = False,
    machine: Annotated[str | None, typer.Option(help="Kaggle's name of the accelerator")] = None,
    kaggle_weights: Annotated[
        str, typer.Option(help="data set on Kaggle (<account>/<name>) whose weight files the session takes")
    ] = "",
) -> None:
    """Write a notebook that trains a model on Kaggle or Colab, and the data set that it needs."""
    from driverwatch.remote.kaggle_notebook import make_notebook

    plan: dict[str, Any] = {"dataset": dataset, "model": model, "run": run or model, "overrides": overrides, "tta": tta}
    plan |= {"weights_from": kaggle_weights, "hours": hours}
    up: dict[str, Any] = {"account": account, "name": name, "machine": machine, "vendor": vendor}
    up |= {"earlier": resume_from.split(), "packages": None if packages is None else packages.split()}
    plan, up = ({key: value for key, value in each.items() if value is not None} for each in (plan, up))
    make_notebook(options.context_of(dataset, data), options.model_settings(model, overrides), plan, up, weights)


@app.command()
def import_runs(
    source: Annotated[Path, typer.Argument(**options.PATH, help="a run's folder, or one that holds runs")],
    dataset: options.Dataset = "statefarm",
    data: options.Data = None,
    run: Annotated[str | None, typer.Option(help="one of the runs there")] = None,
    force: options.Force = False,
) -> None:
    """Check runs that were trained elsewhere, and import them beside those here."""
    from driverwatch.remote.import_runs import import_runs

    import_runs(options.making(dataset, data), source, run, force)


@app.command()
def node(
    address: Annotated[
        str | None, typer.Option(help="of the first machine, with its port; default: is the first")
    ] = None,
    ip: Annotated[str | None, typer.Option(help="by which other machines reach this one")] = None,
    port: Annotated[int, typer.Option(help="that the first machine listens at")] = 6379,
    cpus: Annotated[int | None, typer.Option(min=1, help="cores that it lends; default: all")] = None,
    folder: Annotated[
        Path | None, typer.Option(**options.PATH, help="for copies of the asking machine's files; then none is shared")
    ] = None,
) -> None:
    """Lend this machine to a cluster until Ctrl-C."""
    from driverwatch.remote.ray_cluster import start_node

    start_node(address, ip, port, cpus, folder)


@app.command()
def card(name: str, dataset: options.Dataset = "statefarm", data: options.Data = None) -> None:
    """Write a submission's model card, and the three files that Kaggle asks winners for."""
    from driverwatch.submission.card import write_card

    write_card(options.context_of(dataset, data), name)


@app.command()
def report(dataset: options.Dataset = "statefarm", data: options.Data = None) -> None:
    """Write one HTML page of whatever is built: scores, confusions, learning curves, ablations, folds, settings."""
    from driverwatch.report.report_page import write_report

    write_report(options.context_of(dataset, data))
