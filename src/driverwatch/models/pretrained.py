"""Backbones with their ImageNet weights: every array of a file is held against the network before the first is loaded.

Keras itself loads `.h5` by position and `.weights.h5` by class and number, and says nothing of names: a file of a like
network, or one with two layers exchanged, would load into the wrong layers.
"""

import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from driverwatch.config.backbones import BACKBONES, WeightFiles
from driverwatch.config.model import ModelSettings
from driverwatch.config.types import pixels
from driverwatch.errors import DAMAGED_ZIP, InputError, words
from driverwatch.io.hdf5 import UNREADABLE, opened
from driverwatch.models.backend import is_finite
from driverwatch.models.build_backbone import (
    automatic_number,
    automatic_prefix,
    build_network,
    fix_normalization,
    refuse_empty,
    truncated,
)
from driverwatch.models.convert_torch import LARGEST, MADE_FOR, converted_arrays, unpacked_size
from driverwatch.models.weight_files import (
    OTHER,
    SCRATCH,
    fetch,
    files_of,
    find_whole,
    read_packaged,
    refuse_damaged,
    refuse_size,
)

Pair = tuple[Any, Any]  # a variable, and the array or dataset that is its value


def fill(network: Any, path: Path, official: bool = False) -> None:
    """Load `.npz`, `.pth` (a package's), `.weights.h5` (Keras 3) or `.h5` (Keras 1 and 2) into a network that was just built.

    Args:
        official: the file's checksum was found right: its layer names, which an older Keras chose, are not compared.

    Raises:
        InputError: not a whole weight file, or another network's, with the first difference.
    """
    try:
        if path.suffix == ".pth":
            _assign(_by_layer(network, _packaged(network.name, path)))
        elif path.suffix == ".npz":
            arrays = _npz(path)
            _refuse_anothers(network, arrays)
            _assign(_by_layer(network, arrays))
        else:
            with opened(path) as file:
                match = _by_class if path.name.endswith(".weights.h5") else _by_position
                _assign(match(network, file, _Names(official)))
    except (MemoryError, *UNREADABLE, *DAMAGED_ZIP) as error:
        got = f"another file ({words(error, 200)}); check WEIGHTS= and the model's backbone"
        raise InputError(f"{path}: expected weights of {network.name}, got {got}") from error
    fix_normalization(network)


def _assign(pairs: Iterator[Pair]) -> None:
    """Fill variables once every one has its value."""
    for variable, value in list(pairs):
        variable.assign(value[...])


def _npz(path: Path) -> dict[str, np.ndarray]:
    """Named arrays; a file of another kind is a ValueError."""
    if not zipfile.is_zipfile(path):
        raise ValueError("not an .npz archive")
    if (size := unpacked_size(path)) > LARGEST:
        raise ValueError(f"unpacks to {size} bytes")
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _packaged(backbone: str, path: Path) -> dict[str, np.ndarray]:
    """Named arrays of the checkpoint that a backbone's package holds."""
    package = BACKBONES[backbone].package if backbone in BACKBONES else None
    if package is None:
        raise ValueError("no package holds a checkpoint of it")
    return converted_arrays(read_packaged(path, package.checksum), backbone, str(path)).arrays


def _refuse_anothers(network: Any, arrays: dict[str, np.ndarray]) -> None:
    """SqueezeNet v1.0 has the same names and shapes in two releases that expect other inputs: converted files name theirs."""
    said = [key.removeprefix(MADE_FOR) for key in arrays if key.startswith(MADE_FOR)]
    converted = network.name in BACKBONES and BACKBONES[network.name].checkpoint_file
    if said != ([network.name] if converted else []):
        raise ValueError(f"it is {said[0]}'s" if said else "it does not say whose it is, as make convert's files do")


def _by_layer(network: Any, arrays: dict[str, np.ndarray]) -> Iterator[Pair]:
    """`<layer>/<weight>` arrays; those of layers that a network without its top lacks may be left over."""
    for layer in network.layers:
        for weight in layer.weights:
            key = f"{layer.name}/{weight.name}"
            if key not in arrays:
                raise ValueError(f"lacks {key}")
            yield _pair(key, weight, arrays[key])


def _by_class(network: Any, file: h5py.File, names: "_Names") -> Iterator[Pair]:
    """`layers/<class>_<number>/vars/<number>`, numbered in the network's order, with the saved layer's name as attribute."""
    wanted = set()
    for key, layer in _keys(network):
        group = file.get(f"{key}/vars")
        if not isinstance(group, h5py.Group):
            raise ValueError(f"lacks {key} ({layer.name})")
        names.compare(layer, group.attrs.get("name"), key)
        for i, weight in enumerate(layer.weights):
            wanted.add(f"{key}/vars/{i}")
            yield _pair(f"{key} ({layer.name}), array {i}", weight, group.get(str(i)))
    held: list[str] = []
    file.visititems(lambda name, item: held.append(name) if isinstance(item, h5py.Dataset) else None)
    if extra := next((name for name in held if name not in wanted and "seed_generator" not in name), None):
        raise ValueError(f"holds {extra}, which {network.name} has no place for")


def _keys(network: Any, inside: str = "layers") -> Iterator[tuple[str, Any]]:
    """Keras' keys of a network's layers that have weights; layers of nested networks one by one."""
    used: Counter[str] = Counter()
    for layer in network.layers:
        prefix = automatic_prefix(layer)
        key = f"{inside}/{prefix}_{used[prefix]}" if used[prefix] else f"{inside}/{prefix}"
        used[prefix] += 1
        if hasattr(layer, "layers"):
            yield from _keys(layer, f"{key}/layers")
        elif layer.weights:
            yield key, layer


def _by_position(network: Any, file: h5py.File, names: "_Names") -> Iterator[Pair]:
    """The n-th layer with weights in the file is the n-th in the network; each has trainable weights first."""
    root = file if any(name.startswith("layer_names") for name in file.attrs) else file["model_weights"]
    saved = [(name, _texts(root[name], "weight_names")) for name in _texts(root, "layer_names")]
    saved = [(name, weights) for name, weights in saved if weights]
    layers = [layer for layer in network.layers if layer.weights]
    for layer, (name, weights) in zip(layers, saved, strict=False):
        names.compare(layer, name, f"layer {name}")
        variables = layer.trainable_weights + layer.non_trainable_weights
        if len(weights) != len(variables):
            raise ValueError(f"{name} has {len(weights)} arrays, not the {len(variables)} of {layer.name}")
        for variable, key in zip(variables, weights, strict=True):
            yield _pair(f"{name}/{key} (for {layer.name})", variable, root[name][key])
    if len(saved) != len(layers):
        raise ValueError(f"{len(saved)} layers with weights, not {len(layers)}")


def _texts(group: h5py.Group, name: str) -> list[str]:
    """A list of names, which Keras splits into `<name>0`, `<name>1`, ... where it is too long for one attribute."""
    numbered = [key for i in range(len(group.attrs)) if (key := f"{name}{i}") in group.attrs]
    parts = [name] if name in group.attrs else numbered
    return [text.decode() if isinstance(text, bytes) else str(text) for part in parts for text in group.attrs[part]]


def _pair(where: str, variable: Any, value: Any) -> Pair:
    """A variable and its value, if the value is an array of its shape."""
    if value is None:
        raise ValueError(f"lacks {where}")
    if not isinstance(value, np.ndarray | h5py.Dataset) or value.dtype.kind not in "fiu":
        raise ValueError(f"{where} holds no real numbers")
    if tuple(value.shape) != tuple(variable.shape):
        raise ValueError(f"{where} is {tuple(value.shape)}, not {tuple(variable.shape)}")
    return variable, value


class _Names:
    """Compares layer names of a file with a network's, one by one in the file's order.

    Chosen names must be the same. Automatic ones (`conv2d_7`) may be numbered from another start, as Keras counts through a
    process: the distance must be the same for all layers of a class.
    """

    def __init__(self, trusted: bool) -> None:
        self.trusted = trusted
        self.start: dict[str, int] = {}

    def compare(self, layer: Any, name: str | None, where: str) -> None:
        if self.trusted or name is None:
            return
        number, own = automatic_number(layer, name), automatic_number(layer, layer.name)
        if number is not None and own is not None:
            if self.start.setdefault(automatic_prefix(layer), number - own) == number - own:
                return
        elif name == layer.name:
            return
        raise ValueError(f"{where} is {name}, where {layer.name} was expected")


def build_backbone(settings: ModelSettings, path: Path | None, load: bool = True) -> Any:
    """Build a model's backbone (a Keras functional model), load its weights, cut it.

    With a cut at a dense layer of the pretrained top (VGG's `fc1`, `fc2`) its output is (B, units), else (B, h, w, channels).

    Args:
        path: a local weight file, or None to download the official one (or for `weights: none`).
        load: False builds the same layers with random weights, to be filled from a run's own file.

    Raises:
        InputError: weights that cannot be had, that are another network's, or that leave kept layers empty; an unknown
            or illegal cut.
    """
    row = BACKBONES[settings.backbone]
    network = build_network(row, pixels(settings.input.size), top=settings.truncate_at in row.top_cuts)
    if not load or settings.weights == "none":
        return truncated(network, settings.truncate_at, settings.backbone)
    refuse_size(settings)
    source = _load(network, settings.backbone, files_of(settings), path, SCRATCH)
    cut = truncated(network, settings.truncate_at, settings.backbone)
    refuse_empty(network, cut, settings.backbone, source)
    return cut


def build_whole(backbone: str, folder: Path | None) -> Any:
    """Build a backbone's ImageNet network (a `keras.Model`) with its weights.

    It takes (B, native, native, 3), scaled as the row says, and gives (B, 1000) float32 probabilities, rows sum to 1.

    Args:
        folder: where local weight files lie; without a file of a known name there, or None: the official one is downloaded.

    Raises:
        InputError: no such backbone, no ImageNet network or weights of it, or weights that are another network's.
    """
    path = find_whole(backbone, folder)
    row = BACKBONES[backbone]
    network = build_network(row, (row.native, row.native), top=True)
    source = _load(network, backbone, row.whole, path, OTHER)
    refuse_empty(network, network, backbone, source)
    return network


def _load(network: Any, backbone: str, files: WeightFiles, path: Path | None, otherwise: str) -> Path:
    """Fill a network from a local file or the download; return where the weights came from."""
    if path is None:
        path = fetch(backbone, files, otherwise)
    else:
        refuse_damaged(path, backbone, files)
    fill(network, path, official=path.name == files.official)
    for weight in network.weights:  # or every prediction would be NaN
        if not is_finite([weight]):
            raise InputError(f"{path}: holds NaN or infinity in {weight.path}; fetch the file again")
    return path
