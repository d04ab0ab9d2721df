"""What lies ready before training, at a glance: photos, folds, packs, features, cached trunks, free disk."""

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from driverwatch.data import fold_file
from driverwatch.data.competition import present
from driverwatch.data.pack import manifest_of, refuse_moved, stamp
from driverwatch.errors import InputError
from driverwatch.hdf5 import UNREADABLE, attributes
from driverwatch.listing import matching
from driverwatch.steps.context import Context

KINDS = ("train", "test")


@dataclass(frozen=True)
class Photos:
    """Image files below the data folder, whatever the tables say of them."""

    folder: str
    training: int
    test: int
    problem: str | None = None


@dataclass(frozen=True)
class Folds:
    """The fold file; `images` held out by each fold."""

    file: str
    digest: str | None = None
    drivers: int = 0
    images: tuple[int, ...] = ()
    problem: str | None = None


@dataclass(frozen=True)
class PackState:
    """Both packs of a size, `digests` by kind."""

    size: str
    images: int = 0
    left_out: int = 0
    megabytes: float = 0.0
    digests: dict[str, str] = field(default_factory=dict)
    stale: list[str] = field(default_factory=list)
    problem: str | None = None


@dataclass(frozen=True)
class Kept:
    """A file or folder of things that any step can make again."""

    name: str
    files: int
    megabytes: float
    stale: list[str] = field(default_factory=list)
    problem: str | None = None


def photos(context: Context) -> Photos:
    """Count image files: those below the folder of the test images' template are test images."""
    settings, folder = context.settings, str(context.data)
    if not context.data.is_dir():
        way = f"make sample DATASET={context.dataset}" if settings.truth else f"make data DATASET={context.dataset}"
        return Photos(folder, 0, 0, f"not here; DATA=<folder> says where it is, {way} makes it")
    root, total, test = settings.test_images.split("{")[0], 0, 0
    for path in present(settings, context.data):
        total, test = total + 1, test + path.startswith(root)
    wanted = settings.expected
    if wanted is not None and (total - test, test) != (wanted.train, wanted.test):
        return Photos(folder, total - test, test, f"expected {wanted.train:,} training and {wanted.test:,} test images")
    return Photos(folder, total - test, test)


def folds(context: Context) -> Folds:
    """The fold file as it is, not held against the photos."""
    path, asked = context.places.folds, context.settings.folds
    try:
        found = fold_file.glance(path, tuple(context.settings.classes))
    except InputError as error:
        return Folds(str(path), problem=str(error))
    problem = None if found.count == asked else f"holds {found.count} folds, the data set's YAML asks for {asked}"
    return Folds(str(path), found.digest, found.drivers, found.images, problem)


def packs(context: Context, folds: Folds) -> list[PackState]:
    """Every pack, by size."""
    return [_pack(context, folds, path.name) for path in matching(context.places.build / "pack", "*x*")]


def _pack(context: Context, folds: Folds, size: str) -> PackState:
    folder, stale = context.places.pack(size), []
    try:
        made = {kind: manifest_of(folder, kind, size) for kind in KINDS}
        boxes = context.regions(size)
        if any(each["folds"] != folds.digest for each in made.values()):
            stale.append(f"packed under other folds than today's; make pack SIZE={size} (the pixels are kept)")
        for kind, each in made.items():
            path = folder / f"{kind}.h5"
            refuse_moved(path, each, boxes)
            if each.get("stamp") != stamp(path):
                stale.append(f"{path.name} was copied or changed since; whoever reads it next compares every image")
    except (InputError, OSError) as error:
        return PackState(size, problem=str(error))
    images, left = (
        sum(count) for count in zip(*((m["images"], len(m["left_out"])) for m in made.values()), strict=True)
    )
    digests = {kind: each["digest"] for kind, each in made.items()}
    return PackState(size, images, left, megabytes(folder.glob("*.h5")), digests, stale)


def features(context: Context, packs: list[PackState]) -> list[Kept]:
    """Files of features, and whether the packs that they were made of are still there."""
    known = {digest for pack in packs for digest in pack.digests.values()}
    return [_features(path, known) for path in matching(context.places.features, "*.h5")]


def _features(path: Path, known: set[str]) -> Kept:
    try:
        origin = json.loads(attributes(path)["origin"])
        made_of = {origin["train_pack"], origin["test_pack"]}
    except UNREADABLE as error:
        return Kept(
            path.name, 1, megabytes([path]), problem=f"{path}: not a whole file of features ({error}); remove it"
        )
    stale = [] if made_of <= known else ["made of packs that are not there any more; make neighbours makes it anew"]
    return Kept(path.name, 1, megabytes([path]), stale)


def trunks(context: Context) -> Kept:
    """All that frozen layers made of images; any run may use it."""
    files = list(context.places.trunks.glob("*/*.h5"))
    return Kept(str(context.places.trunks), len(files), megabytes(files))


def others(context: Context) -> list[str]:
    """Data sets other than this one that have runs here."""
    build = context.places.build
    return sorted({path.parents[2].name for path in matching(build.parent, "*/runs/*/run.json")} - {build.name})


def free_gigabytes(context: Context) -> float:
    """Free disk where `build/` lies or will lie."""
    build = context.places.build.absolute()
    return round(shutil.disk_usage(next(p for p in [build, *build.parents] if p.exists())).free / 1e9, 1)


def megabytes(paths: Iterable[Path]) -> float:
    """Size of files in 10^6 bytes; those that go meanwhile count nothing."""
    found = 0
    for path in paths:
        try:
            found += path.stat().st_size
        except OSError:
            continue
    return round(found / 1e6, 1)
