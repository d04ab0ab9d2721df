"""How fast the line is."""

from typing import Annotated, Any

import typer

from driverwatch.cli.options import Data, Dataset, Overrides, context_of, model_settings

app = typer.Typer()
Images = Annotated[int, typer.Option(help="photos to measure with, if there are so many")]
Repeat = Annotated[int, typer.Option(help="repetitions that are timed, 3 or more")]


@app.command()
def bench(
    rows: Annotated[str, typer.Option(help="rows, separated by spaces; default: all but growth")] = "",
    dataset: Dataset = "drawn",
    data: Data = None,
    model: Annotated[str, typer.Option(help="whose network and sizes")] = "mobilenet_v2_96x128",
    overrides: Overrides = "",
    images: Images = 1000,
    repeat: Repeat = 3,
    full: Annotated[bool, typer.Option(help="sizes of the whole competition")] = False,
    docs: Annotated[bool, typer.Option(help="put the table into docs/performance.md")] = False,
) -> None:
    """Measure the line beside rivals and limits, a ratio a row."""
    from driverwatch.bench.suite import chosen, run

    chosen(rows.split())  # a wrong name ends here
    run(_bench(dataset, data, model, overrides, (images, repeat, full)), rows.split(), docs)


@app.command()
def profile(
    model: str,
    dataset: Dataset = "drawn",
    data: Data = None,
    overrides: Overrides = "",
    images: Images = 1000,
    repeat: Repeat = 3,
) -> None:
    """Say where the time of a training step of a model goes."""
    from driverwatch.bench.profile import profile as step

    step(_bench(dataset, data, model, overrides, (images, repeat, False)))


def _bench(dataset: str, data: Data, model: str, overrides: str, asked: tuple[int, int, bool]) -> Any:
    from driverwatch.bench.material import Bench, Request

    return Bench(context_of(dataset, data), model, model_settings(model, overrides), Request(*asked))
