"""What rows are measured on: images of the data set or synthetic ones, a pack of them, a model and its epochs."""

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.timing import refuse_few
from driverwatch.config.model import ModelSettings
from driverwatch.config.types import pixels
from driverwatch.data import competition, pack, pack_writer, synthetic
from driverwatch.data.augment import build, load_preset
from driverwatch.data.competition import ImageTable
from driverwatch.data.context import CONFIGS, Context
from driverwatch.data.pack import Pack
from driverwatch.data.pack_writer import Job
from driverwatch.errors import InputError
from driverwatch.io.console import say
from driverwatch.io.prefetch import one_opencv_thread
from driverwatch.run import Run

IMAGE_SIZE = "480x640"  # of synthetic images: State Farm's own
NETWORK_FRACTION = 8  # rows that run a network take one image in so many: it is slower than all else
NO_FOLDS = "bench"  # in place of a fold file's checksum in the bench's own packs
EPOCHS = 5  # that a training is taken to have, where it chooses between threads and processes


@dataclass(frozen=True)
class Request:
    """What was asked for.

    Args:
        images: to measure with, if the data set has so many.
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
    weights: Path | None = None  # folder of local weight files, for rows whose log loss matters

    def __post_init__(self) -> None:
        if len(self.settings.input.regions) > 1:
            raise InputError(
                f"MODEL={self.model}: looks at several regions, which no baseline does; choose a model that does not"
            )

    @property
    def place(self) -> Path:
        """The folder of everything that is made for measuring."""
        return self.context.places.build / "bench"

    @property
    def size(self) -> tuple[int, int]:
        """Of packed images (height, width), px."""
        return pixels(self.settings.input.pack)

    @property
    def input_size(self) -> tuple[int, int]:
        """Of what the network takes (height, width), px."""
        return pixels(self.settings.input.size)

    @property
    def batch(self) -> int:
        """Images of a training step."""
        return self.settings.train.batch_size

    @cached_property
    def data(self) -> Path:
        """The data set's folder, or where the data set is synthetic, a folder of images as large as real ones."""
        settings = self.context.settings
        if settings.test_labels is None:
            return self.context.data
        classes, place = len(settings.classes), self.place / f"images-{self.asked.images}"
        drivers = max(2, min(10, self.asked.images // classes))
        frames = -(-self.asked.images // (drivers * classes))
        options = synthetic.SyntheticOptions(drivers, test_drivers=1, clips=1, frames=frames, size=IMAGE_SIZE)
        synthetic.write(options, settings, place)
        return place

    @cached_property
    def table(self) -> ImageTable:
        """The labelled images measured on, evenly spread over the sorted table."""
        whole = competition.read_both(self.context.settings, self.data).train
        if len(whole) < self.asked.images:
            say(
                f"{self.data}: has {len(whole)} labelled images, IMAGES={self.asked.images} asked for more; takes them all"
            )
        chosen = np.zeros(len(whole), bool)
        chosen[np.linspace(0, len(whole) - 1, min(len(whole), self.asked.images)).round().astype(int)] = True
        return whole.where(chosen)

    @property
    def paths(self) -> list[Path]:
        """Files of the table's images."""
        return [self.data / path for path in self.table.frame["path"]]

    @property
    def targets(self) -> np.ndarray:
        """One-hot labels float32 (N, C) of the table's images, which are those of the pack."""
        return np.eye(len(self.context.settings.classes), dtype=np.float32)[self.table.frame["label"].to_numpy()]

    def job(self, folder: str, indices: np.ndarray | None = None) -> Job:
        """Packing of the table's images, or some of them, into a folder of ours."""
        table = self.table if indices is None else self.table.where(np.isin(np.arange(len(self.table)), indices))
        return Job(table, self.data, self.place / folder, "train", self.settings.input.key, NO_FOLDS)

    @cached_property
    def pack(self) -> Pack:
        """The table's images, packed by the real code, as the model wants them."""
        return self.packed()

    def packed(self, indices: np.ndarray | None = None) -> Pack:
        """A pack of some of them, in the order of the table."""
        job = self.job(f"pack-{self.settings.input.key}" + ("" if indices is None else f"-{len(indices)}"), indices)
        with quiet():
            pack_writer.write(job, force=True)
        return pack.read(job.folder, job.kind, NO_FOLDS, job.size)

    def few(self, batch: int, least: int = 2) -> np.ndarray:
        """Indices int (n,) for a measurement that runs a network: whole batches, so that no graph is compiled twice.

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
        batches = min(there, max(least, there // NETWORK_FRACTION))
        return np.random.default_rng(0).permutation(len(self.table))[: batches * batch]

    def run(self, settings: ModelSettings) -> Run:
        """A run that nobody keeps, under these settings."""
        about, checksums = self.context.settings, {"train": self.pack.checksum, "test": self.pack.checksum}
        preset, folder = load_preset(CONFIGS / "presets", settings.augment.preset), self.place / "runs" / self.model
        return Run(folder, settings, tuple(about.classes), about.swap(), preset, NO_FOLDS, checksums, None)

    def classifier(self, settings: ModelSettings, deterministic: bool = True) -> Any:
        """A classifier with random weights; with deterministic kernels, as training asks for them, for the rest of this process."""
        from driverwatch.models import backend

        backend.start()
        from driverwatch.models import classifier

        if deterministic:
            backend.deterministic(settings.train.seed)
        return classifier.build(settings, len(self.context.settings.classes), self.pack.mean, None, load=False)


@dataclass(frozen=True, eq=False)
class Epoch:
    """Epochs of one network on some images of a bench's pack: through our loader, or fed one constant batch.

    Args:
        images: uint8 (N, H, W, 3), packed.
        targets: float32 (N, C).
        indices: of the images that an epoch shows.
        inputs: epoch -> what training shows of them (`training.inputs.Inputs`).
        threads: that ask for inputs; 0: one per core.
        augmenting: a context that ends the processes that augment.
    """

    network: Any
    run: Run
    images: np.ndarray
    targets: np.ndarray
    indices: np.ndarray
    inputs: Any
    threads: int = 0
    augmenting: Any = field(default_factory=contextlib.nullcontext)
    numbers: Any = field(default_factory=count)

    def batches(self) -> Any:
        """The next epoch's batches."""
        from driverwatch.training.data_loader import TrainingBatches

        number, run = next(self.numbers), self.run
        inputs = self.inputs(number)
        return TrainingBatches(inputs, self.indices, self.targets, run.settings, run.swap, number, None, self.threads)

    def fit(self) -> None:
        """Train an epoch."""
        self.network.fit(self.batches(), shuffle=False, verbose=0)

    def preset(self) -> None:
        """The preset's calls alone on the images of an epoch, in this thread, for nobody; nothing where there is no preset."""
        if not self.run.preset:
            return
        pipeline = build(self.run.preset)
        with one_opencv_thread():
            for index in self.indices:
                pipeline(image=self.images[index])

    def fed(self) -> Any:
        """A function that trains as many steps on one batch that is there already, held as tensors."""
        import tensorflow as tf

        batches = self.batches()
        batch = batches[0]
        # its first axis unknown to the graph, as that of our loader's batches is
        data = tf.data.Dataset.from_tensor_slices(batch).batch(len(batch[0])).cache().repeat(len(batches))
        return lambda: self.network.fit(data, shuffle=False, verbose=0)


def epoch_of(bench: Bench, settings: ModelSettings, indices: np.ndarray, network: Any = None) -> Epoch:
    """Epochs as training has them: augmented by threads or, where that pays, by processes."""
    from driverwatch.training.augment_workers import Loader, TrainingSource

    run, packed = bench.run(settings), bench.pack
    loader = Loader(TrainingSource((packed,), settings, run.preset, indices), EPOCHS * len(packed.names))
    return Epoch(network, run, packed.pixels, bench.targets, indices, loader.inputs, loader.threads, loader)


def last_stage(bench: Bench, indices: np.ndarray) -> Epoch:
    """The model's last stage as its YAML has it: frozen, compiled, augmented."""
    classifier = bench.classifier(bench.settings)
    from driverwatch.models.freezing import freeze
    from driverwatch.training.optimizer import lr_multipliers, plan, prepare

    settings = bench.settings
    stage = plan(settings)[-1]
    freeze(classifier, stage.freeze_until, stage.train_statistics)
    prepare(classifier, stage, settings.train, -(-len(indices) // bench.batch), lr_multipliers(classifier, stage))
    return epoch_of(bench, settings, indices, classifier)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Print nothing of progress meanwhile: it is not what is measured, and would bury the table."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
