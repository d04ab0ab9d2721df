"""Where ImageNet weights come from: the folder WEIGHTS, an installed package, Keras' cache or its download. Imports no Keras."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from driverwatch.config.backbones import BACKBONES, Backbone, WeightFiles
from driverwatch.config.model import ModelSettings
from driverwatch.errors import InputError, nearest
from driverwatch.io.manifests import checksum_of_file
from driverwatch.io.paths import programs_home
from driverwatch.models import backend, packaged_weights

SCRATCH = 'or train from scratch with SET="weights=none train.stages=[{}]"'  # one stage, nothing frozen: of any model
OTHER = "or choose another network"
PREFERRED = "efficientnet_lite0"  # whose package is part of the set-up


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
        raise InputError(
            f"{backbone}: has no ImageNet network with its 1000 classes; {_instead(backbone, folder)}make backbones lists "
            "those that have"
        )
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
    if row.package and (found := packaged_weights.installed(row.package)):
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
        raise InputError(
            f"{backbone}: ImageNet weights could not be downloaded ({' '.join(str(error).split())[:160]}); "
            f"put {' or '.join(files.names)} into a folder and pass WEIGHTS=<folder>, {_instead(backbone, folder)}{otherwise}"
        ) from error


def refuse_damaged(path: Path, backbone: str, files: WeightFiles) -> None:
    """Hold a local file that bears a released file's name against that file's checksum."""
    package = BACKBONES[backbone].package
    if package and path.name == Path(package.file).name:
        packaged_weights.check(path, package.checksum)
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


def files_of(settings: ModelSettings) -> WeightFiles:
    """The files that hold what a model keeps of its backbone: with the top, if it is cut there."""
    row = BACKBONES[settings.backbone]
    return row.whole if settings.truncate_at in row.top_cuts else row.backbone


def _find(backbone: str, files: WeightFiles, folder: Path | None, otherwise: str) -> Path | None:
    """The first local file of a known name, whole if it is a released one; None where there is a download instead."""
    if folder is not None and not folder.is_dir():
        raise InputError(f"WEIGHTS={folder}: no such folder; name the folder that holds {files.names[0]}")
    package = BACKBONES[backbone].package
    found = (folder and _in_folder(files, folder)) or (package and packaged_weights.installed(package))
    if found:
        refuse_damaged(found, backbone, files)
        return found
    if not files.download:
        raise InputError(
            f"{backbone}: no ImageNet weights to download; {_way_to_weights(backbone, files)} and pass WEIGHTS=<folder>, "
            f"{_instead(backbone, folder)}{otherwise}"
        )
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
