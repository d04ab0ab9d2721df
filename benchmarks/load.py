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
from driverwatch.data.augment import build, load_preset
from driverwatch.data.context import CONFIGS
from driverwatch.data.pack import ImageBlock
from driverwatch.data.tta import central
from driverwatch.io.prefetch import one_opencv_thread

PRESET = ("affine", "colour", "crop")  # of configs/presets, one after the other: fixed, whatever the model's own
CHUNK_IMAGES = 16  # that a process of the bare loop takes at a time
AUGMENTED = [
    Baseline("threads", "the preset's calls alone, a thread per core", 0.90),
    Baseline("processes", "the preset's calls alone, a process per core", 0.90),
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

Preset = list[dict[str, dict[str, Any]]]


def results(bench: Bench) -> list[Result]:
    """Our images per second over those of each baseline, with a fixed preset and without one."""
    preset = [step for name in PRESET for step in load_preset(CONFIGS / "presets", name)]
    return [*_augmented(bench, preset), *_plain(bench)]


def epochs(bench: Bench, preset: Preset, crop: str) -> Epoch:
    """Epochs of the whole pack under a preset; nothing is flipped, and images are shuffled as in training."""
    field = bench.settings.input.model_copy(update={"crop": crop})
    augment = AugmentSettings(preset=preset or None)
    settings = bench.settings.model_copy(update={"input": field, "augment": augment})
    return epoch_of(bench, settings, np.arange(len(bench.pack.names)))


def _augmented(bench: Bench, preset: Preset) -> list[Result]:
    ours, sink = epochs(bench, preset, "random"), baselines.sink()
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
            "threads": Side(lambda: bare_threads(bench.pack.pixels, preset)),
            "processes": Side(lambda: bare_processes(processes, block, preset)),
            **{name: Side(partial(sink, data)) for name, data in fed.items()},
            "generator": Side(lambda: sink(baselines.classic_batches(bench, preset), steps)),
        }
        timed = interleaved(sides, bench.asked.repeat)
    facts = {"images": len(ours.indices), "batch": bench.batch, "preset": preset, "pack": bench.settings.input.key}
    kept = {"ours": timed["host"], "processes": timed["processes"]}
    return [*beside("load", AUGMENTED, timed, facts), *beside("load", [ON_HOST], kept, facts)]


def _plain(bench: Bench) -> list[Result]:
    """The centre view without a preset, beside copying as many bytes."""
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


def bare_threads(images: np.ndarray, preset: Preset) -> None:
    """The preset's calls on every image, a thread per core, nothing kept."""
    cores = os.cpu_count() or 1

    def some(core: int) -> None:
        pipeline = build(preset)
        for image in images[core::cores]:
            pipeline(image=image)

    with one_opencv_thread(), ThreadPoolExecutor(cores) as pool:
        list(pool.map(some, range(cores)))


def bare_processes(pool: ProcessPoolExecutor, block: ImageBlock, preset: Preset) -> None:
    """The same, a process per core; each maps the pack itself."""
    list(pool.map(partial(_in_process, block, json.dumps(preset)), range(0, block.shape[0], CHUNK_IMAGES)))


def _in_process(block: ImageBlock, preset: str, start: int) -> None:
    images, pipeline = _opened(block, preset)
    with one_opencv_thread():
        for image in images[start : start + CHUNK_IMAGES]:
            pipeline(image=image)


@cache
def _opened(block: ImageBlock, preset: str) -> tuple[np.ndarray, Any]:
    """The pack's pixels and the preset's pipeline (JSON), opened once in a process."""
    return block.open(), build(json.loads(preset))


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
