"""What experiments found, as JSON by data set in the repository; pages are written from it, and never read back."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field

from driverwatch.artifacts import Places, provenance, read_json
from driverwatch.metrics import FLOOR
from driverwatch.typed_yaml import Strict, parse
from driverwatch.writing import write_json, write_text

Number = Annotated[float, Field(strict=False)]  # JSON writes a whole one without its point
Interval = Annotated[list[Number], Field(min_length=2, max_length=2)]  # low, high
Change = Annotated[list[Number], Field(min_length=3, max_length=3)]  # a mean difference of losses, and its interval


class Record(Strict):
    """What every experiment says of the photos that it is of."""

    dataset: str
    images: int
    drivers: int
    folds: int
    clip: Number = FLOOR  # lowest probability under its log losses
    made: dict[str, Any] | None = None  # what wrote it; null where nobody kept that


class Lever(Strict):
    """A row of the table of levers; minutes are those of its new runs, on the machine that trained them."""

    kind: str
    lever: str
    command: str
    before: Number
    after: Number
    change: Change
    minutes: Number
    kept: bool
    why: str
    commits: list[str]


class Unmeasured(Strict):
    lever: str
    reason: str


class LeversRecord(Record):
    rows: list[Lever]
    unmeasured: list[Unmeasured]


class CurvePoint(Strict):
    """Losses of a recipe on so many drivers a fold (mean over folds); the change is against the point before."""

    drivers: Number
    images: Number
    log_loss: Number
    interval: Interval
    change: Change | None


class CurveRecord(Record):
    model: str
    views: str
    fold_file: str  # digest, or its beginning
    commits: list[str]
    points: list[CurvePoint]
    exponent: Number
    exponent_interval: Interval
    at_twice_as_many: Change  # log loss by the power law, and its interval


class StudyRow(Strict):
    """A network frozen to some depth; the change is against its features alone, None of these themselves."""

    network: str
    depth: str
    learns: Number  # million weights
    log_loss: Number
    interval: Interval
    change: Change | None
    accuracy: Number
    seconds: Number  # of CPU, an epoch


class StudyRecord(Record):
    name: str
    fold_file: str
    commits: list[str]
    rows: list[StudyRow]


R = TypeVar("R", bound=Record)


def read_record(kind: type[R], path: Path) -> R | None:
    """A record; None where there is none.

    Raises:
        InputError: it is not whole, or of another version.
    """
    return parse(kind, read_json(path), str(path)) if path.is_file() else None


def write_record(path: Path, record: R, page: Callable[[R], str]) -> Path:
    """Write a record to `path`, and its page, which is returned, beside it."""
    write_json(path, record.model_dump())
    beside = path.with_suffix(".md")
    write_text(beside, page(record))
    return beside


def begun(places: Places, images: int, drivers: int, folds: int) -> dict[str, Any]:
    """What `Record` asks for."""
    return {"dataset": places.dataset, "images": images, "drivers": drivers, "folds": folds, "made": provenance()}


def change(change: list[float] | None) -> str:
    """`-0.149 (-0.316 to -0.010)`."""
    return "" if change is None else "{:+.3f} ({:+.3f} to {:+.3f})".format(*change)
