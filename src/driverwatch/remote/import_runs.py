"""Runs that were trained elsewhere, brought in: held against this machine's folds, packs and run of the same name first.

A stranger's files are data. Each is read as the line reads it anyway (nothing unpickled, HDF5 that points elsewhere refused),
and only files of known names are copied.
"""

import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from driverwatch.artifacts import differences, read_json, require_space
from driverwatch.data import splits
from driverwatch.data.folds import FoldTable
from driverwatch.data.pack import Pack
from driverwatch.errors import InputError, listed
from driverwatch.inference import predictions
from driverwatch.inference.paths import prediction_path
from driverwatch.listing import matching
from driverwatch.setting_types import VIEW_SETS, ViewSet
from driverwatch.steps.closing import after, score_of
from driverwatch.steps.context import Context, open_packs
from driverwatch.steps.status_places import folds as folds_of
from driverwatch.steps.status_runs import run_state
from driverwatch.terminal import say
from driverwatch.training import run as runs
from driverwatch.training.history import read_history
from driverwatch.training.progress import resumed
from driverwatch.training.run import Run
from driverwatch.wording import close
from driverwatch.writing import locked, making, replacing, replacing_folder, write_json

BEGUN = ("bundle.h5", "best.h5", "weights.h5", "history.csv")  # of a fold that is not finished
FINISHED = ("weights.h5", "history.csv")  # and predictions; its manifest comes last
SHARD = re.compile(r"\.shard-(held_out|test)-[a-z_]+-\d+\.h5")  # of predictions under way


@dataclass(frozen=True)
class FoldState:
    """How far a fold is: `finished`, or so many epochs."""

    finished: bool
    epochs: int
    weights: str = ""  # digest, of a finished one


def take(context: Context, source: Path, name: str | None, force: bool) -> None:
    """Bring in the runs below `source` (or the one called `name`): whole folds, only where they are further than what is here.

    Raises:
        InputError: no such run there, one of other folds, photos or settings than here, or damaged files; or, without
            `force`, a fold that is finished here with other weights. Nothing is copied of a run then.
    """
    for folder in _found(source, name):
        start = time.monotonic()
        run = runs.load(folder)
        folds, packs = open_packs(context, run.settings.input.key)
        _refuse_stranger(context, run, folds, packs)
        split = splits.of(run.settings.train, folds)
        theirs = {number: _state(run, number) for number in range(split.count)}
        for number in range(split.count):
            _, held_out = split.rows(packs["train"].drivers, number)
            _check(run, number, packs, packs["train"].names[held_out])
        target = context.places.run(run.name)
        with locked(target):
            _refuse_other(run, target)
            taken, same = _wanted(run, theirs, target, force)
            _copy(run, theirs, target, taken, same)
        _close(context, runs.load(target), split.count, time.monotonic() - start)


def _found(source: Path, name: str | None) -> list[Path]:
    """Folders of runs: `source` itself, those in it, or those in its `runs/`, as a notebook's output has them."""
    places = [source, *matching(source, "*"), *matching(source, "runs/*")]
    there = [place for place in places if (place / "run.json").is_file()]
    found = [place for place in there if name in (None, place.resolve().name)]
    if not found:
        names = ", ".join(place.name for place in there) or "no run.json in it, below it or in its runs/"
        raise InputError(f"{source}: expected {f'a run called {name}' if name else 'a run or runs'}, got {names}")
    if len({place.resolve().name for place in found}) < len(found):
        raise InputError(f"{source}: holds two runs of one name; name the folder of one with FROM=")
    return [place.resolve() for place in found]


def _refuse_stranger(context: Context, run: Run, folds: FoldTable, packs: dict[str, Pack]) -> None:
    classes = list(context.settings.classes)
    if list(run.classes) != classes or run.swap != context.settings.swap():
        raise InputError(
            f"{run.folder}: is of classes {', '.join(run.classes)}, this data set's are {', '.join(classes)}"
        )
    mine = {"folds": folds.digest, "packs": {kind: pack.digest for kind, pack in packs.items()}}
    if strange := differences({"folds": run.folds, "packs": run.packs}, mine):
        raise InputError(
            f"{run.folder}: was trained on other folds or photos than those here; it can take part only where both are the "
            f"same (theirs -> here):{listed(strange)}"
        )


def _state(run: Run, number: int) -> FoldState | None:
    """A fold's state; None where it has nothing.

    Raises:
        InputError: it has something that is of another run, or damaged.
    """
    if run.finished(number):
        return FoldState(True, 0, run.manifest(number)["weights"])
    bundle = run.fold(number) / "bundle.h5"
    return FoldState(False, resumed(bundle, run.identity, number).epoch) if bundle.is_file() else None


def _check(run: Run, number: int, packs: dict[str, Pack], held_out: np.ndarray) -> None:
    """Read a finished fold's weights and predictions as those who use them will."""
    for path in (run.folder / "run.json", *_files(run, number)):
        if path.is_symlink() or not path.is_file():
            raise InputError(f"{path}: expected a plain file")
    if (run.fold(number) / "history.csv").exists():
        read_history(run.fold(number) / "history.csv")
    if not run.finished(number):
        return
    run.verify(number)
    names = {"test": list(packs["test"].names), "held_out": list(held_out)}
    for path, kind, views in _predicted(run, number):
        made = predictions.read(path, run.predicted(number, views))
        made.aligned_to(names[kind])
        if made.probabilities.shape[1] != len(run.classes):
            raise InputError(f"{path}: expected {len(run.classes)} classes, got {made.probabilities.shape[1]}")


def _predicted(run: Run, number: int) -> list[tuple[Path, str, ViewSet]]:
    """Prediction files that are there, with their kinds and view sets."""
    asked = [(kind, views) for kind in ("held_out", "test") for views in VIEW_SETS]
    made = [(prediction_path(run.fold(number), kind, views), kind, views) for kind, views in asked]
    return [(path, kind, views) for path, kind, views in made if path.is_file()]


def _files(run: Run, number: int) -> list[Path]:
    """What is copied of a fold, its manifest last."""
    folder, done = run.fold(number), run.finished(number)
    named = [folder / name for name in (FINISHED if done else BEGUN) if (folder / name).exists()]
    named += [path for path, _, _ in _predicted(run, number)]
    named += [path for path in sorted(folder.glob(".shard-*")) if SHARD.fullmatch(path.name) and not done]
    return [*named, folder / "manifest.json"] if done else named


def _refuse_other(run: Run, target: Path) -> None:
    """Refuse to mix folds of two runs; what stands in `target` without a `run.json` is nobody's."""
    if not (target / "run.json").is_file():
        return
    if run.folder == target.resolve():
        raise InputError(f"{run.folder}: is this data set's own folder of runs; name another with FROM=")
    here = runs.load(target)
    if here.identity != run.identity:
        pair = ({**made.settings.model_dump(), "pretrained": made.weights} for made in (run, here))
        raise InputError(
            f"{run.folder}: is of other settings than the run of that name here; rename the folder, and it is taken under its new "
            f"name (theirs -> here):{listed(differences(next(pair), next(pair)), 20)}"
        )


def _wanted(run: Run, theirs: dict[int, FoldState | None], target: Path, force: bool) -> tuple[list[int], list[int]]:
    """Folds that are further than here, and those finished on both sides with the same weights.

    Raises:
        InputError: without `force`, a fold that is finished on both sides with other weights.
    """
    here = runs.load(target) if (target / "run.json").is_file() else None
    taken, same, other = [], [], []
    for number, found in theirs.items():
        mine = _state(here, number) if here else None
        if found is None:
            continue
        if mine is None or (found.finished, found.epochs) > (mine.finished, mine.epochs):
            taken.append(number)
        elif found.finished and found.weights == mine.weights:
            same.append(number)
        elif found.finished:
            other.append(number)
    if other and not force:
        raise InputError(
            f"{run.folder}: fold {', '.join(map(str, other))} is finished here too, with other weights; FORCE=1 takes theirs, or "
            "rename the folder to have both"
        )
    return [*taken, *other], same


def _copy(run: Run, theirs: dict[int, FoldState | None], target: Path, taken: list[int], same: list[int]) -> None:
    """Copy folds whole, and view sets that are not here of those that are."""
    if not (target / "run.json").is_file():
        write_json(target / "run.json", read_json(run.folder / "run.json"))
    for number, found in theirs.items():
        if found is None:
            continue
        if number in taken:
            _copy_fold(run, number, target / f"fold{number}")
            said = "finished, taken" if found.finished else f"after epoch {found.epochs}, taken"
        elif number in same:
            added = _copy_views(run, number, target / f"fold{number}")
            said = f"is here already; {', '.join(added)} taken" if added else "is here already"
        else:
            said = "is further here, kept"
        say(f"{run.name} fold {number}: {said}")


def _copy_fold(run: Run, number: int, target: Path) -> None:
    files = _files(run, number)
    size = sum(path.stat().st_size for path in files)
    require_space(target.parent, size, f"fold {number}", "remove what is not needed in build/")
    with making(target), replacing_folder(target) as partial:
        for path in files:
            shutil.copyfile(path, partial / path.name)


def _copy_views(run: Run, number: int, target: Path) -> list[str]:
    """Predictions of a finished fold that are not here yet; their names."""
    missing = [path for path, _, _ in _predicted(run, number) if not (target / path.name).exists()]
    for path in missing:
        with replacing(target / path.name) as temporary:
            shutil.copyfile(path, temporary)
    return [path.stem for path in missing]


def _close(context: Context, run: Run, count: int, seconds: float) -> None:
    done = sum(run.finished(number) for number in range(count))
    state = run_state(context, context.places, run.name, folds_of(context), [])
    then = after(context, state)
    if done < count:
        then = ["make train with the settings that it was begun with goes on here; make notebook ... EARLIER= there"]
    close(run.folder, f"{done} of {count} folds finished", seconds, score_of(state), then)
