"""What a trained fold leaves: predictions for its held-out drivers and the test images, bound to its weights."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from driverwatch.artifacts import digest_of_file
from driverwatch.data.pack import Pack
from driverwatch.inference import predictions
from driverwatch.inference.paths import prediction_path
from driverwatch.inference.predict import Predictor
from driverwatch.inference.predictions import Predictions
from driverwatch.metrics import log_loss
from driverwatch.models.classifier import Classifier
from driverwatch.models.halves import Together
from driverwatch.setting_types import ViewSet, pixels
from driverwatch.terminal import say
from driverwatch.training.run import Run
from driverwatch.vision.views import mirrors

SHARD_IMAGES = 2000  # predicted between two files: minutes of ten-crop on a CPU, and small beside a batch's start
SHARD = ".shard-"
Paths = dict[ViewSet, Path]


def whole_predictor(
    classifier: Classifier | Together, run: Run, views: Sequence[ViewSet], crops_at_once: int
) -> Predictor:
    """A run's classifier, or those of its folds together, from packed images."""
    field = run.settings.input
    return Predictor(classifier, views, pixels(field.pack), pixels(field.size), run.columns, crops_at_once)


def write_predictions(
    predictor: Predictor, run: Run, number: int, packs: dict[str, Pack], held_out: np.ndarray, test: bool = True
) -> dict[str, float]:
    """Predict under a predictor's view sets, write a file per kind and view set, return the held-out log loss by view set.

    Args:
        held_out: rows of the training pack whose drivers the model never saw; where there are none, there is no such file.
        test: whether the test images are predicted too.
    """
    weights = digest_of_file(run.fold(number) / "weights.h5")
    mirrored = [views for views in predictor.asked if mirrors(views)]
    if mirrored and not run.settings.shows_mirrored:
        say(
            f"{run.name}: training never mirrored, so the mirrored views of {', '.join(mirrored)} mislead; five_crop is "
            "written beside"
        )
    losses: dict[str, float] = {}
    everything = np.arange(len(packs["test"].names))
    asked = [("held_out", packs["train"], held_out)] if len(held_out) else []
    asked += [("test", packs["test"], everything)] if test else []
    for kind, pack, rows in asked:
        for views, made in _resumable(predictor, run, number, kind, pack, rows, {**run.origin, "weights": weights}):
            predictions.write(made, prediction_path(run.fold(number), kind, views))
            if kind == "held_out":
                losses[views] = log_loss(made.probabilities, pack.labels[rows])
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
    rows, folds = np.arange(len(pack.names)), []
    for place, number in enumerate(numbers):
        origin = _origin(predictor, {**run.origin, "weights": digest_of_file(run.fold(number) / "weights.h5")})
        if not _are_of(_finished(predictor, run, number, "test"), origin, pack.names):
            folds.append((place, origin, dict(_shards(predictor, run, number, "test", len(rows)))))
    for start in list(folds[0][2])[part.number :: part.of] if folds else ():
        chosen = rows[start : start + _length(predictor)]
        lacking = [fold for fold in folds if not _are_of(fold[2][start], fold[1], pack.names[chosen])]
        if not lacking:
            continue
        said = f"{run.name}: {' and '.join(predictor.asked)} of test images by {len(numbers)} fold models"
        said += f", {start + 1}-{start + len(chosen)} of {len(rows)}" if len(rows) > len(chosen) else ""
        for views, found in predictor(predictor.source(pack), chosen, said).items():
            for place, origin, shards in lacking:
                made = Predictions(pack.names[chosen], found[:, place], origin | {"views": views})
                predictions.write(made, shards[start][views])


def _resumable(
    predictor: Predictor, run: Run, number: int, kind: str, pack: Pack, rows: np.ndarray, origin: dict[str, str]
) -> Iterator[tuple[ViewSet, Predictions]]:
    """Predict some rows of a pack, view set by view set, in shards that are kept until all are done: a kill costs one shard.

    Shards hold whole batches, so that their seams change no number.
    """
    origin, there = _origin(predictor, origin), _finished(predictor, run, number, kind)
    names, shards = pack.names[rows], [there]
    if not _are_of(there, origin, names):
        parts = _shards(predictor, run, number, kind, len(rows))
        shards = [paths for _, paths in parts]
        _fill(predictor, run, number, kind, pack, rows, origin, parts)
    for views in predictor.views:
        rest = [predictions.read(paths[views], origin | {"views": views}).probabilities for paths in shards]
        yield views, Predictions(names, np.concatenate(rest), origin | {"views": views})


def predict_part(
    predictor: Predictor, run: Run, number: int, kind: str, pack: Pack, rows: np.ndarray, part: Part
) -> None:
    """Predict a part of the shards that `write_predictions` will look for; `kind` and `rows` are as there."""
    origin = _origin(predictor, {**run.origin, "weights": digest_of_file(run.fold(number) / "weights.h5")})
    if not _are_of(_finished(predictor, run, number, kind), origin, pack.names[rows]):
        shards = _shards(predictor, run, number, kind, len(rows))
        _fill(predictor, run, number, kind, pack, rows, origin, shards[part.number :: part.of])


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
        for views, found in predictor(source, chosen, said).items():
            predictions.write(Predictions(pack.names[chosen], found, origin | {"views": views}), paths[views])


def _length(predictor: Predictor) -> int:
    """Images in a shard."""
    return -(-SHARD_IMAGES // predictor.batch) * predictor.batch


def _origin(predictor: Predictor, origin: dict[str, str]) -> dict[str, str]:
    """What decides the bits besides the model: the batch, and every view computed in one pass."""
    return {**origin, "batch": str(predictor.batch), "of": ",".join(predictor.views)}


def _finished(predictor: Predictor, run: Run, number: int, kind: str) -> Paths:
    return {views: prediction_path(run.fold(number), kind, views) for views in predictor.views}


def _shards(predictor: Predictor, run: Run, number: int, kind: str, count: int) -> list[tuple[int, Paths]]:
    """The first image of each shard, and its files."""
    folder = run.fold(number)
    starts = range(0, max(count, 1), _length(predictor))
    return [(start, {v: folder / f"{SHARD}{kind}-{v}-{start}.h5" for v in predictor.views}) for start in starts]


def _are_of(paths: Paths, origin: dict[str, str], names: np.ndarray) -> bool:
    """Whether whole files of this origin for these images are there for every view set."""
    return all(predictions.is_of(path, origin | {"views": views}, names) for views, path in paths.items())
