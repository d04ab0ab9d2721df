"""The work of a search: trials, fold by fold, cut short where others were better by then, and runs that are compared whole.

It is written down without saying who trains: each work asks for one fold at a time and goes on once that is finished.
"""

import shutil
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from driverwatch.artifacts import read_json
from driverwatch.blend.ensemble import Member
from driverwatch.blend.own_folds import OwnFolds
from driverwatch.data import splits
from driverwatch.errors import InputError
from driverwatch.models.check_models import refuse_misfits
from driverwatch.setting_types import ViewSet
from driverwatch.settings import ModelSettings, PredictSettings
from driverwatch.steps.context import Context
from driverwatch.steps.search_log import Log, Trial
from driverwatch.steps.search_space import Space, structure
from driverwatch.steps.train import open_run, read_augmentation, train
from driverwatch.terminal import say
from driverwatch.training import run as runs
from driverwatch.vision.views import best_of, held_by


class Ask(NamedTuple):
    """One fit of a run, which may be begun or finished, by name, in the context's places."""

    context: Context
    name: str
    settings: ModelSettings
    fit: int


Work = Generator[Ask, None, None]
"""Asks for one fit after the other; is sent nothing once it is finished, and thrown the `InputError` that it ended in."""
Crew = Callable[[Iterator[Work]], None]
"""Has every work done. The iterator makes the next work only when it is asked for, so that it may go by those before."""


def in_turn(train_fit: Callable[[Ask], None]) -> Crew:
    """One work after the other, one fit after the other, by whatever trains one."""

    def crew(works: Iterator[Work]) -> None:
        for work in works:
            ask = next(work, None)
            while ask is not None:
                try:
                    train_fit(ask)
                except InputError as error:
                    ask = thrown(work, error)
                else:
                    ask = next(work, None)

    return crew


def thrown(work: Work, error: InputError) -> Ask | None:
    """What a work asks for after a fit that failed; None: it is over. Raises the error, if the work does not bear it."""
    try:
        return work.throw(error)
    except StopIteration:
        return None


def on_this_machine(weights: Path | None) -> Crew:
    """A process per fit here, as `make train` has it."""
    return in_turn(lambda ask: train(ask.context, ask.settings, ask.name, weights, ask.fit, False, last=False))


def views_of(settings: ModelSettings) -> ViewSet:
    """The view set that a run is compared by: what an ensemble would take, where the model's settings predict that."""
    return best_of(held_by(*settings.predict.views), settings.honest_views)


def compared(settings: ModelSettings) -> ModelSettings:
    """The same, predicting what comparing takes and no more: held-out drivers in one view set."""
    predict = PredictSettings(views=[views_of(settings)], batch_size=settings.predict.batch_size, test=False)
    return settings.model_copy(update={"predict": predict})


@dataclass
class Runner:
    """Makes works of a search, whose runs lie in a place of its own."""

    context: Context
    space: Space
    weights: Path | None
    fits: int
    sound: set[str] = field(default_factory=set)  # structures of networks that are known to fit

    def check(self, where: str, settings: ModelSettings) -> None:
        """Refuse what no network can be built for, or a policy that is not there. Raises `InputError`."""
        read_augmentation(self.context, settings)
        if structure(settings) not in self.sound:
            refuse_misfits({where: settings}, self.weights)
            self.sound.add(structure(settings))

    def whole(self, runs: dict[str, ModelSettings]) -> Iterator[Work]:
        """All fits of some runs, none of which waits for another."""
        for name, settings in runs.items():
            for fit in range(self.fits):
                yield self._one(name, settings, fit)

    def _one(self, name: str, settings: ModelSettings, fit: int) -> Work:
        yield Ask(self.context, name, compared(settings), fit)

    def scored(self, name: str, settings: ModelSettings) -> OwnFolds:
        run, folds, packs = open_run(self.context, name)
        member = Member(run, packs["test"], views_of(settings))
        return OwnFolds(member, packs["train"], splits.of(run.settings.train, folds))

    def trial(self, log: Log, trial: Trial) -> Work:
        """A trial until it is over."""
        folder = self.context.places.run(trial.name)
        try:
            settings = self.space.settings(trial.values)
            self.check("settings", settings)
        except InputError as error:
            say(f"{trial.name}: failed: {error}")
            return log.end(trial.number, "failed", why=str(error))
        losses: list[np.ndarray] = []
        for fit in range(self.fits):
            try:
                yield Ask(self.context, trial.name, compared(settings), fit)
            except InputError as error:
                if runs.diverged(folder, fit):
                    return self._end(log, trial, "cut short", why=f"the loss became no number in fold {fit}")
                raise InputError(
                    f"{trial.name}: {error}; the same make search goes on with it, with SKIP={trial.number} without it"
                ) from error
            losses.append(self.scored(trial.name, settings).losses(fit))
            mean = float(np.concatenate(losses).mean())
            log.report(trial.number, fit, mean)
            middle = log.middle(trial.number, fit)
            say(f"{trial.name}: {mean:.4f} over {fit + 1} of {self.fits} folds, others {_told(middle)}")
            if middle is not None and mean > middle and fit + 1 < self.fits:
                return self._end(log, trial, "cut short", why=f"above the median {middle:.4f} after fold {fit}")
        return self._end(log, trial, "complete", loss=mean)

    def _end(self, log: Log, trial: Trial, state: str, loss: float | None = None, why: str = "") -> None:
        made = sorted(self.context.places.run(trial.name).glob("fold*/manifest.json"))
        seconds = sum(float(read_json(path).get("seconds") or 0) for path in made)
        log.end(trial.number, state, loss, why, seconds)
        say(f"{trial.name}: {state}" + (f", {why}" if why else ""))

    def sweep(self, log: Log) -> None:
        """Remove what beaten trials left: a fold's weights may be 100 MB, and the log has their settings and losses."""
        best = log.best()
        for one in log.trials():
            if one.is_over and (best is None or one.number != best.number):
                for name in (one.name, fresh(one.name)):
                    shutil.rmtree(self.context.places.run(name), ignore_errors=True)


def fresh(name: str) -> str:
    """What a run is called on folds that the search did not see."""
    return f"{name}-fresh"


def _told(middle: float | None) -> str:
    return "too few to compare with" if middle is None else f"{middle:.4f} by then"
