"""Weight files held against networks: every array by name and shape before the first is loaded.

Keras itself loads `.h5` by position and `.weights.h5` by class and number, and says nothing of names: a file of a like
network, or one with two layers exchanged, would load into the wrong layers.
"""

import hashlib
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from driverwatch.config.backbones import BACKBONES, Backbone, WeightFiles
from driverwatch.config.model import ModelSettings
from driverwatch.config.types import pixels
from driverwatch.errors import DAMAGED_ZIP, InputError, nearest
from driverwatch.io.hdf5 import UNREADABLE, opened
from driverwatch.io.manifests import checksum_of_file
from driverwatch.models.build_backbone import (
    automatic_number,
    automatic_prefix,
    build_network,
    fix_normalization,
    refuse_empty,
    truncated,
)
from driverwatch.models.convert_torch import MADE_FOR

LARGEST = 2 * 10**9  # bytes of unpacked arrays; VGG16 with its dense layers has 0.55e9
Pair = tuple[Any, Any]  # a variable, and the array or dataset that is its value


def fill(network: Any, path: Path, official: bool = False) -> None:
    """Load `.npz`, `.weights.h5` (Keras 3) or `.h5` (Keras 1 and 2) into a network that was just built.

    Args:
        official: the file's checksum was found right: its layer names, which an older Keras chose, are not compared.

    Raises:
        InputError: not a whole weight file, or another network's, with the first difference.
    """
    try:
        if path.suffix == ".npz":
            _assign(list(_by_name(network, _npz(path))))
        else:
            with opened(path) as file:
                match = _by_class if path.name.endswith(".weights.h5") else _by_position
                _assign(list(match(network, file, _Names(official))))
    except (MemoryError, *UNREADABLE, *DAMAGED_ZIP) as error:
        raise InputError(
            f"{path}: expected weights of {network.name}, got another file ({' '.join(str(error).split())[:200]}); "
            "check WEIGHTS= and the model's backbone"
        ) from error
    fix_normalization(network)


def _assign(pairs: list[Pair]) -> None:
    for variable, value in pairs:
        variable.assign(value[...])


def _npz(path: Path) -> dict[str, np.ndarray]:
    """Named arrays; a file of another kind is a ValueError."""
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError("not an .npz archive")
        if (size := sum(member.file_size for member in zipfile.ZipFile(file).infolist())) > LARGEST:
            raise ValueError(f"unpacks to {size} bytes")
        file.seek(0)
        with np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}


def _by_name(network: Any, arrays: dict[str, np.ndarray]) -> Iterator[Pair]:
    """`<layer>/<weight>` arrays; those of layers that a network without its top lacks may be left over.

    SqueezeNet v1.0 has the same names and shapes in two releases that expect other inputs, so converted files say what they
    were made for.
    """
    said = [key.removeprefix(MADE_FOR) for key in arrays if key.startswith(MADE_FOR)]
    converted = network.name in BACKBONES and BACKBONES[network.name].checkpoint_file
    if said != ([network.name] if converted else []):
        raise ValueError(f"it is {said[0]}'s" if said else "it does not say whose it is, as make convert's files do")
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
    if extra := next((name for name in _datasets(file) if name not in wanted and "seed_generator" not in name), None):
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


def _datasets(file: h5py.File) -> list[str]:
    found: list[str] = []
    file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
    return found


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
    parts = (
        [name]
        if name in group.attrs
        else [key for i in range(len(group.attrs)) if (key := f"{name}{i}") in group.attrs]
    )
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


SCRATCH = 'or train from scratch with SET="weights=none train.stages=[{}]"'  # one stage, nothing frozen: of any model


def find(settings: ModelSettings, folder: Path | None, otherwise: str = SCRATCH) -> Path | None:
    """The local weight file of a model's backbone, or None where it is to be downloaded (or nothing is to be loaded).

    Args:
        otherwise: what else there is to do for who has no weights.

    Raises:
        InputError: no file and no download; an official file with another checksum; a size that dense layers do not take.
    """
    if settings.weights == "none":
        return None
    refuse_size(settings)
    if not _files(settings).names:
        raise InputError(f"{settings.backbone}: has no ImageNet weights; {otherwise.removeprefix('or ')}")
    return _find(settings.backbone, _files(settings), folder, otherwise)


def identity(settings: ModelSettings, folder: Path | None, otherwise: str = SCRATCH) -> dict[str, str] | None:
    """What a run records and compares: the file's name and SHA-256, or the download's name and checksum; None from scratch."""
    if settings.weights == "none":
        return None
    path = find(settings, folder, otherwise)
    if path is None:
        files = _files(settings)
        return {"download": files.official, "checksum": files.checksum}
    return {"file": path.name, "sha256": checksum_of_file(path)}


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
    source = _load(network, settings.backbone, _files(settings), path, SCRATCH)
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
    if backbone not in BACKBONES:
        raise InputError(f"{backbone}: no such backbone; make backbones lists them{nearest(backbone, list(BACKBONES))}")
    row = BACKBONES[backbone]
    if not row.whole.names:
        raise InputError(
            f"{backbone}: has no ImageNet network with its 1000 classes; make backbones lists those that have"
        )
    path = _find(backbone, row.whole, folder, "or choose another network")
    network = build_network(row, (row.native, row.native), top=True)
    source = _load(network, backbone, row.whole, path, "or choose another network")
    refuse_empty(network, network, backbone, source)
    return network


def _files(settings: ModelSettings) -> WeightFiles:
    row = BACKBONES[settings.backbone]
    return row.whole if settings.truncate_at in row.top_cuts else row.backbone


def _find(backbone: str, files: WeightFiles, folder: Path | None, otherwise: str) -> Path | None:
    """The first local file of a known name, whole if it is an official one; None where there is a download instead."""
    if folder is not None:
        if not folder.is_dir():
            raise InputError(f"WEIGHTS={folder}: no such folder; name the folder that holds {files.names[0]}")
        if found := next((folder / name for name in files.names if (folder / name).is_file()), None):
            _refuse_damaged(found, files)
            return found
    if not files.download:
        raise InputError(
            f"{backbone}: no ImageNet weights to download; {_way_to_weights(backbone, files)} and pass WEIGHTS=<folder>, "
            f"{otherwise}"
        )
    return None


def _way_to_weights(backbone: str, files: WeightFiles) -> str:
    row = BACKBONES[backbone]
    if row.checkpoint:
        return f"fetch {row.checkpoint}, make convert FILE={row.checkpoint_file} MODEL={backbone} WEIGHTS=<folder>"
    return f"put {' or '.join(files.names)} into a folder"


def _load(network: Any, backbone: str, files: WeightFiles, path: Path | None, otherwise: str) -> Path:
    """Fill a network from a local file or the download; return where the weights came from."""
    if path is None:
        path = _fetch(backbone, files, otherwise)
    else:
        _refuse_damaged(path, files)
    fill(network, path, official=path.name == files.official)
    _refuse_infinite(network, path)
    return path


def _fetch(backbone: str, files: WeightFiles, otherwise: str) -> Path:
    """The official file in Keras' cache, downloaded where it is not there, held against its checksum either way."""
    import keras

    try:
        return Path(keras.utils.get_file(files.official, files.url, cache_subdir="models", file_hash=files.checksum))
    except Exception as error:  # Keras wraps every network failure in a bare Exception
        raise InputError(
            f"{backbone}: ImageNet weights could not be downloaded ({' '.join(str(error).split())[:160]}); "
            f"put {' or '.join(files.names)} into a folder and pass WEIGHTS=<folder>, {otherwise}"
        ) from error


def _refuse_damaged(path: Path, files: WeightFiles) -> None:
    """Hold a local file that bears the official name against the official checksum."""
    if path.name != files.official:
        return
    kind = "MD5" if len(files.checksum) == 32 else "SHA-256"
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()
    if found != files.checksum:
        raise InputError(
            f"{path}: expected the official file of that name, with {kind} {files.checksum}, got {found}; it is damaged or "
            "another file: fetch it again"
        )


def refuse_size(settings: ModelSettings) -> None:
    """Pretrained dense layers take one input size."""
    row: Backbone = BACKBONES[settings.backbone]
    wanted = f"{row.native}x{row.native}"
    if settings.truncate_at in row.top_cuts and settings.input.size != wanted:
        raise InputError(
            f"truncate_at: {settings.truncate_at}: keeps {settings.backbone}'s pretrained dense layers, which take an "
            f"input.size of {wanted} alone, got {settings.input.size}; change it, or truncate at {row.freeze_points[-1]}, "
            "which takes any"
        )


def _refuse_infinite(network: Any, path: Path) -> None:
    """Refuse weights with NaN or infinity: every prediction would be NaN."""
    import keras

    for weight in network.weights:
        if not np.isfinite(keras.ops.convert_to_numpy(weight)).all():
            raise InputError(f"{path}: holds NaN or infinity in {weight.path}; fetch the file again")
