"""What commands have in common: options, and what they open with them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from driverwatch.errors import InputError
from driverwatch.io.paths import user_path, user_text

PATH: dict[str, Any] = {"parser": user_path, "metavar": "PATH"}  # of every option and argument that is a path
Dataset = Annotated[str, typer.Option(help="names configs/datasets/<name>.yaml")]
Data = Annotated[Path | None, typer.Option(**PATH, help="where the data set's files lie on this machine")]
Weights = Annotated[Path | None, typer.Option(**PATH, help="folder of local ImageNet weights")]
Overrides = Annotated[str, typer.Option("--set", help='changed settings, like "train.epochs=3"')]
Force = Annotated[bool, typer.Option(help="replace what is there")]
SkipBroken = Annotated[bool, typer.Option(help="resume without invalid images and table rows, and record them")]
Fold = Annotated[int | None, typer.Option(help="one fold alone")]
CLIENT = "the Kaggle client; default: the one make installs, or on PATH"
Client = Annotated[str, typer.Option(parser=user_text, metavar="PATH", envvar="KAGGLE", help=CLIENT)]
Submission = Annotated[Path, typer.Argument(**PATH, help="a submission, <name>.csv")]
Tta = Annotated[str, typer.Option(help="TTA sets, separated by spaces")]
Engine = Annotated[str | None, typer.Option(help="ray: as tasks on a cluster; default: here, one after the other")]
Address = Annotated[str | None, typer.Option(help="of the cluster; auto: this machine's; default: this machine alone")]
Gpus = Annotated[float | None, typer.Option(min=0, help="GPUs of a task; default: 1 where there are any")]
Cpus = Annotated[
    int | None, typer.Option(min=1, help="cores of a task; default: a machine's, by GPU where there are any")
]
Memory = Annotated[float, typer.Option(min=0, help="GB kept free for a task")]
Models = Annotated[str, typer.Option(help="runs, separated by spaces; default: every finished one")]


def context_of(dataset: str, data: Path | None, study: str | None = None) -> Any:
    """Of a command that only looks, or whose packs make has made by then."""
    from driverwatch.data.context import open_context

    return open_context(dataset, data, study)


def making(dataset: str, data: Path | None, study: str | None = None, weights: Path | None = None) -> Any:
    """The same of a command that makes the packs and features that it needs and that are not there."""
    from dataclasses import replace

    def pack(context: Any, size: str) -> None:
        from driverwatch.data.prepare import pack_missing

        pack_missing(context, size)

    return replace(context_of(dataset, data, study), maker=pack, weights=weights)


def model_settings(model: str, overrides: str) -> Any:
    """The `ModelSettings` of `configs/models/<model>.yaml`, changed by `SET=`. Raises `InputError` where these are invalid."""
    from driverwatch.config.loading import load
    from driverwatch.config.model import ModelSettings
    from driverwatch.data.context import CONFIGS

    return load(ModelSettings, CONFIGS / "models", model, overrides)


def predict_settings(tta: str, batch_size: str, overrides: str = "") -> Any:
    """Those of `make predict`, with overrides of `predict.` alone: what a run was trained with stays."""
    from driverwatch.config.loading import overridden, parse
    from driverwatch.config.model import PredictSettings

    if other := [each for each in overrides.split() if not each.startswith("predict.")]:
        raise InputError(f"SET={other[0]}: expected predict.<setting>=<value>; a run keeps what it was trained with")
    crops = int(batch_size) if batch_size.isdecimal() else batch_size
    content = {"predict": {"tta": tta.split(), "batch_size": crops}}
    where = f'SET="{overrides}"' if overrides.strip() else "TTA"
    return parse(PredictSettings, overridden(content, overrides)["predict"], where)


def cluster_options(
    engine: str | None, address: str | None, gpus: float | None, cpus: int | None, memory: float
) -> Any:
    """Which cluster is meant, and what a task takes; None: this machine, as ever.

    Raises:
        InputError: an unknown engine, or options of a cluster without one.
    """
    if engine not in (None, "local", "ray"):
        raise InputError(f"ENGINE={engine}: expected ray (a cluster, docs/how-to/cluster.md) or local")
    if engine != "ray":
        asked = {"ADDRESS": address, "GPUS_PER_FOLD": gpus, "CPUS_PER_FOLD": cpus, "MEMORY_PER_FOLD": memory or None}
        if given := [f"{key}={value}" for key, value in asked.items() if value is not None]:
            raise InputError(f"{' '.join(given)}: is for ENGINE=ray; add that, or leave it out")
        return None
    from driverwatch.remote.ray_cluster import Options

    return Options(address, gpus, cpus, int(memory * 2**30))


def changes_of(
    blend: str | None, class_balance: str | None, knn: str | None, calibrate: str | None, clip: str | None
) -> dict[str, Any]:
    """Keys of `PipelineSettings` that were given; a clip that reads as a number is one, features `none` are none."""
    try:
        level: float | str | None = None if clip is None else float(clip)
    except ValueError:
        level = clip
    given = {"blend": blend, "calibrate": calibrate, "clip": level}
    changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if class_balance is not None:
        changes["class_balance"] = None if class_balance == "none" else class_balance
    if knn is not None:
        changes["knn"] = None if knn == "none" else {"embeddings": knn}
    return changes


def numbers(name: str, text: str) -> list[int]:
    """Whole numbers separated by spaces.

    Raises:
        InputError: none, or something else among them.
    """
    words = text.split()
    if not words or not all(word.isascii() and word.isdigit() for word in words):
        raise InputError(f'{name}={text}: expected whole numbers separated by spaces, like "3 6 10"')
    return [int(word) for word in words]


def one_tta_set(tta: str | None) -> Any:
    """The TTA set that a run takes part with; None: each run's default."""
    if tta is None:
        return None
    chosen = predict_settings(tta, "1").tta
    if len(chosen) > 1:
        raise InputError(f"TTA={tta}: expected one TTA set here, got {len(chosen)}; several are for make predict")
    return chosen[0]
