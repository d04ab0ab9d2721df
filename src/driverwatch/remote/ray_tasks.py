"""What this project does on a Ray cluster: folds of runs, shards of predictions, and the folds of a search's trials."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from driverwatch.config.model import PROCESSOR_CROPS, PredictSettings
from driverwatch.data.context import CONFIGS, Context
from driverwatch.data.pack import is_streamed
from driverwatch.errors import InputError, listed
from driverwatch.experiments.search import FoldRequest, Work, WorkRunner, thrown
from driverwatch.inference.predict_run import asked_to_predict, predict, predictors_of
from driverwatch.io.atomic import locked
from driverwatch.io.console import say
from driverwatch.models import weight_files
from driverwatch.remote.ray_cluster import Cluster, Options
from driverwatch.remote.ray_files import Task
from driverwatch.run import DIVERGED, Run, diverged, forget_divergence, way_on
from driverwatch.training import fold_runner
from driverwatch.training.run_summary import print_summary
from driverwatch.training.train import LockedRun, TrainRequest, started_run, teachers_first, train_one_fold

UNREAD = ("weights.h5", "checkpoint.h5", "best.h5", DIVERGED)  # of teachers' folders: only their predictions are


def fold_task(request: TrainRequest, run: Run, fold: int) -> Task:
    """The training of one fold, from where it is, of a run that the caller holds (`started_run`).

    A file that is not in the folder of local weights is downloaded by the machine, as by this one.
    """
    forget_divergence(run.folder, fold)
    context, file = request.context, weight_files.find(run.settings, request.weights)
    fold_runner.write(context.places, run, request.settings, request.weights, [])
    return Task(
        name=f"{run.name} fold {fold}",
        call=train_one_fold,
        arguments=(run.folder, fold),
        reads=tuple(map(str, [*_inputs(context, run), run.folder / fold_runner.NAME, *_teachers(context, run)])),
        folders=(str(run.fold(fold)),),
        weights=str(file.resolve()) if file else None,
        epochs=sum(run.settings.train.planned),
        log=str(run.folder / "logs" / f"fold{fold}.txt"),
    )


def _inputs(context: Context, run: Run) -> list[Path]:
    """Files that every task of a run reads: the data set's settings, folds and packs, and the run's record.

    Raises:
        InputError: test images that are streamed from files of this machine.
    """
    places, pack = context.places, context.places.pack(run.settings.input.key)
    if is_streamed(pack):
        raise InputError(
            f"{pack / 'test.h5'}: holds no pixels, and a cluster is not sent the images; pack them first: make pack "
            f'MODEL=<model of {run.name}> SET="predict.test_images=packed"'
        )
    tables = [path for path in (places.folds, places.groups) if path.is_file()]
    packs = [pack / f"{kind}.{end}" for kind in ("train", "test") for end in ("h5", "json")]
    return [CONFIGS / "datasets" / f"{context.dataset}.yaml", *tables, *packs, run.folder / "run.json"]


def _teachers(context: Context, run: Run) -> list[Path]:
    """Manifests and predictions of the teachers of a run's pseudo-labels."""
    asked = run.settings.train.pseudo
    if asked is None:
        return []
    folders = [context.places.pseudo_labels(asked.labels)] if asked.labels else map(context.places.run, asked.runs)
    found = [path for folder in folders for end in ("json", "h5") for path in sorted(folder.rglob(f"*.{end}"))]
    return [path for path in found if path.name not in UNREAD and not path.name.startswith(".")]


def train_on_cluster(requests: Iterable[TrainRequest], options: Options) -> None:
    """Train the folds of runs on a cluster as machines come free; they leave what `train` here would.

    A fold that fails costs its run and the runs that this one teaches; the others resume.

    Raises:
        InputError: as `train`; no cluster, or none that could do it; folds that failed, each with its last words.
    """
    with ExitStack() as held:
        training = _Training(requests, held)
        if tasks := training.start_ready():
            with Cluster(options) as cluster:
                training.tried = True
                for task in tasks:
                    cluster.submit(task)
                for task, error in cluster.ended():
                    for following in training.ended(task, error):
                        cluster.submit(following)
    if failed := training.failed:
        way_out = "\nthat fixed, the same command without FORCE=1 resumes from their last finished epochs"
        raise InputError(f"{len(failed)} of these did not finish:{listed(failed, 20)}{way_out * training.resumable}")


class _Training:
    """Runs in the order in which they may start, and what became of their folds."""

    def __init__(self, requests: Iterable[TrainRequest], held: ExitStack) -> None:
        self.requests, self.held = {request.name: request for request in requests}, held
        self.order = teachers_first({name: request.settings for name, request in self.requests.items()})
        self.started: dict[str, tuple[LockedRun, float]] = {}
        self.folds: dict[str, tuple[str, int]] = {}  # run and fold of each task that has not finished
        self.failed: list[str] = []
        self.tried = False  # whether any fold was
        self.resumable = False  # whether the same command may get further with one that failed

    def start_ready(self) -> list[Task]:
        """Start every run whose teachers are finished, close those with nothing left to do; the folds to train.

        Raises:
            InputError: a run may not start, and nothing was trained yet; later it counts as failed.
        """
        tasks: list[Task] = []
        while names := self.order.get_ready() if self.order.is_active() else ():
            for name in names:
                try:
                    tasks += self._start(name)
                except InputError as error:
                    if not self.tried:
                        raise
                    self.failed.append(f"{name}: {error}")
                    self.resumable = True
        return tasks

    def _start(self, name: str) -> list[Task]:
        start, request = time.monotonic(), self.requests[name]
        claim = self.held.enter_context(started_run(request))
        self.started[name] = claim, start
        tasks = []
        for number in claim.asked:
            if claim.run.finished(number):
                claim.found(number)
                continue
            tasks.append(fold_task(request, claim.run, number))
            self.folds[tasks[-1].name] = name, number
        self._close_finished(name)
        return tasks

    def _close_finished(self, name: str) -> None:
        claim, start = self.started[name]
        if not any(run == name for run, _ in self.folds.values()):
            print_summary(self.requests[name].context, claim.run, claim.folds, time.monotonic() - start)
            self.order.done(name)

    def ended(self, task: Task, error: str | None) -> list[Task]:
        """Take note of a fold's end; the folds of runs that may start now."""
        name, number = self.folds[task.name]
        claim, _ = self.started[name]
        if error:
            hopeless = diverged(claim.run.folder, number)
            self.resumable |= not hopeless
            way_out = f"; {way_on(claim.run.folder, number)}" if hopeless else ""
            self.failed.append(f"{task.name}: {error}{way_out}")
            return []
        claim.found(number)
        del self.folds[task.name]
        self._close_finished(name)
        return self.start_ready()


def predict_on_cluster(
    context: Context, name: str, asked: PredictSettings, fold: int | None, shards: int, options: Options
) -> None:
    """Have a run's predictions made in `shards` tasks, with the result of `predict` here, which puts them together.

    Raises:
        InputError: as `predict`; no cluster, or none that could do it; tasks that failed.
    """
    start = time.monotonic()
    if asked.batch_size == "auto":  # tasks and this machine must cut the same shards, whatever each computes on
        asked = asked.model_copy(update={"batch_size": PROCESSOR_CROPS})
    run, _, _, folds = asked_to_predict(context, name, asked, fold)
    trained = [run.fold(number) / file for number in folds for file in ("manifest.json", "weights.h5")]
    reads = tuple(map(str, [*_inputs(context, run), *trained]))
    with locked(run.folder), Cluster(options) as cluster:
        for shard in range(shards):
            cluster.submit(
                Task(
                    name=f"{name} shard {shard + 1} of {shards}",
                    call=predict_shard,
                    arguments=(replace(context, maker=None), name, asked, fold, shard, shards),
                    reads=reads,
                    folders=tuple(str(run.fold(number)) for number in folds),
                    prefix=".shard-",
                    log=str(run.folder / "logs" / f"shard{shard + 1}.txt"),
                )
            )
        failed = [f"{task.name}: {error}" for task, error in cluster.ended() if error]
    if failed:
        raise InputError(f"{len(failed)} of {shards} shards did not finish:{listed(failed)}")
    say(f"{run.name}: {shards} shards predicted in {time.monotonic() - start:.0f} s; put together here")
    predict(context, name, asked, fold)


def predict_shard(
    context: Context, name: str, asked: PredictSettings, fold: int | None, shard: int, shards: int
) -> None:
    """Predict one of `shards` parts of what `predict` looks for, as files that it takes over.

    Shards of the test images go round; a fold's validation drivers, mostly a single one, go to another part for each fold.
    """
    from driverwatch.models import backend

    run, split, packs, folds = asked_to_predict(context, name, asked, fold)
    backend.start()
    from driverwatch.inference import predict as outcome

    together, predictors = predictors_of(run, folds, packs, asked)
    mine, everything = outcome.Part(shard, shards), np.arange(len(packs["test"].names))
    if together is not None:
        outcome.predict_together(together, run, folds, packs["test"], mine)
    for number, predictor in zip(folds, predictors, strict=True):
        validation = split.indices(packs["train"].drivers, number)[1]
        turned = outcome.Part((shard + number + 1) % shards, shards)
        outcome.predict_part(predictor, run, number, "validation", packs["train"], validation, turned)
        if together is None:
            outcome.predict_part(predictor, run, number, "test", packs["test"], everything, mine)


def search_on_cluster(options: Options, open_cluster: Callable[..., Any] = Cluster) -> WorkRunner:
    """A search's trials, as many at once as the cluster has room for, each a fold at a time.

    The next trial's settings follow from the trials that have ended by then, so they depend on how fast machines are.
    """

    def worker_pool(works: Iterator[Work]) -> None:
        with ExitStack() as held, open_cluster(options) as cluster:
            _Trials(works, cluster, held).run()

    return worker_pool


class _Trials:
    """Trials under way, each with the one fold that it waits for. Their runs are held to the end of the search."""

    def __init__(self, works: Iterator[Work], cluster: Any, held: ExitStack) -> None:
        self.works, self.cluster, self.held = works, cluster, held
        self.claims: dict[str, LockedRun] = {}
        self.waiting: dict[str, tuple[Work, FoldRequest]] = {}  # by task

    def run(self) -> None:
        """Return when no trial is left."""
        self._fill()
        for task, error in self.cluster.ended():
            work, ask = self.waiting.pop(task.name)
            if error:
                self._train_next(work, thrown(work, InputError(error)))
            else:
                self.claims[ask.name].found(ask.fold)
                self._train_next(work, next(work, None))
            self._fill()

    def _fill(self) -> None:
        """Start trials as long as there is room; machines may have come since."""
        while len(self.waiting) < self.cluster.room() and (work := next(self.works, None)) is not None:
            self._train_next(work, next(work, None))

    def _train_next(self, work: Work, ask: FoldRequest | None) -> None:
        """Have a trial's next fold trained, past those that are finished."""
        while ask is not None:
            try:
                if ask.name not in self.claims:
                    self.claims[ask.name] = self.held.enter_context(started_run(ask))
            except InputError as error:
                ask = thrown(work, error)
                continue
            claim = self.claims[ask.name]
            if not claim.run.finished(ask.fold):
                task = fold_task(ask, claim.run, ask.fold)
                self.waiting[task.name] = work, ask
                self.cluster.submit(task)
                return
            claim.found(ask.fold)
            ask = next(work, None)
