"""What a trained fold leaves: predictions for its held-out drivers and the test images, bound to its weights."""

import numpy as np

from driverwatch.artifacts import digest_of_file
from driverwatch.data.pack import Pack
from driverwatch.inference import predictions
from driverwatch.inference.paths import prediction_path
from driverwatch.inference.predict import Predictor
from driverwatch.inference.predictions import Predictions
from driverwatch.metrics import log_loss
from driverwatch.models.classifier import Classifier
from driverwatch.settings import PredictSettings, ViewSet, pixels
from driverwatch.terminal import say
from driverwatch.training.run import Run

SHARD_IMAGES = 2000  # predicted between two files: minutes of ten-crop on a CPU, and small beside a batch's start
SHARD = ".shard-"


def write_predictions(
    classifier: Classifier,
    run: Run,
    number: int,
    packs: dict[str, Pack],
    held_out: np.ndarray,
    predict: PredictSettings,
) -> dict[str, float]:
    """Predict with a fold's model, write a file per kind and view set, return the held-out log loss by view set.

    Args:
        held_out: rows of the training pack whose drivers the model never saw.
    """
    weights = digest_of_file(run.fold(number) / "weights.h5")
    field = run.settings.input
    swap = run.swap if run.settings.augment.mirror == "swap" else None
    predictor = Predictor(classifier, predict.views, pixels(field.pack), pixels(field.size), swap, predict.batch_size)
    if predict.views == "ten_crop" and run.settings.augment.mirror == "none":
        say(
            f"{run.name}: training never mirrored, so ten_crop's mirrored views mislead; five_crop is written beside it"
        )
    losses: dict[str, float] = {}
    everything = np.arange(len(packs["test"].names))
    for kind, pack, rows in (("held_out", packs["train"], held_out), ("test", packs["test"], everything)):
        for views, made in _resumable(
            predictor, run, number, kind, pack, rows, {**run.origin, "weights": weights}
        ).items():
            predictions.write(made, prediction_path(run.fold(number), kind, views))
            if kind == "held_out":
                losses[views] = log_loss(made.probabilities, pack.labels[rows])
        for spent in run.fold(number).glob(f"{SHARD}{kind}-*.h5"):
            spent.unlink()
    return losses


def _resumable(
    predictor: Predictor, run: Run, number: int, kind: str, pack: Pack, rows: np.ndarray, origin: dict[str, str]
) -> dict[ViewSet, Predictions]:
    """Predict some rows of a pack by view set, in shards that are kept until all are done: a kill costs one shard.

    Shards hold whole batches, so that their seams change no number.
    """
    size = -(-SHARD_IMAGES // predictor.batch) * predictor.batch
    origin |= {"batch": str(predictor.batch), "of": ",".join(predictor.views)}
    there = {views: prediction_path(run.fold(number), kind, views) for views in predictor.views}
    if all(predictions.is_of(path, origin | {"views": views}, pack.names[rows]) for views, path in there.items()):
        return {views: predictions.read(path, origin | {"views": views}) for views, path in there.items()}
    parts: dict[ViewSet, list[Predictions]] = {views: [] for views in predictor.views}
    images = pack.images.open()
    for start in range(0, max(len(rows), 1), size):
        chosen = rows[start : start + size]
        paths = {views: run.fold(number) / f"{SHARD}{kind}-{views}-{start}.h5" for views in predictor.views}
        if not all(
            predictions.is_of(path, origin | {"views": views}, pack.names[chosen]) for views, path in paths.items()
        ):
            said = f"{run.name} fold {number}: {list(predictor.views)[-1]} of {kind.replace('_', '-')} images"
            said += f" {start + 1}-{start + len(chosen)} of {len(rows)}" if len(rows) > size else ""
            for views, found in predictor(images, chosen, said).items():
                predictions.write(Predictions(pack.names[chosen], found, origin | {"views": views}), paths[views])
        for views, path in paths.items():
            parts[views].append(predictions.read(path, origin | {"views": views}))
    return {
        views: Predictions(
            np.concatenate([part.names for part in found]),
            np.concatenate([part.probabilities for part in found]),
            origin | {"views": views},
        )
        for views, found in parts.items()
    }
