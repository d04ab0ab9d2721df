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
        """As `vision.tta.cut`: each region for itself, (B * R, H, W, 3) -> (B * R, h, w, 3)."""
        crop = tiles[:, view.top : view.top + view.height, view.left : view.left + view.width]
        crop = crop if view.size == self.size else resized(crop, self.size)
        return ops.flip(crop, axis=2) if view.flipped else crop


def resized(images: Any, size: tuple[int, int]) -> Any:
    """uint8 (B, H, W, C) -> (B, h, w, C) of `size` (height, width), on the device as `vision.tta.resized` on the host, +-1."""
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
            tta: what is asked for; every set made of their views is given too (`vision.tta.held_by`).
            columns: what becomes of the columns of flipped views.
            crops_at_once: bounds the forward pass' batch; an image's crops stay together.
            engine: as `predict.engine`; the network's weights must not change after the first batch, unless it is keras.
            images: how many will be asked for, by which `auto` chooses the engine.
        """
        self.asked, self.columns, self.shape = tta, columns, classifier.given
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


def write_predictions(
    predictor: Predictor, run: Run, number: int, packs: dict[str, Pack], validation: np.ndarray, test: bool = True
) -> dict[str, float]:
    """Predict under a predictor's TTA sets, write a file per kind and TTA set, return the validation log loss by TTA set.

    Args:
        validation: rows of the training pack whose drivers the model never saw; where there are none, there is no such file.
        test: whether the test images are predicted too.
    """
    weights = checksum_of_file(run.fold(number) / "weights.h5")
    flipped = [tta for tta in predictor.asked if flips(tta)]
    if flipped and not run.settings.trains_with_flips:
        say(
            f"{run.name}: training never flipped, so the flipped views of {', '.join(flipped)} mislead; five_crop is "
            "written beside"
        )
    losses: dict[str, float] = {}
    everything = np.arange(len(packs["test"].names))
    asked = [("validation", packs["train"], validation)] if len(validation) else []
    asked += [("test", packs["test"], everything)] if test else []
    for kind, pack, rows in asked:
        for tta, made in _resumable(predictor, run, number, kind, pack, rows, {**run.origin, "weights": weights}):
            predictions.write(made, prediction_path(run.fold(number), kind, tta))
            if kind == "validation":
                losses[tta] = log_loss(made.probabilities, pack.labels[rows])
        for spent in run.fold(number).glob(f"{SHARD}{kind}-*.h5"):
            spent.unlink()
    return losses


class Part(NamedTuple):
    """One of `of` parts of the shards that are to be predicted, each by another process."""

    number: int = 0
    of: int = 1


WHOLE = Part()


def predict_together(predictor: Predictor, run: Run, numbers: list[int], pack: Pack, part: Part = WHOLE) -> None:
    """Predict the test images by the models of several folds in one pass, as shards that `write_predictions` takes over.

    Args:
        predictor: of the models `Together`, in the order of `numbers`.
    """
    rows = np.arange(len(pack.names))
    for start, lacking in _lacking_together(predictor, run, numbers, pack, part):
        chosen = rows[start : start + _length(predictor)]
        said = f"{run.name}: {' and '.join(predictor.asked)} of test images by {len(numbers)} fold models"
        said += f", {start + 1}-{start + len(chosen)} of {len(rows)}" if len(rows) > len(chosen) else ""
        for tta, found in predictor(predictor.source(pack), chosen, said).items():
            for place, origin, shards in lacking:
                made = Predictions(pack.names[chosen], found[:, place], origin | {"tta": tta})
                predictions.write(made, shards[start][tta])


Lacking = list[tuple[int, dict[str, str], dict[int, Paths]]]  # a fold's place, the origin of its files, its shards


def _lacking_together(
    predictor: Predictor, run: Run, numbers: list[int], pack: Pack, part: Part
) -> list[tuple[int, Lacking]]:
    """The first image of each shard of a part that folds lack, and which: by the engine that will compute it."""
    rows, weights = np.arange(len(pack.names)), [checksum_of_file(run.fold(n) / "weights.h5") for n in numbers]

    def lacking() -> list[tuple[int, Lacking]]:
        folds: Lacking = []
        for place, number in enumerate(numbers):
            origin = _origin(predictor, {**run.origin, "weights": weights[place]})
            if not _are_of(_finished(predictor, run, number, "test"), origin, pack.names):
                folds.append((place, origin, dict(_shards(predictor, run, number, "test", len(rows)))))
        starts = list(folds[0][2])[part.number :: part.of] if folds else []
        names = {start: pack.names[start : start + _length(predictor)] for start in starts}
        found = [(start, [f for f in folds if not _are_of(f[2][start], f[1], names[start])]) for start in starts]
        return [(start, those) for start, those in found if those]

    found, expected = lacking(), predictor.computed_by
    if found:
        predictor.settle(predictor.source(pack), rows[found[0][0] :])
    return found if predictor.computed_by == expected else lacking()


def _resumable(
    predictor: Predictor, run: Run, number: int, kind: str, pack: Pack, rows: np.ndarray, origin: dict[str, str]
) -> Iterator[tuple[TtaSet, Predictions]]:
    """Predict some rows of a pack, TTA set by TTA set, in shards that are kept until all are done: a kill costs one shard.

    Shards hold whole batches, so that their seams change no number.
    """
    origin, there = _origin(predictor, origin), _finished(predictor, run, number, kind)
    names, shards = pack.names[rows], [there]
    if not _are_of(there, origin, names):
        parts = _shards(predictor, run, number, kind, len(rows))
        origin = _settled(predictor, pack, rows, origin, parts)
        if not _are_of(there, origin, names):
            shards = [paths for _, paths in parts]
            _fill(predictor, run, number, kind, pack, rows, origin, parts)
    for tta in predictor.tta:
        rest = [predictions.read(paths[tta], origin | {"tta": tta}).probabilities for paths in shards]
        yield tta, Predictions(names, np.concatenate(rest), origin | {"tta": tta})


def predict_part(
    predictor: Predictor, run: Run, number: int, kind: str, pack: Pack, rows: np.ndarray, part: Part
) -> None:
    """Predict a part of the shards that `write_predictions` will look for; `kind` and `rows` are as there."""
    origin = _origin(predictor, {**run.origin, "weights": checksum_of_file(run.fold(number) / "weights.h5")})
    if not _are_of(_finished(predictor, run, number, kind), origin, pack.names[rows]):
        shards = _shards(predictor, run, number, kind, len(rows))[part.number :: part.of]
        _fill(predictor, run, number, kind, pack, rows, _settled(predictor, pack, rows, origin, shards), shards)


def _settled(
    predictor: Predictor, pack: Pack, rows: np.ndarray, origin: dict[str, str], shards: list[tuple[int, Paths]]
) -> dict[str, str]:
    """The origin that shards will state, by the engine that turns out to compute those that are not there."""
    starts = [
        start for start, paths in shards if not _are_of(paths, origin, pack.names[rows[start:][: _length(predictor)]])
    ]
    if starts and len(rows):
        predictor.settle(predictor.source(pack), rows[starts[0] :])
    return _origin(predictor, origin)


def _fill(
    predictor: Predictor,
    run: Run,
    number: int,
    kind: str,
    pack: Pack,
    rows: np.ndarray,
    origin: dict[str, str],
    shards: list[tuple[int, Paths]],
) -> None:
    """Predict those of some shards that are not there."""
    source = predictor.source(pack)
    for start, paths in shards:
        chosen = rows[start : start + _length(predictor)]
        if _are_of(paths, origin, pack.names[chosen]):
            continue
        said = f"{run.name} fold {number}: {' and '.join(predictor.asked)} of {kind.replace('_', '-')} images"
        said += f" {start + 1}-{start + len(chosen)} of {len(rows)}" if len(rows) > len(chosen) else ""
        for tta, found in predictor(source, chosen, said).items():
            predictions.write(Predictions(pack.names[chosen], found, origin | {"tta": tta}), paths[tta])


def _length(predictor: Predictor) -> int:
    """Images in a shard."""
    return -(-SHARD_IMAGES // predictor.batch) * predictor.batch


def _origin(predictor: Predictor, origin: dict[str, str]) -> dict[str, str]:
    """What decides the bits besides the model: the batch, every view computed in one pass, and the engine."""
    views = ",".join(predictor.tta)
    return {**origin, "batch": str(predictor.batch), "of": views, "engine": predictor.computed_by}


def _finished(predictor: Predictor, run: Run, number: int, kind: str) -> Paths:
    return {tta: prediction_path(run.fold(number), kind, tta) for tta in predictor.tta}


def _shards(predictor: Predictor, run: Run, number: int, kind: str, count: int) -> list[tuple[int, Paths]]:
    """The first image of each shard, and its files."""
    folder = run.fold(number)
    starts = range(0, max(count, 1), _length(predictor))
    return [(start, {v: folder / f"{SHARD}{kind}-{v}-{start}.h5" for v in predictor.tta}) for start in starts]


def _are_of(paths: Paths, origin: dict[str, str], names: np.ndarray) -> bool:
    """Whether whole files of this origin for these images are there for every TTA set."""
    return all(predictions.is_of(path, origin | {"tta": tta}, names) for tta, path in paths.items())
