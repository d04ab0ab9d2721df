"""A search's works on a cluster: as many at once as it has room for, each a fold at a time."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from driverwatch.cluster import joined
from driverwatch.cluster.cluster import Cluster, Options
from driverwatch.cluster.jobs import End, Job, Needs
from driverwatch.cluster.joined import Machine
from driverwatch.cluster.view import View
from driverwatch.errors import InputError
from driverwatch.experiments.search import FoldRequest, Work, WorkRunner, thrown
from driverwatch.steps.fold_jobs import fold_job
from driverwatch.steps.train import Claim, begun
from driverwatch.training.run import forget_divergence


def on_cluster(weights: Path | None, options: Options, open_cluster: Callable[..., Any] = Cluster) -> WorkRunner:
    """Folds as tasks on Ray. What is tried next goes by whatever is over by then, so that it depends on how fast machines are."""

    def crew(works: Iterator[Work]) -> None:
        with ExitStack() as held, open_cluster(options, Path()) as cluster, View() as view:
            _Hall(works, weights, cluster, view, held).work()

    return crew


def room(there: list[Machine], needs: Needs) -> int:
    """How many tasks of these needs the machines can do at once; 1 at least."""
    each = []
    for machine in there:
        parts = [machine.cores // needs.cores]
        parts += [int(machine.gpus / needs.gpus)] if needs.gpus else []
        parts += [int(machine.memory // needs.memory)] if needs.memory else []
        each.append(min(parts))
    return max(1, sum(each))


@dataclass
class _Hall:
    """Works that are under way, each with the one fold that it waits for."""

    works: Iterator[Work]
    weights: Path | None
    cluster: Any
    view: View
    held: ExitStack
    waiting: dict[Job, tuple[Work, FoldRequest]] = field(default_factory=dict)
    claims: dict[str, tuple[ExitStack, Claim, int]] = field(default_factory=dict)  # by run, and how many folds need it

    def work(self) -> None:
        """Until no work is left."""
        self._fill()
        for event in self.cluster.events():
            self.view.show(event)
            if isinstance(event, End):
                self._ended(event)
                self._fill()

    def _fill(self) -> None:
        """Begin works as long as there is room; machines may have come since."""
        most = room(joined.machines(self.cluster.ray), self.cluster.wanted)
        while len(self.waiting) < most and (work := next(self.works, None)) is not None:
            self._follow(work, next(work, None))

    def _follow(self, work: Work, ask: FoldRequest | None) -> None:
        """Have a work's next fold trained, past those that are finished."""
        while ask is not None:
            try:
                claim = self._claim(ask)
            except InputError as error:
                ask = thrown(work, error)
                continue
            if not claim.run.finished(ask.fold):
                forget_divergence(claim.run.folder, ask.fold)
                job = fold_job(ask.context, claim.run, ask.fold, self.weights, ask.settings)
                self.waiting[job] = work, ask
                self.view.asked([job])
                return self.cluster.submit(job)
            ask = self._next(work, ask)
        return None

    def _ended(self, end: End) -> None:
        work, ask = self.waiting.pop(end.job)
        if end.error is None:
            return self._follow(work, self._next(work, ask))
        self._release(ask.name)
        return self._follow(work, thrown(work, InputError(end.error)))

    def _next(self, work: Work, ask: FoldRequest) -> FoldRequest | None:
        """What a work asks for after a fold that is finished."""
        self.claims[ask.name][1].found(ask.fold)
        self._release(ask.name)
        return next(work, None)

    def _claim(self, ask: FoldRequest) -> Claim:
        """Hold a run, once for all of its folds that are under way."""
        if ask.name not in self.claims:
            stack = self.held.enter_context(ExitStack())
            about = ask.context, ask.settings, ask.name, self.weights, None, False
            self.claims[ask.name] = stack, stack.enter_context(begun(*about)), 0
        stack, claim, count = self.claims[ask.name]
        self.claims[ask.name] = stack, claim, count + 1
        return claim

    def _release(self, name: str) -> None:
        stack, claim, count = self.claims.pop(name)
        if count > 1:
            self.claims[name] = stack, claim, count - 1
        else:
            stack.close()
