"""Pretrained networks: their files found or fetched, held against digests, loaded, cut. Imports Keras only to build."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from driverwatch.artifacts import digest_of_file
from driverwatch.backbones import BACKBONES, Backbone, WeightFiles
from driverwatch.errors import InputError, nearest
from driverwatch.models.cuts import cut_at, refuse_empty
from driverwatch.models.networks import construct
from driverwatch.models.weight_files import fill
from driverwatch.setting_types import pixels
from driverwatch.settings import ModelSettings

SCRATCH = 'or train from scratch with SET="weights=none train.stages=[{}]"'  # one stage, nothing frozen: of any model


def find(settings: ModelSettings, folder: Path | None, otherwise: str = SCRATCH) -> Path | None:
    """The local weight file of a model's backbone, or None where it is to be downloaded (or nothing is to be loaded).

    Args:
        otherwise: what else there is to do for who has no weights.

    Raises:
        InputError: no file and no download; an official file with another digest; a size that pretrained dense layers do not take.
    """
    if settings.weights == "none":
        return None
    refuse_size(settings)
    if not _files(settings).names:
        raise InputError(f"{settings.backbone}: has no ImageNet weights; {otherwise.removeprefix('or ')}")
    return _find(settings.backbone, _files(settings), folder, otherwise)


def identity(settings: ModelSettings, folder: Path | None, otherwise: str = SCRATCH) -> dict[str, str] | None:
    """What a run records and compares: the file's name and SHA-256, or the download's name and digest; None from scratch."""
    if settings.weights == "none":
        return None
    path = find(settings, folder, otherwise)
    if path is None:
        files = _files(settings)
        return {"download": files.official, "digest": files.digest}
    return {"file": path.name, "sha256": digest_of_file(path)}


def build_trunk(settings: ModelSettings, path: Path | None, load: bool = True) -> Any:
    """Build a model's trunk (a Keras functional model), load its weights, cut it.

    With a cut at a dense layer of the pretrained top (VGG's `fc1`, `fc2`) its output is (B, units), else (B, h, w, channels).

    Args:
        path: a local weight file, or None to download the official one (or for `weights: none`).
        load: False builds the same layers with random weights, to be filled from a run's own file.

    Raises:
        InputError: weights that cannot be had, that are another network's, or that leave kept layers empty; an unknown
            or illegal cut.
    """
    row = BACKBONES[settings.backbone]
    network = construct(row, pixels(settings.input.size), top=settings.cut in row.top_cuts)
    if not load or settings.weights == "none":
        return cut_at(network, settings.cut, settings.backbone)
    refuse_size(settings)
    source = _load(network, settings.backbone, _files(settings), path, SCRATCH)
    cut = cut_at(network, settings.cut, settings.backbone)
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
    network = construct(row, (row.native, row.native), top=True)
    source = _load(network, backbone, row.whole, path, "or choose another network")
    refuse_empty(network, network, backbone, source)
    return network


def _files(settings: ModelSettings) -> WeightFiles:
    row = BACKBONES[settings.backbone]
    return row.whole if settings.cut in row.top_cuts else row.trunk


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
    """The official file in Keras' cache, downloaded where it is not there, held against its digest either way."""
    import keras

    try:
        return Path(keras.utils.get_file(files.official, files.url, cache_subdir="models", file_hash=files.digest))
    except Exception as error:  # Keras wraps every network failure in a bare Exception
        raise InputError(
            f"{backbone}: ImageNet weights could not be downloaded ({' '.join(str(error).split())[:160]}); "
            f"put {' or '.join(files.names)} into a folder and pass WEIGHTS=<folder>, {otherwise}"
        ) from error


def _refuse_damaged(path: Path, files: WeightFiles) -> None:
    """Hold a local file that bears the official name against the official digest."""
    if path.name != files.official:
        return
    kind = "MD5" if len(files.digest) == 32 else "SHA-256"
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()
    if found != files.digest:
        raise InputError(
            f"{path}: expected the official file of that name, with {kind} {files.digest}, got {found}; it is damaged or "
            "another file: fetch it again"
        )


def refuse_size(settings: ModelSettings) -> None:
    """Pretrained dense layers take one input size."""
    row: Backbone = BACKBONES[settings.backbone]
    wanted = f"{row.native}x{row.native}"
    if settings.cut in row.top_cuts and settings.input.size != wanted:
        raise InputError(
            f"cut: {settings.cut}: keeps {settings.backbone}'s pretrained dense layers, which take an input.size of {wanted} "
            f"alone, got {settings.input.size}; change it, or cut at {row.freeze_points[-1]}, which takes any"
        )


def _refuse_infinite(network: Any, path: Path) -> None:
    """Refuse weights with NaN or infinity: every prediction would be NaN."""
    import keras

    for weight in network.weights:
        if not np.isfinite(keras.ops.convert_to_numpy(weight)).all():
            raise InputError(f"{path}: holds NaN or infinity in {weight.path}; fetch the file again")
