"""Which view sets a run has predicted, and the one that it takes part with where none is asked for. Imports no Keras."""

from contextlib import suppress

from driverwatch.errors import InputError
from driverwatch.inference.paths import prediction_path
from driverwatch.setting_types import VIEW_SETS, ViewSet
from driverwatch.training.run import Run
from driverwatch.vision.views import best_of

KINDS = ("held_out", "test")


def views_there(run: Run, folds: int, kinds: tuple[str, ...] = KINDS) -> list[ViewSet]:
    """View sets that every fit of a finished run has predicted, smallest first, where the data set has so many folds."""
    fits = range(run.settings.train.splits.fits(folds))
    return [views for views in VIEW_SETS if all(_is_there(run, fit, views, kinds) for fit in fits)]


def default_views(run: Run) -> ViewSet:
    """The best set that all finished fits of a run have: `honest_views` if it is among them, else as `best_of` has it.

    A set whose loss a fit's manifest states counts, even where its file was lost: it is missed when it is read, and no other
    set takes its place in silence.
    """
    fits = [int(path.parent.name[4:]) for path in run.folder.glob("fold[0-9]*/manifest.json")]
    known = [views for views in VIEW_SETS if fits and all(_is_known(run, fit, views) for fit in fits)]
    return best_of(known, run.settings.honest_views)


def _is_known(run: Run, fit: int, views: ViewSet) -> bool:
    return _is_there(run, fit, views, KINDS) or views in _stated(run, fit)


def _is_there(run: Run, fit: int, views: ViewSet, kinds: tuple[str, ...]) -> bool:
    kinds = tuple(kind for kind in kinds if kind == "test" or run.settings.train.splits.kind != "all")
    return all(prediction_path(run.fold(fit), kind, views).is_file() for kind in kinds)


def _stated(run: Run, fit: int) -> dict[str, float]:
    """Held-out loss by view set, as far as a fit's manifest can be read."""
    with suppress(InputError):
        losses = run.manifest(fit).get("log_loss")
        return losses if isinstance(losses, dict) else {}
    return {}
