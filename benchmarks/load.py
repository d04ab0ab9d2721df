"""The loader, beside a bare loop, copying, tf.data, Keras' own pipeline and the guides' generator."""

import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing
from functools import cache, partial
from typing import Any

import numpy as np

from benchmarks import baselines
from benchmarks.result import Baseline, Result, beside
from benchmarks.timing import Side, interleaved
from benchmarks.workload import Bench, Epoch, epoch_of
from driverwatch.config.model import AugmentSettings
from driverwatch.data.augment import build, read_policy
from driverwatch.data.context import CONFIGS
from driverwatch.data.pack import ImageBlock
from driverwatch.data.tta import central
from driverwatch.io.prefetch import one_opencv_thread

POLICY = ("affine", "colour", "crop")  # of configs/policies, one after the other: fixed, whatever the model's own
CHUNK_IMAGES = 16  # that a process of the bare loop takes at a time
AUGMENTED = [
    Baseline("threads", "the policy's calls alone, a thread per core", 0.90),
    Baseline("processes", "the policy's calls alone, a process per core", 0.90),
    Baseline("tf.data", "tf.data over the JPEG files", 1.0),
    Baseline("tf.data cached", "tf.data with decoded images cached", 1.0),
    Baseline("keras", "image_dataset_from_directory", 1.0),
    Baseline("generator", "the guides' HDF5 generator", 2.0),
]
ON_HOST = Baseline("processes", "the same in processes, ours handed to nobody", 0.90)
COPIES = {
    "host": Baseline("copy", "copying the same bytes", 0.5),
    "fit": Baseline("copy", "copying the same bytes, ours handed to Keras", 0.5),
}

Policy = list[dict[str, dict[str, Any]]]


def results(bench: Bench) -> list[Result]:
    """Our images per second over those of each baseline, with a fixed policy and without one."""
    policy = [step for name in POLICY for step in read_policy(CONFIGS / "policies", name)]
    return [*_augmented(bench, policy), *_plain(bench)]


def epochs(bench: Bench, policy: Policy, crop: str) -> Epoch:
    """Epochs of the whole pack under a policy; nothing is flipped, and images are shuffled as in training."""
    field = bench.settings.input.model_copy(update={"crop": crop})
    augment = AugmentSettings(policy=policy or None)
    settings = bench.settings.model_copy(update={"input": field, "augment": augment})
    return epoch_of(bench, settings, np.arange(len(bench.pack.names)))


def _augmented(bench: Bench, policy: Policy) -> list[Result]:
    ours, sink = epochs(bench, policy, "random"), baselines.sink()
    block, steps = bench.pack.images, -(-len(ours.indices) // bench.batch)
    fed = {
        "tf.data": baselines.tf_data(bench, cached=False),
        "tf.data cached": baselines.tf_data(bench, cached=True),
        "keras": baselines.image_directory(bench),
    }
    with ours.augmenting, ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as processes:
        sides = {
            "ours": Side(lambda: sink(ours.batches())),
            "host": Side(lambda: on_host(ours.batches())),
            "threads": Side(lambda: bare_threads(bench.pack.pixels, policy)),
            "processes": Side(lambda: bare_processes(processes, block, policy)),
            **{name: Side(partial(sink, data)) for name, data in fed.items()},
            "generator": Side(lambda: sink(baselines.classic_batches(bench, policy), steps)),
        }
        timed = interleaved(sides, bench.asked.repeat)
    facts = {"images": len(ours.indices), "batch": bench.batch, "policy": policy, "pack": bench.settings.input.key}
    kept = {"ours": timed["host"], "processes": timed["processes"]}
    return [*beside("load", AUGMENTED, timed, facts), *beside("load", [ON_HOST], kept, facts)]


def _plain(bench: Bench) -> list[Result]:
    """The centre view without a policy, beside copying as many bytes."""
    ours, sink = epochs(bench, [], "centre"), baselines.sink()
    sides = {
        "fit": Side(lambda: sink(ours.batches())),
        "host": Side(lambda: on_host(ours.batches())),
        "copy": Side(lambda: copied(bench)),
    }
    timed = interleaved(sides, bench.asked.repeat)
    facts = {"images": len(bench.pack.names), "batch": bench.batch}
    found = [beside("load", [copy], {**timed, "ours": timed[name]}, facts) for name, copy in COPIES.items()]
    return [result for (result,) in found]


def bare_threads(images: np.ndarray, policy: Policy) -> None:
    """The policy's calls on every image, a thread per core, nothing kept."""
    cores = os.cpu_count() or 1

    def some(core: int) -> None:
        pipeline = build(policy)
        for image in images[core::cores]:
            pipeline(image=image)

    with one_opencv_thread(), ThreadPoolExecutor(cores) as pool:
        list(pool.map(some, range(cores)))


def bare_processes(pool: ProcessPoolExecutor, block: ImageBlock, policy: Policy) -> None:
    """The same, a process per core; each maps the pack itself."""
    list(pool.map(partial(_in_process, block, json.dumps(policy)), range(0, block.shape[0], CHUNK_IMAGES)))


def _in_process(block: ImageBlock, policy: str, start: int) -> None:
    images, pipeline = _opened(block, policy)
    with one_opencv_thread():
        for image in images[start : start + CHUNK_IMAGES]:
            pipeline(image=image)


@cache
def _opened(block: ImageBlock, policy: str) -> tuple[np.ndarray, Any]:
    """The pack's pixels and the policy's pipeline (JSON), opened once in a process."""
    return block.open(), build(json.loads(policy))


def on_host(batches: Any) -> None:
    """An epoch's batches, handed to nobody."""
    with closing(batches):
        for step in range(len(batches)):
            batches[step]


def copied(bench: Bench) -> None:
    """The centre view's bytes, copied batch by batch on all cores."""
    images, batch, (height, width) = bench.pack.pixels, bench.batch, bench.input_size
    top, left = central(images.shape[1], height), central(images.shape[2], width)

    def one(start: int) -> None:
        images[start : start + batch, top : top + height, left : left + width].copy()

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(one, range(0, len(images), batch)))
