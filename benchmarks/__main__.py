"""`make bench` and `make profile`: `python -m benchmarks bench|profile`, bad input is one sentence, as everywhere."""

from typing import Annotated

import typer

from benchmarks import suite
from benchmarks.workload import Bench, Request
from driverwatch.cli.main import main
from driverwatch.cli.options import Data, Dataset, Overrides, Weights, context_of, model_settings

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)
Images = Annotated[int, typer.Option(help="images to measure with, if there are so many")]
Repeat = Annotated[int, typer.Option(help="repetitions that are timed, 3 or more")]


@app.command()
def bench(
    benchmarks: Annotated[
        str, typer.Option(help="rows, separated by spaces; default: all but end_to_end and growth")
    ] = "",
    dataset: Dataset = "demo",
    data: Data = None,
    model: Annotated[str, typer.Option(help="whose network and sizes")] = "mobilenet_v2_96x128",
    overrides: Overrides = "",
    images: Images = 1000,
    repeat: Repeat = 3,
    full: Annotated[bool, typer.Option(help="sizes of the whole competition")] = False,
    docs: Annotated[bool, typer.Option(help="put the table into docs/dev/benchmarks.md")] = False,
    weights: Weights = None,
) -> None:
    """Measure the pipeline beside baselines and limits, a ratio a row."""
    suite.chosen(benchmarks.split())  # a wrong name ends here
    asked = Request(images, repeat, full)
    suite.run(_bench(dataset, data, model, overrides, asked, weights), benchmarks.split(), docs)


@app.command()
def profile(
    model: str,
    dataset: Dataset = "demo",
    data: Data = None,
    overrides: Overrides = "",
    images: Images = 1000,
    repeat: Repeat = 3,
) -> None:
    """Say where the time of a training step of a model goes."""
    from benchmarks.train import profile as step

    step(_bench(dataset, data, model, overrides, Request(images, repeat)))


def _bench(dataset: str, data: Data, model: str, overrides: str, asked: Request, weights: Weights = None) -> Bench:
    return Bench(context_of(dataset, data), model, model_settings(model, overrides), asked, weights)


if __name__ == "__main__":
    main(app)
