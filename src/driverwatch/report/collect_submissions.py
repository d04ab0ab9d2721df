"""What was made of runs: submissions and pseudo-labels, their scores, and why they are stale; read without pandas."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from driverwatch.artifacts import digest_of_file, read_json
from driverwatch.ensemble_settings import trunk_of
from driverwatch.errors import InputError
from driverwatch.inference import features
from driverwatch.listing import matching
from driverwatch.report.collect_runs import FoldsState
from driverwatch.steps.context import Context
from driverwatch.submission import ledger
from driverwatch.training.run_state import RunState
from driverwatch.writing import reason

UNKNOWN = float("nan")
OTHER_FOLDS = "made on other folds than today's"


@dataclass(frozen=True)
class SubmissionState:
    """A submission, or what `make teach` wrote; `manifest` is the JSON beside it, empty where there is a `problem`."""

    name: str
    runs: list[str] = field(default_factory=list)
    images: int = 0
    log_loss: float | None = None
    uploads: list[str] = field(default_factory=list)  # status and public score, from the ledger
    stale: list[str] = field(default_factory=list)
    problem: str | None = None
    public: str = ""  # scores on Kaggle's leaderboard of the last upload
    private: str = ""
    manifest: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def loss(self) -> float:
        """Out-of-fold log loss, nested; NaN: not known."""
        return self._number("out_of_fold_log_loss")

    @property
    def interval(self) -> tuple[float, float]:
        """95 % over drivers; NaN: not recorded."""
        pair = self._value("out_of_fold_95%")
        ends = [float(end) for end in pair if isinstance(end, int | float)] if isinstance(pair, list) else []
        return (ends[0], ends[1]) if len(ends) == 2 else (UNKNOWN, UNKNOWN)

    @property
    def accuracy(self) -> float:
        return self._number("out_of_fold_right")

    @property
    def prediction_interval(self) -> tuple[float, float, float]:
        """Low and high log loss for new drivers, and the level; NaN: not recorded."""
        return self._number("hope", "low"), self._number("hope", "high"), self._number("hope", "level")

    @property
    def optimistic(self) -> bool:
        """Whether an epoch of its runs was chosen on the validation drivers."""
        return bool(self.manifest.get("selected_on"))

    @property
    def unscored(self) -> str:
        """Why it has no score; empty: it has one."""
        why = str(self.manifest.get("out_of_fold") or "a fold's models alone: not scored")
        return "" if "out_of_fold_log_loss" in self.manifest else why

    @property
    def members(self) -> str:
        return ", ".join(f"{run} ({views})" for run, views in self.manifest["runs"].items())

    @property
    def steps(self) -> list[str]:
        """Of its post-processing pipeline."""
        found = self._value("chain", "steps")
        return list(found) if isinstance(found, dict) and found else ["mean"]

    @property
    def commit(self) -> str:
        return str(self.manifest.get("commit") or "")

    def _value(self, *keys: str) -> object:
        found: object = self.manifest
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        return found

    def _number(self, *keys: str) -> float:
        found = self._value(*keys)
        return float(found) if isinstance(found, int | float) else UNKNOWN


def collect_submissions(
    context: Context, folds: FoldsState, runs: Mapping[str, RunState]
) -> tuple[list[SubmissionState], str | None]:
    """Every submission of a data set, and why the ledger of uploads cannot be read (None: it can)."""
    folder, problem = context.places.submissions, None
    try:
        entries = [e for e in ledger.read(folder.parent / "ledger.csv") if e.dataset == context.dataset]
    except InputError as error:
        entries, problem = [], str(error)
    names = sorted({path.stem for path in (*matching(folder, "*.csv"), *matching(folder, "*.json"))})
    return [_submission(context, folder / f"{name}.csv", folds, runs, entries) for name in names], problem


def _submission(
    context: Context, path: Path, folds: FoldsState, runs: Mapping[str, RunState], entries: list[ledger.Entry]
) -> SubmissionState:
    beside = path.with_suffix(".json")
    if not path.is_file() or not beside.is_file():
        missing = beside if path.is_file() else path
        problem = f"{missing}: is not there; make ensemble writes both, and checks them"
        return SubmissionState(path.stem, problem=problem)
    made = _made(context, path.stem, beside, folds, runs)
    try:
        # the CSV is written before its manifest: only a later time can mean an edit
        edited = path.stat().st_mtime > beside.stat().st_mtime and digest_of_file(path) != made.manifest.get(
            "submission"
        )
    except OSError as error:
        return SubmissionState(path.stem, problem=reason(error))
    mine = [entry for entry in entries if entry.sha256 == made.manifest.get("submission")]
    changed = [f"{path.name} was changed since it was written and checked"] * (edited and made.problem is None)
    return SubmissionState(
        **vars(made)
        | {"stale": made.stale + changed, "uploads": [f"{e.status}, public {e.public or '-'}" for e in mine]}
        | ({"public": mine[-1].public, "private": mine[-1].private} if mine else {})
    )


def collect_pseudo_labels(context: Context, folds: FoldsState, runs: Mapping[str, RunState]) -> list[SubmissionState]:
    """All that `make teach` wrote."""
    paths = matching(context.places.build / "taught", "*/manifest.json")
    return [_made(context, path.parent.name, path, folds, runs) for path in paths]


def _made(context: Context, name: str, path: Path, folds: FoldsState, runs: Mapping[str, RunState]) -> SubmissionState:
    """What a manifest says, and why it is stale."""
    try:
        manifest = read_json(path)
        members = manifest.get("runs")
        if not isinstance(members, dict):
            raise InputError(f"{path}: expected the runs that it was made of under runs; make ensemble writes it again")
        stale = _changed_runs(manifest, path, folds, runs) + _changed_embeddings(context, manifest)
    except (InputError, OSError) as error:
        return SubmissionState(name, problem=str(error))
    loss, images = manifest.get("out_of_fold_log_loss"), manifest.get("images")
    known = float(loss) if isinstance(loss, int | float) else None
    images = images if isinstance(images, int) else 0
    return SubmissionState(name, list(members), images, known, stale=stale, manifest=manifest)


def _changed_runs(manifest: dict[str, Any], path: Path, folds: FoldsState, runs: Mapping[str, RunState]) -> list[str]:
    """Why today's runs would not make the same: other folds, runs that are gone, or trained again since.

    Manifests repeat the checksums of every fold's weights; older ones are compared by the time of the folds' manifests.
    """
    reasons = []
    if folds.digest is not None and manifest.get("folds") != folds.digest:
        reasons.append(OTHER_FOLDS)
    weights = manifest.get("weights") if isinstance(manifest.get("weights"), dict) else None
    for name in manifest["runs"]:
        run = runs.get(name)
        if run is None or run.problem:
            reasons.append(f"run {name} is {'gone' if run is None else 'invalid'}")
            continue
        today = {str(fold.number): fold.weights for fold in run.fits}
        used = weights.get(name, {}) if weights else {}
        if any(today.get(number) != checksum for number, checksum in used.items()):
            reasons.append(f"run {name} was trained again since")
        elif not used and any(fold.when > path.stat().st_mtime for fold in run.fits):
            reasons.append(f"run {name} was trained on since")
    return reasons


def _changed_embeddings(context: Context, manifest: dict[str, Any]) -> list[str]:
    """Which of the embeddings that something was made with were computed again since; missing ones change nothing."""
    used = manifest.get("embeddings") if isinstance(manifest.get("embeddings"), dict) else {}
    reasons = []
    for text, checksum in (used or {}).items():
        try:
            today = features.checksum(context.places.features / trunk_of(text).file)
        except ValueError as error:
            raise InputError(f"embeddings {text}: {error}; make ensemble writes the manifest again") from error
        if today not in (None, checksum):
            reasons.append(f"embeddings {text} were computed again since")
    return reasons
