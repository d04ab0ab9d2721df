"""What every step begins with: a data set's settings and places, its folds and packs opened and checked together."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from driverwatch.config.dataset import DatasetSettings
from driverwatch.config.loading import load
from driverwatch.config.types import KEY, pixels, regions_of
from driverwatch.data import folds as fold_tables
from driverwatch.data import pack as packs
from driverwatch.data.competition import ImageTable
from driverwatch.data.folds import FoldTable
from driverwatch.data.pack import Pack
from driverwatch.data.regions import Box
from driverwatch.errors import InputError
from driverwatch.io.paths import Places, matching, plain_name, user_path

CONFIGS = Path("configs")


@dataclass(frozen=True)
class Context:
    """A data set by name, where its files lie on this machine, and who trains its folds.

    A command that has a `maker` makes the packs and features that it lacks; one without, such as a report, only looks.
    """

    dataset: str
    settings: DatasetSettings
    places: Places
    data: Path
    runner: Any = None  # a `FoldRunner`; None: each fold in a process of its own
    maker: "Callable[[Context, str], None] | None" = None  # packs a size: `prepare.pack_missing`
    weights: Path | None = None  # folder of ImageNet weights, for features that are made on the way

    def regions(self, size: str) -> packs.Boxes:
        """Where the data set's YAML has the regions of a pack. Raises `InputError` where it has none of a name."""
        return {name: Box(*corners) for name, corners in self.settings.boxes(regions_of(size)).items()}

    def ensure_packs(self, size: str) -> None:
        """Have both packs of a size made, if one of their files is not there and this command may make it."""
        if self.maker is not None and not self.has_packs(size):
            self.maker(self, size)

    def has_packs(self, size: str) -> bool:
        """Whether all files of both packs of a size are there; none is read."""
        files = [f"{kind}.{end}" for kind in ("train", "test") for end in ("h5", "json")]
        return all((self.places.pack(size) / file).is_file() for file in files)

    def packs_for_embeddings(self, size: str) -> str:
        """The key of the packs that embeddings of `size` are computed on: `size` itself, from the images.

        Where neither such packs nor the images are here, it is that of the largest packs of the same regions, resized: a key
        (`180x240@224x298`) and a checksum of their own, which no run can have been trained on.
        """
        if self.data.is_dir() or self.has_packs(size):
            return size
        least, own = pixels(size), size.partition("-")[0]
        found = [path.name for path in self.places.pack(size).parent.glob("*x*") if re.fullmatch(KEY, path.name)]
        found = [key for key in found if regions_of(key) == regions_of(size) and self.has_packs(key)]
        found = [key for key in found if not packs.is_streamed(self.places.pack(key))]
        larger = [key for key in found if all(there >= need for there, need in zip(pixels(key), least, strict=True))]
        return f"{own}@{max(larger, key=lambda key: (math.prod(pixels(key)), key))}" if larger else size

    def pack(self, size: str, kind: str, folds: str) -> Pack:
        self.ensure_packs(size)
        return packs.read(self.places.pack(size), kind, folds, size, self.regions(size), self.data)


def open_context(dataset: str, data: Path | None, study: str | None = None) -> Context:
    settings = load(DatasetSettings, CONFIGS / "datasets", plain_name(dataset, "DATASET"))
    return Context(dataset, settings, Places(dataset, study=study), data or user_path(settings.data))


def other_datasets(places: Places) -> list[str]:
    """Other data sets that have runs here."""
    build = places.build
    return sorted({path.parents[2].name for path in matching(build.parent, "*/runs/*/run.json")} - {build.name})


def absent(context: Context) -> str:
    """What to do about a data set whose images are not here, in a sentence; empty where they are."""
    if context.data.is_dir():
        return ""
    if context.settings.slug:
        sentence = "the competition is not downloaded (make data downloads it, DATA=<folder> names a download)"
    else:
        makes = " (make synthetic draws them)" if context.settings.test_labels else ""
        sentence = f"{context.dataset}'s images are not here{makes}; DATA=<folder> names their folder"
    if not (others := other_datasets(context.places)):
        return f"{context.data}: no such folder; {sentence}; make demo needs no download"
    named = "the demo" if others == ["demo"] else f"runs of {', '.join(others)}"
    return f"{context.data}: no such folder; {sentence}; what is here is {named}: add DATASET={others[0]}"


def going_on(run: str) -> str:
    """The variables with which `make train` resumes with a run: whose model has its name, or one that only its beginner knows."""
    own = (CONFIGS / "models" / f"{run}.yaml").is_file()
    return f"MODEL={run}" if own else f"MODEL=<its model> RUN={run}"


def predict_command(dataset: str, run: str) -> str:
    """The command that predicts validation drivers and test images with a finished run, for ensembles to take part with."""
    return f"make predict DATASET={dataset} RUN={run}"


def table_of(pack: Pack, classes: tuple[str, ...]) -> ImageTable:
    """The image table that a pack repeats, what was left out of it included, so that later steps need no images."""
    import pandas as pd  # half a second, not for who only looks

    left = pack.left_out
    columns = {
        "image": (pack.names, left.names),
        "driver": (pack.drivers, left.drivers),
        "label": (pack.labels, left.labels),
    }
    frame = pd.DataFrame({name: [*packed, *absent] for name, (packed, absent) in columns.items()} | {"path": ""})
    return ImageTable(frame, classes)


def open_packs(context: Context, size: str) -> tuple[FoldTable, dict[str, Pack]]:
    """Folds and both packs of a size, each re-checked against the others; packs as `Context.ensure_packs` has them.

    Raises:
        InputError: anything missing, damaged, or made from something else.
    """
    path = context.places.folds
    if not path.is_file():
        raise InputError(
            f"{path}: no fold file; {absent(context) or f'run make folds DATASET={context.dataset} first'}"
        )
    context.ensure_packs(size)
    pack = context.pack(size, "train", packs.manifest_of(context.places.pack(size), "train", size)["folds"])
    try:
        folds = fold_tables.read(path, table_of(pack, tuple(context.settings.classes)))
    except InputError as error:
        again = f"make pack SIZE={size} FORCE=1 if the images have changed since"
        lost = "its runs then no longer count: leave them out with MODELS="
        said = f"does not go with {path}; {again} ({lost}), else restore the folds: {error}"
        raise InputError(f"{pack.images.path}: {said}") from error
    return folds, {kind: context.pack(size, kind, folds.checksum) for kind in ("train", "test")}
