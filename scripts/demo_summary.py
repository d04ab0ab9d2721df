"""What `make demo` ends with, in eight lines: what was made, how good it is, what to open and what to type next.

python -m scripts.demo_summary <pretrained run> <run from scratch> <submission by image> <submission by all images>
"""

import sys

from driverwatch.config.types import TtaSet
from driverwatch.data.context import open_context
from driverwatch.ensemble import members as blending
from driverwatch.ensemble.members import Member, finished_runs
from driverwatch.inference.predictions import default_tta_of
from driverwatch.io.console import say
from driverwatch.io.manifests import read_json
from driverwatch.metrics import accuracy, log_loss
from driverwatch.report.score_runs import test_scores

DATASET = "demo"


def main(pretrained: str, scratch: str, single: str, together: str) -> None:
    """Print the lines, from what is recorded."""
    context = open_context(DATASET, None)
    found = finished_runs(context, [pretrained, scratch])
    labels, folds = found.train.labels, found.folds
    losses, shares = {}, {}
    for run, test in zip(found.runs, found.tests, strict=True):
        tta: TtaSet = default_tta_of(run)
        p = blending.oof_probabilities(Member(run, test, tta), found.train, folds)
        losses[run.name], shares[run.name] = log_loss(p, labels), accuracy(p, labels)
    drivers = len(set(found.train.drivers))
    say(
        f"made     {len(labels)} images of {drivers} drivers in {folds.count} folds without a driver in common; two networks"
    )
    for name, what in ((pretrained, "ImageNet weights"), (scratch, "from scratch")):
        say(f"         {name} ({what}): OOF log loss {losses[name]:.3f}, accuracy {shares[name]:.1%}")
    gain, more = losses[scratch] - losses[pretrained], shares[pretrained] - shares[scratch]
    say(f"gained   by pretrained weights: {gain:.3f} of log loss, {100 * more:.0f} points of accuracy")
    tested = test_scores(context)[0].set_index("model")
    for what, name in (("each image by itself", single), ("test images together", together)):
        path = context.places.submission(name)
        expected = read_json(path.with_suffix(".json"))["out_of_fold_log_loss"]
        loss, right = tested.loc[path.name, ["log loss", "accuracy"]]
        say(f"scored   {path.name}, {what}: test drivers {loss:.3f}, OOF {expected:.3f}, accuracy {right:.1%}")
    say(f"open     {(context.places.build / 'report' / 'index.html').resolve().as_uri()}")
    image = min((context.data / context.settings.test_images.format(image="x")).parent.iterdir())
    say(f"next     make trace IMAGE={image.name} DATASET={DATASET}")


if __name__ == "__main__":
    main(*sys.argv[1:])
