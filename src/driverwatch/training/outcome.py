"""What a trained fold leaves: predictions for its held-out drivers and the test images, bound to its weights."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from driverwatch.artifacts import digest_of_file
from driverwatch.data.pack import Pack
from driverwatch.inference import predictions
from driverwatch.inference.paths import prediction_path
from driverwatch.inference.predict import Predictor
from driverwatch.inference.predictions import Predictions
from driverwatch.metrics import log_loss
from driverwatch.models.classifier import Classifier
from driverwatch.setting_types import ViewSet, pixels
from driverwatch.terminal import say
from driverwatch.training.run import Run
from driverwatch.vision.views import mirrors

SHARD_IMAGES = 2000  # predicted between two files: minutes of ten-crop on a CPU, and small beside a batch's start
SHARD = ".shard-"


def whole_predictor(classifier: Classifier, run: Run, views: Sequence[ViewSet], crops_at_once: int) -> Predictor:
    """A run's classifier, from packed images."""
    field = run.settings.input
    return Predictor(classifier, views, pixels(field.pack), pixels(field.size), run.columns, crops_at_once)


def write_predictions(
    predictor: Predictor, run: Run, number: int, packs: dict[str, Pack], held_out: np.ndarray
) -> dict[str, float]:
    """Predict under a predictor's view sets, write a file per kind and view set, return the held-out log loss by view set.

    Args:
        held_out: rows of the training pack whose drivers the model never saw; where there are none, there is no such file.
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
    for kind, pack, rows in [*asked, ("test", packs["test"], everything)]:
        for views, made in _resumable(predictor, run, number, kind, pack, rows, {**run.origin, "weights": weights}):
            predictions.write(made, prediction_path(run.fold(number), kind, views))
            if kind == "held_out":
                losses[views] = log_loss(made.probabilities, pack.labels[rows])
        for spent in run.fold(number).glob(f"{SHARD}{kind}-*.h5"):
            spent.unlink()
    return losses


def _resumable(
    predictor: Predictor, run: Run, number: int, kind: str, pack: Pack, rows: np.ndarray, origin: dict[str, str]
) -> Iterator[tuple[ViewSet, Predictions]]:
    """Predict some rows of a pack, view set by view set, in shards that are kept until all are done: a kill costs one shard.

    Shards hold whole batches, so that their seams change no number.
    """
    size = -(-SHARD_IMAGES // predictor.batch) * predictor.batch
    origin |= {"batch": str(predictor.batch), "of": ",".join(predictor.views)}
    there = {views: prediction_path(run.fold(number), kind, views) for views in predictor.views}
    names, shards = pack.names[rows], [there]
    if not _are_of(there, origin, names):
        source, starts = predictor.source(pack), range(0, max(len(rows), 1), size)
        shards = [{v: run.fold(number) / f"{SHARD}{kind}-{v}-{start}.h5" for v in predictor.views} for start in starts]
        for start, paths in zip(starts, shards, strict=True):
            chosen = rows[start : start + size]
            if _are_of(paths, origin, pack.names[chosen]):
                continue
            said = f"{run.name} fold {number}: {' and '.join(predictor.asked)} of {kind.replace('_', '-')} images"
            said += f" {start + 1}-{start + len(chosen)} of {len(rows)}" if len(rows) > size else ""
            for views, found in predictor(source, chosen, said).items():
                predictions.write(Predictions(pack.names[chosen], found, origin | {"views": views}), paths[views])
    for views in predictor.views:
        parts = [predictions.read(paths[views], origin | {"views": views}).probabilities for paths in shards]
        yield views, Predictions(names, np.concatenate(parts), origin | {"views": views})


def _are_of(paths: dict[ViewSet, Path], origin: dict[str, str], names: np.ndarray) -> bool:
    """Whether whole files of this origin for these images are there for every view set."""
    return all(predictions.is_of(path, origin | {"views": views}, names) for views, path in paths.items())
