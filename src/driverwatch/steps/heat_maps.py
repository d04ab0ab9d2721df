"""Heat maps of many photos at once, for the review page: each by models that have not seen its driver."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from driverwatch.blend.ensemble import Member
from driverwatch.data.photos import examine
from driverwatch.errors import InputError
from driverwatch.inference.field import Seen, centre_view
from driverwatch.report import review as numbers
from driverwatch.report.review import Measures
from driverwatch.steps.context import Context
from driverwatch.steps.fold_models import channel_mean
from driverwatch.steps.reviewed import Reviewed, jpeg
from driverwatch.terminal import track
from driverwatch.vision.mosaic import FRAME, Box, split
from driverwatch.vision.overlay import overlay_regions

WIDTH = 240  # px of a map on the page


@dataclass(eq=False)
class Asked:
    """A photo by its number on the page, the classes and fold models that its maps are of, and their sums so far."""

    number: int
    path: Path
    labels: list[int]  # what the run says first, then the true one where it is known and another
    folds: list[int]
    sums: dict[int, np.ndarray] = field(default_factory=dict)
    method: str = ""


def heat_maps(
    context: Context, shown: Reviewed, sets: tuple[Measures, Measures], count: int
) -> dict[int, list[dict[str, Any]]]:
    """Each run's maps of the `count` training photos of most loss and test photos of most entropy, by number on the page.

    A training photo's are by the fold model that held its driver out, a test photo's are the mean over all fold models.

    Raises:
        InputError: a photo or weights that are not there, or damaged.
    """
    from driverwatch.models import backend

    backend.start()
    made: dict[int, list[dict[str, Any]]] = {}
    for place, member in enumerate(shown.members):
        for each in _of_run(context, member, asked(context, shown, sets, count, place)):
            made.setdefault(each["number"], []).append(each)
    return made


def asked(context: Context, shown: Reviewed, sets: tuple[Measures, Measures], count: int, place: int) -> list[Asked]:
    """What the run at a place of the page is to draw."""
    judge, settings, classes = place - len(shown.members), context.settings, list(context.settings.classes)
    found = []
    for number in numbers.ranking(sets[0].losses[0], shown.train.names)[:count]:
        label, said = int(shown.train.labels[number]), int(sets[0].said[judge, number])
        path = settings.train_images.format(label=classes[label], image=shown.train.names[number])
        labels = list(dict.fromkeys([said, label]))
        found.append(Asked(int(number), context.data / path, labels, [int(shown.train.folds[number])]))
    for number in numbers.ranking(sets[1].entropies[0], shown.test.names)[:count]:
        path = settings.test_images.format(image=shown.test.names[number])
        labels, folds = [int(sets[1].said[judge, number])], list(range(shown.folds.count))
        found.append(Asked(len(shown.train.names) + int(number), context.data / path, labels, folds))
    return found


def _of_run(context: Context, member: Member, wanted: list[Asked]) -> list[dict[str, Any]]:
    """One fold's weights at a time: its maps of all photos that it is asked for."""
    from driverwatch.inference.classify import fold_models
    from driverwatch.inference.heatmap import heat

    run = member.run
    files = (
        [run.verify(fold) for fold in range(1 + max(fold for each in wanted for fold in each.folds))] if wanted else []
    )
    boxes = tuple(Box(*corners) for corners in run.regions.values()) or (FRAME,)
    seen = {each.number: centre_view(_photo(each.path), run.settings.input, boxes) for each in wanted}
    networks = fold_models(run.settings, len(run.classes), channel_mean(context, run), files)
    total = sum(len(each.folds) for each in wanted)
    pairs = ((each, network) for fold, network in enumerate(networks()) for each in wanted if fold in each.folds)
    for each, network in track(pairs, total, f"heat maps, {run.name}", "photos"):
        for label in each.labels:
            made, each.method = heat(network, seen[each.number].pixels, label)
            each.sums[label] = each.sums.get(label, 0) + made
    return [_drawn(run.name, each, label, seen[each.number]) for each in wanted for label in each.labels]


def _drawn(run: str, each: Asked, label: int, seen: Seen) -> dict[str, Any]:
    """An entry of the page's data; the mean over folds and their sum are one picture, since colours are relative."""
    overlaid = overlay_regions(_photo(each.path), split(each.sums[label][None], len(seen.boxes)), seen.boxes)
    facts = {"number": each.number, "run": run, "label": label, "by": each.method, "folds": each.folds}
    return {**facts, "picture": jpeg(overlaid, WIDTH)}


def _photo(path: Path) -> np.ndarray:
    found = examine(path, None)
    if found.pixels is None:
        raise InputError(f"{path}: {found.problem}; heat maps need the photos: give DATA=, or leave out HEATMAPS=")
    return found.pixels
