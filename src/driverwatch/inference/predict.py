"""Forward passes over packed images: views cut, resized and mirrored on the device, averaged, columns swapped where asked."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from driverwatch.data.pack import Pack
from driverwatch.models.classifier import Classifier
from driverwatch.models.halves import Tail, Together
from driverwatch.models.regions import join, split
from driverwatch.setting_types import ViewSet
from driverwatch.terminal import track
from driverwatch.vision.views import KEPT, Columns, View, resampling, unique, view_set

FEATURES_AT_ONCE = 640  # crops in one pass of a head alone


class OnViews(keras.Model):
    """uint8 (B, R * H, W, 3) -> float32 (B, V, ...): one upload of the larger image, all views cut from it on the device."""

    def __init__(self, classifier: Classifier | Together, views: list[View], size: tuple[int, int]) -> None:
        super().__init__()
        self.classifier, self.views, self.size = classifier, views, size

    def call(self, images: Any) -> Any:
        tiles, regions = split(images, self.classifier.regions), self.classifier.regions
        crops = [join(self._cut(tiles, view), regions) for view in self.views]
        rows = self.classifier(ops.concatenate(crops, axis=0), training=False)
        return ops.swapaxes(ops.reshape(rows, (len(self.views), -1, *rows.shape[1:])), 0, 1)

    def _cut(self, tiles: Any, view: View) -> Any:
        """As `vision.views.cut`: each region for itself, (B * R, H, W, 3) -> (B * R, h, w, 3)."""
        crop = tiles[:, view.top : view.top + view.height, view.left : view.left + view.width]
        crop = crop if view.size == self.size else resized(crop, self.size)
        return ops.flip(crop, axis=2) if view.mirrored else crop


def resized(images: Any, size: tuple[int, int]) -> Any:
    """uint8 (B, H, W, C) -> (B, h, w, C) of `size` (height, width), on the device as `vision.views.resized` on the host, +-1."""
    _, height, width, channels = images.shape
    lines = ops.reshape(ops.cast(images, "float32"), (-1, height, width * channels))
    lines = ops.matmul(resampling(height, size[0]), lines)
    made = ops.matmul(resampling(width, size[1]), ops.reshape(lines, (-1, size[0], width, channels)))
    return ops.cast(ops.round(made), images.dtype)


class Predictor:
    """A classifier, or several together, under view sets; made once and used often: its graph is compiled at the first batch."""

    def __init__(
        self,
        classifier: Classifier | Together,
        views: Sequence[ViewSet],
        image: tuple[int, int],
        size: tuple[int, int],
        columns: Columns = KEPT,
        crops_at_once: int = 20,
    ) -> None:
        """Compile for packed regions of `image` and inputs of `size` (height, width of one region each).

        Args:
            views: what is asked for; every set made of their views is given too (`vision.views.held_by`).
            columns: what becomes of the columns of mirrored views.
            crops_at_once: bounds the forward pass' batch.
        """
        self.asked, self.columns, self.shape = views, columns, classifier.given
        self.views = {name: view_set(name, image, size) for name in columns.sets_of(views)}
        self.unique = unique(list(self.views), image, size)
        self.batch = max(1, crops_at_once // len(self.unique))
        self.model = self._compiled(classifier, size)

    def _compiled(self, classifier: Classifier | Together, size: tuple[int, int]) -> keras.Model:
        model = OnViews(classifier, self.unique, size)
        model.compile()
        return model

    def source(self, pack: Pack) -> Any:
        """What `__call__` predicts from: a pack's images, mapped."""
        return pack.pixels

    def __call__(self, source: Any, rows: np.ndarray, label: str = "") -> dict[ViewSet, np.ndarray]:
        """Predict `rows` of a pack under the view sets and every one that they hold.

        Args:
            source: what `source` gave; here uint8 (N, R * H, W, 3).

        Returns:
            float32 (len(rows), C) by view set, or of K classifiers together (len(rows), K, C); rows sum to 1.
        """
        parts = [self._forward(source, chosen) for chosen in self._batches(rows, label)]
        found = (
            np.concatenate(parts)[: len(rows)] if parts else np.zeros((0, len(self.unique), *self.shape), np.float32)
        )
        return {name: self._mean(found, name) for name in self.views}

    def _forward(self, source: Any, rows: np.ndarray) -> np.ndarray:
        """float32 (B, V, C) or (B, V, K, C)."""
        return np.asarray(self.model.predict_on_batch(source[rows]))

    def _mean(self, found: np.ndarray, name: ViewSet) -> np.ndarray:
        views, order = self.views[name], self.columns.of(name)
        rows = found[:, [self.unique.index(view) for view in views]]
        if order is not None:
            mirrored = [view.mirrored for view in views]
            rows[:, mirrored] = rows[:, mirrored][..., order]
        mean = rows.mean(axis=1, dtype=np.float64)
        return (mean / mean.sum(axis=-1, keepdims=True)).astype(np.float32)

    def _batches(self, rows: np.ndarray, label: str) -> Iterator[np.ndarray]:
        """Rows in batches of one length (the last one filled up with its first row), so that nothing is compiled twice."""
        starts = range(0, len(rows), self.batch)
        for start in track(starts, len(rows), label, step=self.batch) if label else starts:
            chosen = rows[start : start + self.batch]
            yield np.concatenate([chosen, np.repeat(chosen[:1], self.batch - len(chosen))])


class FeaturePredictor(Predictor):
    """The same from outputs of frozen layers, computed before: only what lies above them is run."""

    def __init__(
        self,
        tail: Tail,
        outputs: Callable[[Pack, View], np.ndarray],
        views: Sequence[ViewSet],
        image: tuple[int, int],
        size: tuple[int, int],
        columns: Columns = KEPT,
    ) -> None:
        """As `Predictor`.

        Args:
            outputs: a pack's outputs under a view, (N, ...).
        """
        self.tail, self.outputs = tail, outputs
        super().__init__(tail.classifier, views, image, size, columns, crops_at_once=FEATURES_AT_ONCE)

    def _compiled(self, classifier: Classifier | Together, size: tuple[int, int]) -> keras.Model:
        return self.tail

    def source(self, pack: Pack) -> list[np.ndarray]:
        return [self.outputs(pack, view) for view in self.unique]

    def _forward(self, source: Any, rows: np.ndarray) -> np.ndarray:
        return np.stack([np.asarray(self.model.predict_on_batch(array[rows])) for array in source], axis=1)
