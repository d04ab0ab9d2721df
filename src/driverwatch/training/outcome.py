"""What a trained fold leaves: predictions for its held-out drivers and the test images, bound to its weights."""

import numpy as np

from driverwatch.artifacts import digest_of_file
from driverwatch.data.pack import Pack
from driverwatch.inference import predictions
from driverwatch.inference.paths import prediction_path
from driverwatch.inference.predict import Predictor
from driverwatch.metrics import log_loss
from driverwatch.models.classifier import Classifier
from driverwatch.settings import PredictSettings, pixels
from driverwatch.terminal import say
from driverwatch.training.run import Run


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
        said = f"{run.name} fold {number}: {predict.views} of {kind.replace('_', '-')} images"
        for views, probabilities in predictor(pack.images.open(), rows, said).items():
            origin = {**run.origin, "weights": weights, "views": views}
            made = predictions.Predictions(pack.names[rows], probabilities, origin)
            predictions.write(made, prediction_path(run.fold(number), kind, views))
            if kind == "held_out":
                losses[views] = log_loss(probabilities, pack.labels[rows])
    return losses
