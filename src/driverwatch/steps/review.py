"""The review page: every photo beside what finished runs say of it, joined by image name and written as one file."""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from driverwatch.blend.chain import Rows
from driverwatch.blend.space import Near, Space
from driverwatch.errors import InputError
from driverwatch.report import review as numbers
from driverwatch.report.page import render
from driverwatch.report.review import Measures, Photos
from driverwatch.setting_types import WHOLE, ViewSet
from driverwatch.steps import spaces
from driverwatch.steps.context import Context
from driverwatch.steps.heat_maps import heat_maps
from driverwatch.steps.reviewed import Reviewed, jpeg, read_rows
from driverwatch.terminal import say
from driverwatch.wording import close
from driverwatch.writing import write_text

THUMBNAILS = (
    200  # photos at the head of each ranking that lie inside the page, some 5 kB each; the others are read from DATA
)
WIDTH = 160  # px of such a one
NEAR = 6  # neighbours of each photo: one row of pictures


def write_review(context: Context, names: list[str], views: ViewSet | None, features: str | None, count: int) -> Path:
    """Write the review page of runs (default: every finished one that has out-of-fold rows).

    Args:
        views: the view set that all runs are looked at with; None: each run's honest one.
        features: where neighbours are looked for; None: in the first features on disk that fit, if there are any.
        count: heat maps are made of as many photos at the head of each list; 0: none, and Keras is not started.

    Raises:
        InputError: runs that are not finished, not scored on folds, or of other photos; features or photos that are not there.
    """
    start, path = time.monotonic(), context.places.page("review")
    shown = read_rows(context, names, views)
    sets = numbers.measured(shown.train, shown.runs), numbers.measured(shown.test, shown.runs)
    said, near = _neighbours(context, shown, features)
    made = numbers.content(shown.train, shown.test, sets) | near
    made |= {"thumbnails": _thumbnails(shown, sets), "photos": _photos(context, path, shown)}
    made |= {"maps": heat_maps(context, shown, sets, count) if count else {}}
    classes = [[name, meaning] for name, meaning in context.settings.classes.items()]
    report = context.places.page("index")
    facts = {"dataset": context.dataset, "title": context.settings.title, "data": str(context.data)}
    facts |= {"report": report.name if report.is_file() else ""}
    used = {member.run.name: member.views for member in shown.members}
    write_text(
        path,
        render("review.html", **facts, views=used, content=made | {"classes": classes, "dataset": context.dataset}),
    )
    said = f"{len(shown.train.names)} training and {len(shown.test.names)} test photos, {', '.join(shown.runs)}, {said}"
    then = [f"make report DATASET={context.dataset}"]  # whose cells lead here
    close(
        path, f"{said}, {path.stat().st_size / 1e6:.1f} MB; open it in a browser", time.monotonic() - start, then=then
    )
    return path


def _neighbours(context: Context, shown: Reviewed, features: str | None) -> tuple[str, dict[str, Any]]:
    """What to say of neighbours, and for the page: their numbers among all its photos, and cosines."""
    space = _space(context, features)
    if space is None:
        return "no features built, so no neighbours", {"features": None}
    parts = [near_photos(space, photos) for photos in (shown.train, shown.test)]
    found = [parts[0].indices, np.where(parts[1].indices >= 0, parts[1].indices + len(shown.train.names), -1)]
    cosines = np.concatenate([part.similarities for part in parts]).astype(np.float64)
    shares = np.where(np.isfinite(cosines), (1 + cosines) / 2, 0)
    near = {
        "near": numbers.packed(np.concatenate(found).astype(np.int32)),
        "cosine": numbers.packed(numbers.quantised(shares)),
    }
    return f"neighbours by {space.what}", {"features": space.what, **near}


def near_photos(space: Space, photos: Photos) -> Near:
    """Each photo's `NEAR` nearest: of its own fold, where its own driver and the others that were held out with it are."""
    return space.near(Rows(photos.names, photos.members, photos.folds), NEAR)


def _space(context: Context, features: str | None) -> Space | None:
    if features is not None:
        return spaces.open_space(context, features)
    for text in spaces.built(context):
        try:
            return spaces.open_space(context, text)
        except InputError as error:
            say(f"left out: {error}")
    return None


def _thumbnails(shown: Reviewed, sets: tuple[Measures, Measures]) -> dict[int, str]:
    """Small JPEGs of the photos at the head of the lists, by their numbers on the page, out of the first run's packs."""
    regions = shown.members[0].run.settings.input.regions
    made, first = {}, 0
    for pack, photos, measures in zip(
        (shown.pack, shown.members[0].test), (shown.train, shown.test), sets, strict=True
    ):
        rows = {name: row for row, name in enumerate(pack.names)}
        for number in numbers.heads(measures, photos.names, THUMBNAILS):
            made[first + int(number)] = jpeg(_frame(pack.pixels[rows[photos.names[number]]], regions), WIDTH)
        first += len(photos.names)
    return made


def _frame(image: np.ndarray, regions: list[str]) -> np.ndarray:
    """Of a packed image, uint8 (R * H, W, 3), the whole frame, or where it holds none the first region."""
    height = image.shape[0] // len(regions)
    top = regions.index(WHOLE) * height if WHOLE in regions else 0
    return image[top : top + height]


def _photos(context: Context, page: Path, shown: Reviewed) -> dict[str, str | None]:
    """Where the page finds photos: the data folder as seen from the page, and where each set lies in it; None: nowhere."""
    settings, classes = context.settings, list(context.settings.classes)
    found: dict[str, str | None] = {"train": None, "test": None}
    for kind, photos, template in (
        ("train", shown.train, settings.train_images),
        ("test", shown.test, settings.test_images),
    ):
        first = [
            template.format(label=classes[max(0, photos.labels[i])], image=photos.names[i])
            for i in range(len(photos.names))[:1]
        ]
        if all((context.data / path).is_file() for path in first):
            found[kind] = template
        else:
            say(f"{context.data}: {first[0]} is not there, so the page shows {kind} photos small, and few; give DATA=")
    # lexically, as a browser follows it, which knows of no links between folders
    root = os.path.relpath(os.path.abspath(context.data), os.path.abspath(page.parent))  # noqa: PTH100
    return {**found, "root": Path(root).as_posix()}
