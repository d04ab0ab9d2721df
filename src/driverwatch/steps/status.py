"""What there is of a data set and how far each run is. Imports no Keras, TensorFlow or pandas."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from driverwatch.errors import InputError
from driverwatch.steps import status_made, status_places, status_runs
from driverwatch.steps.context import Context, going_on, predict_command
from driverwatch.steps.status_made import MadeState
from driverwatch.steps.status_places import Folds, Kept, PackState, Photos
from driverwatch.steps.status_runs import RunState

T = TypeVar("T")


@dataclass(frozen=True)
class Status:
    """All that `make status` tells; `broken` are problems of what belongs to no line of its own."""

    dataset: str
    photos: Photos
    folds: Folds
    packs: list[PackState]
    runs: list[RunState]
    submissions: list[MadeState]
    taught: list[MadeState]
    features: list[Kept]
    trunks: Kept
    free_gigabytes: float
    broken: list[str]
    next: str | None
    others: list[str]  # data sets that have runs here, too

    def as_json(self) -> str:
        return json.dumps(asdict(self), indent=2, ensure_ascii=False)


def status(context: Context) -> Status:
    """Look at everything once."""
    broken: list[str] = []
    folds = status_places.folds(context)
    packs = status_places.packs(context, folds)
    runs = status_runs.all_runs(context, folds, packs)
    own = {run.name: run for run in runs if run.study is None}
    made = _tried(broken, lambda: status_made.submissions(context, folds, own))
    facts: dict[str, Any] = {"photos": status_places.photos(context), "folds": folds, "packs": packs, "runs": runs}
    facts |= {"submissions": made, "taught": status_made.taught(context, folds, own)}
    facts |= {"features": status_places.features(context, packs), "trunks": status_places.trunks(context)}
    free = status_places.free_gigabytes(context)
    facts |= {"next": next_command(context, **facts), "others": status_places.others(context)}
    return Status(context.dataset, **facts, free_gigabytes=free, broken=broken)


def _tried(broken: list[str], look: Callable[[], list[T]]) -> list[T]:
    try:
        return look()
    except InputError as error:
        broken.append(str(error))
        return []


def next_command(
    context: Context, photos: Photos, folds: Folds, runs: list[RunState], submissions: list[MadeState], **_: object
) -> str | None:
    """What the first thing that is missing on the way to a submission is made by; None: nothing is missing."""
    dataset = f"DATASET={context.dataset}"
    if folds.digest is None:
        step = "folds" if photos.problem is None else "sample" if context.settings.truth else "data"
        return f"make {step} {dataset}"
    own = [run for run in runs if run.study is None and not run.problems]
    for run in own:
        if not run.finished and run.writer is None and not run.stale:
            return f"make train {dataset} {going_on(run.name)}"
    if not own:
        return f"make train {dataset} MODEL=mobilenet_v2"
    for run in own:
        if run.finished and not run.stale and not run.views:
            return predict_command(context.dataset, run.name)
    sound = [made for made in submissions if made.problem is None and not made.stale]
    if not sound and any(run.finished and not run.stale for run in own):
        return f"make ensemble {dataset}"
    if sound and context.settings.slug and not any(made.uploads for made in submissions):
        scored = [made for made in sound if made.log_loss is not None]
        best = min(scored or sound, key=lambda made: made.log_loss or 0.0)
        return f'make submit {dataset} FILE={context.places.submission(best.name)} MESSAGE="..."'
    return f"make report {dataset}" if sound and not context.places.page("index").is_file() else None
