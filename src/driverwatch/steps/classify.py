"""Photos to class names: ImageNet's of a published network, or the driver classes of a trained run; and heat maps over them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from driverwatch.backbones import BACKBONES
from driverwatch.data.photos import examine
from driverwatch.data.threads import in_threads
from driverwatch.errors import InputError, counted, listed, nearest, printable
from driverwatch.inference.field import Seen, centre_square, centre_view
from driverwatch.models import imagenet
from driverwatch.settings import ModelSettings
from driverwatch.steps.context import CONFIGS, Context
from driverwatch.steps.fold_models import fold_models
from driverwatch.steps.photo_files import overlay_files, photo_files
from driverwatch.terminal import say
from driverwatch.typed_yaml import load
from driverwatch.vision.mosaic import split
from driverwatch.vision.overlay import overlay_regions, write_picture

AT_ONCE = 64  # photos between two passes over a run's fold models
AHEAD = 4  # photos decoded ahead: each may have 150 MB


@dataclass(frozen=True)
class Request:
    """What is asked of every photo."""

    images: list[Path]  # files and folders
    top: int  # classes to print, the likeliest first
    label: str | None  # the class of heat maps: an id, a name or a number; None: each photo's likeliest
    heatmap: str | None  # a file, a folder, or a pattern with {image}; None: no heat maps


@dataclass(frozen=True)
class Judge:
    """Who answers: `classes` are id: name in output order, `see` cuts from a photo what `networks` takes."""

    title: str
    classes: dict[str, str]
    see: Callable[[np.ndarray], Seen]
    networks: Callable[[], Any]  # called once Keras is up; gives `inference.classify.Networks`


def classify_imagenet(request: Request, model: str, weights: Path | None) -> None:
    """Print ImageNet's classes: `model` is a backbone, or names a model's settings and stands for its backbone."""
    backbone = model if model in BACKBONES else load(ModelSettings, CONFIGS / "models", model).backbone

    def networks() -> Any:
        from driverwatch.inference.classify import imagenet as whole

        return whole(backbone, weights)

    see = partial(centre_square, side=BACKBONES[backbone].native)
    _classify(request, Judge(f"{backbone}, ImageNet weights", imagenet.classes(), see, networks))


def classify_drivers(request: Request, context: Context, name: str, fold: int | None) -> None:
    """Print the classes of a run: the mean of its finished fold models, or one fold's, each on the centre view.

    Of a photo that the run was trained on, all fold models but one have seen the driver.
    """
    models = fold_models(context, name, fold)

    def networks() -> Any:
        from driverwatch.inference.classify import fold_models as loaded

        return loaded(models.run.settings, len(models.classes), models.mean, models.files)

    see = partial(centre_view, field=models.run.settings.input, boxes=models.boxes)
    _classify(request, Judge(models.title, models.classes, see, networks))


def _classify(request: Request, judge: Judge) -> None:
    """Answer for every photo that can be read, then refuse the others, all at once."""
    paths = photo_files(request.images)
    targets = overlay_files(request.heatmap, paths, request.images)
    label = None if request.label is None else _index(request.label, judge.classes)
    broken: list[str] = []
    networks: Any = None
    for sound in _seen(paths, judge.see, broken):
        if networks is None:
            networks = _started(judge)
        _answer(request.top, judge, networks, sound, label, targets)
    if broken:
        rest = "the others are classified above" if len(broken) < len(paths) else "none could be classified"
        raise InputError(f"IMAGE: {counted(broken)}; {rest}:{listed(broken)}")


def _started(judge: Judge) -> Any:
    from driverwatch.models import backend

    backend.start()
    networks = judge.networks()
    say(judge.title)
    return networks


Sound = dict[Path, tuple[Seen, tuple[str, ...]]]


def _seen(paths: list[Path], see: Callable[[np.ndarray], Seen], broken: list[str]) -> Iterator[Sound]:
    """Sound photos, some at a time, as the network is shown them, with what is unusual; broken ones go to the list."""

    def look(path: Path) -> tuple[Seen | None, tuple[str, ...], str | None]:
        photo = examine(path, None)
        return (None if photo.pixels is None else see(photo.pixels)), photo.traits, photo.problem

    looked = zip(paths, in_threads(look, paths, AHEAD), strict=True)
    while chunk := list(islice(looked, AT_ONCE)):
        broken += [f"{path}: {problem}" for path, (seen, _, problem) in chunk if seen is None]
        if sound := {path: (seen, traits) for path, (seen, traits, _) in chunk if seen is not None}:
            yield sound


def _answer(top: int, judge: Judge, networks: Any, sound: Sound, label: int | None, targets: dict[Path, Path]) -> None:
    from driverwatch.inference.classify import probabilities

    rows = probabilities(networks, np.stack([seen.pixels for seen, _ in sound.values()]))
    for row, (path, (seen, traits)) in zip(rows, sound.items(), strict=True):
        say("\n" + printable(str(path)) + (f" ({', '.join(traits)})" if traits else ""))
        say(_table(row, judge.classes, top))
        if path in targets:
            shown = int(row.argmax()) if label is None else label
            method = _draw(networks, path, seen, shown, targets[path])
            say(f"  {printable(str(targets[path]))}: {_called(shown, judge.classes)}, by {method}")


def _draw(networks: Any, path: Path, seen: Seen, label: int, target: Path) -> str:
    """Write a photo's overlay; return how the map was made."""
    from driverwatch.inference.classify import heat_map

    heat, method = heat_map(networks, seen.pixels, label)
    photo = examine(path, None).pixels  # read again: many photos at their own size may not fit into memory
    if photo is None:
        raise InputError(f"{path}: changed while it was classified; run the same command again")
    maps = split(heat[None], len(seen.boxes))
    write_picture(overlay_regions(photo, maps, seen.boxes), target)
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

    Raises:
        InputError: no such class, or a name that two have.
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
