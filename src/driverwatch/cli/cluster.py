"""Several machines as one."""

from pathlib import Path
from typing import Annotated

import typer

from driverwatch.cli.options import PATH, Dataset, Fold, Views, predict_settings

app = typer.Typer()


@app.command()
def node(
    address: Annotated[
        str | None, typer.Option(help="of the first machine, with its port; default: is the first")
    ] = None,
    ip: Annotated[str | None, typer.Option(help="by which other machines reach this one")] = None,
    port: Annotated[int, typer.Option(help="that the first machine listens at")] = 6379,
    cpus: Annotated[int | None, typer.Option(min=1, help="cores that it lends; default: all")] = None,
    folder: Annotated[
        Path | None, typer.Option(**PATH, help="of its own for what it is brought; then none is shared")
    ] = None,
) -> None:
    """Lend this machine to a cluster until Ctrl-C."""
    from driverwatch.cluster.start import start

    start(address, ip, port, cpus, folder)


@app.command(hidden=True)
def predict_part(
    run: Annotated[str, typer.Option()],
    part: Annotated[int, typer.Option(help="counted from 0")],
    parts: Annotated[int, typer.Option(help="in all")],
    leash: Annotated[int, typer.Option(help="pipe that closes when nobody waits any more")],
    dataset: Dataset = "statefarm",
    views: Views = "ten_crop",
    fold: Fold = None,
    batch_size: int = 20,
    study: str | None = None,
) -> None:
    """A part of what `predict` predicts, as shards that it takes over; a cluster calls it."""
    from driverwatch.cli.options import context_of
    from driverwatch.steps.predict_parts import predict_part as step

    context = context_of(dataset, None, study)
    step(context, run, predict_settings(views, batch_size), fold, (part, parts), leash)
