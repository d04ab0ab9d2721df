"""`make convert`: public PyTorch checkpoints as weight files, by the widths that the same networks are built from."""

import math
import re
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from driverwatch.config.backbones import BACKBONES
from driverwatch.errors import DAMAGED_ZIP, InputError, listed, nearest, printable
from driverwatch.io.atomic import replacing
from driverwatch.io.console import close
from driverwatch.io.manifests import checksum_of_file

# fire module: channels of the 1x1 squeeze, channels of each of the two expands
FIRES = {2: (16, 64), 3: (16, 64), 4: (32, 128), 5: (32, 128), 6: (48, 192), 7: (48, 192), 8: (64, 256), 9: (64, 256)}


class SqueezeNetVersion(NamedTuple):
    """Where the published versions of SqueezeNet differ; the fire modules are the same in all."""

    width: int  # channels of conv1
    kernel: int  # px, side of conv1, which is 'valid' with stride 2
    pool_after: tuple[int, int]  # fire modules; the first pool follows conv1
    top_padding: int  # px of zeros around conv10


SQUEEZENETS = {
    "squeezenet": SqueezeNetVersion(96, 7, (4, 8), 1),  # v1.0 as its authors released it for Caffe
    "squeezenet_torch": SqueezeNetVersion(96, 7, (4, 8), 0),  # v1.0 as torchvision releases it
    "squeezenet_v1_1": SqueezeNetVersion(64, 3, (3, 5), 0),
}


class Inception(NamedTuple):
    """Channels of an inception module's four branches (columns of table 1 of arXiv:1409.4842)."""

    one: int  # 1x1
    three: tuple[int, int]  # 1x1, then 3x3
    five: tuple[int, int]  # 1x1, then 5x5 in the paper, 3x3 in torchvision
    pooled: int  # 3x3 max-pool, then 1x1

    @property
    def width(self) -> int:
        """Channels of the module's output."""
        return self.one + self.three[1] + self.five[1] + self.pooled


INCEPTIONS = {
    "3a": Inception(64, (96, 128), (16, 32), 32),
    "3b": Inception(128, (128, 192), (32, 96), 64),
    "4a": Inception(192, (96, 208), (16, 48), 64),
    "4b": Inception(160, (112, 224), (24, 64), 64),
    "4c": Inception(128, (128, 256), (24, 64), 64),
    "4d": Inception(112, (144, 288), (32, 64), 64),
    "4e": Inception(256, (160, 320), (32, 128), 128),
    "5a": Inception(256, (160, 320), (32, 128), 128),
    "5b": Inception(384, (192, 384), (48, 128), 128),
}


class EfficientNetLite(NamedTuple):
    """How a member of the family is scaled from the first, and its dropout before the classifier."""

    width: float
    depth: float
    dropout: float


EFFICIENTNET_LITES = {
    "efficientnet_lite0": EfficientNetLite(1.0, 1.0, 0.2),
    "efficientnet_lite1": EfficientNetLite(1.0, 1.1, 0.2),
    "efficientnet_lite2": EfficientNetLite(1.1, 1.2, 0.3),
    "efficientnet_lite3": EfficientNetLite(1.2, 1.4, 0.3),
    "efficientnet_lite4": EfficientNetLite(1.4, 1.8, 0.3),
}
LITE_STEM, LITE_TOP = 32, 1280  # channels, the same in all of them
# stages of EfficientNet B0 (table 1 of arXiv:1905.11946): repetitions, kernel, stride, expansion, channels
LITE_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class LiteBlock(NamedTuple):
    """One inverted residual block; channels, px."""

    name: str  # block2b: the second of the second stage
    kernel: int
    strides: int
    inputs: int
    expanded: int
    outputs: int

    @property
    def has_shortcut(self) -> bool:
        """Whether its input is added to its output."""
        return self.strides == 1 and self.inputs == self.outputs


def lite_blocks(backbone: str) -> Iterator[LiteBlock]:
    """Every block of an EfficientNet-Lite, in order."""
    scale, channels = EFFICIENTNET_LITES[backbone], LITE_STEM
    for stage, (repeats, kernel, strides, expansion, base) in enumerate(LITE_STAGES, start=1):
        ends = stage in (1, len(LITE_STAGES))
        outputs = _rounded(base * scale.width)
        for i in range(repeats if ends else math.ceil(repeats * scale.depth)):
            step = strides if i == 0 else 1
            yield LiteBlock(f"block{stage}{'abcdefghij'[i]}", kernel, step, channels, channels * expansion, outputs)
            channels = outputs


def _rounded(channels: float) -> int:
    """The nearest multiple of 8, and not below 0.9 of what was asked (`round_filters` of the release)."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8


LARGEST = 2 * 10**9  # bytes; GoogLeNet has 52 MB
CHECKSUM = re.compile(r"-([0-9a-f]{8})\.")  # torchvision ends file names with the first digits of their SHA-256


def read(path: Path) -> dict[str, np.ndarray]:
    """Tensors of a checkpoint by name, as arrays that share PyTorch's memory.

    Raises:
        InputError: no such file; another SHA-256 than its name says; not a state dict of plain tensors; no PyTorch.
    """
    if not path.is_file():
        raise InputError(f"FILE={path}: no such file; name a PyTorch checkpoint (.pth)")
    known = any(path.name == row.checkpoint_file for row in BACKBONES.values())
    claimed, found = CHECKSUM.search(path.name) if known else None, checksum_of_file(path)
    if claimed and not found.startswith(claimed[1]):
        raise InputError(
            f"{path}: its SHA-256 begins {found[: len(claimed[1])]}, its name says {claimed[1]}; fetch the file again"
        )
    _check_size(path)
    state = _load(path)
    if not isinstance(state, dict) or not state:
        raise InputError(
            f"{path}: expected a state dict (tensors by name), got {_kind(state)}; save model.state_dict()"
        )
    return {str(name): _array(path, name, value) for name, value in state.items()}


def _check_size(path: Path) -> None:
    """Hold back archives that unpack to more than any network here has."""
    try:
        size = unpacked_size(path) if zipfile.is_zipfile(path) else path.stat().st_size
    except DAMAGED_ZIP as error:
        raise InputError(f"{path}: a damaged archive ({printable(str(error), 150)}); fetch the file again") from error
    if size > LARGEST:
        raise InputError(
            f"{path}: unpacks to {size} bytes, expected at most {LARGEST}; it is no checkpoint of these networks"
        )


def unpacked_size(path: Path) -> int:
    """Bytes of all that a ZIP archive says it holds. Raises one of `DAMAGED_ZIP` where it cannot be read."""
    with zipfile.ZipFile(path) as archive:
        return sum(member.file_size for member in archive.infolist())


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
        said = f"a file that cannot be read as one ({printable(' '.join(str(error).split()), 150)})"
        raise InputError(f"{path}: expected a PyTorch checkpoint of plain tensors, got {said}") from error


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


CLASSES = 1000  # ImageNet's
MADE_FOR = "made_for/"  # an empty array of this name and the backbone's says whose file it is
AUXILIARY = ("aux1.", "aux2.")  # GoogLeNet's classifiers of training, which torchvision calls not pretrained
COUNTER = ".num_batches_tracked"  # of a normalisation layer; older files lack it
NORMALIZATION = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
AXES = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}  # by rank: kernels OIHW -> HWIO, dense kernels (out, in) -> (in, out)
DEPTHWISE = (2, 3, 0, 1)  # (channels, 1, h, w) -> (h, w, channels, 1)


class Tensor(NamedTuple):
    """One tensor: its name in PyTorch's state dict and its shape there, its name `<layer>/<weight>` here."""

    source: str
    target: str
    shape: tuple[int, ...]
    depthwise: bool = False

    @property
    def axes(self) -> tuple[int, ...]:
        """How its axes are exchanged for ours."""
        return DEPTHWISE if self.depthwise else AXES[len(self.shape)]


class Converted(NamedTuple):
    """Arrays by `<layer>/<weight>`, float32 with channels last, and the names of what was left out on purpose."""

    arrays: dict[str, np.ndarray]
    auxiliary: list[str]
    counters: list[str]


def converted_arrays(state: dict[str, np.ndarray], backbone: str, where: str) -> Converted:
    """Rename and transpose a PyTorch state dict of `backbone`, its 1000-way top included.

    Args:
        where: what errors name, the checkpoint's path.

    Raises:
        InputError: no such conversion; tensors that are missing, left over, of other shapes, or hold no finite real numbers.
    """
    expected = tensors(backbone)
    auxiliary = [name for name in state if backbone == "googlenet" and name.startswith(AUXILIARY)]
    counters = [name for name in state if name.endswith(COUNTER) and name not in auxiliary]
    if problems := _problems(expected, state, {*auxiliary, *counters}):
        raise InputError(f"{where}: expected PyTorch's weights of {backbone}:{listed(problems)}")
    arrays = {t.target: np.ascontiguousarray(state[t.source].transpose(t.axes), np.float32) for t in expected}
    return Converted(arrays, auxiliary, counters)


def tensors(backbone: str) -> list[Tensor]:
    """Every tensor that the public PyTorch release of `backbone` must hold.

    Raises:
        InputError: there is none, or it is not known here.
    """
    if backbone not in LAYOUTS:
        names = sorted(name for name in LAYOUTS if BACKBONES[name].checkpoint_file)
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
        unreal = [
            t.source for t in there if state[t.source].dtype.kind != "f" or not np.isfinite(state[t.source]).all()
        ]
        found = {"has without finite real numbers": unreal}
    return [f"{kind} {_some(names)}" for kind, names in found.items() if names]


def _some(names: list[str], first: int = 6) -> str:
    rest = f" and {len(names) - first} more" if len(names) > first else ""
    return f"{', '.join(name[:100] for name in names[:first])}{rest}"


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
    yield from _normalised(f"{source}.bn", target, shape[0])


def _normalised(source: str, target: str, width: int) -> Iterator[Tensor]:
    for theirs, ours in NORMALIZATION.items():
        yield Tensor(f"{source}.{theirs}", f"{target}_bn/{ours}", (width,))


def _biased(source: str, target: str, shape: tuple[int, ...]) -> Iterator[Tensor]:
    yield Tensor(f"{source}.weight", f"{target}/kernel", shape)
    yield Tensor(f"{source}.bias", f"{target}/bias", shape[:1])


def _efficientnet_lite(backbone: str) -> Iterator[Tensor]:
    yield Tensor("_conv_stem.weight", "stem_conv/kernel", (LITE_STEM, 3, 3, 3))
    yield from _normalised("_bn0", "stem", LITE_STEM)
    for place, block in enumerate(lite_blocks(backbone)):
        source, name, wide = f"_blocks.{place}", block.name, block.expanded
        if wide != block.inputs:
            yield Tensor(f"{source}._expand_conv.weight", f"{name}_expand_conv/kernel", (wide, block.inputs, 1, 1))
            yield from _normalised(f"{source}._bn0", f"{name}_expand", wide)
        kernel = (wide, 1, block.kernel, block.kernel)
        yield Tensor(f"{source}._depthwise_conv.weight", f"{name}_dwconv/kernel", kernel, depthwise=True)
        yield from _normalised(f"{source}._bn1", name, wide)
        yield Tensor(f"{source}._project_conv.weight", f"{name}_project_conv/kernel", (block.outputs, wide, 1, 1))
        yield from _normalised(f"{source}._bn2", f"{name}_project", block.outputs)
    yield Tensor("_conv_head.weight", "top_conv/kernel", (LITE_TOP, block.outputs, 1, 1))
    yield from _normalised("_bn1", "top", LITE_TOP)
    yield from _biased("_fc", "predictions", (CLASSES, LITE_TOP))


LAYOUTS: dict[str, Callable[[], Iterator[Tensor]]] = {
    "googlenet": _googlenet,
    **{name: partial(_squeezenet, name) for name in ("squeezenet_torch", "squeezenet_v1_1")},
    **{name: partial(_efficientnet_lite, name) for name in EFFICIENTNET_LITES},
}


def convert(file: Path, backbone: str, folder: Path) -> None:
    """Write `<folder>/<the name that the backbone table looks for>`, whole or not at all.

    Raises:
        InputError: a file that is not torchvision's checkpoint of `backbone`, or a place that cannot be written.
    """
    tensors(backbone)  # an unknown name before a big file is read
    converted = converted_arrays(read(file), backbone, str(file))
    target = folder / BACKBONES[backbone].weight_files[0]
    with replacing(target) as temporary, temporary.open("wb") as archive:
        marker = {f"{MADE_FOR}{backbone}": np.zeros(0, np.float32)}
        np.savez(archive, allow_pickle=False, **converted.arrays, **marker)
    left = {
        "of the auxiliary classifiers (not pretrained)": converted.auxiliary,
        "that count batches": converted.counters,
    }
    parts = " and ".join(f"{len(names)} {what}" for what, names in left.items() if names)
    said = f"{len(converted.arrays)} arrays of {backbone}" + (f"; left out {parts}" if parts else "")
    close(target, said, then=[f"make classify MODEL={backbone} WEIGHTS={folder} IMAGE=<image>"])
