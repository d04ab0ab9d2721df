"""Reproduce a data set's submissions by its recipe, resuming from whatever is built. Short: the core does the work."""

import time
from pathlib import Path

from driverwatch.config.experiments import RecipeSettings
from driverwatch.config.loading import load
from driverwatch.data.context import CONFIGS, Context
from driverwatch.experiments.experiment import load_runs, make_all_features, train_missing
from driverwatch.io.console import close
from driverwatch.submission.build import make_ensemble


def reproduce(context: Context, weights: Path | None, name: str | None = None) -> None:
    """Train what is not finished of `configs/recipes/<name>.yaml` (the data set's name), then write its submissions."""
    start, recipe = time.monotonic(), load(RecipeSettings, CONFIGS / "recipes", name or context.dataset)
    train_missing(context, load_runs(recipe.runs), weights, recipe.pseudo_labels)
    for submission, made in recipe.submissions.items():
        make_all_features(context, made.embeddings, weights)
        make_ensemble(context, made.runs, submission, made.tta_set, None, made.pipeline, last=False)
    then = [f'make submit DATASET={context.dataset} FILE=<one of them> MESSAGE="..."']
    close(context.places.submissions, ", ".join(recipe.submissions), time.monotonic() - start, then=then)
