"""Where ImageNet weights come from: the folder WEIGHTS, an installed package, Keras' cache or its download. Imports no Keras.

A package's files are legacy PyTorch checkpoints: five pickles, then the raw numbers. An unpickler of general use runs what a
file asks for; the one here knows how to make an ordered dict and a tensor, and nothing else.
"""

import collections
import hashlib
import math
import os
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np

from driverwatch.config.backbones import BACKBONES, WeightFiles, WeightPackage
from driverwatch.config.model import ModelSettings
from driverwatch.errors import InputError, nearest, printable, words
from driverwatch.io.manifests import checksum_of_file
from driverwatch.io.paths import programs_home
from driverwatch.models import backend

SCRATCH = 'or train from scratch with SET="weights=none train.stages=[{}]"'  # one stage, nothing frozen: of any model
OTHER = "or choose another network"
PREFERRED = "efficientnet_lite0"  # whose package is part of the set-up
MAGIC = 0x1950A86A20F9469CFC6C  # torch.serialization.MAGIC_NUMBER: the first pickle
PROTOCOL = 1001  # torch.serialization.PROTOCOL_VERSION: the second; the third describes the machine
LARGEST = 2 * 10**9  # bytes of all numbers
STORAGES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8"), "IntStorage": np.dtype("<i4")}


class Source(NamedTuple):
    """A weight file that is on this machine."""

    kind: Literal["WEIGHTS", "package", "cache"]
    path: Path


def find(settings: ModelSettings, folder: Path | None, otherwise: str = SCRATCH) -> Path | None:
    """The local weight file of a model's backbone, or None where it is to be downloaded (or nothing is to be loaded).

    Args:
        folder: WEIGHTS; its files come before an installed package's.
        otherwise: what else there is to do for who has no weights.

    Raises:
        InputError: no file and no download; a released file with another checksum; a size that dense layers do not take.
    """
    if settings.weights == "none":
        return None
    refuse_size(settings)
    files = files_of(settings)
    if not files.names:
        ways = f"{_instead(settings.backbone, folder) or 'or '}{otherwise}".removeprefix("or or ")
        raise InputError(f"{settings.backbone}: has no ImageNet weights; {ways}")
    return _find(settings.backbone, files, folder, otherwise)


def ready(settings: ModelSettings, folder: Path | None, otherwise: str = SCRATCH) -> Path | None:
    """As `find`, and what is to be downloaded is downloaded now: for before long work that needs it. None: from scratch."""
    path = find(settings, folder, otherwise)
    if path is None and settings.weights != "none":
        cached = _cached(files_of(settings))
        return cached or fetch(settings.backbone, files_of(settings), otherwise, folder)
    return path


def find_whole(backbone: str, folder: Path | None) -> Path | None:
    """The local file of a backbone's ImageNet network with its 1000 classes; None where it is to be downloaded.

    Raises:
        InputError: no such backbone, no such network, or neither a file nor a download of it.
    """
    if backbone not in BACKBONES:
        raise InputError(f"{backbone}: no such backbone; make backbones lists them{nearest(backbone, list(BACKBONES))}")
    files = BACKBONES[backbone].whole
    if not files.names:
        way_out = f"{_instead(backbone, folder)}make backbones lists those that have"
        raise InputError(f"{backbone}: has no ImageNet network with its 1000 classes; {way_out}")
    return _find(backbone, files, folder, OTHER)


def identity(settings: ModelSettings, folder: Path | None, otherwise: str = SCRATCH) -> dict[str, str] | None:
    """What a run records and compares: the file's name and SHA-256, or the download's name and checksum; None from scratch."""
    if settings.weights == "none":
        return None
    path = find(settings, folder, otherwise)
    if path is None:
        files = files_of(settings)
        return {"download": files.official, "checksum": files.checksum}
    return {"file": path.name, "sha256": checksum_of_file(path)}


def on_this_machine(backbone: str, folder: Path | None, whole: bool = False) -> Source | None:
    """The weight file that needs no download, of the network with its top if `whole`; not held against a checksum."""
    row = BACKBONES[backbone]
    files = row.whole if whole else row.backbone
    if folder is not None and (found := _in_folder(files, folder)):
        return Source("WEIGHTS", found)
    if row.package and (found := installed(row.package)):
        return Source("package", found)
    return Source("cache", cached) if (cached := _cached(files)) else None


def available(folder: Path | None, whole: bool = False) -> Iterator[str]:
    """Backbones whose weights need no download, the preferred one first."""
    for name in sorted(BACKBONES, key=lambda name: name != PREFERRED):
        if on_this_machine(name, folder, whole):
            yield name


def fetch(backbone: str, files: WeightFiles, otherwise: str, folder: Path | None = None) -> Path:
    """The official file in Keras' cache, downloaded where it is not there, held against its checksum either way.

    Raises:
        InputError: no network, or another file came.
    """
    backend.start()  # or TensorFlow logs a screenful while it loads
    import keras

    try:
        return Path(keras.utils.get_file(files.official, files.url, cache_subdir="models", file_hash=files.checksum))
    except Exception as error:  # Keras wraps every network failure in a bare Exception
        lacks = f"ImageNet weights could not be downloaded ({words(error, 160)})"
        way_out = f"put {' or '.join(files.names)} into a folder and pass WEIGHTS=<folder>"
        raise InputError(f"{backbone}: {lacks}; {way_out}, {_instead(backbone, folder)}{otherwise}") from error


def refuse_damaged(path: Path, backbone: str, files: WeightFiles) -> None:
    """Hold a local file that bears a released file's name against that file's checksum."""
    package = BACKBONES[backbone].package
    if package and path.name == Path(package.file).name:
        refuse_other(path, package.checksum)
    if path.name != files.official:
        return
    kind = "MD5" if len(files.checksum) == 32 else "SHA-256"
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()
    if found != files.checksum:
        expected = f"the official file of that name, with {kind} {files.checksum}"
        raise InputError(f"{path}: expected {expected}, got {found}; it is damaged or another file: fetch it again")


def refuse_size(settings: ModelSettings) -> None:
    """Pretrained dense layers take one input size."""
    row, cut, size = BACKBONES[settings.backbone], settings.truncate_at, settings.input.size
    wanted = f"{row.native}x{row.native}"
    if cut in row.top_cuts and size != wanted:
        why = f"keeps {settings.backbone}'s pretrained dense layers, which take an input.size of {wanted} alone"
        way_out = f"change it, or truncate at {row.freeze_points[-1]}, which takes any"
        raise InputError(f"truncate_at: {cut}: {why}, got {size}; {way_out}")


def files_of(settings: ModelSettings) -> WeightFiles:
    """The files that hold what a model keeps of its backbone: with the top, if it is cut there."""
    row = BACKBONES[settings.backbone]
    return row.whole if settings.truncate_at in row.top_cuts else row.backbone


def _find(backbone: str, files: WeightFiles, folder: Path | None, otherwise: str) -> Path | None:
    """The first local file of a known name, whole if it is a released one; None where there is a download instead."""
    if folder is not None and not folder.is_dir():
        raise InputError(f"WEIGHTS={folder}: no such folder; name the folder that holds {files.names[0]}")
    package = BACKBONES[backbone].package
    found = (folder and _in_folder(files, folder)) or (package and installed(package))
    if found:
        refuse_damaged(found, backbone, files)
        return found
    if not files.download:
        way_out = (
            f"{_way_to_weights(backbone, files)} and pass WEIGHTS=<folder>, {_instead(backbone, folder)}{otherwise}"
        )
        raise InputError(f"{backbone}: no ImageNet weights to download; {way_out}")
    return None


def _in_folder(files: WeightFiles, folder: Path) -> Path | None:
    return next((folder / name for name in files.names if (folder / name).is_file()), None)


def _cached(files: WeightFiles) -> Path | None:
    """The download, if Keras keeps it."""
    path = backend.config_file(os.environ, programs_home()).parent / "models" / (files.official or "-")
    return path if path.is_file() else None


def _way_to_weights(backbone: str, files: WeightFiles) -> str:
    row = BACKBONES[backbone]
    if row.package:
        return f"make setup EXTRAS=weights installs them ({row.package.name}), or put {files.names[0]} into a folder"
    if row.checkpoint:
        return f"fetch {row.checkpoint}, make convert FILE={row.checkpoint_file} MODEL={backbone} WEIGHTS=<folder>"
    return f"put {' or '.join(files.names)} into a folder"


def _instead(backbone: str, folder: Path | None) -> str:
    """Another network, whose weights are here."""
    other = next((name for name in available(folder) if name != backbone), None)
    return f"take {other}, whose weights are here, " if other else ""


def installed(package: WeightPackage) -> Path | None:
    """The weight file of an installed package; None where the package, or its file, is not there. Runs none of its code."""
    try:
        found = Path(str(metadata.distribution(package.name).locate_file(package.file)))
    except metadata.PackageNotFoundError:
        return None
    return found if found.is_file() else None


def read_packaged(path: Path, sha256: str) -> dict[str, np.ndarray]:
    """Tensors of a legacy PyTorch checkpoint by name, float32 or whole numbers, in PyTorch's order of axes.

    Args:
        sha256: of the whole file, in hexadecimal digits; compared before anything is unpickled.

    Raises:
        InputError: another checksum, or a file that asks for more than tensors by name.
    """
    refuse_other(path, sha256)
    with path.open("rb") as file:
        return tensors(file, str(path))


def refuse_other(path: Path, sha256: str) -> None:
    """Hold a released file against its checksum. Raises as `read_packaged`."""
    found = checksum_of_file(path)
    if found != sha256:
        expected, way_out = f"the released file of that name, with SHA-256 {sha256}", "install its package again"
        raise InputError(f"{path}: expected {expected}, got {found}; it is damaged or another file: {way_out}")


def tensors(file: BinaryIO, where: str) -> dict[str, np.ndarray]:
    """Tensors by name, of an open legacy checkpoint; only what `STORAGES` and `_ADMITTED` name is ever made.

    Raises:
        InputError: anything else in it, or a file that ends early.
    """
    try:
        return _tensors(file)
    except (pickle.UnpicklingError, EOFError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError,
            MemoryError, RecursionError) as error:  # fmt: skip
        got = f"another file ({printable(words(error, 1000) or type(error).__name__, 150)})"
        raise InputError(f"{where}: expected a PyTorch checkpoint of plain tensors, got {got}") from error


def _tensors(file: BinaryIO) -> dict[str, np.ndarray]:
    storages: dict[str, _Storage] = {}  # those that the pickles name
    magic, protocol, machine = (_Unpickler(file, storages).load() for _ in range(3))
    if magic != MAGIC or protocol != PROTOCOL or not machine["little_endian"]:
        raise ValueError("no legacy checkpoint")
    state, order = (_Unpickler(file, storages).load() for _ in range(2))
    if not isinstance(state, dict) or not all(isinstance(tensor, _Tensor) for tensor in state.values()):
        raise ValueError("no state dict")
    if sorted(order) != sorted(storages) or sum(s.bytes for s in storages.values()) > LARGEST:
        raise ValueError("its storages are not those that its tensors name")
    numbers = {key: storages[key].read(file) for key in order}
    return {str(name): tensor.array(numbers[tensor.storage.key]) for name, tensor in state.items()}


@dataclass(frozen=True)
class _Storage:
    """Numbers that follow the pickles, named in them."""

    key: str
    dtype: np.dtype[Any]
    count: int

    @property
    def bytes(self) -> int:
        return self.count * self.dtype.itemsize

    def read(self, file: BinaryIO) -> np.ndarray:
        """Its numbers, (count,); a count of eight bytes stands before them."""
        data = file.read(8 + self.bytes)
        if len(data) != 8 + self.bytes or int.from_bytes(data[:8], "little") != self.count:
            raise ValueError(f"storage {self.key} is cut short")
        return np.frombuffer(data, self.dtype, offset=8)


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage, as `torch._utils._rebuild_tensor_v2` is asked for it; offset and strides count numbers."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self, numbers: np.ndarray) -> np.ndarray:
        """A copy of the numbers, in the tensor's shape."""
        whole = [self.offset, *self.shape, *self.strides]
        if len(self.shape) != len(self.strides) or not all(type(n) is int and n >= 0 for n in whole):
            raise ValueError("no tensor's shape")
        last = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))
        if math.prod(self.shape) > len(numbers) or last >= len(numbers):
            raise ValueError("a tensor reaches beyond its storage")
        steps = [step * numbers.itemsize for step in self.strides]
        return np.lib.stride_tricks.as_strided(numbers[self.offset :], self.shape, steps).copy()


def _rebuilt(storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError("a tensor without a storage")
    return _Tensor(storage, offset, shape, strides)


_ADMITTED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuilt,
    **{("torch", name): dtype for name, dtype in STORAGES.items()},
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, storages: dict[str, _Storage]) -> None:
        super().__init__(file)
        self.storages = storages

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _ADMITTED[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, count, view = pid
        counts = type(count) is int and count >= 0
        if kind != "storage" or not isinstance(dtype, np.dtype) or not counts or view is not None:
            raise pickle.UnpicklingError("it names something else than a storage")
        return self.storages.setdefault(str(key), _Storage(str(key), dtype, count))
