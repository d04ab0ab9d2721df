"""`make review`: a page to look through images by loss, disagreement and entropy, with class activation maps (CAM) on demand."""

import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from driverwatch.config.types import TtaSet, pixels
from driverwatch.data.context import Context
from driverwatch.data.folds import FoldTable
from driverwatch.data.images import examine
from driverwatch.data.regions import FRAME, Box, split
from driverwatch.data.tta import Preprocessed, centre_view, cut_all
from driverwatch.ensemble import embeddings
from driverwatch.ensemble import members as blending
from driverwatch.ensemble.embedding_index import EmbeddingIndex, Neighbours
from driverwatch.ensemble.members import Member, finished_runs
from driverwatch.ensemble.transform import MemberPredictions
from driverwatch.errors import InputError
from driverwatch.inference.overlay import overlay_regions
from driverwatch.inference.predict_run import channel_mean
from driverwatch.inference.predictions import default_tta_of, predicted_tta
from driverwatch.io.atomic import write_text
from driverwatch.io.console import close, say, track
from driverwatch.io.csv_tables import read_csv
from driverwatch.io.html import data_uri, inline, jpeg_uri, render
from driverwatch.io.manifests import checksum_of
from driverwatch.io.paths import plain_name
from driverwatch.report import review_measures as measures
from driverwatch.report.example_images import whole_frame
from driverwatch.report.review_measures import JPEG_QUALITY, Measures, Reviewed, ReviewImages, ranking

CAM_WIDTH_PX = 24  # of a map, which the browser stretches over the image: networks' own have some 7 cells across


@dataclass(eq=False)
class MapRequest:
    """An image by its index on the page, the classes and fold models that its maps are of, and their sums so far."""

    number: int
    path: Path
    labels: list[int]  # the run's prediction first, then the true class where it is known and another; then all others
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
    from driverwatch.inference.class_activation import heat, heats, is_linear, networks_of_run

    run = member.run
    last = max((fold for each in wanted for fold in each.folds), default=-1)
    files = [run.verify(fold) for fold in range(last + 1)]
    boxes = tuple(Box(*corners) for corners in run.regions.values()) or (FRAME,)
    seen = {each.number: centre_view(_pixels(each.path), run.settings.input, boxes) for each in wanted}
    networks = networks_of_run(run.settings, len(run.classes), channel_mean(context, run), files)
    total = sum(len(each.folds) for each in wanted)
    pairs = ((each, network) for fold, network in enumerate(networks()) for each in wanted if fold in each.folds)
    for each, network in track(pairs, total, f"class activation maps, {run.name}", "images"):
        pixels = seen[each.number].pixels
        if is_linear(network):
            each.method = "class activation"
            each.labels += [label for label in range(len(run.classes)) if label not in each.labels]
            made = heats(network, pixels, each.labels)
        else:
            made, (each.method, *_) = zip(*(heat(network, pixels, label) for label in each.labels), strict=True)
        for label, one in zip(each.labels, made, strict=True):
            each.sums[label] = each.sums.get(label, 0) + one
    return [_entry(run.name, each, label, seen[each.number]) for each in wanted for label in each.labels]


def _entry(run: str, each: MapRequest, label: int, seen: Preprocessed) -> dict[str, Any]:
    """An entry of the page's data; the mean over folds and their sum are one picture, since colours are relative."""
    maps = split(each.sums[label][None], len(seen.boxes))
    height, width = _pixels(each.path).shape[:2]
    size = max(1, round(CAM_WIDTH_PX * height / width)), CAM_WIDTH_PX, 3
    facts = {"number": each.number, "run": run, "label": label, "by": each.method, "folds": each.folds}
    return {**facts, "picture": data_uri(_veil(maps, seen.boxes, size), "image/png")}


def _veil(maps: np.ndarray, boxes: tuple[Box, ...], size: tuple[int, ...]) -> bytes:
    """The overlay of maps without the image below it, as a PNG: what it does to black and to white says how dense it is."""
    black, white = (overlay_regions(np.full(size, shade, np.uint8), maps, boxes).astype(float) for shade in (0, 255))
    density = 1 - (white - black).mean(axis=2, keepdims=True) / 255
    colours = np.divide(black, density, out=np.zeros(size), where=density > 0.01)
    veil = np.concatenate([colours[..., ::-1], 255 * density], axis=2)
    return cv2.imencode(".png", np.clip(veil.round(), 0, 255).astype(np.uint8))[1].tobytes()


def _pixels(path: Path) -> np.ndarray:
    """An image file, uint8 RGB (H, W, 3)."""
    found = examine(path, None)
    if found.pixels is None:
        way_out = "class activation maps need the images: give DATA=, or leave out N_CAMS="
        raise InputError(f"{path}: {found.problem}; {way_out}")
    return found.pixels


THUMBNAILS = 200  # images at the head of each ranking inside the page, some 5 kB each; others are read from DATA
WIDTH_PX = 160  # of a thumbnail
OWN, FEW = "own", 5_000  # EMBEDDINGS= of the first run itself; images for which they are computed without being asked
PIECE = 256  # images that are cut at a time
NEAR = 6  # neighbours of each image: one row of pictures


def write_review(
    context: Context, names: list[str], tta: TtaSet | None, features: str | None, count: int, last: bool = True
) -> Path:
    """Write the review page of runs (default: every finished one that has out-of-fold predictions), and return its path.

    Args:
        tta: the TTA set of all runs; None: each run's default.
        features: the embeddings by which neighbours are found; None: the first ones on disk that fit, if there are any.
        count: class activation maps are made of as many images at the head of each list; 0: none, and Keras is not started.
        last: whether the command ends with this page, and says so.

    Raises:
        InputError: runs that are not finished, not scored on folds, or of other images; missing embeddings or images.
    """
    start, path = time.monotonic(), context.places.page("review")
    shown = read_predictions(context, names, tta)
    sets = shown.measured()
    knn, near = _knn(context, shown, features)
    content = measures.content(shown.train, shown.test, sets) | near
    content |= {"thumbnails": _thumbnails(shown, sets), "images": _addresses(context, path, shown)}
    content |= {"maps": class_activation_maps(context, shown, sets, count) if count else {}}
    content |= {"doubted": _doubted(context, shown.train.names)}
    content |= {"classes": list(map(list, context.settings.classes.items())), "dataset": context.dataset}
    report, used = context.places.page("index"), {member.run.name: member.tta for member in shown.members}
    facts = {"dataset": context.dataset, "title": context.settings.title, "data": str(context.data), "tta": used}
    write_text(path, render("review.html", content=content, report=report.name, made_of=_made_of(shown), **facts))
    words = f"{len(shown.train.names)} training and {len(shown.test.names)} test images, {', '.join(shown.runs)}, {knn}"
    words += f", {path.stat().st_size / 1e6:.1f} MB; open it in a browser"
    if last:
        then = [] if report.is_file() else [f"make report DATASET={context.dataset}"]
        close(path, words, time.monotonic() - start, then=then)
    return path


def keep_review(context: Context) -> Path:
    """The review page of all finished runs, written again unless it was made from what is there now. Raises as `write_review`."""
    path, doubted = context.places.page("review"), context.places.label_issues
    shown = read_predictions(context, [], None)
    is_there = path.is_file() and f'content="{_made_of(shown)}"' in path.read_text("utf-8")[:4096]
    if is_there and not (doubted.is_file() and doubted.stat().st_mtime_ns > path.stat().st_mtime_ns):
        return path
    return write_review(context, [], None, None, 0, last=False)


def _doubted(context: Context, names: np.ndarray) -> list[int]:
    """Indices of the images `names` (N,) on the list that `make label-issues` wrote; none where there is no list."""
    path, column = context.places.label_issues, context.settings.columns.image
    listed: list[str] = read_csv(path, [column])[column].tolist() if path.is_file() else []
    return [number for number, name in enumerate(names.astype(str)) if name in listed]


def _made_of(shown: Reviewed) -> str:
    """A checksum of a page's runs, their weights and its templates."""
    folds, templates = shown.folds.count, ("review.js", "review_rows.js", "review.css", "style.css")
    weights = [m.run.checksums(range(m.run.settings.train.splits.models(folds))) for m in shown.members]
    members = [[m.run.name, m.tta, each] for m, each in zip(shown.members, weights, strict=True)]
    return checksum_of([members, *map(inline, templates)])


def read_predictions(context: Context, names: list[str], tta: TtaSet | None) -> Reviewed:
    """Read what runs predicted. Arguments and errors as of `write_review`."""
    finished = finished_runs(context, names)
    members = []
    for run, test in zip(finished.runs, finished.tests, strict=True):
        member = Member(run, test, tta or default_tta_of(run))
        problem = _problem(member, finished.folds.count)
        if problem is None or (names and blending.oof_of_member(run)):  # reading a named run's predictions refuses it
            members.append(member)
        elif names:
            raise InputError(f"{problem}; leave it out of MODELS=")
        else:
            say(f"left out: {problem}")
    if not members:
        raise InputError(
            f"{context.places.runs}: no finished run has out-of-fold predictions to review; make train MODEL=... trains one"
        )
    rows, pack = blending.oof_of_members(members, finished.train, finished.folds), finished.train
    train = measures.sorted_images(rows.names, pack.labels, pack.drivers, rows.sets, rows.members)
    return Reviewed(members, pack, finished.folds, train, _test_images(members, finished.folds))


def _problem(member: Member, folds: int) -> str | None:
    """Why a run cannot be reviewed under its TTA set; None: it can."""
    run = member.run
    if not blending.oof_of_member(run):
        return f"{run.folder}: no out-of-fold predictions to review: {run.settings.train.splits.unscored}"
    if member.tta not in predicted_tta(run, folds):
        return f"{run.folder}: not every fold has predicted {member.tta}; make predict RUN={run.name} TTA={member.tta} does"
    return None


def _test_images(members: list[Member], folds: FoldTable) -> ReviewImages:
    """The mean probabilities of each run's fold models for the test images that every run's pack holds."""
    each = []
    for member in members:
        fits = list(range(member.run.settings.train.splits.models(folds.count)))
        names = [*member.test.names, *member.test.left_out.names]
        each.append(blending.test_of_members([member], names, [fits]))
    listed = [rows.names.astype(str) for rows in each]
    common = reduce(np.intersect1d, listed, listed[0])  # sorted, also of a single run
    if left := len(set().union(*listed)) - len(common):
        say(f"left out: {left} test images that not every run's pack holds")
    places = [np.intersect1d(names, common, return_indices=True)[1] for names in listed]
    chosen = np.stack([rows.members[0][place] for rows, place in zip(each, places, strict=True)])
    unknown = np.full(len(common), -1)
    return measures.sorted_images(common, unknown, np.full(len(common), ""), unknown, chosen)


def _knn(context: Context, shown: Reviewed, features: str | None) -> tuple[str, dict[str, Any]]:
    """What to print of neighbours, and for the page: their indices among all its images, and cosines."""
    space = _space(context, shown, features)
    if space is None:
        return "no embeddings, so no neighbours", {"features": None}
    train, test = (nearest_images(space, images) for images in (shown.train, shown.test))
    indices = [train.indices, np.where(test.indices >= 0, test.indices + len(shown.train.names), -1)]
    cosines = np.concatenate([train.similarities, test.similarities]).astype(np.float64)
    shares = np.where(np.isfinite(cosines), (1 + cosines) / 2, 0)
    near = measures.packed_array(np.concatenate(indices).astype(np.int32))
    cosine = measures.packed_array(measures.quantise(shares))
    return f"neighbours by {space.what}", {"features": space.what, "near": near, "cosine": cosine}


def nearest_images(space: EmbeddingIndex, images: ReviewImages) -> Neighbours:
    """Each image's `NEAR` nearest of its own fold, which has its own driver and those held out together with it."""
    return space.near(MemberPredictions(images.names, images.members, images.folds), NEAR)


def _space(context: Context, shown: Reviewed, features: str | None) -> EmbeddingIndex | None:
    if features not in (None, OWN):
        return embeddings.open_embeddings(context, str(features))
    for text in embeddings.built(context) if features is None else []:
        try:
            return embeddings.open_embeddings(context, text)
        except InputError as error:
            say(f"left out: {error}")
    if features == OWN or len(shown.train.names) + len(shown.test.names) <= FEW:
        try:
            return _own_space(context, shown)
        except (InputError, OSError) as error:
            if features == OWN:
                raise
            say(f"left out: {shown.runs[0]}'s own embeddings ({error})")
    return None


def _own_space(context: Context, shown: Reviewed) -> EmbeddingIndex:
    """The first run's embeddings: a training image's by the model that held its driver out, a test image's by fold 0's.

    Only images of one fold are compared, and test images with each other: each lies in the space of one model.
    """
    member, what = shown.members[0], f"the embeddings of {shown.runs[0]}"
    run, path = member.run, context.places.build / "report" / f"{plain_name(shown.runs[0], 'RUN')}.h5"
    files = [run.verify(fold) for fold in range(shown.folds.count)]
    origin = {"run": checksum_of([run.checksums(range(shown.folds.count)), run.packs])}
    with suppress(InputError):
        found = embeddings.read(path, origin)
        return EmbeddingIndex(found.names, found.array, what, found.contents)
    from driverwatch.models import backend

    backend.start()
    from driverwatch.inference.class_activation import embeddings as of_images
    from driverwatch.inference.class_activation import networks_of_run

    fold_of, names, parts = dict(shown.folds.of_driver), list[np.ndarray](), list[np.ndarray]()
    networks = networks_of_run(run.settings, len(run.classes), channel_mean(context, run), files)
    for fold, network in enumerate(networks()):
        if network.features is None:
            raise InputError(f"{run.name}: its backbone ends without a map of features")
        held_out = np.flatnonzero([fold_of[driver] == fold for driver in shown.pack.drivers])
        for pack, rows in [(shown.pack, held_out)] + [(member.test, np.arange(len(member.test.names)))] * (fold == 0):
            for start in range(0, len(rows), PIECE):
                field, piece = run.settings.input, rows[start : start + PIECE]
                views = cut_all(pack.pixels[piece], "centre", pixels(field.size), len(field.regions))[0]
                names, parts = [*names, pack.names[piece]], [*parts, of_images(network, views)]
    embeddings.write(path, np.concatenate(names), parts, origin)
    return EmbeddingIndex(np.concatenate(names), np.concatenate(parts), what)


def _thumbnails(shown: Reviewed, sets: tuple[Measures, Measures]) -> dict[int, str]:
    """Small JPEGs of the images at the head of the lists, by their index on the page, out of the first run's packs."""
    regions = shown.members[0].run.settings.input.regions
    parts = ((shown.pack, shown.train), (shown.members[0].test, shown.test))
    made, first = {}, 0
    for (pack, images), measured in zip(parts, sets, strict=True):
        index = {name: place for place, name in enumerate(pack.names)}
        for number in measures.heads(measured, images.names, THUMBNAILS):
            frame = whole_frame(pack.pixels[index[images.names[number]]], regions)
            made[first + int(number)] = jpeg_uri(frame, WIDTH_PX, JPEG_QUALITY)
        first += len(images.names)
    return made


def _addresses(context: Context, page: Path, shown: Reviewed) -> dict[str, str | None]:
    """Where the page finds images: the data folder relative to the page, and each set's template below it; None: nowhere."""
    settings, classes = context.settings, list(context.settings.classes)
    found: dict[str, str | None] = {"train": None, "test": None}
    sets = ("train", shown.train, settings.train_images), ("test", shown.test, settings.test_images)
    for kind, images, template in sets:
        pairs = zip(images.labels[:1], images.names[:1], strict=True)
        first = [template.format(label=classes[max(0, label)], image=name) for label, name in pairs]
        if all((context.data / path).is_file() for path in first):
            found[kind] = template
        else:
            say(f"{context.data}: {first[0]} is not there, so the page shows {kind} images small, and few; give DATA=")
    # lexically, as a browser follows it, which knows of no links between folders
    root = os.path.relpath(os.path.abspath(context.data), os.path.abspath(page.parent))  # noqa: PTH100
    return {**found, "root": Path(root).as_posix()}
