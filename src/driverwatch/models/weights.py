"""Pretrained trunks: found, loaded, checked. Imports no network library until a trunk is built."""

import importlib
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from driverwatch.artifacts import digest_of_file
from driverwatch.backbones import BACKBONES
from driverwatch.errors import DAMAGED_ZIP, InputError, listed, nearest
from driverwatch.hdf5 import opened
from driverwatch.settings import ModelSettings, pixels

LARGEST = 2 * 10**9  # bytes of unpacked arrays; VGG16 with its dense layers has 0.55e9


def find(settings: ModelSettings, folder: Path | None) -> Path | None:
    """The local weight file of a model's backbone, or None where Keras is to download (or nothing is to be loaded)."""
    row = BACKBONES[settings.backbone]
    if settings.weights == "none":
        return None
    scratch = 'SET="weights=none train.stages.0.freeze_until=null"'
    if not row.weight_files:
        raise InputError(f"{settings.backbone}: has no ImageNet weights; train it from scratch with {scratch}")
    if folder is not None:
        if not folder.is_dir():
            raise InputError(f"WEIGHTS={folder}: no such folder; name the folder that holds {row.weight_files[0]}")
        if found := next((folder / name for name in row.weight_files if (folder / name).is_file()), None):
            return found
    if not row.downloads:
        expected = " or ".join(row.weight_files)
        raise InputError(
            f"{settings.backbone}: no ImageNet weights to download; put {expected} into a folder and pass "
            f"WEIGHTS=<folder>, or train from scratch with {scratch}"
        )
    return None


def identity(settings: ModelSettings, folder: Path | None) -> dict[str, str] | None:
    """What a run records and compares: the file's name and SHA-256, or the download's name; None from scratch."""
    if settings.weights == "none":
        return None
    path = find(settings, folder)
    if path is None:
        return {"download": BACKBONES[settings.backbone].constructor}
    return {"file": path.name, "sha256": digest_of_file(path)}


def build_trunk(settings: ModelSettings, path: Path | None, load: bool = True) -> Any:
    """Build a model's trunk (a Keras functional model), load its weights, cut it.

    Args:
        path: a local weight file, or None to let Keras download (or for `weights: none`).
        load: False builds the same layers with random weights, to be filled from a run's own file.

    Raises:
        InputError: weights that cannot be had, that are another network's, or that leave kept layers empty; an unknown
            or illegal cut.
    """
    row = BACKBONES[settings.backbone]
    module, name = row.constructor.rsplit(".", 1)
    constructor = getattr(importlib.import_module(module), name)
    arguments = {"include_top": False, "input_shape": (*pixels(settings.input.size), 3)}
    downloads = load and settings.weights == "imagenet" and path is None
    trunk = _downloaded(constructor, arguments, settings) if downloads else constructor(weights=None, **arguments)
    if load and path is not None:
        _fill(trunk, path)
    cut = _cut(trunk, settings.cut, settings.backbone)
    if load and path is not None:
        _refuse_infinite(trunk, path)
    if load and settings.weights == "imagenet":
        _refuse_empty(trunk, cut, settings.backbone, path or Path(row.constructor))
    return cut


def _downloaded(constructor: Any, arguments: dict[str, Any], settings: ModelSettings) -> Any:
    """A trunk with the weights that Keras fetches, every file held against its digest: by Keras, or here where it does not."""
    import keras

    checked = BACKBONES[settings.backbone].checked_by
    try:
        if checked is None:
            return constructor(weights="imagenet", **arguments)
        url, md5 = checked
        path = keras.utils.get_file(url.rsplit("/", 1)[1], url, cache_subdir="models", file_hash=md5)
    except Exception as error:  # Keras wraps every network failure in a bare Exception
        names = " or ".join(BACKBONES[settings.backbone].weight_files)
        raise InputError(
            f"{settings.backbone}: ImageNet weights could not be downloaded ({' '.join(str(error).split())[:160]}); "
            f"put {names} into a folder and pass WEIGHTS=<folder>, or train from scratch with "
            'SET="weights=none train.stages.0.freeze_until=null"'
        ) from error
    trunk = constructor(weights=None, **arguments)
    _fill(trunk, Path(path))
    return trunk


def _fill(trunk: Any, path: Path) -> None:
    try:
        arrays = _npz(path) if path.suffix == ".npz" else None
        if arrays is not None:
            return _assign(trunk, arrays, path)
        with opened(path) as file:
            if path.name.endswith(".weights.h5"):
                _compare_shapes(trunk, file)
        trunk.load_weights(str(path))
    except (OSError, LookupError, TypeError, AttributeError, MemoryError, *DAMAGED_ZIP) as error:
        raise InputError(
            f"{path}: expected weights of {trunk.name}, got another file ({' '.join(str(error).split())[:200]}); "
            "check WEIGHTS= and the model's backbone"
        ) from error


def _npz(path: Path) -> dict[str, np.ndarray]:
    """Named arrays; a file of another kind is a ValueError."""
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError("not an .npz archive")
        if (size := sum(member.file_size for member in zipfile.ZipFile(file).infolist())) > LARGEST:
            raise ValueError(f"unpacks to {size} bytes")
        file.seek(0)
        with np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    if strange := [name for name, array in arrays.items() if array.dtype.kind != "f"]:
        raise ValueError(f"{strange[0]} holds no real numbers")
    return arrays


def _compare_shapes(trunk: Any, file: h5py.File) -> None:
    """Keras keys these files by class and order and ignores what is left over: hold the shapes against the trunk's."""
    found: list[tuple[int, ...]] = []
    file.visititems(lambda _, item: found.append(item.shape) if isinstance(item, h5py.Dataset) else None)
    expected = Counter(tuple(weight.shape) for weight in trunk.weights)
    if Counter(found) != expected:
        missing, extra = expected - Counter(found), Counter(found) - expected
        raise ValueError(
            f"{len(found)} arrays for {len(trunk.weights)} weights; lacks shapes {list(missing)[:3]}, "
            f"has shapes {list(extra)[:3]}"
        )


def _assign(trunk: Any, arrays: dict[str, np.ndarray], path: Path) -> None:
    """Set `<layer>/<weight>` arrays by name; arrays of layers that a trunk without its top lacks may be left over."""
    problems = []
    for layer in trunk.layers:
        for weight in layer.weights:
            key = f"{layer.name}/{weight.name}"
            if key not in arrays:
                problems.append(f"lacks {key}")
            elif arrays[key].shape != tuple(weight.shape):
                problems.append(f"{key} is {arrays[key].shape}, not {tuple(weight.shape)}")
            else:
                weight.assign(arrays[key])
    if problems:
        raise InputError(f"{path}: not the weights of {trunk.name}:{listed(problems)}")


def single_tensor_layers(trunk: Any) -> list[str]:
    """Names of the layers where a trunk may be cut: everything made before is used up there (no branch, no shortcut open)."""
    position = {id(layer): i for i, layer in enumerate(trunk.layers)}
    last_use = list(range(len(trunk.layers)))
    for i, layer in enumerate(trunk.layers):
        for node in layer._inbound_nodes:
            for parent in node.parent_nodes:
                if (j := position.get(id(parent.operation))) is not None:
                    last_use[j] = max(last_use[j], i)
    legal, reach = [], 0
    for i, layer in enumerate(trunk.layers):
        if reach <= i and layer.weights + layer._inbound_nodes and i > 0:
            legal.append(layer.name)
        reach = max(reach, last_use[i])
    return legal


def _cut(trunk: Any, cut: str | None, backbone: str) -> Any:
    if cut is None:
        return trunk
    legal = single_tensor_layers(trunk)
    if cut not in legal:
        named = [layer.name for layer in trunk.layers]
        reason = "lies inside a branch or beside a shortcut" if cut in named else "is no layer of it"
        raise InputError(
            f"cut: {cut} {reason}; {backbone} can be cut at {', '.join(_points(backbone, legal))} "
            f"and other single-tensor layers{nearest(cut, legal)}"
        )
    import keras

    return keras.Model(trunk.input, trunk.get_layer(cut).output, name=trunk.name)


def _points(backbone: str, legal: list[str]) -> list[str]:
    return [point for point in BACKBONES[backbone].freeze_points if point in legal] or legal[-8:]


def _refuse_empty(trunk: Any, cut: Any, backbone: str, source: Path) -> None:
    """Refuse layers whose kernels are all zero: the file did not hold them, and training would never wake them."""
    names = [layer.name for layer in trunk.layers]
    kept = {layer.name for layer in cut.layers}
    empty = [layer.name for layer in trunk.layers if any(_is_zero(w) for w in layer.weights if len(w.shape) > 1)]
    if not (blocked := [name for name in empty if name in kept]):
        return
    first = names.index(blocked[0])
    legal = [name for name in single_tensor_layers(trunk) if names.index(name) < first]
    points = [name for name in legal if name in BACKBONES[backbone].freeze_points]
    others = list(dict.fromkeys([*points[-3:], *legal[-1:]]))
    raise InputError(
        f"{source}: holds nothing for {len(blocked)} layers that this model keeps ({', '.join(blocked[:3])}, ...); "
        f"cut earlier, for example cut: {' or cut: '.join(reversed(others))}"
    )


def _refuse_infinite(trunk: Any, path: Path) -> None:
    """Refuse weights with NaN or infinity: every prediction would be NaN."""
    import keras

    for weight in trunk.weights:
        if not np.isfinite(keras.ops.convert_to_numpy(weight)).all():
            raise InputError(f"{path}: holds NaN or infinity in {weight.path}; fetch the file again")


def _is_zero(weight: Any) -> bool:
    import keras

    return not np.any(keras.ops.convert_to_numpy(weight))


def build_whole(backbone: str, folder: Path | None) -> Any:
    """STAND-IN until branch `backbones` is merged."""
    row = BACKBONES[backbone]
    module, name = row.constructor.rsplit(".", 1)
    whole = getattr(importlib.import_module(module), name)(
        weights=None, include_top=True, input_shape=(row.native, row.native, 3)
    )
    if folder is None or not (path := folder / row.weight_files[0]).is_file():
        raise InputError(f"{backbone}: put {row.weight_files} into a folder and pass WEIGHTS=<folder>")
    _fill(whole, path)
    return whole
