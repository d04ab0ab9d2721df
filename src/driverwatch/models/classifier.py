"""The classifier: preprocessing as a layer, which belongs to the weights, one backbone for every region, and a new head."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from driverwatch.config.backbones import BACKBONES, Scaling
from driverwatch.config.model import HeadSettings, ModelSettings
from driverwatch.config.types import pixels
from driverwatch.models.backend import computing
from driverwatch.models.googlenet import auxiliary
from driverwatch.models.pretrained import build_backbone


@keras.saving.register_keras_serializable(package="driverwatch")
class ChannelScaling(keras.layers.Layer):
    """`(channels - mean) / std` with channels in RGB or BGR order: one layer for every mode of the published weights.

    Takes uint8 or float RGB (B, H, W, 3) in 0-255; gives float32 where it is made by `of`, whatever the layers above compute in.
    `mean` and `std` are in the output's order, in 0-255.
    """

    def __init__(self, order: str, mean: tuple[float, ...], std: tuple[float, ...], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.order, self.mean, self.std = order, tuple(mean), tuple(std)

    @classmethod
    def of(cls, scaling: Scaling, mean: tuple[float, ...] | None = None) -> "ChannelScaling":
        """The weights' own scaling, or with `mean` (RGB, 0-255) the data set's mean in place of theirs."""
        if mean is not None:
            mean = tuple(mean) if scaling.order == "rgb" else tuple(mean[::-1])
        return cls(scaling.order, mean or scaling.mean, scaling.std, name="scaling", trainable=False, dtype="float32")

    def call(self, images: Any) -> Any:
        images = ops.cast(images, self.compute_dtype)
        if self.order == "bgr":
            images = ops.flip(images, axis=-1)
        mean, std = (ops.convert_to_tensor(values, self.compute_dtype) for values in (self.mean, self.std))
        return (images - mean) / std

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "order": self.order, "mean": self.mean, "std": self.std}


def split(x: Any, regions: int) -> Any:
    """(B, R * n, ...) -> (B * R, n, ...): each region of each image for itself; as `regions.split`, on the device."""
    return x if regions == 1 else ops.reshape(x, (-1, x.shape[1] // regions, *x.shape[2:]))


def join(x: Any, regions: int) -> Any:
    """(B * R, n, ...) -> (B, R * n, ...): `split` undone. Features (B * R, F) come to lie side by side, (B, R * F)."""
    return x if regions == 1 else ops.reshape(x, (-1, regions * x.shape[1], *x.shape[2:]))


class Learner(keras.Model):
    """What gives (B, C) probabilities, or in training with auxiliary classifiers (B, 1 + A * R, C), its own first.

    Auxiliary losses are weighed into the loss (Szegedy et al. 2015, arXiv:1409.4842: 0.3 each) and counted in no metric. An
    auxiliary classifier is asked about each of R regions for itself; its loss is their mean.
    """

    auxiliary_weight = 0.0
    regions = 1

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        found, *others = ops.unstack(y_pred, axis=1) if len(y_pred.shape) == 3 else [y_pred]
        loss, one = super().compute_loss(x, y, found, sample_weight, training), keras.losses.get(self.loss)
        weight = self.auxiliary_weight / self.regions
        return loss + sum(weight * one(y, other, sample_weight) for other in others)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        return super().compute_metrics(x, y, y_pred[:, 0] if len(y_pred.shape) == 3 else y_pred, sample_weight)


class Classifier(Learner):
    """uint8 or float RGB (B, R * h, w, 3) in 0-255 -> float32 (B, C) probabilities, rows sum to 1.

    R regions of an image go through one backbone, each as an image of its own, and their pooled features side by side into the
    head. Without hidden layers that is a head per region: `top.kernel` (R * F, C) holds one kernel (F, C) after the other, and
    the softmax of the summed logits is their product of experts (Hinton 2002), fitted jointly: a head can stay silent about
    classes that its region does not show, which a mean of separate probabilities punishes. Normalisation that uses batch
    statistics takes them over all regions.

    `train_statistics` says whether the backbone's normalisation uses batch statistics in training (and layers that learn drop
    units there, if they are made to). It is passed explicitly at each call: in Keras 3 an enclosing functional model hands
    its own `training` down and would override `backbone(x, training=False)`.
    """

    def __init__(
        self,
        scaling: ChannelScaling,
        backbone: keras.Model,
        classes: int,
        head: HeadSettings,
        taps: tuple[str, ...] = (),
        regions: int = 1,
    ) -> None:
        """Put a new head on a backbone.

        Args:
            taps: layers of the backbone where an auxiliary classifier hangs in training.
            regions: R, how many are stacked in an image.
        """
        super().__init__(name="classifier")
        self.scaling, self.backbone, self.taps, self.regions = scaling, backbone, taps, regions
        self.pool = _pooling(head.pooling, len(backbone.output_shape))
        penalty = keras.regularizers.L2(head.weight_decay) if head.weight_decay else None
        self.hidden = [_hidden(i, units, head, penalty) for i, units in enumerate(head.dense, start=1)]
        self.dropout = keras.layers.Dropout(head.dropout, name="dropout")
        self.top = keras.layers.Dense(
            classes, activation="softmax", kernel_regularizer=penalty, dtype="float32", name="top"
        )
        self.auxiliaries = [auxiliary(classes, f"auxiliary{i}") for i, _ in enumerate(taps, start=1)]
        for tap, one in zip(taps, self.auxiliaries, strict=True):
            one.build(backbone.get_layer(tap).output.shape)
        self.auxiliary_weight = head.auxiliary
        self.train_statistics = False
        self.dropout_rates = {one.name: one.rate for one in backbone.layers if isinstance(one, keras.layers.Dropout)}
        self.tapped = tapped(backbone, backbone.input, taps) if taps else None

    @property
    def probabilities_shape(self) -> tuple[int, ...]:
        """Shape of the probabilities of one image."""
        return (int(self.top.units),)

    def call(self, images: Any, training: bool = False) -> Any:
        tiles = split(images, self.regions)
        return self.forward_from(
            self.scaling(tiles), self.tapped if training and self.taps else self.backbone, training
        )

    def forward_from(self, x: Any, backbone: keras.Model, training: bool) -> Any:
        """Go on from a tensor (B * R, ...) in the backbone; `backbone` is what lies above it, with or without its taps."""
        x = backbone(x, training=bool(training) and self.train_statistics)
        x, *taps = x if isinstance(x, list) else [x]
        found = self.classify_features(join(self.pool(x), self.regions), training)
        if not taps:
            return found
        hung = [(one, tap) for one, tap in zip(self.auxiliaries[-len(taps) :], taps, strict=True) if one.trainable]
        said = [one(tap, training=training) for one, tap in hung]
        by_region = [ops.reshape(rows, (-1, self.regions, rows.shape[-1])) for rows in said]  # (B * R, C) -> (B, R, C)
        each = [part[:, i] for part in by_region for i in range(self.regions)]
        return ops.stack([found, *each], axis=1) if each else found

    def classify_features(self, pooled: Any, training: bool = False) -> Any:
        """Pooled features (B, R * F) -> probabilities (B, C)."""
        for block in self.hidden:
            pooled = block(pooled, training=training)
        return self.top(self.dropout(pooled, training=training))


def tapped(backbone: keras.Model, start: Any, taps: "tuple[str, ...] | list[str]") -> keras.Model:
    """What of a backbone lies above the tensor `start`, with the outputs of `taps` beside its own."""
    return keras.Model(start, [backbone.output, *(backbone.get_layer(tap).output for tap in taps)])


def _pooling(kind: str, rank: int) -> keras.layers.Layer:
    """The first layer of a head; a backbone that keeps its dense layers gives (B, F) already."""
    if rank == 2:
        return keras.layers.Identity(name="pool")
    layer = keras.layers.GlobalAveragePooling2D if kind == "average" else keras.layers.Flatten
    return layer(name="pool")


def _hidden(number: int, units: int, head: HeadSettings, penalty: Any) -> keras.Sequential:
    """Dense, ReLU, and as the HDF5 guides have it normalisation after the ReLU and dropout between two such layers."""
    between = [keras.layers.Dropout(head.dropout)] if number > 1 else []
    dense = keras.layers.Dense(units, activation="relu", kernel_regularizer=penalty, name=f"dense{number}")
    after = [keras.layers.BatchNormalization(name=f"dense{number}_bn")] if head.normalization else []
    return keras.Sequential([*between, dense, *after], name=f"hidden{number}")


def build(
    settings: ModelSettings,
    classes: int,
    mean: tuple[float, ...],
    weights: Path | None,
    load: bool = True,
    scope: AbstractContextManager[Any] | None = None,
) -> Classifier:
    """Build a model's classifier.

    Args:
        classes: C.
        mean: the data set's channel means (RGB, 0-255), used with `mean: dataset`.
        weights: local weight file of the backbone, or None (Keras downloads, or random).
        load: False leaves the backbone random, to be filled by `load_state`.
        scope: of the devices that train it; entered after the session was cleared, which would forget it.
    """
    keras.backend.clear_session()  # automatic layer names begin again, so that `freeze_until` finds the same layers
    row, regions = BACKBONES[settings.backbone], len(settings.input.regions)
    height, width = pixels(settings.input.size)
    with computing(settings.precision), scope or nullcontext():
        backbone = build_backbone(settings, weights, load)
        scaling = ChannelScaling.of(row.scaling, mean if settings.mean == "dataset" else None)
        taps = tuple(tap for tap in row.auxiliary if any(layer.name == tap for layer in backbone.layers))
        classifier = Classifier(scaling, backbone, classes, settings.head, taps, regions)
        classifier(np.zeros((1, regions * height, width, 3), np.uint8))
    return classifier
