"""Packing, beside decoding and resizing alone."""

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

from benchmarks.result import Line
from benchmarks.timing import Side, interleaved, over_rounds, speed
from benchmarks.workload import UNDER, Bench, quiet
from driverwatch.data import pack, packing
from driverwatch.data.filling import sums
from driverwatch.data.photos import examine
from driverwatch.data.threads import one_opencv_thread
from driverwatch.errors import InputError
from driverwatch.hdf5 import write_at

LOOKED_AT = 250  # photos that parts are timed on
CHECKED = 16  # images whose pixels both sides must give alike


PARTS = {
    "examining": ("all checks", "Headers, EXIF and digests"),
    "digests": ("digests alone", "SHA-256 of the file and of the pixels"),
    "sums": ("channel sums", "Sums and sums of squares per channel"),
    "writing": ("writing", "Writing the pixels into the page cache"),
}


def lines(bench: Bench) -> list[Line]:
    """Images per second of packing, over those of a bare loop on all cores."""
    job, paths = bench.job("packed"), bench.paths

    def ours() -> None:
        with quiet():
            packing.write(job, force=True)

    def nothing_there() -> None:
        shutil.rmtree(job.folder, ignore_errors=True)

    sides = {"ours": Side(ours, nothing_there), "theirs": Side(lambda: bare(paths, bench.size))}
    timed = interleaved(sides, bench.asked.repeat)
    packed = pack.read(job.folder, job.kind, UNDER, job.size).pixels
    alike = all(np.array_equal(packed[i], decoded(paths[i], bench.size)) for i in range(min(CHECKED, len(paths))))
    if not alike:
        raise InputError(
            "bench: packing and the bare loop do not give the same pixels; take JPEGs that all stand upright"
        )
    return [
        Line(
            "pack",
            "decode and resize alone",
            "Both read the same JPEG files out of the page cache, decode them with libjpeg-turbo (simplejpeg, strict) "
            "and resize them with OpenCV's INTER_AREA on all cores; the figure is our images per second over theirs.",
            "The rival drops the pixels; ours also checks headers, digests files and pixels, sums channels, writes "
            "HDF5 and flushes it to disk.",
            "higher",
            0.90,
            speed(timed["ours"], timed["theirs"]),
            timed,
            {
                "images": len(paths),
                "images_per_second": len(paths) / timed["ours"].median,
                "pack": bench.settings.input.key,
            },
        ),
        *_beside(bench, paths[:: max(1, len(paths) // LOOKED_AT)]),
    ]


def _beside(bench: Bench, paths: list[Path]) -> list[Line]:
    """What packing does beside decoding and resizing, a part at a time, in one thread: what bounds the figure above."""
    contents = [path.read_bytes() for path in paths]
    images = [decoded(path, bench.size) for path in paths]
    target = bench.place / "written"

    def all_of(do: Callable[[Any], object], items: list[Any]) -> Side:
        return Side(lambda: [do(item) for item in items])

    def digests(photo: tuple[bytes, np.ndarray]) -> None:
        hashlib.sha256(photo[0]).digest()
        pack.look(photo[1])

    def written() -> None:
        with target.open("wb") as file:
            for number, image in enumerate(images):
                write_at(file.fileno(), image, number * image.size)

    sides = {
        "decoding": all_of(lambda path: decoded(path, bench.size), paths),
        "examining": all_of(lambda path: examine(path, bench.size), paths),
        "digests": all_of(digests, [*zip(contents, images, strict=True)]),
        "sums": all_of(sums, images),
        "writing": Side(written, lambda: target.unlink(missing_ok=True)),
    }
    timed = interleaved(sides, bench.asked.repeat)
    examining = over_rounds(lambda whole, bare: whole / bare - 1, timed["examining"].seconds, timed["decoding"].seconds)
    shares = {side: speed(timed["decoding"], timed[side]) for side in PARTS} | {"examining": examining}
    return [
        Line(
            "pack",
            f"one thread's decoding and resizing: {name}",
            f"{what}, which packing does besides, as a share of decoding and resizing, in one thread.",
            "Threads, the interpreter lock between them, and the flush to disk.",
            "lower",
            figure=shares[side],
            timings={"ours": timed[side], "decoding": timed["decoding"]},
        )
        for side, (name, what) in PARTS.items()
    ]


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
