"""What rows are measured on: photos of the data set or drawn ones, a pack of them, a model's settings. Imports no Keras."""

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from benchmarks.timing import refuse_few
from driverwatch.data import competition, pack, packing, sample
from driverwatch.data.competition import ImageTable
from driverwatch.data.filling import Job
from driverwatch.data.pack import Pack
from driverwatch.errors import InputError
from driverwatch.setting_types import pixels
from driverwatch.settings import ModelSettings
from driverwatch.steps.context import Context
from driverwatch.terminal import say

PHOTO = "480x640"  # of drawn photos: State Farm's own size
NETWORKS_SHARE = 8  # rows that run a network take one image in so many: it is slower than all else
UNDER = "bench"  # what bench's own packs say of folds: there are none


@dataclass(frozen=True)
class Request:
    """What was asked for.

    Args:
        images: photos, if the data set has so many.
        repeat: repetitions that are timed.
        full: take rows that depend on size at the competition's.
    """

    images: int
    repeat: int
    full: bool = False

    def __post_init__(self) -> None:
        refuse_few(self.repeat)
        if self.images < 1:
            raise InputError(f"IMAGES={self.images}: expected 1 or more")


@dataclass(frozen=True)
class Bench:
    """A request on a data set, for a model."""

    context: Context
    model: str
    settings: ModelSettings
    asked: Request

    def __post_init__(self) -> None:
        if len(self.settings.input.regions) > 1:
            raise InputError(
                f"MODEL={self.model}: looks at several regions, which no rival does; choose a model that does not"
            )

    @property
    def place(self) -> Path:
        """Everything that is made for measuring."""
        return self.context.places.build / "bench"

    @property
    def size(self) -> tuple[int, int]:
        """Of packed images (height, width)."""
        return pixels(self.settings.input.pack)

    @property
    def batch(self) -> int:
        return self.settings.train.batch_size

    @cached_property
    def data(self) -> Path:
        """The data set's folder, or where the data set is drawn by us, a folder of photos as large as real ones."""
        settings = self.context.settings
        if settings.truth is None:
            return self.context.data
        classes, place = len(settings.classes), self.place / f"photos-{self.asked.images}"
        drivers = max(2, min(10, self.asked.images // classes))
        frames = -(-self.asked.images // (drivers * classes))
        options = sample.SampleOptions(drivers, test_drivers=1, clips=1, frames=frames, size=PHOTO)
        sample.write(options, settings, place)
        return place

    @cached_property
    def table(self) -> ImageTable:
        """The labelled images measured on, evenly spread over the sorted table."""
        whole = competition.read_both(self.context.settings, self.data).train
        if len(whole) < self.asked.images:
            say(
                f"{self.data}: has {len(whole)} labelled images, IMAGES={self.asked.images} asked for more; all are "
                "taken"
            )
        chosen = np.zeros(len(whole), bool)
        chosen[np.linspace(0, len(whole) - 1, min(len(whole), self.asked.images)).round().astype(int)] = True
        return whole.where(chosen)

    @property
    def paths(self) -> list[Path]:
        return [self.data / path for path in self.table.frame["path"]]

    def job(self, folder: str, rows: np.ndarray | None = None) -> Job:
        """Packing of the chosen photos, or some of them, into a folder of ours."""
        table = self.table if rows is None else self.table.where(np.isin(np.arange(len(self.table)), rows))
        return Job(table, self.data, self.place / folder, "train", self.settings.input.key, UNDER)

    @cached_property
    def pack(self) -> Pack:
        """The chosen photos, packed by the real code, as the model wants them."""
        return self.packed()

    def packed(self, rows: np.ndarray | None = None) -> Pack:
        """A pack of some of them, in the order of the table."""
        job = self.job(f"pack-{self.settings.input.key}" + ("" if rows is None else f"-{len(rows)}"), rows)
        with quiet():
            packing.write(job, force=True)
        return pack.read(job.folder, job.kind, UNDER, job.size)

    def few(self, batch: int, least: int = 2) -> np.ndarray:
        """Rows for a measurement that runs a network: whole batches, so that no graph is compiled twice.

        Args:
            least: batches, where there are so many images.

        Raises:
            InputError: fewer images than two batches.
        """
        there = len(self.table) // batch
        if there < 2:
            raise InputError(
                f"IMAGES={self.asked.images}: {len(self.table)} images are fewer than two batches of {self.model} (of "
                f"{batch}); choose more IMAGES, or another MODEL"
            )
        batches = min(there, max(least, there // NETWORKS_SHARE))
        return np.random.default_rng(0).permutation(len(self.table))[: batches * batch]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Say nothing of progress meanwhile: it is not what is measured, and would bury the table."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
