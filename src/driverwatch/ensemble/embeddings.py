"""Features on disk: what a pretrained network makes of every image, by name, with what made them."""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from driverwatch.config.ensemble import Trunk, trunk_of
from driverwatch.config.loading import load, parse
from driverwatch.config.model import ModelSettings
from driverwatch.config.types import pixels
from driverwatch.data.context import CONFIGS, Context, open_packs
from driverwatch.data.pack import Pack
from driverwatch.data.tta import view_set
from driverwatch.ensemble.embedding_index import EmbeddingIndex
from driverwatch.errors import InputError
from driverwatch.inference.predictions import Words, read_named_arrays
from driverwatch.io.atomic import locked, replacing
from driverwatch.io.console import duration, say
from driverwatch.io.hdf5 import created, opened
from driverwatch.io.manifests import digest_of, require_space
from driverwatch.io.paths import matching
from driverwatch.models import pretrained as weight_files

PIECE = 4096  # rows


@dataclass(frozen=True, eq=False)
class Features:
    """`names` (N,) of the training and the test images, `array` float32 (N, F), digests of what made them and of it all."""

    names: np.ndarray
    array: np.ndarray
    origin: dict[str, str]
    contents: str


def write(path: Path, names: np.ndarray, parts: Sequence[np.ndarray], origin: dict[str, str]) -> None:
    """Write features, whole or not at all.

    Args:
        names: (N,).
        parts: float32 (n, F) each, mapped or not, N rows in all.
    """
    count, length = sum(map(len, parts)), parts[0].shape[1]
    size = 4 * count * length + 200 * len(names)
    require_space(path.parent, size, path.name, "choose a coarser grid")
    contents = hashlib.sha256()
    with replacing(path) as temporary, created(temporary, size) as file:
        file.create_dataset("names", data=np.array(list(names), object), dtype=h5py.string_dtype(), shape=(count,))
        array, at = file.create_dataset("features", (count, length), np.float32), 0
        for part in parts:
            for start in range(0, len(part), PIECE):
                piece = np.ascontiguousarray(part[start : start + PIECE], np.float32)
                array[at : at + len(piece)], at = piece, at + len(piece)
                contents.update(piece.data)
        file.attrs["origin"] = json.dumps(origin)
        file.attrs["contents"] = digest_of([names, contents.hexdigest(), [count, length], origin])


WORDS = Words(
    what="features",
    missing="make neighbours FEATURES=... computes them",
    whole="file of features",
    again="remove it, run make neighbours",
    other="run make neighbours",
)


def checksum(path: Path) -> str | None:
    """The digest of a file of features as it states it, without reading them; None where there is no whole one."""
    try:
        with opened(path) as file:
            return str(file.attrs["contents"])
    except (OSError, LookupError, ValueError, TypeError, AttributeError):
        return None


def read(path: Path, origin: dict[str, str]) -> Features:
    """Read features made from what is expected (the keys given in `origin`).

    Raises:
        InputError: no such file, not a whole one, or made from something else.
    """
    names, array, found, contents = read_named_arrays(path, "features", origin, WORDS)
    digest = hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
    if array.dtype != np.float32 or contents != digest_of([names, digest, list(array.shape), found]):
        raise InputError(f"{path}: was changed since it was written; remove it, run make neighbours")
    return Features(names, array, found, contents)


OTHER = "or name another model with FEATURES="  # there is no training from scratch here


def open_embeddings(context: Context, text: str) -> EmbeddingIndex:
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
    found = read(path, _origin(settings, trunk, packs))
    return EmbeddingIndex(found.names, found.array, text, found.contents)


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
            read(path, origin)
        except InputError:
            parts = _computed(context, settings, trunk, packs, weights)
            names = np.concatenate([packs[kind].names for kind in ("train", "test")])
            write(path, names, parts, origin)
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
    from driverwatch.inference.feature_cache import TrunkCache, tta_pass
    from driverwatch.models.classifier import build
    from driverwatch.models.pooling import GridPooling
    from driverwatch.models.split_network import FrozenPart, SplitPoint

    found = weight_files.find(settings, weights, OTHER)
    classifier = build(settings, len(context.settings.classes), packs["train"].mean, found)
    flat = len(classifier.trunk.output.shape) == 2 and trunk.grid == (1, 1)  # a dense layer's, with no places
    pool = None if flat else GridPooling(*trunk.grid, name="grid")
    cache = TrunkCache(context.places.trunks, FrozenPart(classifier, SplitPoint(None, 0), pool), "float32")
    size = pixels(settings.input.size)
    centre = view_set("centre", pixels(settings.input.pack), size)[0]
    draw = tta_pass(centre, size, len(settings.input.regions))
    return [cache.outputs(packs[kind], draw, f"{trunk.file}, {kind}").array for kind in ("train", "test")]
