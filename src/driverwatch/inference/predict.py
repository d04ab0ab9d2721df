"""Forward passes over packed images: views cut, resized and flipped on the device, averaged, columns swapped where asked."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import keras
import numpy as np
from keras import ops

from driverwatch.config.types import EngineName, TtaSet, pixels
from driverwatch.data.pack import Pack
from driverwatch.data.tta import KEPT, Columns, View, flips, resampling, tta_set, unique
from driverwatch.inference import predictions
from driverwatch.inference.engine import Engine
from driverwatch.inference.predictions import Predictions, prediction_path
from driverwatch.io.console import say, track
from driverwatch.io.manifests import checksum_of_file
from driverwatch.metrics import log_loss
from driverwatch.models.classifier import Classifier, join, split
from driverwatch.models.devices import crops_in_a_pass
from driverwatch.models.split_network import FoldEnsemble, TrainedPart
from driverwatch.run import Run

FEATURES_AT_ONCE = 640  # crops in one pass of a head alone


class TtaViews(keras.Model):
    """uint8 (B, R * H, W, 3) -> float32 (B, V, ...): one upload of the larger image, all views cut from it on the device."""

    def __init__(self, classifier: Classifier | FoldEnsemble, tta: list[View], size: tuple[int, int]) -> None:
        super().__init__()
        self.classifier, self.tta, self.size = classifier, tta, size

    def call(self, images: Any) -> Any:
        tiles, regions = split(images, self.classifier.regions), self.classifier.regions
        crops = [join(self._cut(tiles, view), regions) for view in self.tta]
        rows = self.classifier(ops.concatenate(crops, axis=0), training=False)
        return ops.swapaxes(ops.reshape(rows, (len(self.tta), -1, *rows.shape[1:])), 0, 1)

    def _cut(self, tiles: Any, view: View) -> Any:
        """As `tta.cut`: each region for itself, (B * R, H, W, 3) -> (B * R, h, w, 3)."""
        crop = tiles[:, view.top : view.top + view.height, view.left : view.left + view.width]
        crop = crop if view.size == self.size else resized(crop, self.size)
        return ops.flip(crop, axis=2) if view.flipped else crop


def resized(images: Any, size: tuple[int, int]) -> Any:
    """uint8 (B, H, W, C) -> (B, h, w, C) of `size` (height, width), on the device as `tta.resized` on the host, +-1."""
    _, height, width, channels = images.shape
    lines = ops.reshape(ops.cast(images, "float32"), (-1, height, width * channels))
    lines = ops.matmul(resampling(height, size[0]), lines)
    made = ops.matmul(resampling(width, size[1]), ops.reshape(lines, (-1, size[0], width, channels)))
    return ops.cast(ops.round(made), images.dtype)


class Predictor:
    """A classifier, or several together, under TTA sets; made once and used often: its graph is compiled at the first batch."""

    def __init__(
        self,
        classifier: Classifier | FoldEnsemble,
        tta: Sequence[TtaSet],
        image: tuple[int, int],
        size: tuple[int, int],
        columns: Columns = KEPT,
        crops_at_once: int | Literal["auto"] = "auto",
        engine: EngineName = "keras",
        images: int = 0,
    ) -> None:
        """Compile for packed regions of `image` and inputs of `size` (height, width of one region each).

        Args:
            tta: what is asked for; every set made of their views is given too (`tta.held_by`).
            columns: what becomes of the columns of flipped views.
            crops_at_once: bounds the forward pass' batch; an image's crops stay together.
            engine: as `predict.engine`; the network's weights must not change after the first batch, unless it is keras.
            images: how many will be asked for, by which `auto` chooses the engine.
        """
        self.asked, self.columns, self.shape = tta, columns, classifier.probabilities_shape
        self.tta = {name: tta_set(name, image, size) for name in columns.sets_of(tta)}
        self.unique = unique(list(self.tta), image, size)
        self.batch = max(1, crops_in_a_pass(crops_at_once) // len(self.unique))
        self.model = self._compiled(classifier, size)
        self.engine = Engine(self.model, self.batch, engine, images * len(self.unique))

    def _compiled(self, classifier: Classifier | FoldEnsemble, size: tuple[int, int]) -> keras.Model:
        model = TtaViews(classifier, self.unique, size)
        model.compile()
        return model

    @property
    def computed_by(self) -> str:
        """The engine and its version."""
        return self.engine.name

    def source(self, pack: Pack) -> Any:
        """What `__call__` predicts from: a pack's images, mapped."""
        return pack.pixels

    def settle(self, source: Any, rows: np.ndarray) -> None:
        """Have the engine tried on the first batch of `rows`, after which `computed_by` is what will compute."""
        self.engine.settle(source[next(self._batches(rows, ""))])

    def __call__(self, source: Any, rows: np.ndarray, label: str = "") -> dict[TtaSet, np.ndarray]:
        """Predict `rows` of a pack under the TTA sets and every one that they hold.

        Args:
            source: what `source` gave; here uint8 (N, R * H, W, 3).

        Returns:
            float32 (len(rows), C) by TTA set, or of K classifiers together (len(rows), K, C); rows sum to 1.
        """
        parts = [self._forward(source, chosen) for chosen in self._batches(rows, label)]
        found = (
            np.concatenate(parts)[: len(rows)] if parts else np.zeros((0, len(self.unique), *self.shape), np.float32)
        )
        return {name: self._mean(found, name) for name in self.tta}

    def _forward(self, source: Any, rows: np.ndarray) -> np.ndarray:
        """float32 (B, V, C) or (B, V, K, C)."""
        return self.engine(source[rows])

    def _mean(self, found: np.ndarray, name: TtaSet) -> np.ndarray:
        tta, order = self.tta[name], self.columns.of(name)
        rows = found[:, [self.unique.index(view) for view in tta]]
        if order is not None:
            flipped = [view.flipped for view in tta]
            rows[:, flipped] = rows[:, flipped][..., order]
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
        tail: TrainedPart,
        outputs: Callable[[Pack, View], np.ndarray],
        tta: Sequence[TtaSet],
        image: tuple[int, int],
        size: tuple[int, int],
        columns: Columns = KEPT,
        computed_by: Callable[[], str] = lambda: "",
    ) -> None:
        """As `Predictor`.

        Args:
            outputs: a pack's outputs under a view, (N, ...).
            computed_by: the engine that gave these.
        """
        self.tail, self.outputs, self._outputs_by = tail, outputs, computed_by
        super().__init__(tail.classifier, tta, image, size, columns, crops_at_once=FEATURES_AT_ONCE)

    def _compiled(self, classifier: Classifier | FoldEnsemble, size: tuple[int, int]) -> keras.Model:
        return self.tail

    @property
    def computed_by(self) -> str:
        return self._outputs_by() or self.engine.name

    def settle(self, source: Any, rows: np.ndarray) -> None:
        """Nothing: `source` has settled it, and what is left is little."""

    def source(self, pack: Pack) -> list[np.ndarray]:
        return [self.outputs(pack, view) for view in self.unique]

    def _forward(self, source: Any, rows: np.ndarray) -> np.ndarray:
        return np.stack([self.engine(array[rows]) for array in source], axis=1)


SHARD_IMAGES = 2000  # predicted between two files: minutes of ten-crop on a CPU, and small beside a batch's start
SHARD = ".shard-"
Paths = dict[TtaSet, Path]


def whole_predictor(
    classifier: Classifier | FoldEnsemble,
    run: Run,
    tta: Sequence[TtaSet],
    crops_at_once: int | Literal["auto"],
    engine: EngineName = "keras",
    images: int = 0,
) -> Predictor:
    """A run's classifier, or those of its folds together, from packed images; `engine` and `images` as of `Predictor`."""
    field = run.settings.input
    sizes = pixels(field.pack), pixels(field.size)
    return Predictor(classifier, tta, *sizes, run.columns, crops_at_once, engine, images)


class Part(NamedTuple):
    """One of `of` parts of the shards that are to be predicted, each by another process."""

    number: int = 0
    of: int = 1


WHOLE = Part()


class _Asked:
    """Rows of a pack that a fold's model predicts, as files, or as shards that are kept until all are done."""

    def __init__(self, predictor: Predictor, run: Run, number: int, kind: str, pack: Pack, rows: np.ndarray) -> None:
        self.predictor, self.run, self.number, self.kind = predictor, run, number, kind
        self.pack, self.rows, self.folder = pack, rows, run.fold(number)
        self.made_from = {**run.origin, "weights": checksum_of_file(self.folder / "weights.h5")}

    @property
    def length(self) -> int:
        """Images in a shard: whole batches, so that seams change no number."""
        return -(-SHARD_IMAGES // self.predictor.batch) * self.predictor.batch

    @property
    def origin(self) -> dict[str, str]:
        """What decides the bits: the model, the batch, every view computed in one pass, and the engine."""
        made_with = {"batch": str(self.predictor.batch), "of": ",".join(self.predictor.tta)}
        return {**self.made_from, **made_with, "engine": self.predictor.computed_by}

    @property
    def files(self) -> Paths:
        return {tta: prediction_path(self.folder, self.kind, tta) for tta in self.predictor.tta}

    def shard(self, start: int) -> Paths:
        return {tta: self.folder / f"{SHARD}{self.kind}-{tta}-{start}.h5" for tta in self.predictor.tta}

    @property
    def starts(self) -> range:
        return range(0, max(len(self.rows), 1), self.length)

    def at(self, start: int) -> np.ndarray:
        return self.rows[start : start + self.length]

    def is_whole(self) -> bool:
        return self._are_of(self.files, self.rows)

    def lacks(self, start: int) -> bool:
        return not self._are_of(self.shard(start), self.at(start))

    def _are_of(self, paths: Paths, rows: np.ndarray) -> bool:
        names, origin = self.pack.names[rows], self.origin
        return all(predictions.is_of(path, origin | {"tta": tta}, names) for tta, path in paths.items())

    def write(self, found: np.ndarray, rows: np.ndarray, tta: TtaSet, path: Path) -> None:
        predictions.write(Predictions(self.pack.names[rows], found, self.origin | {"tta": tta}), path)


def _fill(asked: list[_Asked], part: Part = WHOLE) -> None:
    """Predict the shards of a part that some of `asked` lack: one, or one for each of the models that predict together."""
    first = asked[0]
    lacking, expected = _lacking(asked, part), first.predictor.computed_by
    source = first.predictor.source(first.pack) if lacking else None
    if lacking and len(first.rows):
        first.predictor.settle(source, first.rows[min(lacking) :])
        if first.predictor.computed_by != expected:
            lacking = _lacking(asked, part)
    for start, those in lacking.items():
        rows = first.at(start)
        for tta, found in first.predictor(source, rows, _label(asked, start)).items():
            for place, one in those:
                one.write(found if len(asked) == 1 else found[:, place], rows, tta, one.shard(start)[tta])


def _lacking(asked: list[_Asked], part: Part) -> dict[int, list[tuple[int, _Asked]]]:
    """Who lacks each of a part's shards, with its place in `asked`, by the shard's first image; none that everyone has."""
    unfinished = [(place, one) for place, one in enumerate(asked) if not one.is_whole()]
    starts = asked[0].starts[part.number :: part.of] if unfinished else ()
    found = {start: [(place, one) for place, one in unfinished if one.lacks(start)] for start in starts}
    return {start: those for start, those in found.items() if those}


def _label(asked: list[_Asked], start: int) -> str:
    one, count = asked[0], len(asked)
    whose = f"{one.run.name} fold {one.number}" if count == 1 else one.run.name
    shown, rows = len(one.at(start)), len(one.rows)
    of = f" {start + 1}-{start + shown} of {rows}" if rows > shown else ""
    by = f" by {count} fold models" if count > 1 else ""
    return f"{whose}: {' and '.join(one.predictor.asked)} of {one.kind} images{of}{by}"


def _resumable(asked: _Asked) -> Iterator[tuple[TtaSet, Predictions]]:
    """Predict TTA set by TTA set, in shards that are kept until all are done: a kill costs one shard."""
    if not asked.is_whole():
        _fill([asked])
    shards = [asked.files] if asked.is_whole() else [asked.shard(start) for start in asked.starts]
    for tta in asked.predictor.tta:
        origin = asked.origin | {"tta": tta}
        rest = [predictions.read(paths[tta], origin).probabilities for paths in shards]
        yield tta, Predictions(asked.pack.names[asked.rows], np.concatenate(rest), origin)


def write_predictions(
    predictor: Predictor, run: Run, number: int, packs: dict[str, Pack], validation: np.ndarray, test: bool = True
) -> dict[str, float]:
    """Predict under a predictor's TTA sets, write a file per kind and TTA set, return the validation log loss by TTA set.

    Args:
        validation: rows of the training pack whose drivers the model never saw; where there are none, there is no such file.
        test: whether the test images are predicted too.
    """
    flipped = [tta for tta in predictor.asked if flips(tta)]
    if flipped and not run.settings.trains_with_flips:
        sets = ", ".join(flipped)
        say(f"{run.name}: training never flipped, so the flipped views of {sets} mislead; five_crop is written beside")
    losses: dict[str, float] = {}
    everything = np.arange(len(packs["test"].names))
    kinds = [("validation", packs["train"], validation)] if len(validation) else []
    kinds += [("test", packs["test"], everything)] if test else []
    for kind, pack, rows in kinds:
        for tta, made in _resumable(_Asked(predictor, run, number, kind, pack, rows)):
            predictions.write(made, prediction_path(run.fold(number), kind, tta))
            if kind == "validation":
                losses[tta] = log_loss(made.probabilities, pack.labels[rows])
        for spent in run.fold(number).glob(f"{SHARD}{kind}-*.h5"):
            spent.unlink()
    return losses


def predict_together(predictor: Predictor, run: Run, numbers: list[int], pack: Pack, part: Part = WHOLE) -> None:
    """Predict the test images by the models of several folds in one pass, as shards that `write_predictions` takes over.

    `predictor`: a `FoldEnsemble` of the models, in the order of `numbers`.
    """
    rows = np.arange(len(pack.names))
    _fill([_Asked(predictor, run, number, "test", pack, rows) for number in numbers], part)


def predict_part(
    predictor: Predictor, run: Run, number: int, kind: str, pack: Pack, rows: np.ndarray, part: Part
) -> None:
    """Predict a part of the shards that `write_predictions` will look for; `kind` and `rows` are as there."""
    _fill([_Asked(predictor, run, number, kind, pack, rows)], part)
