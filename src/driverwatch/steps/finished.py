"""Whether a run is finished as it is asked for, told from manifests alone: without photos, packs, pandas or Keras."""

from pathlib import Path
from typing import Any, NamedTuple

from driverwatch.data import fold_file
from driverwatch.data.pack import manifest_of, refuse_moved, stamp
from driverwatch.errors import InputError
from driverwatch.models import weights as weight_files
from driverwatch.settings import ModelSettings
from driverwatch.steps.context import CONFIGS, Context
from driverwatch.training import run as runs
from driverwatch.vision.policies import plain


class Done(NamedTuple):
    """A finished run's identity and the number of its fits."""

    identity: dict[str, Any]
    fits: int


def finished_identity(
    context: Context, settings: ModelSettings, name: str, weights: Path | None, learned_from: dict[str, Any] | None
) -> Done | None:
    """A run of exactly this that has finished every fit; None where anything differs, is missing, or must be looked at closely.

    Whoever gets None opens everything and says what is wrong; a run with teachers is always looked at closely.
    """
    folder = context.places.run(name)
    if settings.train.pseudo is not None:
        return None
    try:
        folds = fold_file.glance(context.places.folds, tuple(context.settings.classes))
        fits = settings.train.splits.fits(folds.count)
        if not all((folder / f"fold{number}" / "manifest.json").is_file() for number in range(fits)):
            return None
        packs = {kind: _digest(context, settings.input.key, kind, folds.digest) for kind in ("train", "test")}
        policy = plain(CONFIGS / "policies", settings.augment.policy)[1]
        found = weight_files.identity(settings, weights)
        wanted = runs.identity(settings, context.settings, policy, folds.digest, packs, found, learned_from)
    except (InputError, OSError):
        return None
    return Done(wanted, fits) if runs.is_as_begun(folder, wanted) else None


def _digest(context: Context, size: str, kind: str, folds: str) -> str:
    """A pack's digest, if its file is the one that packing left, under these folds.

    Raises:
        InputError: it is not, or cannot be told without reading it.
    """
    folder = context.places.pack(size)
    made = manifest_of(folder, kind, size)
    refuse_moved(folder / f"{kind}.h5", made, context.regions(size))
    if made["folds"] != folds or made.get("stamp") != stamp(folder / f"{kind}.h5"):
        raise InputError(f"{folder / kind}.h5: must be looked at")
    return str(made["digest"])
