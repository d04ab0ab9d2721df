"""A recipe: from photos and weights to the submissions it names, going on from whatever is built."""

import time
from pathlib import Path

from driverwatch.ensemble_settings import EnsembleSettings
from driverwatch.errors import InputError
from driverwatch.models import weights as weight_files
from driverwatch.recipe_settings import RecipeSettings, RunSettings
from driverwatch.settings import ModelSettings
from driverwatch.steps.context import CONFIGS, Context
from driverwatch.steps.prepare import make_packs
from driverwatch.steps.spaces import make_features, open_space
from driverwatch.steps.submit import make_ensemble, members_of
from driverwatch.ensemble.teacher_ensemble import identity, teach
from driverwatch.training.teachers import open_taught
from driverwatch.steps.train import read_augmentation, train
from driverwatch.training import run as runs
from driverwatch.typed_yaml import load
from driverwatch.wording import close


def make_best(context: Context, weights: Path | None) -> None:
    """Train what is not finished of `configs/recipes/<dataset>.yaml`, then write its submissions."""
    start, recipe = time.monotonic(), load(RecipeSettings, CONFIGS / "recipes", context.dataset)
    train_runs(context, recipe.runs, weights, recipe.taught)
    for name, made in recipe.submissions.items():
        _make_features(context, made, weights)
        make_ensemble(context, made.runs, name, made.view_set, None, made.chain, last=False)
    then = [f'make submit DATASET={context.dataset} FILE=<one of them> MESSAGE="..."']
    close(context.places.submissions, ", ".join(recipe.submissions), time.monotonic() - start, then=then)


def _make_features(context: Context, made: EnsembleSettings, weights: Path | None) -> None:
    for text in made.features:
        make_features(context, text, weights)


def train_runs(
    context: Context, wanted: dict[str, RunSettings], weights: Path | None, taught: dict[str, EnsembleSettings]
) -> None:
    """Pack for, train and predict with every run that is not finished, in turn.

    Args:
        taught: what is put together for runs that learn from it, once the runs before them are finished.
    """
    settings = {name: load(ModelSettings, CONFIGS / "models", run.model, run.set) for name, run in wanted.items()}
    refuse_disorder(context, settings, taught)
    for made in settings.values():
        read_augmentation(context, made)
    refuse_misfits(settings, weights)
    for size in {made.input.key for made in settings.values()}:
        make_packs(context, size, None, "", False, False)
    for name, made in settings.items():
        asked = made.train.pseudo.taught if made.train.pseudo else None
        if asked in taught and not _is_there(context, asked, taught[asked]):
            made_by = taught[asked]
            _make_features(context, made_by, weights)
            teach(context, made_by.runs, asked, made_by.view_set, made_by.chain)
        train(context, made, name, weights, None, False)


def _is_there(context: Context, name: str, made: EnsembleSettings) -> bool:
    """Whether teachers have spoken already, by the weights they have now, put together in this way, and all is whole."""
    members, folds, _, settings = members_of(context, made.runs, name, made.view_set, made.chain)
    try:
        spaces = {text: open_space(context, text) for text in settings.features}
        teacher = open_taught(context, name, folds)
        for fold in range(teacher.fits):
            for kind in ("held_out", "test"):
                teacher.said(fold, kind)
    except InputError:
        return False
    return teacher.made_of == identity(members, folds, settings, spaces)


def refuse_disorder(context: Context, wanted: dict[str, ModelSettings], taught: dict[str, EnsembleSettings]) -> None:
    """Find runs whose teachers would be missing when it is their turn.

    Raises:
        InputError: the first one, by name.
    """
    before: list[str] = []
    for name, made in wanted.items():
        asked = made.train.pseudo
        teachers = [] if asked is None else taught[asked.taught].runs if asked.taught in taught else asked.runs
        if late := [teacher for teacher in teachers if teacher in wanted and teacher not in before]:
            raise InputError(
                f"{name}: learns from {', '.join(late)}, which the recipe does not train before; put it below"
            )
        for teacher in teachers:
            if teacher not in wanted:
                runs.load(context.places.run(teacher))
        if asked and asked.taught and asked.taught not in taught and not context.places.taught(asked.taught).is_dir():
            raise InputError(f"{name}: train.pseudo.taught={asked.taught} is neither in the recipe nor made; add it")
        before.append(name)
    for name, side in taught.items():
        if unscored := [run for run in side.runs if not wanted[run].train.splits.scored]:
            raise InputError(
                f"taught.{name}: {', '.join(unscored)} is not trained on folds, so no fold is taught by it"
            )


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
