"""`make search`: trials of a model's settings, compared out of fold; then the best one and the model itself on fresh folds.

Optuna keeps the trials in SQLite, so that a killed search resumes with the trial that it was in; each trial is a run of its
own, so that no finished fold is trained twice.
"""

import shutil
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from driverwatch import run as runs
from driverwatch.config.experiments import SearchSettings
from driverwatch.config.loading import load
from driverwatch.config.model import ModelSettings, PredictSettings
from driverwatch.config.types import TtaSet
from driverwatch.data import splits
from driverwatch.data.context import CONFIGS, Context, open_packs
from driverwatch.data.pack import Pack
from driverwatch.data.prepare import make_packs
from driverwatch.data.tta import best_of, held_by
from driverwatch.ensemble.members import Member, validation_probabilities
from driverwatch.errors import InputError, listed
from driverwatch.experiments import search_trials
from driverwatch.experiments.experiment import refuse_misfits
from driverwatch.experiments.search_trials import SearchRequest, SearchResult, Space, load_optuna
from driverwatch.io.atomic import locked, write_text
from driverwatch.io.console import say
from driverwatch.io.manifests import checksum_of, differences
from driverwatch.metrics import log_losses
from driverwatch.models import weight_files
from driverwatch.run import open_run
from driverwatch.training.train import TrainRequest, read_augmentation, train

STAGE = {"freeze_until", "lr_multipliers", "fit"}
NETWORK: Any = {
    **dict.fromkeys(("backbone", "weights", "truncate_at", "input", "head"), True),
    "train": {"augmentation_passes": True, "stages": {"__all__": STAGE}},
}
"""The settings that decide whether a network can be built and frozen."""


@dataclass(frozen=True, kw_only=True)
class FoldRequest(TrainRequest):
    """One fold of a run, which may be new, started or finished."""

    fold: int


Work = Generator[FoldRequest, None, None]
"""A trial, or one fold of a run: yields each fold that it needs, and is resumed when that is finished or has failed (`thrown`)."""
WorkRunner = Callable[[Iterator[Work]], None]
"""Runs all works. They are generated lazily, so that each trial's suggestion knows the losses of trials that have ended."""


def thrown(work: Work, error: InputError) -> FoldRequest | None:
    """The fold that a work needs after its last one failed with `error`; None: it has ended. Raises the error if it is fatal."""
    try:
        return work.throw(error)
    except StopIteration:
        return None


def in_turn(train_fold: Callable[[FoldRequest], None]) -> WorkRunner:
    """A runner of one work after the other, a fold at a time."""

    def run_works(works: Iterator[Work]) -> None:
        for work in works:
            wanted = next(work, None)
            while wanted is not None:
                try:
                    train_fold(wanted)
                except InputError as error:
                    wanted = thrown(work, error)
                else:
                    wanted = next(work, None)

    return run_works


def space_of(model: str, name: str | None) -> str:
    """The name of the space to search: the one asked for, else the model's own, else `default`."""
    own = CONFIGS / "searches" / f"{model}.yaml"
    return name or (model if own.is_file() else "default")


def search(context: Context, own: ModelSettings, request: SearchRequest, run_works: WorkRunner | None = None) -> None:
    """Run the trials that are missing, score the best one and `own` on fresh folds, and write the report.

    Raises `InputError`: Optuna is not installed, the space does not fit, a search of this name was started with other
    inputs, a fold failed, or no trial finished all folds.

    Args:
        run_works: None: on this machine, one fold after the other.
    """
    start, path = time.monotonic(), CONFIGS / "searches" / f"{request.space}.yaml"
    load_optuna()
    space = Space(own, load(SearchSettings, path.parent, request.space), str(path))
    for size in dict.fromkeys(made.input.key for _, made in space.variants()):
        make_packs(context, size, request.model, "", False, False)
    folds, packs = open_packs(context, own.input.key)
    place = replace(context, places=replace(context.places, study=f"search-{request.name}"))
    here = _Search(place, space, request, folds.count)
    for where, settings in space.variants():
        here.check(where, settings)
    folder = context.places.search(request.name)
    with locked(folder):
        if request.force:
            (folder / "study.db").unlink(missing_ok=True)  # first: a removal cut short must not look like a search
            shutil.rmtree(place.places.runs, ignore_errors=True)
        identity = _identity(place, space, request, folds.checksum, packs)
        with _open_study(folder / "study.db", identity) as here.study:
            result = here.result(folder, run_works or in_turn(partial(train, last=False)), packs["train"].drivers)
            search_trials.write_report(context, folder, result, time.monotonic() - start)


def _identity(
    context: Context, space: Space, request: SearchRequest, folds: str, packs: dict[str, Pack]
) -> dict[str, Any]:
    """All that decides a search's course, as plain data: the identity of a run of the model, the space and the seed."""
    preset, checksums = read_augmentation(context, space.own), {kind: pack.checksum for kind, pack in packs.items()}
    found = weight_files.identity(space.own, request.weights)
    made = runs.identity(space.own, context.settings, preset, folds, checksums, found)
    return {**made, "model": request.model, "search": space.asked.model_dump(), "seed": request.seed}


@contextmanager
def _open_study(path: Path, identity: dict[str, Any]) -> Iterator[Any]:
    """The Optuna study in `path`, created if missing. Raises `InputError` for another file or another search's study."""
    optuna = load_optuna()
    from sqlalchemy.exc import SQLAlchemyError

    try:
        storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
        study = optuna.create_study(storage=storage, study_name="search", load_if_exists=True)
    except (SQLAlchemyError, optuna.exceptions.OptunaError) as error:
        said = " ".join(str(error).split())[:100]
        raise InputError(
            f"{path}: expected a search's study, got {said}; restore it, or start over with FORCE=1"
        ) from error
    try:
        started = study.user_attrs.get("identity")
        if started is None:
            study.set_user_attr("identity", identity)
        elif changes := differences(runs.as_today(started, path), identity):
            raise InputError(
                f"{path.parent}: this search was started with other settings or data; give the new one a name with NAME=, or "
                f"FORCE=1 to start over (old -> new):{listed(changes, 20)}"
            )
        yield study
    finally:
        storage.remove_session()
        storage.engine.dispose()


@dataclass
class _Search:
    """A search that this process holds, and the runs of its trials, in a place of their own."""

    context: Context
    space: Space
    request: SearchRequest
    folds: int
    study: Any = None
    known: set[str] = field(default_factory=set)  # networks that were checked, as JSON

    def check(self, where: str, settings: ModelSettings) -> None:
        """Refuse a missing augmentation preset, and settings that no network can be built for. Raises `InputError`."""
        read_augmentation(self.context, settings)
        if (network := settings.model_dump_json(include=NETWORK)) not in self.known:
            refuse_misfits({where: settings}, self.request.weights)
            self.known.add(network)

    def result(self, folder: Path, run_works: WorkRunner, drivers: np.ndarray) -> SearchResult:
        """Run what is missing: the trials, then the best one and the model itself on fresh folds. Raises as `search`."""
        if self.request.skip is not None:
            self._give_up(self.request.skip)
        run_works(self._works(folder))
        self._clean_up(folder)
        if (best := self._best()) is None:
            way_out = "raise TRIALS=, or change the space"
            raise InputError(f"{folder}: no trial finished all folds (trials.csv says why); {way_out}")
        both = {"own": self.space.own, _run_of(best): self.space.settings(self.space.values(best.params))}
        fresh = {f"{name}-fresh": _reshuffled(made, self.request.seed) for name, made in both.items()}
        run_works(self._whole(fresh))
        sides = [[self._losses(name, made, self.folds) for name, made in side.items()] for side in (both, fresh)]
        return SearchResult(self.request, self.space, self.study, best, drivers, *sides)

    def _works(self, folder: Path) -> Iterator[Work]:
        """The model's own folds, the trials that were running when a search was killed, then new ones up to `TRIALS`."""
        yield from self._whole({"own": self.space.own})
        for left in self._trials("RUNNING"):
            yield self._run_trial(self._suggested(left), folder)
        while len(self._trials()) < self.request.trials:
            yield self._run_trial(self._suggested(None), folder)

    def _whole(self, wanted: dict[str, ModelSettings]) -> Iterator[Work]:
        """A work for each fold of some runs: none waits for another."""
        for name, settings in wanted.items():
            for fold in range(self.folds):
                yield (request for request in [self._fold(name, settings, fold)])

    def _fold(self, name: str, settings: ModelSettings, fold: int) -> FoldRequest:
        """A fold that predicts its validation drivers alone, in the TTA set that it is scored by."""
        predict = PredictSettings(
            tta=[tta_of(settings)], batch_size=settings.predict.batch_size, engine=settings.predict.engine, test=False
        )
        settings = settings.model_copy(update={"predict": predict})
        return FoldRequest(context=self.context, settings=settings, name=name, weights=self.request.weights, fold=fold)

    def _trials(self, state: str | None = None) -> list[Any]:
        there = self.study.get_trials(deepcopy=False)
        return [one for one in there if state is None or one.state.name == state]

    def _best(self) -> Any:
        """The complete trial of the lowest loss, the first of equals; None without one."""
        return min(self._trials("COMPLETE"), key=lambda one: one.value, default=None)

    def _suggested(self, left: Any) -> Any:
        """A new trial, or the one `left` of an earlier search, with all of its settings suggested.

        The sampler (TPE, Bergstra et al. 2011) is seeded by the trial's number, and knows earlier trials from the study alone.
        """
        optuna, number = load_optuna(), left.number if left else len(self._trials())
        seed = int(checksum_of([self.request.seed, number])[:8], 16)
        self.study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=self.space.asked.startup)
        trial = optuna.trial.Trial(self.study, left._trial_id) if left else self.study.ask()
        for key, distribution in self.space.distributions().items():
            trial._suggest(key, distribution)  # the stored value, unless a kill came before; Optuna has no public way
        return trial

    def _run_trial(self, trial: Any, folder: Path) -> Work:
        """Train a trial fold by fold until it is complete, pruned or failed."""
        self._end(trial, *(yield from self._outcome(trial)))
        self._clean_up(folder)

    def _outcome(self, trial: Any) -> Generator[FoldRequest, None, tuple[str, str]]:
        """How a trial ends: its state, and the reason unless it is complete."""
        name = _run_of(trial)
        try:
            settings = self.space.settings(self.space.values(trial.params))
            self.check("settings", settings)
        except InputError as error:
            return "FAIL", str(error)
        for fold in range(self.folds):
            try:
                yield self._fold(name, settings, fold)
            except InputError as error:
                if runs.diverged(self.context.places.run(name), fold):
                    return "PRUNED", f"the loss became NaN or inf in fold {fold}"
                raise InputError(
                    f"{name}: {error}; the same make search resumes with it, with SKIP_TRIAL={trial.number} without it"
                ) from error
            mean = float(self._losses(name, settings, fold + 1).mean())
            middle = self._report(trial, fold, mean)
            if middle is not None and mean > middle and fold + 1 < self.folds:
                return "PRUNED", f"above the median {middle:.4f} after fold {fold}"
        return "COMPLETE", ""

    def _report(self, trial: Any, fold: int, mean: float) -> float | None:
        """Store a trial's mean loss over folds 0 to `fold`; the median of other trials' means there, None for too few.

        Optuna's `MedianPruner` takes a trial's best mean so far instead, which never rises again after an easy first fold.
        """
        if fold not in self._trials()[trial.number].intermediate_values:  # else it was reported before a kill
            trial.report(mean, fold)
        others = [one.intermediate_values.get(fold) for one in self._trials() if one.number != trial.number]
        known, least = [loss for loss in others if loss is not None], self.space.asked.prune_after
        middle = median(known) if least is not None and len(known) >= least else None
        compared = "too few other trials to compare with" if middle is None else f"median of the others {middle:.4f}"
        say(f"{_run_of(trial)}: OOF log loss {mean:.4f} over {fold + 1} of {self.folds} folds, {compared}")
        return middle

    def _end(self, trial: Any, state: str, why: str) -> None:
        """Store how a trial ended; a complete one's value is its mean loss over all folds."""
        trial.set_user_attr("why", why)
        value = self._trials()[trial.number].intermediate_values[self.folds - 1] if state == "COMPLETE" else None
        self.study.tell(trial.number, value, state=load_optuna().trial.TrialState[state])
        say(f"{_run_of(trial)}: {state.lower()}" + (f", {why}" if why else ""))

    def _give_up(self, number: int) -> None:
        left = {one.number: one for one in self._trials("RUNNING")}
        if number not in left:
            raise InputError(f"SKIP_TRIAL={number}: expected a running trial, of {', '.join(map(str, left)) or 'none'}")
        trial = load_optuna().trial.Trial(self.study, left[number]._trial_id)
        self._end(trial, "FAIL", "given up with SKIP_TRIAL=")

    def _clean_up(self, folder: Path) -> None:
        """Remove the runs of beaten trials (a fold's weights may have 100 MB), and write `trials.csv`, which has the rest."""
        best = self._best()
        for one in self._trials():
            if one.state.is_finished() and (best is None or one.number != best.number):
                for name in (_run_of(one), f"{_run_of(one)}-fresh"):
                    shutil.rmtree(self.context.places.run(name), ignore_errors=True)
        table = search_trials.trial_table(self.study)
        write_text(folder / "trials.csv", table.to_csv(index=False, float_format="%.9g", lineterminator="\n"))

    def _losses(self, name: str, settings: ModelSettings, folds: int) -> np.ndarray:
        """Log loss of each training image that a run's first `folds` folds hold out, in the pack's order: float64 (n,).

        The folds are those that the run was trained on, of the fold file or reshuffled; all of them hold out every image.
        """
        run, table, packs = open_run(self.context, name)
        pack, split = packs["train"], splits.of(run.settings.train, table)
        member = Member(run, packs["test"], tta_of(settings))
        validation = [split.indices(pack.drivers, fold)[1] for fold in range(folds)]
        losses = [
            log_losses(validation_probabilities(member, fold, list(pack.names[rows])), pack.labels[rows])
            for fold, rows in enumerate(validation)
        ]
        return np.concatenate(losses)[np.argsort(np.concatenate(validation))]


def tta_of(settings: ModelSettings) -> TtaSet:
    """The TTA set that a run is scored by: what an ensemble would take of those that the model predicts."""
    return best_of(held_by(*settings.predict.tta), settings.default_tta)


def _run_of(trial: Any) -> str:
    """A trial's run: `trial-0007`."""
    return f"trial-{trial.number:04d}"


def _reshuffled(settings: ModelSettings, seed: int) -> ModelSettings:
    splits = settings.train.splits.model_copy(update={"kind": "reshuffled", "split_seed": seed})
    return settings.model_copy(update={"train": settings.train.model_copy(update={"splits": splits})})
