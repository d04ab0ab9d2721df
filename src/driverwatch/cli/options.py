"""What verbs have in common: options, and what they open with them."""

from pathlib import Path
from typing import Annotated, Any

import typer

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
Views = Annotated[str, typer.Option(help="view sets, separated by spaces")]
Models = Annotated[str, typer.Option(help="runs, separated by spaces; default: every finished one")]


def context_of(dataset: str, data: Path | None, study: str | None = None) -> Any:
    from driverwatch.steps.context import open_context

    return open_context(dataset, data, study)


def model_settings(model: str, overrides: str) -> Any:
    from driverwatch.settings import ModelSettings
    from driverwatch.steps.context import CONFIGS
    from driverwatch.typed_yaml import load

    return load(ModelSettings, CONFIGS / "models", model, overrides)


def predict_settings(views: str, batch_size: int) -> Any:
    from driverwatch.settings import PredictSettings
    from driverwatch.typed_yaml import parse

    return parse(PredictSettings, {"views": views.split(), "batch_size": batch_size}, "VIEWS")


def changes_of(
    blend: str | None, balance: str | None, neighbours: str | None, calibrate: str | None, clip: str | None
) -> dict[str, Any]:
    """Keys of `ChainSettings` that were given; a clip that reads as a number is one, features `none` are none."""
    try:
        level: float | str | None = None if clip is None else float(clip)
    except ValueError:
        level = clip
    given = {"blend": blend, "calibrate": calibrate, "clip": level}
    changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if balance is not None:
        changes["balance"] = None if balance == "none" else balance
    if neighbours is not None:
        changes["neighbours"] = None if neighbours == "none" else {"features": neighbours}
    return changes


def one_view_set(views: str) -> Any:
    """The view set that a run takes part with."""
    from driverwatch.errors import InputError

    chosen = predict_settings(views, 1).views
    if len(chosen) > 1:
        raise InputError(f"VIEWS={views}: expected one view set here, got {len(chosen)}; several are for make predict")
    return chosen[0]
