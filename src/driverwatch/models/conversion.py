"""Public PyTorch checkpoints as arrays that `models/weights.py` loads: names and axes, in NumPy alone.

Expected are the state dicts of torchvision's releases (`torchvision/models/googlenet.py`, `squeezenet.py`).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from driverwatch.errors import InputError, listed, nearest
from driverwatch.models.layouts import FIRES, INCEPTIONS, SQUEEZENETS

CLASSES = 1000  # ImageNet's
MADE_FOR = "made_for/"  # an empty array of this name and the backbone's says whose file it is
AUXILIARY = ("aux1.", "aux2.")  # GoogLeNet's classifiers of training, which torchvision calls not pretrained
COUNTER = ".num_batches_tracked"  # of a normalisation layer; older files lack it
NORMALIZATION = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
AXES = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}  # by rank: kernels OIHW -> HWIO, dense kernels (out, in) -> (in, out)


@dataclass(frozen=True)
class Tensor:
    """One tensor: its name in PyTorch's state dict and its shape there, its name `<layer>/<weight>` here."""

    source: str
    target: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Converted:
    """Arrays by `<layer>/<weight>`, float32 with channels last, and the names of what was left out on purpose."""

    arrays: dict[str, np.ndarray]
    auxiliary: list[str]
    counters: list[str]


def convert(state: dict[str, np.ndarray], backbone: str, where: str) -> Converted:
    """Rename and transpose a state dict of torchvision's `backbone`, its 1000-way top included.

    Args:
        where: what errors name, the checkpoint's path.

    Raises:
        InputError: no such conversion; tensors that are missing, left over, of other shapes, or hold no finite real numbers.
    """
    expected = tensors(backbone)
    auxiliary = [name for name in state if backbone == "googlenet" and name.startswith(AUXILIARY)]
    counters = [name for name in state if name.endswith(COUNTER) and name not in auxiliary]
    if problems := _problems(expected, state, {*auxiliary, *counters}):
        raise InputError(f"{where}: expected torchvision's weights of {backbone}:{listed(problems)}")
    arrays = {
        t.target: np.ascontiguousarray(state[t.source].transpose(AXES[len(t.shape)]), np.float32) for t in expected
    }
    return Converted(arrays, auxiliary, counters)


def tensors(backbone: str) -> list[Tensor]:
    """Every tensor that torchvision's release of `backbone` must hold.

    Raises:
        InputError: there is none, or it is not known here.
    """
    if backbone not in LAYOUTS:
        names = sorted(LAYOUTS)
        raise InputError(f"MODEL={backbone}: expected one of {', '.join(names)}{nearest(backbone, names)}")
    return list(LAYOUTS[backbone]())


def _problems(expected: list[Tensor], state: dict[str, np.ndarray], left_out: set[str]) -> list[str]:
    """At most one sentence of each kind; values are looked at once names and shapes are right."""
    known = {tensor.source for tensor in expected}
    there = [tensor for tensor in expected if tensor.source in state]
    found = {
        "lacks": [tensor.source for tensor in expected if tensor.source not in state],
        "has left over": [name for name in state if name not in known and name not in left_out],
        "has of other shapes": [
            f"{t.source} {state[t.source].shape}, not {t.shape}" for t in there if state[t.source].shape != t.shape
        ],
    }
    if not any(found.values()):
        found = {"has without finite real numbers": [t.source for t in there if not _finite(state[t.source])]}
    return [f"{kind} {_some(names)}" for kind, names in found.items() if names]


def _some(names: list[str], first: int = 6) -> str:
    rest = f" and {len(names) - first} more" if len(names) > first else ""
    return f"{', '.join(name[:100] for name in names[:first])}{rest}"


def _finite(array: np.ndarray) -> bool:
    return array.dtype.kind == "f" and bool(np.isfinite(array).all())


def _googlenet() -> Iterator[Tensor]:
    yield from _unit("conv1", "conv1", (64, 3, 7, 7))
    yield from _unit("conv2", "conv2", (64, 64, 1, 1))
    yield from _unit("conv3", "conv3", (192, 64, 3, 3))
    width = 192
    for index, module in INCEPTIONS.items():
        source, target = f"inception{index}.branch", f"inception{index}_branch"
        yield from _unit(f"{source}1", f"{target}1_conv1", (module.one, width, 1, 1))
        for branch, (reduced, out) in ((2, module.three), (3, module.five)):
            yield from _unit(f"{source}{branch}.0", f"{target}{branch}_conv1", (reduced, width, 1, 1))
            yield from _unit(f"{source}{branch}.1", f"{target}{branch}_conv2", (out, reduced, 3, 3))
        yield from _unit(f"{source}4.1", f"{target}4_conv1", (module.pooled, width, 1, 1))
        width = module.width
    yield from _biased("fc", "fc", (CLASSES, width))


def _squeezenet(backbone: str) -> Iterator[Tensor]:
    version = SQUEEZENETS[backbone]
    yield from _biased("features.0", "conv1", (version.width, 3, version.kernel, version.kernel))
    width, place = version.width, 3  # convolution, ReLU and pool come first
    for index, (squeeze, expand) in FIRES.items():
        source, target = f"features.{place}", f"fire{index}"
        yield from _biased(f"{source}.squeeze", f"{target}_squeeze1x1", (squeeze, width, 1, 1))
        yield from _biased(f"{source}.expand1x1", f"{target}_expand1x1", (expand, squeeze, 1, 1))
        yield from _biased(f"{source}.expand3x3", f"{target}_expand3x3", (expand, squeeze, 3, 3))
        width, place = 2 * expand, place + 1 + (index in version.pool_after)
    yield from _biased("classifier.1", "conv10", (CLASSES, width, 1, 1))


def _unit(source: str, target: str, shape: tuple[int, ...]) -> Iterator[Tensor]:
    """A convolution without bias and its normalisation."""
    yield Tensor(f"{source}.conv.weight", f"{target}/kernel", shape)
    for theirs, ours in NORMALIZATION.items():
        yield Tensor(f"{source}.bn.{theirs}", f"{target}_bn/{ours}", shape[:1])


def _biased(source: str, target: str, shape: tuple[int, ...]) -> Iterator[Tensor]:
    yield Tensor(f"{source}.weight", f"{target}/kernel", shape)
    yield Tensor(f"{source}.bias", f"{target}/bias", shape[:1])


LAYOUTS: dict[str, Callable[[], Iterator[Tensor]]] = {
    "googlenet": _googlenet,
    "squeezenet_torch": lambda: _squeezenet("squeezenet_torch"),
    "squeezenet_v1_1": lambda: _squeezenet("squeezenet_v1_1"),
}
