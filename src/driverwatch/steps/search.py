"""`make search`: trials of a model's settings, compared out of fold; then the best one and the model itself on other folds."""

import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from driverwatch.artifacts import differences, read_json
from driverwatch.data.folds import FoldTable
from driverwatch.data.pack import Pack
from driverwatch.errors import InputError, listed
from driverwatch.models import weights as weight_files
from driverwatch.search_settings import SearchSettings
from driverwatch.settings import ModelSettings
from driverwatch.steps.context import CONFIGS, Context, open_packs
from driverwatch.steps.prepare import make_packs
from driverwatch.steps.search_log import Log, Trial, load_optuna
from driverwatch.steps.search_page import Found, write_page, write_trials
from driverwatch.steps.search_space import Asked, Space
from driverwatch.steps.search_trials import Crew, Runner, Work, fresh, on_this_machine
from driverwatch.steps.train import read_augmentation
from driverwatch.training import run as runs
from driverwatch.typed_yaml import load
from driverwatch.writing import locked, write_json


def space_of(model: str, name: str | None) -> str:
    """The space that is searched: the one asked for, else the model's own, else `default`."""
    own = CONFIGS / "searches" / f"{model}.yaml"
    return name or (model if own.is_file() else "default")


def search(context: Context, own: ModelSettings, asked: Asked, crew: Crew | None = None) -> None:
    """Go on with a search until it has its trials, score the best one and `own` on folds it did not see, and write the page.

    Args:
        crew: who trains; None: this machine, one fold after the other.

    Raises:
        InputError: Optuna is not installed; a space that does not fit; a search of this name that was begun with something else;
            no trial that came through.
    """
    start = time.monotonic()
    load_optuna()
    path = CONFIGS / "searches" / f"{asked.space}.yaml"
    space = Space(own, load(SearchSettings, path.parent, asked.space), str(path))
    place = replace(context, places=replace(context.places, study=f"search-{asked.name}"))
    for size in dict.fromkeys(made.input.key for _, made in space.variants()):
        make_packs(context, size, asked.model, "", False, False)
    folds, packs = open_packs(context, own.input.key)
    runner, crew = Runner(place, space, asked.weights, folds.count), crew or on_this_machine(asked.weights)
    for where, settings in space.variants():
        runner.check(where, settings)
    folder = context.places.search(asked.name)
    with locked(folder):
        _begin(place, folder, _identity(context, space, asked, folds, packs), asked)
        with Log(folder / "study.db", space, asked.seed) as log:
            if asked.skip is not None:
                _give_up(log, asked.skip)
            crew(_works(runner, log, asked, folder))
            runner.sweep(log)
            write_trials(log, folder)
            found = _found(runner, crew, log, asked, _winner(log, folder))
        write_page(context, folder, found, time.monotonic() - start)


def _identity(context: Context, space: Space, asked: Asked, folds: FoldTable, packs: dict[str, Pack]) -> dict[str, Any]:
    """All that decides a search's course, as plain data: what decides its first run, the space and the seed."""
    policy, digests = read_augmentation(context, space.own), {kind: pack.digest for kind, pack in packs.items()}
    found = weight_files.identity(space.own, asked.weights)
    made = runs.identity(space.own, context.settings, policy, folds.digest, digests, found)
    return {**made, "model": asked.model, "search": space.asked.model_dump(), "seed": asked.seed}


def _begin(place: Context, folder: Path, wanted: dict[str, Any], asked: Asked) -> None:
    """Claim the folder for this search, or find that it is this one already; with `force` begin anew. Raises `InputError`."""
    path = folder / "search.json"
    if asked.force:
        path.unlink(missing_ok=True)  # first: a removal cut short must not look like a search
        (folder / "study.db").unlink(missing_ok=True)
        shutil.rmtree(place.places.runs, ignore_errors=True)
    if path.is_file() and (changes := differences(runs.as_today(read_json(path), path), wanted)):
        raise InputError(
            f"{folder}: this search was begun with other settings or data; give the new one a name with NAME=, or FORCE=1 to "
            f"begin anew (old -> new):{listed(changes, 20)}"
        )
    if not path.is_file():
        write_json(path, wanted)


def _works(runner: Runner, log: Log, asked: Asked, folder: Path) -> Iterator[Work]:
    """The model's own settings, then trial after trial, until there are as many as asked for and none is under way."""
    yield from runner.whole({"own": runner.space.own})
    while (trial := log.claim(asked.trials)) is not None:
        yield _noted(runner, log, trial, folder)


def _noted(runner: Runner, log: Log, trial: Trial, folder: Path) -> Work:
    """A trial, and what is told and removed once it is over."""
    yield from runner.trial(log, trial)
    runner.sweep(log)
    write_trials(log, folder)


def _give_up(log: Log, number: int) -> None:
    left = [one.number for one in log.trials() if not one.is_over]
    if number not in left:
        raise InputError(f"SKIP={number}: expected a trial that is under way, of {', '.join(map(str, left)) or 'none'}")
    log.end(number, "failed", why="given up with SKIP=")


def _winner(log: Log, folder: Path) -> Trial:
    if (best := log.best()) is None:
        raise InputError(
            f"{folder}: no trial came through all folds (trials.csv says why); raise TRIALS=, or mend the space"
        )
    return best


def _found(runner: Runner, crew: Crew, log: Log, asked: Asked, best: Trial) -> Found:
    """Both sides on the folds that the search went by, and on others, trained now."""
    both = {"own": runner.space.own, best.name: runner.space.settings(best.values)}
    other = {fresh(name): _redrawn(made, asked.seed) for name, made in both.items()}
    crew(runner.whole(other))
    pack = runner.scored(best.name, both[best.name]).pack
    own, found = (runner.scored(name, made).all_losses() for name, made in both.items())
    own_fresh, found_fresh = (runner.scored(name, made).all_losses() for name, made in other.items())
    return Found(asked, runner.space, log.trials(), best, pack, (own, found), (own_fresh, found_fresh))


def _redrawn(settings: ModelSettings, draw: int) -> ModelSettings:
    splits = settings.train.splits.model_copy(update={"kind": "redrawn", "draw": draw})
    return settings.model_copy(update={"train": settings.train.model_copy(update={"splits": splits})})
