"""Where neighbours are looked for: features of all images from a pretrained trunk, computed once and opened by name."""

import time
from pathlib import Path
from typing import Any

import numpy as np

from driverwatch.artifacts import digest_of
from driverwatch.blend.space import Space
from driverwatch.data.pack import Pack
from driverwatch.ensemble_settings import Trunk, trunk_of
from driverwatch.errors import InputError
from driverwatch.inference import features
from driverwatch.listing import matching
from driverwatch.models import weights as weight_files
from driverwatch.setting_types import pixels
from driverwatch.settings import ModelSettings
from driverwatch.steps.context import CONFIGS, Context, open_packs
from driverwatch.terminal import say
from driverwatch.typed_yaml import load, parse
from driverwatch.vision.views import view_set
from driverwatch.wording import duration
from driverwatch.writing import locked

OTHER = "or name another model with FEATURES="  # there is no training from scratch here


def open_space(context: Context, text: str) -> Space:
    """Features that `make neighbours` computed, if they are of today's packs and settings.

    Those that are not there are computed first by a command that makes what it lacks.

    Raises:
        InputError: not there, damaged, or made from something else.
    """
    trunk = _trunk(text)
    settings, path = _settings(trunk), context.places.features / trunk.file
    _, packs = open_packs(context, settings.input.key)
    if context.maker is not None and not path.is_file():
        try:
            make_features(context, text, context.weights)
        except InputError as error:
            raise InputError(
                f"{path}: no such features; make neighbours FEATURES={text} computes them ({error})"
            ) from error
    found = features.read(path, _origin(settings, trunk, packs))
    return Space(found.names, found.array, text, found.contents)


def built(context: Context) -> list[str]:
    """Features that lie on disk, as `FEATURES=` names them; by the names of their files alone."""
    models = sorted((path.stem for path in matching(CONFIGS / "models", "*.yaml")), key=len, reverse=True)
    found = []
    for path in matching(context.places.features, "*.h5"):
        stem, _, grid = path.stem.rpartition("-")
        model = next((name for name in models if f"{stem}-".startswith(f"{name}-")), "")
        text = ":".join(filter(None, [model, stem[len(model) + 1 :], "" if grid == "1x1" else grid]))
        if model and _trunk(text).file == path.name:
            found.append(text)
    return found


def make_features(context: Context, text: str, weights: Path | None) -> None:
    """Compute a trunk's features of every training and test image, unless they are there.

    The trunk is the plain pretrained one, that no fold has trained: so that all images of all folds lie in one space, and
    no label had a say in it.
    """
    trunk, start = _trunk(text), time.monotonic()
    settings = _settings(trunk)
    _, packs = open_packs(context, settings.input.key)
    origin, path = _origin(settings, trunk, packs), context.places.features / trunk.file
    origin["weights"] = digest_of(weight_files.identity(settings, weights, OTHER))
    with locked(path.parent):
        try:
            features.read(path, origin)
        except InputError:
            parts = _computed(context, settings, trunk, packs, weights)
            names = np.concatenate([packs[kind].names for kind in ("train", "test")])
            features.write(path, names, parts, origin)
            megabytes, took = path.stat().st_size / 1e6, duration(time.monotonic() - start)
            say(f"{path}: {len(names)} images, {parts[0].shape[1]} features, {megabytes:,.1f} MB, made in {took}")


def _trunk(text: str) -> Trunk:
    try:
        return trunk_of(text)
    except ValueError as error:
        raise InputError(f"FEATURES={text}: {error}") from error


def _settings(trunk: Trunk) -> ModelSettings:
    """The model's settings with this cut; from scratch there is nothing to compare images by."""
    settings = load(ModelSettings, CONFIGS / "models", trunk.model)
    if settings.weights == "none":
        raise InputError(f"FEATURES={trunk.model}: expected pretrained weights, the model says weights: none")
    content = {**settings.model_dump(), "cut": trunk.cut or settings.cut}
    return parse(ModelSettings, content, f"FEATURES={trunk.model}:{trunk.cut}")


def _origin(settings: ModelSettings, trunk: Trunk, packs: dict[str, Pack]) -> dict[str, str]:
    field = settings.input.model_dump(exclude={"regions"})  # the packs' digests tell them
    made = {**settings.model_dump(include={"backbone", "cut", "mean"}), "input": field}
    decisive: list[Any] = [made, list(trunk.grid)]
    digests = {f"{kind}_pack": packs[kind].digest for kind in ("train", "test")}
    return {"settings": digest_of(decisive), **digests}


def _computed(
    context: Context, settings: ModelSettings, trunk: Trunk, packs: dict[str, Pack], weights: Path | None
) -> list[np.ndarray]:
    """Features of the training and the test images in the centre view, float32 (N, F) each."""
    from driverwatch.models import backend

    backend.start()
    from driverwatch.models.classifier import build
    from driverwatch.models.halves import Cut, Frozen
    from driverwatch.models.pooling import GridPooling
    from driverwatch.training.trunk_cache import TrunkCache, view_draw

    found = weight_files.find(settings, weights, OTHER)
    classifier = build(settings, len(context.settings.classes), packs["train"].mean, found)
    flat = len(classifier.trunk.output.shape) == 2 and trunk.grid == (1, 1)  # a dense layer's, with no places
    pool = None if flat else GridPooling(*trunk.grid, name="grid")
    cache = TrunkCache(context.places.trunks, Frozen(classifier, Cut(None, 0), pool), "float32")
    size = pixels(settings.input.size)
    centre = view_set("centre", pixels(settings.input.pack), size)[0]
    draw = view_draw(centre, size, len(settings.input.regions))
    return [cache.outputs(packs[kind], draw, f"{trunk.file}, {kind}").array for kind in ("train", "test")]
