"""A network as training has it, random weights, and the work of one epoch around it."""

from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np

from benchmarks import baselines as rivals
from benchmarks.workload import Bench
from driverwatch.data.threads import one_opencv_thread
from driverwatch.settings import ModelSettings
from driverwatch.steps.context import CONFIGS
from driverwatch.training.run import Run
from driverwatch.vision.augment import build, read_policy

EPOCHS = 5  # that a training is taken to have, where it chooses between threads and processes


@dataclass(frozen=True, eq=False)
class Epoch:
    """Epochs of one learner on some rows of a bench's pack: through our loader, or fed one constant batch.

    Args:
        images: uint8 (N, H, W, 3), packed.
        inputs: epoch -> what training shows of them (`training.inputs.Inputs`).
    """

    learner: Any
    run: Run
    images: np.ndarray
    targets: np.ndarray
    rows: np.ndarray
    inputs: Any
    numbers: Any
    threads: int = 0  # that ask for inputs; 0: one per core
    augmenting: Any = field(default_factory=nullcontext)  # ends the processes that augment

    def batches(self) -> Any:
        """The next epoch's batches."""
        from driverwatch.training.batches import TrainingBatches

        number = next(self.numbers)
        run, threads = self.run, self.threads
        return TrainingBatches(
            self.inputs(number), self.rows, self.targets, run.settings, run.swap, number, None, threads
        )

    def fit(self) -> None:
        self.learner.fit(self.batches(), shuffle=False, verbose=0)

    def policy(self) -> None:
        """The policy's calls alone on the images of an epoch, in this thread, for nobody; nothing where there is no policy."""
        if not self.run.policy:
            return
        pipeline = build(self.run.policy)
        with one_opencv_thread():
            for row in self.rows:
                pipeline(image=self.images[row])

    def fed(self) -> Any:
        """A function that trains as many steps on one batch that is there already."""
        batches = self.batches()
        data = rivals.constant(batches[0], len(batches))
        return lambda: self.learner.fit(data, shuffle=False, verbose=0)


def run_of(bench: Bench, settings: ModelSettings) -> Run:
    """A run that nobody keeps, under these settings."""
    about, pack = bench.context.settings, bench.pack
    policy = read_policy(CONFIGS / "policies", settings.augment.policy)
    digests = {"train": pack.digest, "test": pack.digest}
    return Run(
        bench.place / "runs" / bench.model, settings, tuple(about.classes), about.swap(), policy, "bench", digests, None
    )


def built(bench: Bench, settings: ModelSettings, deterministic: bool = True) -> Any:
    """A classifier with random weights; with deterministic kernels, as training asks for them, for the rest of this process."""
    from driverwatch.models import backend

    backend.start()
    from driverwatch.models import classifier

    if deterministic:
        backend.deterministic(settings.train.seed)
    return classifier.build(settings, len(bench.context.settings.classes), bench.pack.mean, None, load=False)


def targets_of(bench: Bench) -> np.ndarray:
    """One-hot labels float32 (N, C) of the pack."""
    return np.eye(len(bench.context.settings.classes), dtype=np.float32)[bench.pack.labels]


def last_stage(bench: Bench, classifier: Any, rows: np.ndarray) -> Epoch:
    """The model's last stage as its YAML has it: frozen, compiled, augmented."""
    from driverwatch.models.freezing import freeze
    from driverwatch.training.crew import Loader, Shown
    from driverwatch.training.stages import plan, prepare, rate_factors

    settings, run = bench.settings, run_of(bench, bench.settings)
    stage = plan(settings)[-1]
    freeze(classifier, stage.freeze_until, stage.train_statistics)
    prepare(classifier, stage, settings.train, -(-len(rows) // bench.batch), rate_factors(classifier, stage))

    loader = Loader(Shown((bench.pack,), settings, run.policy, rows), EPOCHS * len(bench.pack.names))
    about = classifier, run, bench.pack.pixels, targets_of(bench), rows
    return Epoch(*about, loader.inputs, count(), loader.threads, loader)


def on_accelerator() -> bool:
    """Whether Keras' backend computes on something else than the processor, which augmentation then does not compete with."""
    import keras

    return any(not str(device).lower().startswith("cpu") for device in keras.distribution.list_devices())
