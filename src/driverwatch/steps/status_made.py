"""What was made of runs, at a glance: submissions and what is taught; stale where a run was trained anew since."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from driverwatch.artifacts import digest_of_file, read_json
from driverwatch.ensemble_settings import trunk_of
from driverwatch.errors import InputError
from driverwatch.inference import features
from driverwatch.listing import matching
from driverwatch.steps.context import Context
from driverwatch.steps.status_places import Folds
from driverwatch.steps.status_runs import RunState
from driverwatch.submission import ledger


@dataclass(frozen=True)
class MadeState:
    """A submission, or what `make teach` wrote."""

    name: str
    runs: list[str] = field(default_factory=list)
    images: int = 0
    log_loss: float | None = None
    uploads: list[str] = field(default_factory=list)  # as the ledger has them
    stale: list[str] = field(default_factory=list)
    problem: str | None = None


def submissions(context: Context, folds: Folds, runs: Mapping[str, RunState]) -> list[MadeState]:
    """Every submission of the data set. Raises `InputError` where the ledger cannot be read."""
    folder = context.places.submissions
    names = sorted({path.stem for path in (*matching(folder, "*.csv"), *matching(folder, "*.json"))})
    entries = [e for e in ledger.read(folder.parent / "ledger.csv") if e.dataset == context.dataset] if names else []
    return [_submission(context, folder / f"{name}.csv", folds, runs, entries) for name in names]


def _submission(
    context: Context, path: Path, folds: Folds, runs: Mapping[str, RunState], entries: list[ledger.Entry]
) -> MadeState:
    manifest = path.with_suffix(".json")
    if not path.is_file() or not manifest.is_file():
        missing = manifest if path.is_file() else path
        return MadeState(path.stem, problem=f"{missing}: is not there; make ensemble writes both, and checks them")
    try:
        made = read_json(manifest)
        stale = since(made, manifest, folds, runs) + embedded_since(context, made)
    except (InputError, OSError) as error:
        return MadeState(path.stem, problem=str(error))
    # written before its manifest: only a later time can mean an edit
    if path.stat().st_mtime > manifest.stat().st_mtime and digest_of_file(path) != made.get("submission"):
        stale.append(f"{path.name} was changed since it was written and checked")
    uploads = [f"{e.status}, public {e.public or '-'}" for e in entries if e.sha256 == made.get("submission")]
    return _made(path.stem, made, stale, uploads)


def taught(context: Context, folds: Folds, runs: Mapping[str, RunState]) -> list[MadeState]:
    """All that `make teach` wrote."""
    found = []
    for path in sorted((context.places.build / "taught").glob("[!.]*/manifest.json")):
        try:
            made = read_json(path)
            stale = since(made, path, folds, runs) + embedded_since(context, made)
            found.append(_made(path.parent.name, made, stale, []))
        except (InputError, OSError) as error:
            found.append(MadeState(path.parent.name, problem=str(error)))
    return found


def _made(name: str, made: dict[str, Any], stale: list[str], uploads: list[str]) -> MadeState:
    loss, images = made.get("out_of_fold_log_loss"), made.get("images")
    return MadeState(
        name,
        list(_members(made)),
        images if isinstance(images, int) else 0,
        float(loss) if isinstance(loss, int | float) else None,
        uploads,
        stale,
    )


def _members(made: dict[str, Any]) -> dict[str, Any]:
    found = made.get("runs")
    return found if isinstance(found, dict) else {}


def since(made: dict[str, Any], manifest: Path, folds: Folds, runs: Mapping[str, RunState]) -> list[str]:
    """Why something made of runs is not what today's would make: other folds, runs that are gone, or trained anew since.

    Manifests repeat the weights of every fit; those written before they did are held against the time of the fits' own.
    """
    said = []
    if folds.digest is not None and made.get("folds") != folds.digest:
        said.append("made on other folds than today's")
    weights = made.get("weights") if isinstance(made.get("weights"), dict) else None
    for name in _members(made):
        run = runs.get(name)
        if run is None or run.problem:
            said.append(f"run {name} is {'gone' if run is None else 'broken'}")
            continue
        fits = {str(fit.number): fit for fit in run.fits}
        used = weights.get(name, {}) if weights else {}
        if any(number not in fits or fits[number].weights != digest for number, digest in used.items()):
            said.append(f"run {name} was trained anew since")
        elif not used and any(fit.when > manifest.stat().st_mtime for fit in run.fits):
            said.append(f"run {name} was trained on since")
    return said


def embedded_since(context: Context, made: dict[str, Any]) -> list[str]:
    """Which of the embeddings that something was made with were computed again since; such as are gone change nothing."""
    kept = made.get("embeddings") if isinstance(made.get("embeddings"), dict) else {}
    said = []
    for text, checksum in (kept or {}).items():
        try:
            today = features.checksum(context.places.features / trunk_of(text).file)
        except ValueError as error:
            raise InputError(f"embeddings {text}: {error}; make ensemble writes the manifest again") from error
        if today not in (None, checksum):
            said.append(f"embeddings {text} were computed again since")
    return said
