"""Packing, beside decoding and resizing alone."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from driverwatch.bench.lines import Line
from driverwatch.bench.material import UNDER, Bench, quiet
from driverwatch.bench.timing import Side, interleaved, speed
from driverwatch.data import pack, packing
from driverwatch.errors import InputError

CHECKED = 16  # images whose pixels both sides must give alike


def lines(bench: Bench) -> list[Line]:
    """Images per second of packing, over those of a bare loop on all cores."""
    job, paths = bench.job("packed"), bench.paths

    def ours() -> None:
        with quiet():
            packing.write(job, force=True)

    def nothing_there() -> None:
        shutil.rmtree(bench.place / job.folder.name, ignore_errors=True)

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
        )
    ]


def decoded(path: Path, size: tuple[int, int]) -> np.ndarray:
    """uint8 (h, w, 3), by the calls that packing makes of an upright JPEG."""
    image = simplejpeg.decode_jpeg(path.read_bytes(), "RGB", strict=True)
    shrinks = image.shape[0] >= size[0] and image.shape[1] >= size[1]
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def bare(paths: list[Path], size: tuple[int, int]) -> None:
    """Decode and resize on all cores, a share of the files each, and keep nothing."""
    cv2.setNumThreads(1)
    cores = os.cpu_count() or 1

    def some(mine: list[Path]) -> None:
        for path in mine:
            decoded(path, size)

    with ThreadPoolExecutor(cores) as pool:
        list(pool.map(some, [paths[core::cores] for core in range(cores)]))
