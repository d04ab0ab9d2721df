"""Several runs by one command: in turn on this machine, or all their folds at once on a cluster; teachers first."""

import time
from contextlib import ExitStack
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

from driverwatch.cluster.cluster import Cluster, Options
from driverwatch.cluster.jobs import End, Job
from driverwatch.cluster.view import View
from driverwatch.errors import InputError, listed
from driverwatch.settings import ModelSettings
from driverwatch.steps.context import Context
from driverwatch.steps.fold_jobs import fold_job
from driverwatch.steps.summary import print_summary
from driverwatch.steps.train import Claim, begun, train
from driverwatch.training.run import diverged, forget_divergence, way_on

Wanted = dict[str, ModelSettings]  # by run


def train_in_turn(context: Context, wanted: Wanted, weights: Path | None, fold: int | None, force: bool) -> None:
    """Train runs one after the other here, those that teach others first. Raises as `train`."""
    order = _order(wanted)
    while order.is_active():
        for name in order.get_ready():
            train(context, wanted[name], name, weights, fold, force)
            order.done(name)


def train_on_cluster(
    context: Context, wanted: Wanted, weights: Path | None, fold: int | None, force: bool, options: Options
) -> None:
    """Train the folds of runs on a cluster as machines come free; what they leave is what `train` here would.

    A fold that fails costs itself and the runs that its run teaches; the others go on.

    Raises:
        InputError: as `train`; no cluster, or none that could do it; folds that failed, each with its last words.
    """
    with ExitStack() as held:
        training = Training(context, wanted, weights, fold, force, held)
        jobs = training.ready()
        if jobs:
            training.follow(jobs, options)
    if training.failed:
        goes_on = "\nthat mended, the same command without FORCE=1 goes on from their last finished epochs"
        raise InputError(
            f"{len(training.failed)} of these did not finish:{listed(training.failed, 20)}{goes_on if training.mends else ''}"
        )


class Begun(NamedTuple):
    """A run that is held, what is left of it to do, and since when."""

    claim: Claim
    jobs: dict[Job, int]
    start: float


class Training:
    """Runs in the order in which they may begin, and what has become of their folds."""

    def __init__(
        self, context: Context, wanted: Wanted, weights: Path | None, fold: int | None, force: bool, held: ExitStack
    ) -> None:
        """Begin nothing yet; `held` is to hold the runs that are."""
        self.context, self.wanted, self.weights, self.fold, self.force = context, wanted, weights, fold, force
        self.held, self.order = held, _order(wanted)
        self.begun: dict[str, Begun] = {}
        self.failed: list[str] = []
        self.trains = False
        self.mends = False  # whether the same command may get further with one that failed

    def ready(self) -> list[Job]:
        """Begin every run whose teachers are finished; close those that have nothing left to do. Folds to train.

        Raises:
            InputError: a run that may not begin, as long as nothing is trained; later it is one of those that failed.
        """
        jobs: list[Job] = []
        while names := self.order.get_ready() if self.order.is_active() else ():
            for name in names:
                try:
                    jobs += self._begin(name)
                except InputError as error:
                    if not self.trains:
                        raise
                    self.failed.append(f"{name}: {error}")
                    self.mends = True
        return jobs

    def _begin(self, name: str) -> list[Job]:
        about = self.context, self.wanted[name], name, self.weights, self.fold, self.force
        start = time.monotonic()
        claim = self.held.enter_context(begun(*about))
        there = [number for number in claim.asked if claim.run.finished(number)]
        for number in there:
            claim.found(number)
        lacking = [number for number in claim.asked if number not in there]
        for number in lacking:
            forget_divergence(claim.run.folder, number)
        made = {fold_job(self.context, claim.run, n, self.weights, self.wanted[name]): n for n in lacking}
        self.begun[name] = Begun(claim, made, start)
        if not made:
            self._close(name)
        return list(made)

    def _close(self, name: str) -> None:
        claim, _, start = self.begun[name]
        print_summary(self.context, claim.run, claim.fits, time.monotonic() - start)
        self.order.done(name)

    def ended(self, end: End) -> list[Job]:
        """Take note of a fold's end; folds of runs that may begin by it."""
        name = next(name for name, one in self.begun.items() if end.job in one.jobs)
        claim, jobs, _ = self.begun[name]
        if end.error:
            folder, number = claim.run.folder, jobs[end.job]
            again = diverged(folder, number)
            self.mends |= not again
            self.failed.append(f"{end.job.name}: {end.error}" + (f"; {way_on(folder, number)}" if again else ""))
            return []
        claim.found(jobs.pop(end.job))
        if jobs:
            return []
        self._close(name)
        return self.ready()

    def follow(self, jobs: list[Job], options: Options) -> None:
        """Have folds trained, and those that may follow them."""
        with Cluster(options, Path()) as cluster, View() as view:
            self.trains = True
            view.asked(jobs)
            for job in jobs:
                cluster.submit(job)
            for event in cluster.events():
                view.show(event)
                more = self.ended(event) if isinstance(event, End) else []
                view.asked(more)
                for job in more:
                    cluster.submit(job)


def _order(wanted: Wanted) -> "TopologicalSorter[str]":
    """Runs, each after those among them that teach it.

    Raises:
        InputError: runs that teach each other.
    """
    teachers = {name: made.train.pseudo.runs if made.train.pseudo else [] for name, made in wanted.items()}
    order = TopologicalSorter({name: [one for one in asked if one in wanted] for name, asked in teachers.items()})
    try:
        order.prepare()
    except CycleError as error:
        raise InputError(f"MODELS: teach each other: {', '.join(error.args[1])}; train.pseudo.runs") from error
    return order
