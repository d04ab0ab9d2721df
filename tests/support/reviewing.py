"""Images, features and thumbnails that the review page is made of."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from driverwatch.data.pack import ImageBlock, Pack
from driverwatch.ensemble.embedding_index import EmbeddingIndex
from driverwatch.report import review_measures as measures


def rows_of(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(shape[-1], 0.4), size=shape[:-1])


def images_of(names: list[str], seed: int = 0, runs: int = 2, known: bool = True) -> measures.ReviewImages:
    count = len(names)
    labels = np.arange(count) % 3 if known else np.full(count, -1)
    drivers = np.array([f"p{i % 2}" for i in range(count)] if known else [""] * count, str)
    folds = np.arange(count) % 2 if known else np.full(count, -1)
    return measures.sorted_images(np.array(names, str), labels, drivers, folds, rows_of(seed, runs, count, 3))


def space_of(names: np.ndarray, seed: int = 0) -> EmbeddingIndex:
    order = np.random.default_rng(seed).permutation(len(names))
    points = [np.random.default_rng([*str(name).encode()]).normal(size=5) for name in names]
    return EmbeddingIndex(np.array(names, object)[order], np.array(points, np.float32)[order], "made up")


def with_pixels(pack: Pack, folder: Path, kind: str) -> Pack:
    """The pack with pixels: each image has a shade of its own, by its name."""
    shades = [sum(str(name).encode()) % 256 for name in pack.names]
    pixels = np.broadcast_to(np.array(shades, np.uint8)[:, None, None, None], (len(shades), 36, 44, 3))
    pixels.tofile(folder / f"{kind}.raw")
    return replace(pack, images=ImageBlock(str(folder / f"{kind}.raw"), 0, pixels.shape))
