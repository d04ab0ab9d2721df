"""Packing, beside decoding and resizing alone, and what it does to an image besides, a part at a time."""

import hashlib
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg

from benchmarks.result import Result
from benchmarks.timing import Side, interleaved, over_rounds, speed
from benchmarks.workload import NO_FOLDS, Bench, quiet
from driverwatch.data import pack, pack_writer
from driverwatch.data.images import examine, pixel_hash
from driverwatch.data.pack_writer import sums
from driverwatch.errors import InputError
from driverwatch.io.hdf5 import write_at
from driverwatch.io.prefetch import one_opencv_thread

PARTS_IMAGES = 250  # that parts are timed on
CHECKED_IMAGES = 16  # whose pixels both sides must give alike
PARTS = {"examining": "all checks", "checksums": "checksums alone", "sums": "channel sums", "writing": "writing"}


def results(bench: Bench) -> list[Result]:
    """Images per second of packing over those of a bare loop on all cores, which drops the pixels."""
    job, paths = bench.job("packed"), bench.paths

    def ours() -> None:
        with quiet():
            pack_writer.write(job, force=True)

    def nothing_there() -> None:
        shutil.rmtree(job.folder, ignore_errors=True)

    sides = {"ours": Side(ours, nothing_there), "theirs": Side(lambda: bare(paths, bench.size))}
    timed = interleaved(sides, bench.asked.repeat)
    packed = pack.read(job.folder, job.kind, NO_FOLDS, job.size).pixels
    some = range(min(CHECKED_IMAGES, len(paths)))
    if not all(np.array_equal(packed[i], decoded(paths[i], bench.size)) for i in some):
        raise InputError(
            "bench: packing and the bare loop do not give the same pixels; take JPEGs that are all upright"
        )
    facts = {
        "images": len(paths),
        "images_per_second": len(paths) / timed["ours"].median,
        "pack": bench.settings.input.key,
    }
    figure = speed(timed["ours"], timed["theirs"])
    whole = Result("pack", "decode and resize alone", "higher", 0.90, figure, timed, facts)
    return [whole, *_parts(bench, paths[:: max(1, len(paths) // PARTS_IMAGES)])]


def _parts(bench: Bench, paths: list[Path]) -> list[Result]:
    """What packing does beside decoding and resizing, as shares of these, in one thread: what bounds the figure above."""
    contents = [path.read_bytes() for path in paths]
    images = [decoded(path, bench.size) for path in paths]
    target = bench.place / "written"

    def all_of(do: Callable[[Any], object], items: list[Any]) -> Side:
        return Side(lambda: [do(item) for item in items])

    def checksums(file: tuple[bytes, np.ndarray]) -> None:
        hashlib.sha256(file[0]).digest()
        pixel_hash(file[1])

    def written() -> None:
        with target.open("wb") as file:
            for number, image in enumerate(images):
                write_at(file.fileno(), image, number * image.size)

    sides = {
        "decoding": all_of(lambda path: decoded(path, bench.size), paths),
        "examining": all_of(lambda path: examine(path, bench.size), paths),
        "checksums": all_of(checksums, [*zip(contents, images, strict=True)]),
        "sums": all_of(sums, images),
        "writing": Side(written, lambda: target.unlink(missing_ok=True)),
    }
    timed = interleaved(sides, bench.asked.repeat)
    examining = over_rounds(lambda whole, bare: whole / bare - 1, timed["examining"].seconds, timed["decoding"].seconds)
    shares = {side: speed(timed["decoding"], timed[side]) for side in PARTS} | {"examining": examining}
    return [
        Result("pack", f"one thread's decoding and resizing: {name}", "lower", figure=shares[side],
               timings={"ours": timed[side], "decoding": timed["decoding"]})
        for side, name in PARTS.items()
    ]  # fmt: skip


def decoded(path: Path, size: tuple[int, int]) -> np.ndarray:
    """uint8 (h, w, 3), by the calls that packing makes of an upright JPEG."""
    image = simplejpeg.decode_jpeg(path.read_bytes(), "RGB", strict=True)
    shrinks = image.shape[0] >= size[0] and image.shape[1] >= size[1]
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def bare(paths: list[Path], size: tuple[int, int]) -> None:
    """Decode and resize on all cores, a share of the files each, and keep nothing."""
    cores = os.cpu_count() or 1

    def some(mine: list[Path]) -> None:
        for path in mine:
            decoded(path, size)

    with one_opencv_thread(), ThreadPoolExecutor(cores) as pool:
        list(pool.map(some, [paths[core::cores] for core in range(cores)]))
