"""What `make demo` ends with, in eight lines: what was made, how good it is, what to open and what to type next.

python -m scripts.demo_summary <pretrained run> <run from scratch> <submission>
"""

import sys

import numpy as np

from driverwatch.config.types import TtaSet
from driverwatch.data import competition
from driverwatch.data.context import open_context
from driverwatch.ensemble import members as blending
from driverwatch.ensemble.members import Member, finished_runs
from driverwatch.io.console import say
from driverwatch.io.manifests import read_json
from driverwatch.metrics import accuracy, kaggle_log_loss, log_loss
from driverwatch.submission import validate

DATASET = "demo"


def main(pretrained: str, scratch: str, submission: str) -> None:
    """Print the lines, from what is recorded."""
    context = open_context(DATASET, None)
    found = finished_runs(context, [pretrained, scratch])
    labels, folds = found.train.labels, found.folds
    losses, shares = {}, {}
    for run, test in zip(found.runs, found.tests, strict=True):
        tta: TtaSet = blending.default_tta(run)
        p = blending.oof_probabilities(Member(run, test, tta), found.train, folds)
        losses[run.name], shares[run.name] = log_loss(p, labels), accuracy(p, labels)
    drivers = len(set(found.train.drivers))
    say(
        f"made     {len(labels)} images of {drivers} drivers in {folds.count} folds without a driver in common; two networks"
    )
    for name, what in ((pretrained, "ImageNet weights, fine-tuned"), (scratch, "a small network from scratch")):
        say(f"         {name}: {what}: log loss {losses[name]:.3f}, {shares[name]:.1%} right on drivers it never saw")
    gain, more = losses[scratch] - losses[pretrained], shares[pretrained] - shares[scratch]
    say(f"gained   by pretrained weights: {gain:.3f} of log loss, {100 * more:.0f} points of accuracy")
    path = context.places.submission(submission)
    made, test_labels = (
        read_json(path.with_suffix(".json")),
        competition.read_test_labels(context.settings, context.data),
    )
    truth = np.array(list((test_labels or {}).values()))
    p = validate.read_submission(
        path, list(test_labels or {}), [context.settings.columns.image, *context.settings.classes]
    )
    expected = made["prediction_interval"]
    say(
        f"scored   {path}: expected {expected['expected']:.3f} ({expected['low']:.3f} to {expected['high']:.3f}), "
        f"got {kaggle_log_loss(p, truth):.3f}, {accuracy(p, truth):.1%} right on {expected['unseen_drivers']} other drivers"
    )
    say(f"open     {(context.places.build / 'report' / 'index.html').resolve().as_uri()}")
    image = context.data / context.settings.test_images.format(image=next(iter(test_labels or {})))
    say(f"next     make classify DATASET={DATASET} RUN={pretrained} IMAGE={image}")
    say("then     make data && make train MODEL=inception_v3   # the real competition: docs/tutorials/state-farm.md")


if __name__ == "__main__":
    main(*sys.argv[1:])
