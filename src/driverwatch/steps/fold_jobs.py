"""Folds as jobs of a cluster: the verb that trains one, all that it reads, what of it comes home and when."""

from pathlib import Path

from driverwatch.cluster.jobs import Job
from driverwatch.models import weights as weight_files
from driverwatch.settings import ModelSettings
from driverwatch.steps import execution
from driverwatch.steps.context import CONFIGS, Context
from driverwatch.steps.fold_runner import words
from driverwatch.training.run import DIVERGED, Run

BRINGS = (
    "bundle.h5",
    "best.h5",
    "weights.h5",
    "history.csv",
    ".shard-*",
    DIVERGED,
)  # the bundle last: what it goes with is older
STALE = ("weights.h5", "bundle.h5", "best.h5")  # of a teacher, who speaks by its predictions


def fold_job(context: Context, run: Run, number: int, weights: Path | None, settings: ModelSettings) -> Job:
    """Fold `number` of a run that the caller has begun and holds (`train.begun`), to be trained from where it is.

    Writes `execution.json`, of which machines need no word of other folds: all are trained at once.

    Args:
        weights: folder of local weight files; where the file is not, a machine downloads it, as this one would.
        settings: those of today, for what decides speed alone.
    """
    folder = run.fold(number)
    file = weight_files.find(run.settings, weights)
    execution.write(context.places, run, settings, weights, [])
    return Job(
        name=f"{run.name} fold {number}",
        words=tuple(words(run, number)),
        reads=tuple(map(str, [*common(context, run), run.folder / execution.NAME, *_teachers(context, run)])),
        brings=tuple(str(folder / name) for name in BRINGS),
        whole=str(folder),
        beside=(("--weights", str(file.resolve())),) if file else (),
        caches=(str(context.places.trunks),),
        history=str(folder / "history.csv"),
        epochs=sum(run.settings.train.planned),
        log=str(log_of(run, f"fold{number}")),
    )


def log_of(run: Run, name: str) -> Path:
    """What a run's job said, of all its attempts."""
    return run.folder / "logs" / f"{name}.txt"


def common(context: Context, run: Run) -> list[Path]:
    """What every job of a run reads: the data set's settings, folds and packs, and what the run was begun with."""
    places, pack = context.places, context.places.pack(run.settings.input.key)
    tables = [path for path in (places.folds, places.groups) if path.is_file()]
    packs = [pack / f"{kind}.{end}" for kind in ("train", "test") for end in ("h5", "json")]
    return [CONFIGS / "datasets" / f"{context.dataset}.yaml", *tables, *packs, run.folder / "run.json"]


def _teachers(context: Context, run: Run) -> list[Path]:
    """Manifests and predictions of those who teach a run by pseudo-labels."""
    asked = run.settings.train.pseudo
    if asked is None:
        return []
    folders = [context.places.taught(asked.taught)] if asked.taught else map(context.places.run, asked.runs)
    found = [path for folder in folders for end in ("json", "h5") for path in sorted(folder.rglob(f"*.{end}"))]
    return [path for path in found if path.name not in STALE and not path.name.startswith(".")]
