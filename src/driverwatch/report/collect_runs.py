"""What folds, packs and runs a data set has, how far they are, what is stale and why; read without pandas or Keras."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from driverwatch import checkout
from driverwatch.artifacts import Places
from driverwatch.data import fold_file
from driverwatch.data.pack import manifest_of, refuse_moved, stamp
from driverwatch.errors import InputError
from driverwatch.listing import matching
from driverwatch.settings import ModelSettings
from driverwatch.steps.context import CONFIGS, Context
from driverwatch.training import run as runs
from driverwatch.training.run import Run
from driverwatch.training.run_state import RunState, run_state
from driverwatch.typed_yaml import load
from driverwatch.vision.policies import plain

KINDS = ("train", "test")


@dataclass(frozen=True)
class FoldsState:
    """The fold file; `images` held out by each fold; `digest` is None where the file is not there or invalid."""

    file: str
    digest: str | None = None
    drivers: int = 0
    images: tuple[int, ...] = ()
    problem: str | None = None


@dataclass(frozen=True)
class PackState:
    """Both packs of a size, `digests` by kind."""

    size: str
    images: int = 0
    left_out: int = 0
    megabytes: float = 0.0
    digests: dict[str, str] = field(default_factory=dict)
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
    return FoldsState(str(path), found.digest, found.drivers, found.images, problem)


def collect_packs(context: Context, folds: FoldsState) -> list[PackState]:
    """Every pack, by size."""
    return [_pack(context, folds, path.name) for path in matching(context.places.build / "pack", "*x*")]


def _pack(context: Context, folds: FoldsState, size: str) -> PackState:
    folder, stale = context.places.pack(size), []
    try:
        made = {kind: manifest_of(folder, kind, size) for kind in KINDS}
        boxes = context.regions(size)
        if any(each["folds"] != folds.digest for each in made.values()):
            stale.append(f"packed under other folds than today's; make pack SIZE={size} (the pixels are kept)")
        for kind, each in made.items():
            path = folder / f"{kind}.h5"
            refuse_moved(path, each, boxes)
            if each.get("stamp") != stamp(path):
                stale.append(f"{path.name} was copied or changed since; its next reader compares every image")
    except (InputError, OSError) as error:
        return PackState(size, problem=str(error))
    images, left_out = (sum(each["images"] for each in made.values()), sum(len(m["left_out"]) for m in made.values()))
    digests = {kind: each["digest"] for kind, each in made.items()}
    return PackState(size, images, left_out, megabytes(folder.glob("*.h5")), digests, stale)


def megabytes(paths: Iterable[Path]) -> float:
    """Size of files in 10^6 bytes; files that disappear meanwhile count nothing."""
    total = 0
    for path in paths:
        try:
            total += path.stat().st_size
        except OSError:
            continue
    return round(total / 1e6, 1)


def collect_runs(context: Context, folds: FoldsState, packs: list[PackState]) -> list[RunState]:
    """Every run of a data set, those of studies last; a file that cannot be read is its run's `problem`."""
    studies = [path.name for path in matching(context.places.build / "studies", "*") if path.is_dir()]
    places = [replace(context.places, study=study) for study in (None, *studies)]
    found = [
        _run(context, place, folder, folds, packs)
        for place in places
        for folder in matching(place.runs, "*")
        if folder.is_dir()
    ]
    changed = {commit for commit in {fold.commit for run in found for fold in run.fits if fold.commit}
               if checkout.changed_since(commit)}  # fmt: skip
    return [replace(run, older_code=sorted({f.commit for f in run.fits if f.commit in changed})) for run in found]


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
    if folds.digest is not None and run.folds != folds.digest:
        reasons.append(f"started on other folds than {folds.file} has today")
    pack = next((pack for pack in packs if pack.size == size), None)
    if pack is None:
        reasons.append(f"its pack {size} is not there; make pack SIZE={size}")
    elif pack.problem is None and run.packs != pack.digests:
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
        transforms = plain(CONFIGS / "policies", settings.augment.policy)[1]
    except InputError as error:
        return [str(error)]
    return runs.changed(run, settings) + (["the policy's transforms"] if transforms != run.policy else [])
