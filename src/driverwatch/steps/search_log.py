"""The trials of a search, kept by Optuna in an SQLite file: which settings come next, how far each trial is, what came of it.

Optuna is an extra (`make setup EXTRAS=cluster`) and is imported here alone. A kill loses nothing: a trial is written down whole
before it begins, and what a search suggests next depends on its seed, the trial's number and the losses of trials before it,
on nothing that a process remembers.
"""

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from driverwatch.artifacts import digest_of
from driverwatch.errors import InputError
from driverwatch.steps.search_space import Space

STATES = {
    "COMPLETE": "complete",
    "PRUNED": "cut short",
    "FAIL": "failed",
    "RUNNING": "under way",
    "WAITING": "under way",
}


@dataclass(frozen=True)
class Trial:
    """A trial: values by dotted setting, and the mean loss over the images of its first folds, by the last fold's number."""

    number: int
    state: str  # one of STATES' values
    values: dict[str, Any]
    means: dict[int, float]
    loss: float | None  # of all folds, where it is complete
    why: str  # it ended before
    seconds: float

    @property
    def name(self) -> str:
        """Of its run."""
        return f"trial-{self.number:04d}"

    @property
    def is_over(self) -> bool:
        return self.state != "under way"

    @property
    def latest(self) -> float | None:
        """Its loss, or as much of it as is known."""
        return self.loss if self.loss is not None else self.means[max(self.means)] if self.means else None


def load_optuna() -> Any:
    """The package.

    Raises:
        InputError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise InputError("make search needs the package optuna; make setup EXTRAS=cluster installs it") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


class Log:
    """A search's trials, to be closed. Threads of one process may share it; the caller holds the search's lock."""

    def __init__(self, path: Path, space: Space, seed: int) -> None:
        """Open the file, or make it.

        Raises:
            InputError: it is there and not such a file.
        """
        self.space, self.seed, self.optuna = space, seed, load_optuna()
        self.lock, self.claimed = threading.RLock(), set[int]()
        self.distributions = self._distributions()
        from sqlalchemy.exc import SQLAlchemyError

        try:
            self.storage = self.optuna.storages.RDBStorage(f"sqlite:///{path}")
            self.study = self.optuna.create_study(
                storage=self.storage, study_name="search", load_if_exists=True, direction="minimize"
            )
        except (SQLAlchemyError, self.optuna.exceptions.OptunaError) as error:
            said = " ".join(str(error).split())[:100]
            raise InputError(
                f"{path}: expected the log of a search, got {said}; restore it, or begin with FORCE=1"
            ) from error

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.storage.remove_session()
        self.storage.engine.dispose()

    def trials(self) -> list[Trial]:
        """All there are, by number."""
        with self.lock:
            return [self._trial(one) for one in self.study.get_trials(deepcopy=False)]

    def best(self) -> Trial | None:
        """The complete trial with the least loss, the first of equals."""
        complete = [one for one in self.trials() if one.loss is not None]
        return min(complete, key=lambda one: one.loss, default=None)  # type: ignore[arg-type,return-value]

    def claim(self, limit: int) -> Trial | None:
        """The next trial to work on: one that was under way when a search ended, else a new one; None: there are `limit`."""
        with self.lock:
            there = self.trials()
            left = [one for one in there if not one.is_over and one.number not in self.claimed]
            if not left and len(there) < limit:
                self.study.enqueue_trial(self._suggested(len(there)))
                left = self.trials()[-1:]
            if not left:
                return None
            number = left[0].number
            self.claimed.add(number)
            if self.study.get_trials(deepcopy=False)[number].state == self.optuna.trial.TrialState.WAITING:
                self.study.ask()  # takes the waiting one: there is no other
            self._fill_in(number)
            return self.trials()[number]

    def report(self, number: int, fold: int, mean: float) -> None:
        """Note the mean loss over the images of a trial's folds up to `fold`."""
        with self.lock:
            if fold not in self.trials()[number].means:
                self._open(number).report(mean, fold)

    def middle(self, number: int, fold: int) -> float | None:
        """Median of the other trials' means up to the same fold; None: `prune_after` says that they are too few.

        Optuna's own median pruner holds a trial's best mean so far against the others': after an easy first fold it would
        never cut one short. Here the same drivers stand on both sides, and trials that were cut short count too.
        """
        least = self.space.asked.prune_after
        others = [one.means[fold] for one in self.trials() if one.number != number and fold in one.means]
        return median(others) if least is not None and len(others) >= least else None

    def end(self, number: int, state: str, loss: float | None = None, why: str = "", seconds: float = 0.0) -> None:
        """Note what came of a trial: `complete` with its loss, `cut short` or `failed` with the reason."""
        with self.lock:
            opened = self._open(number)
            opened.set_user_attr("why", why)
            opened.set_user_attr("seconds", seconds)
            states = {said: name for name, said in STATES.items()}
            self.study.tell(number, loss, state=self.optuna.trial.TrialState[states[state]])

    def _trial(self, kept: Any) -> Trial:
        means = {int(fold): float(mean) for fold, mean in kept.intermediate_values.items()}
        state, about = STATES[kept.state.name], kept.user_attrs
        loss = float(kept.value) if state == "complete" else None
        values = {key: self._value(key, value) for key, value in self._raw(kept).items()}
        return Trial(kept.number, state, values, means, loss, str(about.get("why", "")), float(about.get("seconds", 0)))

    def _raw(self, kept: Any) -> dict[str, Any]:
        """A trial's values as Optuna has them, in the space's order: those that it was written down with."""
        given = kept.system_attrs.get("fixed_params", kept.params)
        return {key: given[key] for key in self.space.keys}

    def _value(self, key: str, raw: Any) -> Any:
        """A choice out of its words; a number without the noise of adding steps up."""
        if self.space.asked.space[key].choices is not None:
            return json.loads(raw)
        return int(raw) if key in self.space.whole else float(f"{raw:.12g}")

    def _open(self, number: int) -> Any:
        return self.optuna.trial.Trial(self.study, self.study.get_trials(deepcopy=False)[number]._trial_id)

    def _fill_in(self, number: int) -> None:
        """Have Optuna note a trial's values one by one, as its own tools expect them; a kill may have come between."""
        opened, state = self._open(number), self.optuna.distributions
        for key, kind in self.distributions.items():
            if isinstance(kind, state.CategoricalDistribution):
                opened.suggest_categorical(key, kind.choices)
            else:
                ask = opened.suggest_int if isinstance(kind, state.IntDistribution) else opened.suggest_float
                ask(key, kind.low, kind.high, step=kind.step, log=kind.log)

    def _suggested(self, number: int) -> dict[str, Any]:
        """Values for trial `number`: at random at first, then where trials did well (Bergstra et al. 2011: TPE).

        Asked of a sampler that is made anew for each trial, over a copy of the trials in memory.
        """
        seed = int(digest_of([self.seed, number])[:8], 16)
        sampler = self.optuna.samplers.TPESampler(seed=seed, n_startup_trials=self.space.asked.startup)
        copy = self.optuna.create_study(sampler=sampler, direction="minimize")
        kept: Sequence[Any] = self.study.get_trials(deepcopy=False)
        copy.add_trials([one for one in kept if one.state.name != "WAITING"])
        return dict(copy.ask(self.distributions).params)

    def _distributions(self) -> dict[str, Any]:
        kinds, found = self.optuna.distributions, {}
        for key, one in self.space.asked.space.items():
            if one.choices is not None:
                found[key] = kinds.CategoricalDistribution(one.words)
            elif key in self.space.whole:
                found[key] = kinds.IntDistribution(one.low, one.high, log=one.log, step=int(one.step or 1))
            else:
                found[key] = kinds.FloatDistribution(one.low, one.high, log=one.log, step=one.step)
        return found
