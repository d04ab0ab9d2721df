"""Groups of look-alike images, for competitions whose tables name no driver: folds must not tear a clip apart.

Neighbouring frames of a clip are near-duplicates, and a network that has seen one in training knows the other. A
perceptual hash finds them: images whose hashes differ in few bits are linked, and whatever links connect is one group. What no
hash can see is that two clips that look different show the same driver, so where the table names drivers, they are better.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from driverwatch.data.images import examine
from driverwatch.io.console import track
from driverwatch.io.prefetch import one_opencv_thread

SIDE = 16  # comparisons along each side of an image; 8 x 8 merges drivers before it joins clips
BITS = 2 * SIDE * SIDE
WORDS = BITS // 64

# Bits, of `BITS`. Images of two State Farm drivers differ in at least 94 (every fifth frame of 19, among each other and from 7
# more), of two drawn ones in at least 86: at 80 no group mixes drivers. On folds by such groups a linear classifier of
# ImageNet features is right as often as on folds by driver (0.38 and 0.37; random folds: 0.91), at 64 more often (0.49).
DISTANCE = 80

CHUNK = 512  # images a side of the square of pairs that is compared at a time: some 4 MB a thread


def image_hash(image: np.ndarray) -> np.ndarray:
    """Difference hash: whether each of 16 x 16 places is darker than its right and than its lower neighbour.

    After N. Krawetz, "Kind of Like That" (hackerfactor.com, 2013), with both directions and four times the places. It
    survives JPEG, resizing and even changes of light, but neither flipping nor cropping.

    Args:
        image: uint8 RGB (H, W, 3), of any size.

    Returns:
        uint64 (8,), 512 bits.
    """
    small = cv2.resize(image, (SIDE + 1, SIDE + 1), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    corner = grey[:-1, :-1]
    darker = np.stack([corner < grey[:-1, 1:], corner < grey[1:, :-1]])
    return np.packbits(darker).view(np.uint64)


def hashes(paths: Sequence[str], data: Path) -> tuple[np.ndarray, dict[int, str]]:
    """Hashes of the images at `paths` below `data`, uint64 (N, 8), and which rows are of invalid images, with what is wrong."""
    files = [data / path for path in paths]
    problems: dict[int, str] = {}
    found = np.zeros((len(files), WORDS), np.uint64)
    with one_opencv_thread(), ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in track(range(0, len(files), CHUNK), len(files), "hash", step=CHUNK):
            for row, (bits, problem) in enumerate(pool.map(_hash_file, files[start : start + CHUNK]), start):
                found[row] = bits
                problems |= {row: f"{paths[row]}: {problem}"} if problem else {}
    return found, problems


def _hash_file(path: Path) -> tuple[np.ndarray | int, str | None]:
    image = examine(path, (SIDE + 1, SIDE + 1))
    return (0 if image.pixels is None else image_hash(image.pixels)), image.problem


def group(hashes: np.ndarray, distance: int = DISTANCE, chunk: int = CHUNK) -> np.ndarray:
    """Connected components of "differ in at most `distance` bits": exact, over all pairs.

    Memory stays at a few numbers per image and `chunk`**2 pairs per thread; time grows with N**2 (on two cores some 5 s
    for 22,424 images, two minutes for 102,150).

    Args:
        hashes: uint64 (N, W).

    Returns:
        int64 (N,), the group of each image, numbered by first appearance.
    """
    count, words = len(hashes), np.ascontiguousarray(hashes.T)
    groups = np.arange(count)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in track(range(0, count, chunk), count, "group", step=chunk):
            links = partial(_links, words, start, distance=distance, chunk=chunk)
            joined = np.concatenate(list(pool.map(links, range(start, count, chunk))), axis=1)
            groups = _components(groups[joined], groups.max() + 1)[groups]
    return pd.factorize(groups)[0]


def _links(words: np.ndarray, start: int, other: int, distance: int, chunk: int) -> np.ndarray:
    """Links int64 (2, L) that connect what is near in one square of pairs: fewer than it has images, however many pairs are."""
    rows, columns = words[:, start : start + chunk], words[:, other : other + chunk]
    differing = np.zeros((rows.shape[1], columns.shape[1]), np.uint16)
    for ours, theirs in zip(rows, columns, strict=True):
        differing += np.bitwise_count(ours[:, None] ^ theirs)
    row, column = (differing <= distance).nonzero()
    images = np.concatenate([start + np.arange(rows.shape[1]), other + np.arange(columns.shape[1])])
    components = _components(np.stack([row, rows.shape[1] + column]), len(images))
    _, first = np.unique(components, return_index=True)
    links = np.stack([images, images[first][components]])
    return links[:, links[0] != links[1]]


def _components(links: np.ndarray, count: int) -> np.ndarray:
    """Component int64 (count,) of each node under links int (2, L)."""
    graph = coo_array((np.ones(links.shape[1]), links), (count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def group_names(groups: np.ndarray) -> list[str]:
    """`g0001` for group 0 and so on, of one width, so that names sort as numbers do."""
    width = max(4, len(str(groups.max(initial=0) + 1)))
    return [f"g{number + 1:0{width}d}" for number in groups.tolist()]


def summary(groups: np.ndarray, folds: int) -> str:
    """How many groups there are and how large the largest is, and what to do where it outgrows a fold."""
    sizes = np.bincount(groups)
    share = sizes.max(initial=0) / max(len(groups), 1)
    text = f"{len(groups)} images in {len(sizes)} groups of look-alikes, the largest {share:.0%} of all"
    if share > 1 / folds:
        text += f": more than one of {folds} folds can hold evenly; lower group_distance"
    return text
