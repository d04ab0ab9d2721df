"""Embeddings on disk: a pretrained backbone's features of every image, by name, with checksums of what made them."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from driverwatch.config.ensemble import EmbeddingSource, embedding_source
from driverwatch.config.loading import load, parse
from driverwatch.config.model import ModelSettings
from driverwatch.config.types import pixels
from driverwatch.data.context import CONFIGS, Context, open_packs
from driverwatch.data.pack import Pack
from driverwatch.data.tta import tta_set
from driverwatch.ensemble.embedding_index import EmbeddingIndex
from driverwatch.errors import InputError
from driverwatch.inference.predictions import NamedArrays, bytes_of, read_named_arrays, write_named_arrays
from driverwatch.io.atomic import locked
from driverwatch.io.console import duration, say
from driverwatch.io.hdf5 import opened
from driverwatch.io.manifests import checksum_of, require_space
from driverwatch.io.paths import matching
from driverwatch.models import weight_files


def checksum(path: Path) -> str | None:
    """The checksum of a file of features as it states it, without reading them; None where there is no whole one."""
    try:
        with opened(path) as file:
            return str(file.attrs["contents"])
    except (OSError, LookupError, ValueError, TypeError, AttributeError):
        return None


def read(path: Path, origin: dict[str, str]) -> NamedArrays:
    """Embeddings made from what is expected (the keys given in `origin`). Raises as `read_named_arrays`."""
    return read_named_arrays(path, "features", origin, "feature", "run make knn")


def write(path: Path, names: np.ndarray, parts: Sequence[np.ndarray], origin: dict[str, str]) -> None:
    """Write embeddings float32 (N, F), in `parts`, of images named (N,). Raises `InputError` where there is too little space."""
    require_space(path.parent, bytes_of(parts), path.name, "choose a coarser grid")
    write_named_arrays(path, "features", names, parts, origin)


OTHER = "or name another model with EMBEDDINGS="  # there is no training from scratch here


def open_embeddings(context: Context, text: str) -> EmbeddingIndex:
    """Features that `make knn` computed, if they are of today's packs and settings.

    Those that are not there are computed first by a command that makes what it lacks.

    Raises `InputError`: not there, damaged, or made from something else.
    """
    backbone = _backbone(text)
    settings, path = _settings(backbone), context.places.embeddings / backbone.file
    _, packs = open_packs(context, context.packs_for_embeddings(settings.input.key))
    if context.maker is not None and not path.is_file():
        try:
            make_embeddings(context, text, context.weights)
        except InputError as error:
            raise InputError(f"{path}: no such features; make knn EMBEDDINGS={text} computes them ({error})") from error
    found = read(path, _origin(settings, backbone, packs))
    return EmbeddingIndex(found.names, found.array, text, found.contents)


def built(context: Context) -> list[str]:
    """Features that lie on disk, as `EMBEDDINGS=` names them; by the names of their files alone."""
    models = sorted((path.stem for path in matching(CONFIGS / "models", "*.yaml")), key=len, reverse=True)
    found = []
    for path in matching(context.places.embeddings, "*.h5"):
        stem, _, grid = path.stem.rpartition("-")
        model = next((name for name in models if f"{stem}-".startswith(f"{name}-")), "")
        text = ":".join(filter(None, [model, stem[len(model) + 1 :], "" if grid == "1x1" else grid]))
        if model and _backbone(text).file == path.name:
            found.append(text)
    return found


def make_embeddings(context: Context, text: str, weights: Path | None) -> None:
    """Compute a backbone's features of every training and test image, unless they are there.

    The backbone is the plain pretrained one, that no fold has trained: so that all images of all folds are in one space, and
    no label had a say in it.
    """
    backbone, start = _backbone(text), time.monotonic()
    settings = _settings(backbone)
    _, packs = open_packs(context, context.packs_for_embeddings(settings.input.key))
    origin, path = _origin(settings, backbone, packs), context.places.embeddings / backbone.file
    origin["weights"] = checksum_of(weight_files.identity(settings, weights, OTHER))
    with locked(path.parent):
        try:
            read(path, origin)
        except InputError:
            parts, computed_by = _computed(context, settings, backbone, packs, weights)
            names = np.concatenate([packs[kind].names for kind in ("train", "test")])
            write(path, names, parts, origin | {"engine": computed_by})  # stated, not asked for: a file has one engine
            megabytes, took = path.stat().st_size / 1e6, duration(time.monotonic() - start)
            say(f"{path}: {len(names)} images, {parts[0].shape[1]} features, {megabytes:,.1f} MB, made in {took}")


def _backbone(text: str) -> EmbeddingSource:
    try:
        return embedding_source(text)
    except ValueError as error:
        raise InputError(f"EMBEDDINGS={text}: {error}") from error


def _settings(backbone: EmbeddingSource) -> ModelSettings:
    """The model's settings with this cut; from scratch there is nothing to compare images by."""
    settings = load(ModelSettings, CONFIGS / "models", backbone.model)
    if settings.weights == "none":
        raise InputError(f"EMBEDDINGS={backbone.model}: expected pretrained weights, the model says weights: none")
    content = {**settings.model_dump(), "truncate_at": backbone.cut or settings.truncate_at}
    return parse(ModelSettings, content, f"EMBEDDINGS={backbone.model}:{backbone.cut}")


def _origin(settings: ModelSettings, backbone: EmbeddingSource, packs: dict[str, Pack]) -> dict[str, str]:
    field = settings.input.model_dump(exclude={"regions"})  # the packs' checksums tell them
    made = {**settings.model_dump(include={"backbone", "truncate_at", "mean"}), "input": field}
    decisive: list[Any] = [made, list(backbone.grid)]
    checksums = {f"{kind}_pack": packs[kind].checksum for kind in ("train", "test")}
    return {"settings": checksum_of(decisive), **checksums}


def _computed(
    context: Context, settings: ModelSettings, backbone: EmbeddingSource, packs: dict[str, Pack], weights: Path | None
) -> tuple[list[np.ndarray], str]:
    """Features of the training and the test images in the centre view, float32 (N, F) each; the engine of both."""
    from driverwatch.models import backend

    backend.start()
    from driverwatch.inference.feature_cache import FeatureCache, tta_pass
    from driverwatch.models.classifier import build
    from driverwatch.models.split_network import FrozenPart, GridPooling, SplitPoint

    found = weight_files.ready(settings, weights, OTHER)
    classifier = build(settings, len(context.settings.classes), packs["train"].mean, found)
    flat = len(classifier.backbone.output.shape) == 2 and backbone.grid == (1, 1)  # a dense layer's, with no places
    pool = None if flat else GridPooling(*backbone.grid, name="grid")
    frozen, images = FrozenPart(classifier, SplitPoint(None, 0), pool), sum(len(pack.names) for pack in packs.values())
    cache = FeatureCache(context.places.feature_caches, frozen, "float32", settings.predict.engine, images)
    size = pixels(settings.input.size)
    centre = tta_set("centre", pixels(settings.input.pack), size)[0]
    draw = tta_pass(centre, size, len(settings.input.regions))

    def both() -> list[np.ndarray]:
        return [cache.outputs(packs[kind], draw, f"{backbone.file}, {kind}").array for kind in ("train", "test")]

    expected, parts = cache.computed_by, both()
    return (parts if cache.computed_by == expected else both()), cache.computed_by
