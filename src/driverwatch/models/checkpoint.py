"""PyTorch checkpoints as NumPy arrays. PyTorch is optional and imported nowhere else; nothing in a file is run."""

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from driverwatch.artifacts import digest_of_file
from driverwatch.backbones import BACKBONES
from driverwatch.errors import DAMAGED_ZIP, InputError, printable

LARGEST = 2 * 10**9  # bytes; GoogLeNet has 52 MB
DIGEST = re.compile(r"-([0-9a-f]{8})\.")  # torchvision ends file names with the first digits of their SHA-256


def read(path: Path) -> dict[str, np.ndarray]:
    """Tensors of a checkpoint by name, as arrays that share PyTorch's memory.

    Raises:
        InputError: no such file; another SHA-256 than its name says; not a state dict of plain tensors; no PyTorch.
    """
    if not path.is_file():
        raise InputError(f"FILE={path}: no such file; name a PyTorch checkpoint (.pth)")
    _check_digest(path)
    _check_size(path)
    state = _load(path)
    if not isinstance(state, dict) or not state:
        raise InputError(
            f"{path}: expected a state dict (tensors by name), got {_kind(state)}; save model.state_dict()"
        )
    return {str(name): _array(path, name, value) for name, value in state.items()}


def _check_digest(path: Path) -> None:
    known = any(path.name == row.checkpoint_file for row in BACKBONES.values())
    claimed = DIGEST.search(path.name) if known else None
    found = digest_of_file(path)
    if claimed and not found.startswith(claimed[1]):
        raise InputError(
            f"{path}: its SHA-256 begins {found[: len(claimed[1])]}, its name says {claimed[1]}; fetch the file again"
        )


def _check_size(path: Path) -> None:
    """Hold back archives that unpack to more than any network here has."""
    try:
        zipped = zipfile.is_zipfile(path)
        size = sum(m.file_size for m in zipfile.ZipFile(path).infolist()) if zipped else path.stat().st_size
    except DAMAGED_ZIP as error:
        raise InputError(f"{path}: a damaged archive ({printable(str(error), 150)}); fetch the file again") from error
    if size > LARGEST:
        raise InputError(
            f"{path}: unpacks to {size} bytes, expected at most {LARGEST}; it is no checkpoint of these networks"
        )


def _load(path: Path) -> Any:
    """What the file holds, limited to tensors and plain containers: `weights_only` unpickles nothing else."""
    try:
        import torch
    except ImportError as error:
        raise InputError(
            "PyTorch is not installed in this environment; make convert installs it into .venv-torch, once"
        ) from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # PyTorch raises whatever its readers stumble over
        reason = printable(" ".join(str(error).split()), 150)
        raise InputError(
            f"{path}: expected a PyTorch checkpoint of plain tensors, got a file that cannot be read as one ({reason})"
        ) from error


def _array(path: Path, name: object, value: Any) -> np.ndarray:
    try:
        if isinstance(name, str) and _kind(value) in ("Tensor", "Parameter"):
            return np.asarray(value.detach().numpy())
        reason = f"a {_kind(value)}"
    except (TypeError, RuntimeError, ValueError) as error:  # sparse, quantised, bfloat16, ...
        reason = " ".join(str(error).split())
    raise InputError(
        f"{path}: expected plain tensors by name, got {printable(str(name), 100)}: {printable(reason, 150)}; save "
        "model.state_dict()"
    )


def _kind(value: object) -> str:
    return type(value).__name__
