"""What frozen layers make of every image: computed once per draw, kept in HDF5, shared by folds, epochs and runs.

Frozen layers in inference mode give the same for the same input in every epoch and fold. A draw is one way to cut an input
from each image: a test-time view, or the augmentation of one epoch.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from driverwatch.config.types import EngineName
from driverwatch.data.augment import DRAWS, AugmentedInputs, Inputs
from driverwatch.data.pack import Pack, stamp
from driverwatch.data.tta import View, cut
from driverwatch.errors import InputError
from driverwatch.inference.engine import Engine
from driverwatch.io.atomic import locked, replacing, write_json
from driverwatch.io.console import track
from driverwatch.io.hdf5 import UNREADABLE, column, created, opened
from driverwatch.io.manifests import checksum_of, provenance, read_json, require_space
from driverwatch.io.prefetch import in_threads
from driverwatch.models.split_network import FrozenPart
from driverwatch.run import Run

AT_ONCE = 32  # images in one forward pass
WAY_OUT = "lower train.augmentation_passes, or freeze to a later layer, whose maps are smaller"


@dataclass(frozen=True)
class AugmentationPass:
    """How inputs are cut from a pack's images: its name, all that decides it (JSON-able), and the cutting."""

    name: str
    identity: Any
    cutting: Callable[[np.ndarray], Inputs] = field(compare=False)  # uint8 (N, R * H, W, 3), mapped -> rows -> inputs


def tta_pass(view: View, size: tuple[int, int], regions: int = 1) -> AugmentationPass:
    """A test-time view for inputs of `size` (height, width of each region).

    Its flipping is the predictor's business: no label follows it here.
    """

    def cutting(images: np.ndarray) -> Inputs:
        return lambda rows: (np.ascontiguousarray(cut(images[rows], view, size, regions)), np.zeros(len(rows), bool))

    return AugmentationPass("view", [*view] if view.size == size else [*view, *size], cutting)


def augmented_pass(run: Run, epoch: int, first: int = 0) -> AugmentationPass:
    """The augmentation that a run's epoch gives to a pack whose rows are numbered from `first` on."""
    settings, versions = run.settings, provenance()["versions"]
    libraries = {name: versions.get(name) for name in ("albumentations", "opencv-python-headless", "numpy")}
    field = settings.input.model_dump(exclude={"regions"})  # the pack's checksum tells them
    augment = settings.augment.model_dump(include={"preset", "hflip"})  # nothing mixed is ever cached
    decisive = [field, augment, run.preset, settings.train.seed, epoch, {**libraries, "draws": DRAWS}]
    decisive += [first] if first else []
    return AugmentationPass(
        f"draw{epoch}", decisive, lambda images: AugmentedInputs(images, settings, run.preset, epoch, first=first)
    )


@dataclass(frozen=True)
class Outputs:
    """What the frozen half gave, mapped (N, ...), and which inputs were flipped, bool (N,); taken as `Inputs` are."""

    array: np.ndarray
    flipped: np.ndarray

    def __call__(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.array[rows], self.flipped[rows]


class FeatureCache:
    """The outputs of one frozen half, a file per pack and draw."""

    def __init__(
        self, folder: Path, frozen: FrozenPart, dtype: str, engine: EngineName = "keras", passes: int = 0
    ) -> None:
        """Keep outputs of `dtype` (float16 or float32) under `folder`, in a place of this half's and this engine's own.

        Args:
            engine: as `predict.engine`.
            passes: how many outputs will be asked for, by which `auto` chooses the engine.
        """
        self.frozen, self.dtype, self.identity = frozen, np.dtype(dtype), _identity(frozen, dtype)
        self.caches, self.shape = folder, frozen.features
        self.engine = Engine(frozen, AT_ONCE, engine, passes)

    @property
    def computed_by(self) -> str:
        """The engine of what is asked for next, and its version."""
        return self.engine.name

    @property
    def folder(self) -> Path:
        made = checksum_of([self.identity, self.engine.name]) if self.engine.converts else self.identity
        return self.caches / made[:16]

    def outputs(self, pack: Pack, draw: AugmentationPass, label: str) -> Outputs:
        """Outputs for every image of a pack, in its order; computed if they are not there.

        Raises `InputError`: no room, or values that float16 cannot hold.
        """
        name = f"{draw.name}-{checksum_of([pack.checksum, draw.identity])[:16]}.h5"
        if found := self._there(self.folder / name, len(pack.names)):
            return found
        if len(pack.names):
            self.engine.settle(draw.cutting(pack.pixels)(np.arange(AT_ONCE) % len(pack.names))[0])
        path = self.folder / name
        with locked(self.folder, patience=math.inf):  # another run may be filling it, for minutes, to our use
            return self._there(path, len(pack.names)) or self._made(path, pack, draw, label)

    def _made(self, path: Path, pack: Pack, draw: AugmentationPass, label: str) -> Outputs:
        if _identity(self.frozen, self.dtype.name) != self.identity:
            raise ValueError("the frozen half has changed since its cache was opened")
        count, manifest = len(pack.names), path.with_suffix(".json")
        size = count * int(np.prod(self.shape)) * self.dtype.itemsize
        require_space(self.folder, size, f"{path.name} ({count} images)", WAY_OUT)
        manifest.unlink(missing_ok=True)
        inputs, contents = draw.cutting(pack.pixels), hashlib.sha256()
        with replacing(path) as temporary, created(temporary, size + count) as file:
            array = file.create_dataset("outputs", (count, *self.shape), self.dtype)
            flipped = file.create_dataset("flipped", (count,), bool)
            starts = range(0, count, AT_ONCE)
            rows = [np.arange(start, min(start + AT_ONCE, count)) for start in starts]
            batches = in_threads(inputs, track(rows, count, label, step=AT_ONCE), ahead=8)
            for chosen, (batch, flags) in zip(rows, batches, strict=True):
                found = self._forward(batch, path)
                array[chosen[0] : chosen[-1] + 1], flipped[chosen[0] : chosen[-1] + 1] = found, flags
                contents.update(found.data)
        write_json(manifest, {"contents": contents.hexdigest(), "stamp": stamp(path)})
        if made := self._there(path, count):
            return made
        raise InputError(f"{path}: was changed while it was written; run again")

    def _forward(self, batch: np.ndarray, path: Path) -> np.ndarray:
        with np.errstate(over="ignore"):
            found = self.engine(batch).astype(self.dtype)
        if not np.isfinite(found).all():
            raise InputError(f"{path}: an activation is too large for {self.dtype}; set train.cache_dtype: float32")
        return np.ascontiguousarray(found)

    def _there(self, path: Path, count: int) -> Outputs | None:
        """A whole file of ours, mapped; one whose size or time is not what we left is held against its checksum."""
        manifest = path.with_suffix(".json")
        try:
            made = read_json(manifest)
            with opened(path) as file:
                array = column(file, "outputs", self.dtype.type, (count, *self.shape))
                flipped = column(file, "flipped", np.bool_, (count,))[...]
                place = array.id.get_offset()
            if place is None and count:  # in chunks
                return None
            mapped = np.memmap(path, self.dtype, "r", place or 0, (count, *self.shape))
        except (InputError, *UNREADABLE):
            return None
        if made.get("stamp") != stamp(path) and made.get("contents") != _contents(mapped):
            return None
        return Outputs(mapped, flipped)


def _contents(mapped: np.ndarray) -> str:
    found = hashlib.sha256()
    for start in range(0, len(mapped), AT_ONCE):
        found.update(np.ascontiguousarray(mapped[start : start + AT_ONCE]).data)
    return found.hexdigest()


def _identity(frozen: FrozenPart, dtype: str) -> str:
    """Checksum of all that decides the outputs: layers, weights, scaling, library."""
    weights = hashlib.sha256()
    for weight in frozen.weights:
        weights.update(np.ascontiguousarray(keras.ops.convert_to_numpy(weight)).data)
    pooling = None if frozen.pool is None else frozen.pool.get_config()
    layers = [frozen.lower.to_json(), frozen.scaling.get_config(), pooling]
    library = [keras.backend.backend(), keras.__version__]
    return checksum_of([layers, weights.hexdigest(), dtype, library])
