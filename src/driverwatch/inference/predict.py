"""Forward passes over packed images: views cut and mirrored on the device, averaged, columns swapped where labels swap."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from driverwatch.data.pack import Pack
from driverwatch.models.classifier import Classifier
from driverwatch.models.halves import Tail
from driverwatch.models.regions import join, split
from driverwatch.settings import VIEW_SETS, ViewSet
from driverwatch.terminal import track
from driverwatch.vision.views import View, view_set

FEATURES_AT_ONCE = 640  # crops in one pass of a head alone


class OnViews(keras.Model):
    """uint8 (B, R * H, W, 3) -> float32 (B, V, C): one upload of the larger image, all views cut from it on the device."""

    def __init__(self, classifier: Classifier, views: list[View], size: tuple[int, int]) -> None:
        super().__init__()
        self.classifier, self.views, self.size = classifier, views, size

    def call(self, images: Any) -> Any:
        (height, width), regions = self.size, self.classifier.regions
        tiles = split(images, regions)
        crops = [tiles[:, v.top : v.top + height, v.left : v.left + width] for v in self.views]
        crops = [ops.flip(crop, axis=2) if v.mirrored else crop for crop, v in zip(crops, self.views, strict=True)]
        crops = [join(crop, regions) for crop in crops]
        rows = self.classifier(ops.concatenate(crops, axis=0), training=False)
        return ops.transpose(ops.reshape(rows, (len(self.views), -1, rows.shape[-1])), (1, 0, 2))


class Predictor:
    """A classifier under a view set; made once and used often, because its graph is compiled at the first batch."""

    def __init__(
        self,
        classifier: Classifier,
        views: ViewSet,
        image: tuple[int, int],
        size: tuple[int, int],
        swap: list[int] | None = None,
        crops_at_once: int = 20,
    ) -> None:
        """Compile for packed regions of `image` and inputs of `size` (height, width of one region each).

        Args:
            swap: column order for mirrored views (`DatasetSettings.swap`), or None to keep the columns.
            crops_at_once: bounds the forward pass' batch.
        """
        self.views = {name: view_set(name, image, size) for name in VIEW_SETS[: VIEW_SETS.index(views) + 1]}
        self.unique = list(dict.fromkeys(self.views[views]))  # of a whole frame, corners and centre are one view
        self.swap, self.classes = swap, classifier.top.units
        self.batch = max(1, crops_at_once // len(self.unique))
        self.model = self._compiled(classifier, size)

    def _compiled(self, classifier: Classifier, size: tuple[int, int]) -> keras.Model:
        model = OnViews(classifier, self.unique, size)
        model.compile()
        return model

    def source(self, pack: Pack) -> Any:
        """What `__call__` predicts from: a pack's images, mapped."""
        return pack.pixels

    def __call__(self, source: Any, rows: np.ndarray, label: str = "") -> dict[ViewSet, np.ndarray]:
        """Predict `rows` of a pack under the view set and every smaller one that it holds.

        Args:
            source: what `source` gave; here uint8 (N, R * H, W, 3).

        Returns:
            float32 (len(rows), C) by view set, rows sum to 1.
        """
        parts = [self._forward(source, chosen) for chosen in self._batches(rows, label)]
        found = (
            np.concatenate(parts)[: len(rows)] if parts else np.zeros((0, len(self.unique), self.classes), np.float32)
        )
        if self.swap is not None:
            mirrored = [i for i, view in enumerate(self.unique) if view.mirrored]
            found[:, mirrored] = found[:, mirrored][..., self.swap]
        return {name: self._mean(found, views) for name, views in self.views.items()}

    def _forward(self, source: Any, rows: np.ndarray) -> np.ndarray:
        """float32 (B, V, C)."""
        return np.asarray(self.model.predict_on_batch(source[rows]))

    def _mean(self, found: np.ndarray, views: list[View]) -> np.ndarray:
        mean = found[:, [self.unique.index(view) for view in views]].mean(axis=1, dtype=np.float64)
        return (mean / mean.sum(axis=1, keepdims=True)).astype(np.float32)

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
        views: ViewSet,
        image: tuple[int, int],
        size: tuple[int, int],
        swap: list[int] | None = None,
    ) -> None:
        """As `Predictor`.

        Args:
            outputs: a pack's outputs under a view, (N, ...).
        """
        self.tail, self.outputs = tail, outputs
        super().__init__(tail.classifier, views, image, size, swap, crops_at_once=FEATURES_AT_ONCE)

    def _compiled(self, classifier: Classifier, size: tuple[int, int]) -> keras.Model:
        return self.tail

    def source(self, pack: Pack) -> list[np.ndarray]:
        return [self.outputs(pack, view) for view in self.unique]

    def _forward(self, source: Any, rows: np.ndarray) -> np.ndarray:
        return np.stack([np.asarray(self.model.predict_on_batch(array[rows])) for array in source], axis=1)
