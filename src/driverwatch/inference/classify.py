"""`make classify`: the likeliest classes of images, ImageNet's or a run's, and overlays of where they are seen."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from driverwatch.config.backbones import BACKBONES
from driverwatch.config.loading import load
from driverwatch.config.model import ModelSettings
from driverwatch.data.context import CONFIGS, Context
from driverwatch.data.images import examine
from driverwatch.data.regions import split
from driverwatch.data.tta import Preprocessed, centre_square, centre_view
from driverwatch.errors import InputError, counted, listed, nearest, printable
from driverwatch.inference.overlay import overlay_regions, side_by_side, write_picture
from driverwatch.inference.predict_run import Asked, Recogniser, fold_models, recogniser
from driverwatch.io.console import say
from driverwatch.io.paths import walk
from driverwatch.io.prefetch import in_threads
from driverwatch.models import weight_files


@cache
def classes() -> dict[str, str]:
    """WordNet id: name, in the order of ILSVRC (Russakovsky et al. 2015, arXiv:1409.0575).

    Two names stand twice (`crane`, `maillot`); ids are unique.
    """
    text = (resources.files("driverwatch.inference") / "imagenet_classes.csv").read_text(encoding="utf-8")
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    return dict(line.split(",") for line in lines)


IMAGES = (".jpg", ".jpeg", ".png")
PICTURES = (".png", ".jpg", ".jpeg")  # what overlays may be written as


def image_files(images: list[Path]) -> list[Path]:
    """Files as they are named, and of folders every JPEG and PNG below, sorted; each once.

    Raises `InputError`: a folder without images.
    """
    found: dict[Path, None] = {}
    for path in images:
        inside = [path]
        if path.is_dir():
            inside = sorted(p for p in walk(path) if p.suffix.lower() in IMAGES and p.is_file())
            if not inside:
                raise InputError(f"IMAGE={path}: no image in this folder; expected {', '.join(IMAGES)} files")
        found |= dict.fromkeys(inside)
    return list(found)


def overlay_files(cam: str | None, images: list[Path], given: list[Path]) -> dict[Path, Path]:
    """Where each image's overlay goes: CAM=<file> for one image, a folder or a pattern with {image} for any number.

    Raises `InputError`: another kind of picture, a missing folder, one below the folders among `given`, where the next
    run would take it for an image, one file for several images, or an image as target.
    """
    if cam is None:
        return {}
    pattern = f"{cam}/{{image}}.png" if Path(cam).is_dir() else cam
    targets = {image: Path(pattern.replace("{image}", image.stem)) for image in images}
    owners: dict[Path, Path] = {}
    originals = {image.resolve() for image in images}
    for image, target in targets.items():
        if target.suffix.lower() not in PICTURES:
            raise InputError(f"CAM={cam}: expected a .png or .jpg file, or a folder that is there")
        if not target.parent.is_dir():
            raise InputError(f"CAM={cam}: no such folder as {target.parent}; make it first")
        if inside := [str(path) for path in given if path.is_dir() and path.resolve() in target.resolve().parents]:
            raise InputError(
                f"CAM={cam}: lies inside IMAGE={inside[0]}, and would be taken for an image; choose another"
            )
        if target.resolve() in originals:
            raise InputError(f"CAM={cam}: would be written over the image {target}; name another file or folder")
        if (other := owners.setdefault(target, image)) != image:
            raise InputError(
                f"CAM={cam}: {target} would be that of {other} and of {image}; name a folder, or a pattern like "
                "maps/{image}.png, for images of different names"
            )
    return targets


AT_ONCE = 64  # images between two passes over a run's fold models
AHEAD = 4  # images decoded ahead: each may have 150 MB


@dataclass(frozen=True)
class Request:
    """What is asked of every image."""

    images: list[Path]  # files and folders
    top: int  # classes to print, the likeliest first
    label: str | None  # the class of class activation maps: an id, a name or a number; None: each image's likeliest
    cam: str | None  # a file, a folder, or a pattern with {image}; None: no class activation maps


@dataclass(frozen=True)
class Judge:
    """Who answers: `classes` are id: name in output order, `see` cuts from an image what `networks` takes."""

    title: str
    classes: dict[str, str]
    see: Callable[[np.ndarray], Preprocessed]
    networks: Callable[[], Any]  # called once Keras is up; gives `inference.class_activation.Networks`
    recognise: Recogniser = lambda _: Asked()


class Shown(NamedTuple):
    """What the network is shown of an image, what is unusual of it, and who answers for it."""

    seen: Preprocessed
    traits: tuple[str, ...]
    asked: Asked


def classify_imagenet(request: Request, model: str | None, weights: Path | None) -> None:
    """Print ImageNet's classes.

    Raises `InputError`: no such model, or no weights of it.

    Args:
        model: a backbone, or a model's settings, which stand for their backbone; None: one whose weights are here.
    """
    model = model or next(weight_files.available(weights, whole=True), weight_files.PREFERRED)
    backbone = model if model in BACKBONES else load(ModelSettings, CONFIGS / "models", model).backbone

    def networks() -> Any:
        from driverwatch.inference.class_activation import imagenet_network

        return imagenet_network(backbone, weights)

    see = partial(centre_square, side=BACKBONES[backbone].native)
    _classify(request, Judge(f"{backbone}, ImageNet weights", classes(), see, networks))


def classify_drivers(request: Request, context: Context, name: str, fold: int | None) -> None:
    """Print the classes of a run: the mean of its finished fold models, or one fold's, each on the centre view.

    A labelled image is answered by the fold model that never saw its driver: the others were trained on it.
    """
    models = fold_models(context, name, fold)

    def networks() -> Any:
        from driverwatch.inference.class_activation import networks_of_run, resident
        from driverwatch.inference.engine import converts

        settings, count = models.run.settings, len(image_files(request.images))
        classes, mean, files = len(models.classes), models.mean, models.files
        if converts(settings.predict.engine, count):
            return resident(settings, classes, mean, files, count)
        return networks_of_run(settings, classes, mean, files)

    see = partial(centre_view, field=models.run.settings.input, boxes=models.boxes)
    _classify(request, Judge(models.title, models.classes, see, networks, recogniser(context, models)))


def _classify(request: Request, judge: Judge) -> None:
    """Answer for every image that can be read, then refuse the others, all at once."""
    from driverwatch.models import backend

    paths = image_files(request.images)
    targets = overlay_files(request.cam, paths, request.images)
    label = None if request.label is None else _index(request.label, judge.classes)
    invalid: list[str] = []
    networks: Any = None
    for sound in _seen(paths, judge, invalid):
        if networks is None:
            backend.start()
            networks = judge.networks()
            say(judge.title)
        _answer(request.top, judge, networks, sound, label, targets)
    if invalid:
        rest = "the others are classified above" if len(invalid) < len(paths) else "none could be classified"
        raise InputError(f"IMAGE: {counted(invalid)}; {rest}:{listed(invalid)}")


Sound = dict[Path, Shown]


def _seen(paths: list[Path], judge: Judge, invalid: list[str]) -> Iterator[Sound]:
    """Sound images, some at a time; invalid ones go to the list."""

    def look(path: Path) -> Shown | str:
        image = examine(path, None)
        if image.pixels is None:
            return f"{path}: {image.problem}"
        return Shown(judge.see(image.pixels), image.traits, judge.recognise(image.pixels))

    looked = zip(paths, in_threads(look, paths, AHEAD), strict=True)
    while chunk := list(islice(looked, AT_ONCE)):
        invalid += [shown for _, shown in chunk if isinstance(shown, str)]
        if sound := {path: shown for path, shown in chunk if isinstance(shown, Shown)}:
            yield sound


def _answer(top: int, judge: Judge, networks: Any, sound: Sound, label: int | None, targets: dict[Path, Path]) -> None:
    from driverwatch.inference.class_activation import probabilities

    images, asked = np.stack([s.seen.pixels for s in sound.values()]), [s.asked.places for s in sound.values()]
    for row, (path, shown) in zip(probabilities(networks, images, asked), sound.items(), strict=True):
        say("\n" + printable(str(path)) + (f" ({', '.join(shown.traits)})" if shown.traits else ""))
        say("\n".join([*(f"  {sentence}" for sentence in shown.asked.said), _table(row, judge.classes, top)]))
        if path in targets:
            number = int(row.argmax()) if label is None else label
            method = _draw(networks, path, shown, number, targets[path], _called(number, judge.classes))
            say(f"  {printable(str(targets[path]))}: {_called(number, judge.classes)}, by {method}")


def _draw(networks: Any, path: Path, shown: Shown, label: int, target: Path, called: str) -> str:
    """Write an image and, beside it, its overlay of the class `called`; return how the map was made."""
    from driverwatch.inference.class_activation import class_activation_map

    heat, method = class_activation_map(networks, shown.seen.pixels, label, shown.asked.places)
    image = examine(path, None).pixels  # read again: many images at their own size may not fit into memory
    if image is None:
        raise InputError(f"{path}: changed while it was classified; run the same command again")
    maps = split(heat[None], len(shown.seen.boxes))
    pictures = image, overlay_regions(image, maps, shown.seen.boxes)
    write_picture(side_by_side(pictures, (path.name, f"{called}, by {method}")), target)
    return method


def _table(row: np.ndarray, classes: dict[str, str], top: int) -> str:
    """The likeliest classes, in aligned columns: rank, id, name, probability."""
    best = np.argsort(-row, kind="stable")[:top]
    keys = list(classes)
    wide = [max(len(text) for text in column) for column in zip(*(list(classes.items())[i] for i in best), strict=True)]
    return "\n".join(
        f"{rank:4}  {keys[i]:{wide[0]}}  {classes[keys[i]]:{wide[1]}}  {row[i]:8.2%}"
        for rank, i in enumerate(best, start=1)
    )


def _called(label: int, classes: dict[str, str]) -> str:
    key, name = list(classes.items())[label]
    return name or key


def _index(wanted: str, classes: dict[str, str]) -> int:
    """The place of a class that is named by its id, its name or its number.

    Raises `InputError`: no such class, or a name that two have.
    """
    keys = list(classes)
    if wanted in classes:
        return keys.index(wanted)
    found = [i for i, name in enumerate(classes.values()) if wanted == name]
    if not found and wanted.isdecimal() and int(wanted) < len(keys):
        return int(wanted)
    if len(found) > 1:
        raise InputError(f"CLASS={wanted}: names {' and '.join(keys[i] for i in found)}; give one of these ids")
    if not found:
        known = [*keys, *filter(None, classes.values())]
        expected = ", ".join(keys) if len(keys) <= 20 else f"an id, a name or a number from 0 to {len(keys) - 1}"
        raise InputError(f"CLASS={wanted}: no such class; expected {expected}{nearest(wanted, known)}")
    return found[0]
