"""ImageNet weights that came with a package of the package index: found, held against their checksum, read without PyTorch.

The files are legacy PyTorch checkpoints: five pickles, then the raw numbers. An unpickler of general use runs what a file
asks for; the one here knows how to make an ordered dict and a tensor, and nothing else.
"""

import collections
import hashlib
import math
import pickle
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from driverwatch.config.backbones import WeightPackage
from driverwatch.errors import InputError, printable

MAGIC = 0x1950A86A20F9469CFC6C  # torch.serialization.MAGIC_NUMBER: the first pickle
PROTOCOL = 1001  # torch.serialization.PROTOCOL_VERSION: the second; the third describes the machine
LARGEST = 2 * 10**9  # bytes of all numbers
STORAGES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8"), "IntStorage": np.dtype("<i4")}


def installed(package: WeightPackage) -> Path | None:
    """The weight file of an installed package; None where the package, or its file, is not there. Runs none of its code."""
    try:
        found = Path(str(metadata.distribution(package.name).locate_file(package.file)))
    except metadata.PackageNotFoundError:
        return None
    return found if found.is_file() else None


def read(path: Path, sha256: str) -> dict[str, np.ndarray]:
    """Tensors of a legacy PyTorch checkpoint by name, float32 or whole numbers, in PyTorch's order of axes.

    Args:
        sha256: of the whole file, in hexadecimal digits; compared before anything is unpickled.

    Raises:
        InputError: another checksum, or a file that asks for more than tensors by name.
    """
    check(path, sha256)
    with path.open("rb") as file:
        return tensors(file, str(path))


def check(path: Path, sha256: str) -> None:
    """Hold a released file against its checksum. Raises as `read`."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise InputError(
            f"{path}: expected the released file of that name, with SHA-256 {sha256}, got {found}; it is damaged or "
            "another file: install its package again"
        )


def tensors(file: BinaryIO, where: str) -> dict[str, np.ndarray]:
    """Tensors by name, of an open legacy checkpoint; only what `STORAGES` and `_ADMITTED` name is ever made.

    Raises:
        InputError: anything else in it, or a file that ends early.
    """
    try:
        return _tensors(file)
    except (pickle.UnpicklingError, EOFError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError,
            MemoryError, RecursionError) as error:  # fmt: skip
        reason = printable(" ".join(str(error).split()) or type(error).__name__, 150)
        raise InputError(
            f"{where}: expected a PyTorch checkpoint of plain tensors, got another file ({reason})"
        ) from error


def _tensors(file: BinaryIO) -> dict[str, np.ndarray]:
    reader = _Reader(file)
    if reader.next() != MAGIC or reader.next() != PROTOCOL or not reader.next()["little_endian"]:
        raise ValueError("no legacy checkpoint")
    state, order = reader.next(), reader.next()
    if not isinstance(state, dict) or not all(isinstance(tensor, _Tensor) for tensor in state.values()):
        raise ValueError("no state dict")
    if sorted(order) != sorted(reader.storages) or sum(s.bytes for s in reader.storages.values()) > LARGEST:
        raise ValueError("its storages are not those that its tensors name")
    numbers = {key: reader.storages[key].read(file) for key in order}
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


class _Reader:
    """One pickle after the other of a file, and the storages that they named."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.storages: dict[str, _Storage] = {}

    def next(self) -> Any:
        return _Unpickler(self.file, self.storages).load()


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
        if (
            kind != "storage"
            or not isinstance(dtype, np.dtype)
            or type(count) is not int
            or count < 0
            or view is not None
        ):
            raise pickle.UnpicklingError("it names something else than a storage")
        return self.storages.setdefault(str(key), _Storage(str(key), dtype, count))
