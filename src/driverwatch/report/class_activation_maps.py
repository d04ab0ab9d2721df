"""Class activation maps (CAM) for the review page: of many images, each by models that have not seen its driver."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from driverwatch.blend.ensemble import Member
from driverwatch.data.photos import examine
from driverwatch.errors import InputError
from driverwatch.inference.field import Seen, centre_view
from driverwatch.io.html import jpeg_uri
from driverwatch.report.review_measures import JPEG_QUALITY, Measures, Reviewed, ranking
from driverwatch.steps.context import Context
from driverwatch.steps.fold_models import channel_mean
from driverwatch.terminal import track
from driverwatch.vision.mosaic import FRAME, Box, split
from driverwatch.vision.overlay import overlay_regions

WIDTH_PX = 240  # of a map on the page


@dataclass(eq=False)
class MapRequest:
    """An image by its index on the page, the classes and fold models that its maps are of, and their sums so far."""

    number: int
    path: Path
    labels: list[int]  # the run's prediction first, then the true class where it is known and another
    folds: list[int]
    sums: dict[int, np.ndarray] = field(default_factory=dict)
    method: str = ""


def class_activation_maps(
    context: Context, shown: Reviewed, sets: tuple[Measures, Measures], count: int
) -> dict[int, list[dict[str, Any]]]:
    """Each run's maps of the `count` training images of most loss and test images of most entropy, by index on the page.

    A training image's maps are by the model that held its driver out, a test image's are the mean over all fold models.

    Raises:
        InputError: an image or weights that are missing or damaged.
    """
    from driverwatch.models import backend

    backend.start()
    made: dict[int, list[dict[str, Any]]] = {}
    for place, member in enumerate(shown.members):
        for each in _of_run(context, member, requests(context, shown, sets, count, place)):
            made.setdefault(each["number"], []).append(each)
    return made


def requests(
    context: Context, shown: Reviewed, sets: tuple[Measures, Measures], count: int, place: int
) -> list[MapRequest]:
    """The maps that the run at a place of the page is to make."""
    judge, settings, classes = place - len(shown.members), context.settings, list(context.settings.classes)
    found = []
    for number in ranking(sets[0].losses[0], shown.train.names)[:count]:
        label, predicted = int(shown.train.labels[number]), int(sets[0].said[judge, number])
        path = settings.train_images.format(label=classes[label], image=shown.train.names[number])
        labels = list(dict.fromkeys([predicted, label]))
        found.append(MapRequest(int(number), context.data / path, labels, [int(shown.train.folds[number])]))
    for number in ranking(sets[1].entropies[0], shown.test.names)[:count]:
        path = settings.test_images.format(image=shown.test.names[number])
        labels, folds = [int(sets[1].said[judge, number])], list(range(shown.folds.count))
        found.append(MapRequest(len(shown.train.names) + int(number), context.data / path, labels, folds))
    return found


def _of_run(context: Context, member: Member, wanted: list[MapRequest]) -> list[dict[str, Any]]:
    """One fold's weights at a time: its maps of all images that it is asked for."""
    from driverwatch.inference.classify import fold_models
    from driverwatch.inference.heatmap import heat

    run = member.run
    last = max((fold for each in wanted for fold in each.folds), default=-1)
    files = [run.verify(fold) for fold in range(last + 1)]
    boxes = tuple(Box(*corners) for corners in run.regions.values()) or (FRAME,)
    seen = {each.number: centre_view(_pixels(each.path), run.settings.input, boxes) for each in wanted}
    networks = fold_models(run.settings, len(run.classes), channel_mean(context, run), files)
    total = sum(len(each.folds) for each in wanted)
    pairs = ((each, network) for fold, network in enumerate(networks()) for each in wanted if fold in each.folds)
    for each, network in track(pairs, total, f"class activation maps, {run.name}", "images"):
        for label in each.labels:
            made, each.method = heat(network, seen[each.number].pixels, label)
            each.sums[label] = each.sums.get(label, 0) + made
    return [_entry(run.name, each, label, seen[each.number]) for each in wanted for label in each.labels]


def _entry(run: str, each: MapRequest, label: int, seen: Seen) -> dict[str, Any]:
    """An entry of the page's data; the mean over folds and their sum are one picture, since colours are relative."""
    overlaid = overlay_regions(_pixels(each.path), split(each.sums[label][None], len(seen.boxes)), seen.boxes)
    facts = {"number": each.number, "run": run, "label": label, "by": each.method, "folds": each.folds}
    return {**facts, "picture": jpeg_uri(overlaid, WIDTH_PX, JPEG_QUALITY)}


def _pixels(path: Path) -> np.ndarray:
    """An image file, uint8 RGB (H, W, 3)."""
    found = examine(path, None)
    if found.pixels is None:
        raise InputError(
            f"{path}: {found.problem}; class activation maps need the images: give DATA=, or leave out HEATMAPS="
        )
    return found.pixels
