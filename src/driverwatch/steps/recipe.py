"""A recipe: from photos and weights to the submissions it names, going on from whatever is built."""

from pathlib import Path

from driverwatch.errors import InputError
from driverwatch.models import weights as weight_files
from driverwatch.recipe_settings import RecipeSettings, RunSettings
from driverwatch.settings import ChainSettings, EnsembleSettings, ModelSettings
from driverwatch.steps.context import CONFIGS, Context
from driverwatch.steps.prepare import make_packs
from driverwatch.steps.spaces import make_features
from driverwatch.steps.submit import make_ensemble
from driverwatch.steps.train import train
from driverwatch.terminal import say
from driverwatch.typed_yaml import load


def make_best(context: Context, weights: Path | None) -> None:
    """Train what is not finished of `configs/recipes/<dataset>.yaml`, then write its submissions."""
    recipe = load(RecipeSettings, CONFIGS / "recipes", context.dataset)
    train_runs(context, recipe.runs, weights)
    for text in dict.fromkeys(text for made in recipe.submissions.values() for text in made.features):
        make_features(context, text, weights)
    for name, made in recipe.submissions.items():
        ensemble(context, name, made)
    say(f"{context.places.submissions}: {', '.join(recipe.submissions)}; next: make submit FILE=... MESSAGE=...")


def ensemble(context: Context, name: str, made: EnsembleSettings) -> None:
    chain = made.model_dump(include=set(ChainSettings.model_fields))
    make_ensemble(context, made.runs, name, None if made.views == "auto" else made.views, None, chain)


def train_runs(context: Context, wanted: dict[str, RunSettings], weights: Path | None) -> None:
    """Pack for, train and predict with every run that is not finished, in turn."""
    settings = {name: load(ModelSettings, CONFIGS / "models", run.model, run.set) for name, run in wanted.items()}
    refuse_misfits(settings, weights)
    for size in {made.input.key for made in settings.values()}:
        make_packs(context, size, None, "", False, False)
    for name, made in settings.items():
        train(context, made, name, weights, None, False)


def refuse_misfits(wanted: dict[str, ModelSettings], weights: Path | None) -> None:
    """Find wrong layers, cuts and missing weights of every run before the first one is trained for hours."""
    from driverwatch.models import backend

    backend.start()
    from driverwatch.models.layers import described

    for name, made in wanted.items():
        try:
            weight_files.find(made, weights)
            described(made)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
