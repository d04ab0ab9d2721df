"""The loader, beside a bare loop, copying, tf.data, Keras' own pipeline and the guides' generator."""

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import numpy as np

from benchmarks import baselines as rivals
from benchmarks.epoch_workload import EPOCHS
from benchmarks.guides import ClassicGenerator
from benchmarks.result import Line, Rival, beside
from benchmarks.timing import Side, interleaved
from benchmarks.workload import Bench
from driverwatch.data.pack import ImageBlock
from driverwatch.data.threads import one_opencv_thread
from driverwatch.settings import AugmentSettings, ModelSettings
from driverwatch.steps.context import CONFIGS
from driverwatch.training.crew import Loader as Augmenting
from driverwatch.training.crew import Shown
from driverwatch.vision.augment import build, read_policy
from driverwatch.vision.views import central

POLICY = ("affine", "colour", "crop")  # of configs/policies, one after the other: fixed, whatever the model's own
CHUNK = 16  # images that a process of the bare loop takes at a time
AUGMENTED = "Both give every image once, augmented by affine, colour and crop, cut to the input size, in batches"

Policy = list[dict[str, dict[str, Any]]]


def lines(bench: Bench) -> list[Line]:
    """With a fixed policy and without one."""
    policy = [step for name in POLICY for step in read_policy(CONFIGS / "policies", name)]
    return [*_augmented(bench, policy), *_plain(bench)]


@dataclass(frozen=True)
class Loader:
    """Our loader on a bench's pack, one epoch after the other."""

    bench: Bench
    settings: ModelSettings
    augmenting: Augmenting

    def batches(self, epoch: int) -> Any:
        from driverwatch.training.batches import TrainingBatches, one_hot

        pack, classes = self.bench.pack, self.bench.context.settings
        inputs, threads = self.augmenting.inputs(epoch), self.augmenting.threads
        targets, rows = one_hot(pack.labels, len(classes.classes)), np.arange(len(pack.names))
        return TrainingBatches(inputs, rows, targets, self.settings, classes.swap(), epoch, threads=threads)


def loader(bench: Bench, policy: Policy, crop: str) -> Loader:
    """The loader under a policy; nothing is mirrored, and rows are shuffled as in training."""
    field = bench.settings.input.model_copy(update={"crop": crop})
    augment = AugmentSettings(policy=policy or None)
    settings = bench.settings.model_copy(update={"input": field, "augment": augment})
    rows = np.arange(len(bench.pack.names))
    return Loader(bench, settings, Augmenting(Shown((bench.pack,), settings, policy, rows), EPOCHS * len(rows)))


def _augmented(bench: Bench, policy: Policy) -> list[Line]:
    ours, epochs, sink = loader(bench, policy, "random"), count(), rivals.sink()
    block, rows = bench.pack.images, np.arange(len(bench.pack.names))
    with ours.augmenting, ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as processes:
        sides = {
            "ours": Side(lambda: sink(ours.batches(next(epochs)))),
            "host": Side(lambda: in_memory(ours.batches(next(epochs)))),
            "threads": Side(lambda: bare_threads(bench.pack.pixels, policy)),
            "processes": Side(lambda: bare_processes(processes, block, policy)),
            **_pipelines(bench, sink),
            "generator": Side(lambda: sink(iter(ClassicGenerator(bench, policy)), -(-len(rows) // bench.batch))),
        }
        timed = interleaved(sides, bench.asked.repeat)
    facts = {"images": len(rows), "batch": bench.batch, "policy": policy, "pack": bench.settings.input.key}
    kept = {"ours": timed["host"], "processes": timed["processes"]}
    return [*beside("load", AUGMENTED, RIVALS, timed, facts), *beside("load", AUGMENTED, [KEPT], kept, facts)]


def _pipelines(bench: Bench, sink: Callable[..., None]) -> dict[str, Side]:
    folder = rivals.by_class(bench)
    fed = {
        "tf.data": rivals.tf_data(bench, cached=False),
        "tf.data cached": rivals.tf_data(bench, cached=True),
        "keras": rivals.directory(bench, folder),
    }
    return {name: Side(partial(sink, data)) for name, data in fed.items()}


SAME = "ours reads packed images, the rival the same pixels from the same pack"
RIVALS = [
    Rival(
        "threads",
        "the policy's calls alone, a thread per core",
        f"{SAME}, in a thread per core",
        "The bare loop does not seed, shuffle, batch or hand over; it shares one Python interpreter, as ours does.",
        0.90,
    ),
    Rival(
        "processes",
        "the policy's calls alone, a process per core",
        f"{SAME}, in a process per core",
        "The bare loop does not seed, shuffle, batch or hand over, and its pixels never leave the processes.",
        0.90,
    ),
    Rival(
        "tf.data",
        "tf.data over the JPEG files",
        "ours reads packed images; the rival decodes and resizes the JPEG files in each epoch (parallel map, batch, "
        "prefetch, as TensorFlow's guide has it) and augments with TensorFlow's own operations",
        "Packing, which ours has done once before; the operations are comparable, not the same.",
        1.0,
    ),
    Rival(
        "tf.data cached",
        "tf.data with decoded images cached",
        "ours reads packed images; the rival has decoded and resized the files in an earlier epoch and holds them in "
        "memory (cache)",
        "Packing and the first epoch's decoding; the rival's memory grows with the number of images.",
        1.0,
    ),
    Rival(
        "keras",
        "image_dataset_from_directory",
        "ours reads packed images; the rival is Keras' image_dataset_from_directory with preprocessing layers in a "
        "parallel map, as Keras' guide has it",
        "Packing; the layers are comparable, not the same, and warp more than once.",
        1.0,
    ),
    Rival(
        "generator",
        "the guides' HDF5 generator",
        "both read the same pack and make the same policy's calls; the rival through one HDF5 handle, one image at a "
        "time, and subtracts the mean on the host",
        "Shuffling, which the guides leave to packing.",
        2.0,
    ),
]


KEPT = Rival(
    "processes",
    "the same in processes, ours handed to nobody",
    f"{SAME}, in a process per core, and ours ends with batches on the host",
    "Seeding, shuffling, random patches and batches, which the bare loop does without; neither hands anything to Keras.",
    0.90,
)


def _plain(bench: Bench) -> list[Line]:
    ours, epochs, sink = loader(bench, [], "centre"), count(), rivals.sink()
    sides = {
        "fit": Side(lambda: sink(ours.batches(next(epochs)))),
        "host": Side(lambda: in_memory(ours.batches(next(epochs)))),
        "copy": Side(lambda: copied(bench)),
    }
    timed = interleaved(sides, bench.asked.repeat)
    facts = {"images": len(bench.pack.names), "batch": bench.batch}
    return [
        line
        for name, rival in COPIES.items()
        for line in beside("load", CENTRE, [rival], {"ours": timed[name], "copy": timed["copy"]}, facts)
    ]


CENTRE = "Both give every image's centre view in batches; the rival copies those bytes out of the pack in order, on all cores"
COPIES = {
    "host": Rival(
        "copy",
        "copying the same bytes",
        "ours makes batches in threads",
        "Ours shuffles, cuts, stacks, and makes targets and weights; neither side hands anything to Keras.",
        0.5,
    ),
    "fit": Rival(
        "copy",
        "copying the same bytes, ours handed to Keras",
        "ours is drawn by `fit` with a network that does nothing",
        "Only ours queues batches and turns them into tensors.",
        0.5,
    ),
}


def bare_threads(images: np.ndarray, policy: Policy) -> None:
    """The policy's calls on every image, a thread per core, nothing kept."""
    cores = os.cpu_count() or 1
    with one_opencv_thread(), ThreadPoolExecutor(cores) as pool:
        list(pool.map(lambda core: _called(images[core::cores], policy), range(cores)))


def bare_processes(pool: ProcessPoolExecutor, block: ImageBlock, policy: Policy) -> None:
    """The same, a process per core; each maps the pack itself."""
    starts = range(0, block.shape[0], CHUNK)
    list(pool.map(_in_process, [(block, start, policy) for start in starts]))


def _in_process(task: tuple[ImageBlock, int, Policy]) -> None:
    block, start, policy = task
    key = repr((block, policy))
    if key not in _OPENED:
        _OPENED[key] = block.open(), build(policy)
    images, pipeline = _OPENED[key]
    with one_opencv_thread():
        for image in images[start : start + CHUNK]:
            pipeline(image=image)


_OPENED: dict[str, tuple[np.ndarray, Any]] = {}  # of a process of the bare loop


def _called(images: np.ndarray, policy: Policy) -> None:
    pipeline = build(policy)
    for image in images:
        pipeline(image=image)


def in_memory(batches: Any) -> None:
    """An epoch's batches, handed to nobody."""
    with closing(batches):
        for step in range(len(batches)):
            batches[step]


def copied(bench: Bench) -> None:
    """The centre view's bytes, copied batch by batch on all cores."""
    images, batch, (height, width) = bench.pack.pixels, bench.batch, rivals.input_size(bench)
    top, left = central(images.shape[1], height), central(images.shape[2], width)

    def one(start: int) -> None:
        images[start : start + batch, top : top + height, left : left + width].copy()

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(one, range(0, len(images), batch)))
