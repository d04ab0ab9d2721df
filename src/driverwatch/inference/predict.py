"""Forward passes over packed images: views cut and mirrored on the device, averaged, columns swapped where labels swap."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from driverwatch.data.pack import ImageBlock
from driverwatch.models.classifier import Classifier
from driverwatch.settings import VIEW_SETS, ViewSet
from driverwatch.terminal import track
from driverwatch.vision.views import View, view_set


class OnViews(keras.Model):
    """uint8 (B, H, W, 3) -> float32 (B, V, C): one upload of the larger image, all views cut from it on the device."""

    def __init__(self, classifier: Classifier, views: list[View], size: tuple[int, int]) -> None:
        super().__init__()
        self.classifier, self.views, self.size = classifier, views, size

    def call(self, images: Any) -> Any:
        height, width = self.size
        crops = [images[:, v.top : v.top + height, v.left : v.left + width] for v in self.views]
        crops = [ops.flip(crop, axis=2) if v.mirrored else crop for crop, v in zip(crops, self.views, strict=True)]
        rows = self.classifier(ops.concatenate(crops, axis=0), training=False)
        return ops.transpose(ops.reshape(rows, (len(self.views), -1, rows.shape[-1])), (1, 0, 2))


def predict_views(
    classifier: Classifier,
    block: ImageBlock,
    rows: np.ndarray,
    views: ViewSet,
    size: tuple[int, int],
    swap: list[int] | None,
    crops_at_once: int,
    label: str = "",
) -> dict[ViewSet, np.ndarray]:
    """Predict `rows` of a pack under `views` and every smaller view set that it holds.

    Args:
        swap: column order for mirrored views (`DatasetSettings.swap`), or None to keep the columns.
        crops_at_once: bounds the forward pass' batch.

    Returns:
        float32 (len(rows), C) by view set, rows sum to 1.
    """
    wanted = view_set(views, block.shape[1:3], size)
    unique = list(dict.fromkeys(wanted))  # where the whole frame is the input, corners and centre are one view
    model = OnViews(classifier, unique, size)
    model.compile()
    batch = max(1, crops_at_once // len(unique))
    per_view = [np.asarray(model.predict_on_batch(images)) for images in _batches(block, rows, batch, label)]
    found = (
        np.concatenate(per_view)[: len(rows)]
        if per_view
        else np.zeros((0, len(unique), classifier.top.units), np.float32)
    )
    if swap is not None:
        mirrored = [i for i, view in enumerate(unique) if view.mirrored]
        found[:, mirrored] = found[:, mirrored][..., swap]
    sets = VIEW_SETS[: VIEW_SETS.index(views) + 1]
    return {name: _mean(found, unique, view_set(name, block.shape[1:3], size)) for name in sets}


def _mean(found: np.ndarray, unique: list[View], views: list[View]) -> np.ndarray:
    mean = found[:, [unique.index(view) for view in views]].mean(axis=1, dtype=np.float64)
    return (mean / mean.sum(axis=1, keepdims=True)).astype(np.float32)


def _batches(block: ImageBlock, rows: np.ndarray, batch: int, label: str) -> Iterator[np.ndarray]:
    """Batches of one shape (the last one filled up with its first image), so that nothing is compiled twice."""
    images = block.open()
    starts = range(0, len(rows), batch)
    for start in track(starts, len(rows), label, step=batch) if label else starts:
        chosen = rows[start : start + batch]
        yield images[np.concatenate([chosen, np.repeat(chosen[:1], batch - len(chosen))])]
