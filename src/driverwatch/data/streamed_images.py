"""Packed images without packed pixels: decoded from their files at each reading, and held against their checksums."""

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from driverwatch.data.images import LOOK, examine
from driverwatch.data.regions import Box
from driverwatch.errors import InputError
from driverwatch.io.prefetch import MadeAhead, in_threads, one_opencv_thread

AHEAD = 64  # images decoded before they are asked for, where they are read in order: at 180x240 px 8 MB


class ImageFiles(NamedTuple):
    """The files of a pack's images, and what each must show; small enough to hand to another process."""

    folder: Path  # of the data set
    paths: np.ndarray  # text (N,), below `folder`
    looks: np.ndarray  # uint8 (N, `LOOK`): of each image as it was packed
    size: tuple[int, int]  # height, width of a region
    boxes: tuple[Box, ...]  # of the regions


class StreamedImages:
    """An array uint8 (N, R * H, W, 3) whose images are decoded when it is indexed: along its first axis alone.

    Indexed in order, as predictions do, it decodes the next images meanwhile, so that one pass costs no waiting beside a
    network. The pixels are those that a pack would hold, bit for bit: each image's are compared with the checksum taken
    when it was packed.
    """

    dtype, ndim = np.dtype(np.uint8), 4

    def __init__(self, files: ImageFiles) -> None:
        self.files = files
        self.shape = (len(files.paths), len(files.boxes) * files.size[0], files.size[1], 3)
        self.next = 0  # the image after those that were read last

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        yield from in_threads(self._decoded, range(len(self)), AHEAD)

    def __getitem__(self, key: Any) -> np.ndarray:
        """One image for a number, (R * H, W, 3); several for a slice, numbers or a mask, (B, R * H, W, 3).

        Raises:
            InputError: a file that is missing, or shows something else than when it was packed.
        """
        asked = np.arange(len(self))[key]
        if asked.ndim == 0:
            return self._decoded(int(asked))
        found = np.empty((len(asked), *self.shape[1:]), np.uint8)
        for place, image in enumerate(self._several(asked.tolist())):
            found[place] = image
        return found

    def _several(self, numbers: list[int]) -> Iterator[np.ndarray]:
        in_order = bool(numbers) and numbers[0] in (0, self.next)
        self.next = max(numbers, default=-1) + 1
        if not in_order:
            return in_threads(self._decoded, numbers, AHEAD)
        self._ahead.ahead = max(AHEAD, 2 * len(numbers))
        return map(self._ahead, numbers)

    @cached_property
    def _ahead(self) -> MadeAhead[np.ndarray]:
        return MadeAhead(self._decoded, len(self), os.cpu_count() or 1)

    def _decoded(self, number: int) -> np.ndarray:
        files = self.files
        path = files.folder / files.paths[number]
        with one_opencv_thread():
            image = examine(path, files.size, files.boxes)
        if image.pixels is None:
            raise InputError(f"{path}: {image.problem}; test images are read from their files, so restore it (DATA=)")
        if image.look != files.looks[number, :LOOK].tobytes():
            raise InputError(f"{path}: shows something else than when it was packed; restore it, or make pack FORCE=1")
        return image.pixels
