"""Runs that were trained elsewhere, imported: checked against this machine's folds, packs and run of the same name first.

Untrusted files are data. Each is read as the pipeline reads it anyway (nothing unpickled, HDF5 that points elsewhere refused),
and only files of known names are copied.
"""

import re
import shutil
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from driverwatch import run as runs
from driverwatch.config.types import TTA_SETS, TtaSet
from driverwatch.data import splits
from driverwatch.data.context import Context, open_packs
from driverwatch.data.folds import FoldTable
from driverwatch.data.pack import Pack
from driverwatch.errors import InputError, listed
from driverwatch.inference import predictions
from driverwatch.inference.predictions import prediction_path
from driverwatch.io.atomic import locked, making, replacing, replacing_folder, write_json
from driverwatch.io.console import close, say
from driverwatch.io.manifests import differences, read_json, require_space
from driverwatch.io.paths import matching
from driverwatch.run import Run
from driverwatch.training.checkpoint import read_history, resumed
from driverwatch.training.run_summary import print_summary

UNFINISHED = ("checkpoint.h5", "best.h5", "weights.h5", "history.csv")  # a fold's files
FINISHED = ("weights.h5", "history.csv")  # and predictions; its manifest comes last
SHARD = re.compile(r"\.shard-(validation|test)-[a-z_]+-\d+\.h5")  # of predictions under way


class FoldState(NamedTuple):
    """How far a fold is; of two, the larger is further."""

    finished: bool = False
    epochs: int = -1  # -1: it has nothing; 0 where it is finished


def import_runs(context: Context, source: Path, name: str | None, force: bool) -> None:
    """Import the runs in `source` (or the one called `name`): whole folds, only where they are further than what is here.

    Raises:
        InputError: no such run there, one of other folds, images or settings than here, or damaged files; or, without
            `force`, a fold that is finished here with other weights. Nothing is copied of a run then.
    """
    for folder in _find(source, name):
        _import(context, runs.load(folder), force)


def _import(context: Context, run: Run, force: bool) -> None:
    start, target = time.monotonic(), context.places.run(run.name)
    folds, packs = open_packs(context, run.settings.input.key)
    _check_identity(context, run, folds, packs)
    split = splits.of(run.settings.train, folds)
    theirs = [_state(run, number) for number in range(split.count)]
    for number in range(split.count):
        _, validation = split.indices(packs["train"].drivers, number)
        _check_fold(run, number, packs["test"].names, packs["train"].names[validation])
    with locked(target):
        here = _same_run(run, target)
        mine = [_state(here, number) if here else FoldState() for number in range(split.count)]
        both = [n for n, states in enumerate(zip(theirs, mine, strict=True)) if all(state.finished for state in states)]
        other = [n for n in both if here and here.manifest(n)["weights"] != run.manifest(n)["weights"]]
        if other and not force:
            raise InputError(
                f"{run.folder}: fold {', '.join(map(str, other))} is finished here too, with other weights; FORCE=1 takes theirs, "
                "or rename the folder to have both"
            )
        if not here:
            write_json(target / "run.json", read_json(run.folder / "run.json"))
        for number, state in enumerate(theirs):
            if state > mine[number] or number in other:
                _copy_fold(run, number, target / f"fold{number}")
                said = "finished, imported" if state.finished else f"after epoch {state.epochs}, imported"
            elif number in both:
                added = _copy_predictions(run, number, target / f"fold{number}")
                said = f"is here already; {', '.join(added)} imported" if added else "is here already"
            else:
                said = "is further here, kept"
            if state != FoldState():
                say(f"{run.name} fold {number}: {said}")
    done, seconds = sum(runs.load(target).finished(n) for n in range(split.count)), time.monotonic() - start
    if done == split.count:
        return print_summary(context, runs.load(target), split.count, seconds)
    then = "make train with the same settings resumes here; make notebook ... RESUME_FROM= there"
    return close(target, f"{done} of {split.count} folds finished", seconds, then=[then])


def _find(source: Path, name: str | None) -> list[Path]:
    """Folders of runs: `source` itself, those in it, or those in its `runs/`, as a notebook's output has them."""
    places = [source, *matching(source, "*"), *matching(source, "runs/*")]
    there = [place.resolve() for place in places if (place / "run.json").is_file()]
    found = [place for place in there if name in (None, place.name)]
    if not found:
        names = ", ".join(place.name for place in there) or "no run.json in it, below it or in its runs/"
        raise InputError(f"{source}: expected {f'a run called {name}' if name else 'a run or runs'}, got {names}")
    if len({place.name for place in found}) < len(found):
        raise InputError(f"{source}: holds two runs of one name; name the folder of one with RUNS_FROM=")
    return found


def _check_identity(context: Context, run: Run, folds: FoldTable, packs: dict[str, Pack]) -> None:
    """Refuse a run of other classes, folds or images than those here."""
    classes = list(context.settings.classes)
    if list(run.classes) != classes or run.swap != context.settings.swap():
        raise InputError(
            f"{run.folder}: is of classes {', '.join(run.classes)}, this data set's are {', '.join(classes)}"
        )
    mine = {"folds": folds.checksum, "packs": {kind: pack.checksum for kind, pack in packs.items()}}
    if strange := differences({"folds": run.folds, "packs": run.packs}, mine):
        raise InputError(
            f"{run.folder}: was trained on other folds or images than those here; it can take part only where both are the "
            f"same (theirs -> here):{listed(strange)}"
        )


def _state(run: Run, number: int) -> FoldState:
    """How far a fold is.

    Raises:
        InputError: it has something that is of another run, or damaged.
    """
    if run.finished(number):
        return FoldState(True, 0)
    checkpoint = run.fold(number) / "checkpoint.h5"
    return FoldState(False, resumed(checkpoint, run.identity, number).epoch) if checkpoint.is_file() else FoldState()


def _check_fold(run: Run, number: int, test: np.ndarray, validation: np.ndarray) -> None:
    """Read a fold's history and, once it is finished, weights and predictions as those who use them will.

    Args:
        test, validation: names of the images that it predicts, str (N,).
    """
    for path in (run.folder / "run.json", *_files(run, number)):
        if path.is_symlink() or not path.is_file():
            raise InputError(f"{path}: expected a plain file")
    if (run.fold(number) / "history.csv").exists():
        read_history(run.fold(number) / "history.csv")
    if not run.finished(number):
        return
    run.verify(number)
    for path, kind, tta in _predicted(run, number):
        made = predictions.read(path, run.predicted(number, tta))
        made.aligned_to(list(test if kind == "test" else validation))
        if made.probabilities.shape[1] != len(run.classes):
            raise InputError(f"{path}: expected {len(run.classes)} classes, got {made.probabilities.shape[1]}")


def _predicted(run: Run, number: int) -> list[tuple[Path, str, TtaSet]]:
    """Prediction files that are there, with their kinds and TTA sets."""
    asked = [(kind, tta) for kind in ("validation", "test") for tta in TTA_SETS]
    made = [(prediction_path(run.fold(number), kind, tta), kind, tta) for kind, tta in asked]
    return [(path, kind, tta) for path, kind, tta in made if path.is_file()]


def _files(run: Run, number: int) -> list[Path]:
    """What is copied of a fold, its manifest last."""
    folder, done = run.fold(number), run.finished(number)
    named = [folder / name for name in (FINISHED if done else UNFINISHED) if (folder / name).exists()]
    named += [path for path, _, _ in _predicted(run, number)]
    named += [path for path in sorted(folder.glob(".shard-*")) if SHARD.fullmatch(path.name) and not done]
    return [*named, folder / "manifest.json"] if done else named


def _same_run(run: Run, target: Path) -> Run | None:
    """The run of that name here, which must be the same; None where there is none. A folder without a `run.json` is no run."""
    if not (target / "run.json").is_file():
        return None
    if run.folder == target.resolve():
        raise InputError(f"{run.folder}: is this data set's own folder of runs; name another with RUNS_FROM=")
    here = runs.load(target)
    if here.identity != run.identity:
        theirs, mine = ({**made.settings.model_dump(), "pretrained": made.weights} for made in (run, here))
        raise InputError(
            f"{run.folder}: is of other settings than the run of that name here; rename the folder, and it is imported under its "
            f"new name (theirs -> here):{listed(differences(theirs, mine), 20)}"
        )
    return here


def _copy_fold(run: Run, number: int, target: Path) -> None:
    files = _files(run, number)
    size = sum(path.stat().st_size for path in files)
    require_space(target.parent, size, f"fold {number}", "remove what is not needed in build/")
    with making(target), replacing_folder(target) as partial:
        for path in files:
            shutil.copyfile(path, partial / path.name)


def _copy_predictions(run: Run, number: int, target: Path) -> list[str]:
    """Names of a finished fold's predictions that were not here yet, and now are."""
    missing = [path for path, _, _ in _predicted(run, number) if not (target / path.name).exists()]
    for path in missing:
        with replacing(target / path.name) as temporary:
            shutil.copyfile(path, temporary)
    return [path.stem for path in missing]
