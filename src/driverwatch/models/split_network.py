"""A classifier split in two: what is frozen, computed once per image, and what is trained on its outputs."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from driverwatch.errors import InputError
from driverwatch.models.build_backbone import single_tensor_layers
from driverwatch.models.classifier import Classifier, Learner, join, split, tapped


class SplitPoint(NamedTuple):
    """Where a classifier is halved: after a layer of its backbone, or with `layer` None after pooling."""

    layer: str | None
    between: int  # frozen layers that lie above the cut all the same, because it had to be a single tensor


def split_point(classifier: Classifier, frozen: int) -> SplitPoint | None:
    """The last place under `frozen` frozen layers where the backbone is a single tensor; None if there is none."""
    layers = classifier.backbone.layers
    if frozen == len(layers):
        return SplitPoint(None, 0)
    legal = set(single_tensor_layers(classifier.backbone))
    found = [i for i, layer in enumerate(layers[:frozen]) if layer.name in legal]
    return SplitPoint(layers[found[-1]].name, frozen - 1 - found[-1]) if found else None


class GridPooling(keras.layers.Layer):
    """Averages over a grid of places, so that features keep where things are: (B, h, w, C) -> (B, rows * columns * C).

    Places are as even as whole cells of the map allow, row by row; of one place it is global average pooling.
    """

    def __init__(self, rows: int, columns: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rows, self.columns = rows, columns

    def call(self, x: Any) -> Any:
        height, width = x.shape[1:3]
        down = list(pairwise(height * i // self.rows for i in range(self.rows + 1)))
        across = list(pairwise(width * i // self.columns for i in range(self.columns + 1)))
        places = [ops.mean(x[:, top:bottom, left:right], axis=(1, 2)) for top, bottom in down for left, right in across]
        return ops.concatenate(places, axis=1)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Raises as `compute_output_shape`."""
        self.compute_output_shape(input_shape)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Raises InputError where the map has fewer cells than places, or is none."""
        asked = (self.rows, self.columns)
        if len(input_shape) != 4 or any((n or 0) < k for n, k in zip(input_shape[1:3], asked, strict=True)):
            raise InputError(
                f"features: expected a map of at least {self.rows}x{self.columns} cells, got {input_shape[1:]}; choose a "
                "coarser grid, or cut the network earlier"
            )
        return input_shape[0], self.rows * self.columns * (input_shape[3] or 0)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rows": self.rows, "columns": self.columns}


class FrozenPart(keras.Model):
    """The lower half, in inference mode: uint8 (B, R * h, w, 3) -> the tensor at the cut, or pooled features (B, R * F).

    R regions' tensors at the cut stay stacked, (B, R * h', w', c), so that there is one output for each image of a pack.
    """

    def __init__(self, classifier: Classifier, cut: SplitPoint, pool: keras.layers.Layer | None = None) -> None:
        """Take a classifier's layers up to a cut.

        Args:
            pool: stands in for the classifier's own pooling, which a cut at a layer does without.
        """
        super().__init__(name="frozen")
        backbone, self.regions = classifier.backbone, classifier.regions
        self.scaling, self.pool = classifier.scaling, (pool or classifier.pool) if cut.layer is None else None
        end = backbone.output if cut.layer is None else backbone.get_layer(cut.layer).output
        self.lower = keras.Model(backbone.input, end, name="lower")  # a name of Keras' would differ from time to time
        self.compile()

    @property
    def features(self) -> tuple[int, ...]:
        """Shape of one image's output: (R * h', w', c), or (R * F,)."""
        shape = self.lower.output_shape
        _, first, *rest = shape if self.pool is None else self.pool.compute_output_shape(shape)
        return (self.regions * first, *rest)

    def call(self, images: Any) -> Any:
        x = self.lower(self.scaling(split(images, self.regions)), training=False)
        return join(x if self.pool is None else self.pool(x), self.regions)


class TrainedPart(Learner):
    """The upper half: what `FrozenPart` gives -> what the classifier gives. Its weights are the classifier's."""

    def __init__(self, classifier: Classifier, cut: SplitPoint) -> None:
        super().__init__(name="tail")
        self.classifier, self.regions = classifier, classifier.regions
        self.auxiliary_weight = classifier.auxiliary_weight
        self.pooled, self.upper, self.tapped = cut.layer is None, None, None
        if cut.layer is not None:
            backbone = classifier.backbone
            names = [layer.name for layer in backbone.layers]
            taps = [tap for tap in classifier.taps if names.index(tap) > names.index(cut.layer)]
            start = backbone.get_layer(cut.layer).output
            self.upper = keras.Model(start, backbone.output)
            self.tapped = tapped(backbone, start, taps) if taps else None

    def call(self, x: Any, training: bool = False) -> Any:
        if self.pooled:
            return self.classifier.classify_features(x, training)
        tapping = training and self.tapped is not None
        return self.classifier.forward_from(split(x, self.regions), self.tapped if tapping else self.upper, training)


class FoldEnsemble(keras.Model):
    """K classifiers of one architecture: uint8 (B, R * h, w, 3) -> their probabilities (B, K, C).

    Layers from the input on that hold the same weights in all, as frozen ones do in the folds of a run, are computed once.
    """

    def __init__(self, classifiers: Sequence[Classifier]) -> None:
        super().__init__(name="together")
        self.classifiers, first = list(classifiers), classifiers[0]
        self.regions = first.regions
        self.cut = split_point(first, shared_prefix(classifiers))
        self.frozen = FrozenPart(first, self.cut) if self.cut else None
        self.tails = [TrainedPart(each, self.cut) for each in classifiers] if self.cut else list(classifiers)

    @property
    def probabilities_shape(self) -> tuple[int, ...]:
        """Shape of the probabilities of one image."""
        return (len(self.tails), *self.classifiers[0].probabilities_shape)

    def call(self, images: Any) -> Any:
        x = self.frozen(images) if self.frozen else images
        return ops.stack([tail(x, training=False) for tail in self.tails], axis=1)


def shared_prefix(classifiers: Sequence[Classifier]) -> int:
    """How many layers of the backbones, counted from the input, hold the same weights in all of them."""
    for count, layers in enumerate(zip(*(one.backbone.layers for one in classifiers), strict=True)):
        mine, *theirs = ([ops.convert_to_numpy(weight) for weight in layer.weights] for layer in layers)
        if not all(np.array_equal(a, b) for weights in theirs for a, b in zip(mine, weights, strict=True)):
            return count
    return len(classifiers[0].backbone.layers)
