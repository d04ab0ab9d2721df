"""What folds, packs and runs a data set has, how far they are, what is stale and why; read without pandas or Keras."""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from driverwatch import run as runs
from driverwatch.config.ensemble import embedding_source
from driverwatch.config.loading import load
from driverwatch.config.model import ModelSettings, read_preset
from driverwatch.data import folds as fold_file
from driverwatch.data.context import CONFIGS, Context
from driverwatch.data.pack import manifest_of, refuse_moved, stamp
from driverwatch.ensemble import embeddings
from driverwatch.errors import InputError
from driverwatch.io import manifests
from driverwatch.io.atomic import reason
from driverwatch.io.manifests import checksum_of_file, read_json
from driverwatch.io.paths import Places, matching
from driverwatch.run import Run
from driverwatch.submission.submit import Entry, read_ledger
from driverwatch.training.run_summary import RunState, run_state

KINDS = ("train", "test")


@dataclass(frozen=True)
class FoldsState:
    """The fold file; `images` held out by each fold; `checksum` is None where the file is not there or invalid."""

    file: str
    checksum: str | None = None
    drivers: int = 0
    images: tuple[int, ...] = ()
    problem: str | None = None


@dataclass(frozen=True)
class PackState:
    """Both packs of a size, `checksums` by kind."""

    size: str
    images: int = 0
    left_out: int = 0
    megabytes: float = 0.0
    checksums: dict[str, str] = field(default_factory=dict)
    stale: list[str] = field(default_factory=list)
    problem: str | None = None


def collect_folds(context: Context) -> FoldsState:
    """The fold file as it is, not held against the images."""
    path, asked = context.places.folds, context.settings.folds
    try:
        found = fold_file.glance(path, tuple(context.settings.classes))
    except InputError as error:
        return FoldsState(str(path), problem=str(error))
    problem = None if found.count == asked else f"holds {found.count} folds, the data set's YAML asks for {asked}"
    return FoldsState(str(path), found.checksum, found.drivers, found.images, problem)


def collect_packs(context: Context, folds: FoldsState) -> list[PackState]:
    """Every pack, by size."""
    return [_pack(context, folds, path.name) for path in matching(context.places.build / "pack", "*x*")]


def _pack(context: Context, folds: FoldsState, size: str) -> PackState:
    folder, stale = context.places.pack(size), []
    try:
        made = {kind: manifest_of(folder, kind, size) for kind in KINDS}
        boxes = context.regions(size)
        if any(each["folds"] != folds.checksum for each in made.values()):
            again = f"make pack SIZE={size} DATASET={context.dataset} (the pixels are kept)"
            stale.append(f"packed under other folds than today's; {again}")
        for kind, each in made.items():
            path = folder / f"{kind}.h5"
            refuse_moved(path, each, boxes)
            if each.get("stamp") != stamp(path):
                stale.append(f"{path.name} was copied or changed since; its next reader compares every image")
    except (InputError, OSError) as error:
        return PackState(size, problem=str(error))
    images, left_out = (sum(each["images"] for each in made.values()), sum(len(m["left_out"]) for m in made.values()))
    checksums = {kind: each["checksum"] for kind, each in made.items()}
    return PackState(size, images, left_out, megabytes(folder.glob("*.h5")), checksums, stale)


def megabytes(paths: Iterable[Path]) -> float:
    """Size of files in 10^6 bytes; files that disappear meanwhile count nothing."""
    total = 0
    for path in paths:
        with suppress(OSError):
            total += path.stat().st_size
    return round(total / 1e6, 1)


def collect_runs(context: Context, folds: FoldsState, packs: list[PackState]) -> list[RunState]:
    """Every run of a data set, those of studies last; a file that cannot be read is its run's `problem`."""
    studies = [path.name for path in matching(context.places.build / "studies", "*") if path.is_dir()]
    places = [replace(context.places, study=study) for study in (None, *studies)]
    folders = [(place, path) for place in places for path in matching(place.runs, "*") if path.is_dir()]
    found = [_run(context, place, folder, folds, packs) for place, folder in folders]
    commits = {fold.commit for run in found for fold in run.folds if fold.commit}
    changed = set(filter(manifests.changed_since, commits))
    return [replace(run, older_code=sorted({f.commit for f in run.folds if f.commit in changed})) for run in found]


def _run(context: Context, places: Places, folder: Path, folds: FoldsState, packs: list[PackState]) -> RunState:
    try:
        run = runs.load(folder)
        state = run_state(run, len(folds.images) or context.settings.folds, folds.images, places.study)
    except InputError as error:
        return RunState(folder.name, places.study, problem=str(error))
    differs = _differences(run) if places.study is None else []
    return replace(state, stale=_reasons(run, folds, packs, context), differs=differs)


def _reasons(run: Run, folds: FoldsState, packs: list[PackState], context: Context) -> list[str]:
    """Why `make train` and `make ensemble` would refuse a run: it is of other folds, packs or classes than today's."""
    size, reasons = run.settings.input.key, []
    if folds.checksum is not None and run.folds != folds.checksum:
        reasons.append(f"started on other folds than {folds.file} has today")
    pack = next((pack for pack in packs if pack.size == size), None)
    if pack is None:
        reasons.append(f"its pack {size} is not there; make pack SIZE={size} DATASET={context.dataset}")
    elif pack.problem is None and run.packs != pack.checksums:
        reasons.append(f"started on another pack {size} than today's")
    if run.classes != tuple(context.settings.classes):
        reasons.append("started with other classes than the data set's YAML has today")
    return reasons


def _differences(run: Run) -> list[str]:
    """Where the settings file of a run's name differs from the settings it was started with (by an edit, or by SET=)."""
    folder = CONFIGS / "models"
    if not (folder / f"{run.name}.yaml").is_file():
        return []
    try:
        settings = load(ModelSettings, folder, run.name)
        transforms = read_preset(CONFIGS / "presets", settings.augment.preset)[1]
    except InputError as error:
        return [str(error)]
    return runs.changed(run, settings) + (["the preset's transforms"] if transforms != run.preset else [])


UNKNOWN = float("nan")
OTHER_FOLDS = "made on other folds than today's"


@dataclass(frozen=True)
class SubmissionState:
    """A submission, or what `make pseudo-labels` wrote; `manifest` is the JSON beside it, empty where there is a `problem`."""

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
        return UNKNOWN if self.log_loss is None else self.log_loss

    @property
    def interval(self) -> tuple[float, float]:
        """95 % over drivers; NaN: not recorded."""
        pair = self._value("out_of_fold_95%")
        ends = [float(end) for end in pair if isinstance(end, int | float)] if isinstance(pair, list) else []
        return (ends[0], ends[1]) if len(ends) == 2 else (UNKNOWN, UNKNOWN)

    @property
    def accuracy(self) -> float:
        """Out-of-fold accuracy, 0 to 1; NaN: not known."""
        return self._number("out_of_fold_accuracy")

    @property
    def prediction_interval(self) -> tuple[float, float, float]:
        """Low and high log loss for new drivers, and the level; NaN: not recorded."""
        low, high, level = (self._number("prediction_interval", key) for key in ("low", "high", "level"))
        return low, high, level

    @property
    def optimistic(self) -> bool:
        """Whether an epoch of its runs was chosen on the validation drivers."""
        return bool(self.manifest.get("chosen_on_validation"))

    @property
    def diagnostic(self) -> bool:
        """Whether `make submissions` writes it: a TTA set or a fold of a single run, to look at and not to send."""
        if len(self.runs) != 1 or not self.manifest:
            return False
        run, tta = next(iter(self.manifest["runs"].items()))
        return self.name == f"{run}-{tta}" or bool(re.fullmatch(rf"{re.escape(run)}-fold\d+", self.name))

    @property
    def members(self) -> str:
        """Its runs, each with its TTA set."""
        return ", ".join(f"{run} ({tta})" for run, tta in self.manifest["runs"].items())

    @property
    def steps(self) -> list[str]:
        """Of its post-processing pipeline."""
        found = self._value("pipeline", "steps")
        return list(found) if isinstance(found, dict) and found else ["mean"]

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
        entries = [e for e in read_ledger(folder.parent / "ledger.csv") if e.dataset == context.dataset]
    except InputError as error:
        entries, problem = [], str(error)
    names = sorted({path.stem for path in (*matching(folder, "*.csv"), *matching(folder, "*.json"))})
    return [_submission(context, folder / f"{name}.csv", folds, runs, entries) for name in names], problem


def _submission(
    context: Context, path: Path, folds: FoldsState, runs: Mapping[str, RunState], entries: list[Entry]
) -> SubmissionState:
    beside = path.with_suffix(".json")
    if not path.is_file() or not beside.is_file():
        missing = beside if path.is_file() else path
        problem = f"{missing}: is not there; make ensemble writes both, and checks them"
        return SubmissionState(path.stem, problem=problem)
    made = _made(context, path.stem, beside, folds, runs)
    written = made.manifest.get("submission")
    try:
        # the CSV is written before its manifest: only a later time can mean an edit
        edited = path.stat().st_mtime > beside.stat().st_mtime and checksum_of_file(path) != written
    except OSError as error:
        return SubmissionState(path.stem, problem=reason(error))
    mine = [entry for entry in entries if entry.sha256 == written]
    changed = [f"{path.name} was changed since it was written and checked"] * (edited and made.problem is None)
    uploads = [f"{entry.status}, public {entry.public or '-'}" for entry in mine]
    made = replace(made, stale=made.stale + changed, uploads=uploads)
    return replace(made, public=mine[-1].public, private=mine[-1].private) if mine else made


def collect_pseudo_labels(context: Context, folds: FoldsState, runs: Mapping[str, RunState]) -> list[SubmissionState]:
    """All that `make pseudo-labels` wrote."""
    paths = matching(context.places.build / "pseudo_labels", "*/manifest.json")
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
    if folds.checksum is not None and manifest.get("folds") != folds.checksum:
        reasons.append(OTHER_FOLDS)
    weights = manifest.get("weights") if isinstance(manifest.get("weights"), dict) else None
    for name in manifest["runs"]:
        run = runs.get(name)
        if run is None or run.problem:
            reasons.append(f"run {name} is {'gone' if run is None else 'invalid'}")
            continue
        today = {str(fold.number): fold.weights for fold in run.folds}
        used = weights.get(name, {}) if weights else {}
        if any(today.get(number) != checksum for number, checksum in used.items()):
            reasons.append(f"run {name} was trained again since")
        elif not used and any(fold.when > path.stat().st_mtime for fold in run.folds):
            reasons.append(f"run {name} was trained on since")
    return reasons


def _changed_embeddings(context: Context, manifest: dict[str, Any]) -> list[str]:
    """Which of the embeddings that something was made with were computed again since; missing ones change nothing."""
    used = manifest.get("embeddings") if isinstance(manifest.get("embeddings"), dict) else {}
    reasons = []
    for text, checksum in (used or {}).items():
        try:
            today = embeddings.checksum(context.places.embeddings / embedding_source(text).file)
        except ValueError as error:
            raise InputError(f"embeddings {text}: {error}; make ensemble writes the manifest again") from error
        if today not in (None, checksum):
            reasons.append(f"embeddings {text} were computed again since")
    return reasons
