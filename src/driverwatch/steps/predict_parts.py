"""A run's predictions cut into parts, each a job of a cluster; put together here by the verb that predicts, from their shards."""

import time
from pathlib import Path

import numpy as np

from driverwatch.cluster.cluster import Cluster, Options
from driverwatch.cluster.jobs import End, Job
from driverwatch.cluster.view import View
from driverwatch.errors import InputError, listed
from driverwatch.settings import PredictSettings
from driverwatch.steps.context import Context
from driverwatch.steps.fold_jobs import common, log_of
from driverwatch.steps.fold_runner import end_with
from driverwatch.steps.train import asked_to_predict, predict, trained_classifiers
from driverwatch.terminal import say
from driverwatch.training.run import Run
from driverwatch.writing import locked


def predict_on_cluster(
    context: Context, name: str, asked: PredictSettings, fold: int | None, parts: int, options: Options
) -> None:
    """Have shards of a run's predictions made on a cluster, as `predict` here would make them, and put them together.

    Raises:
        InputError: as `predict`; no cluster, or none that could do it; parts that failed.
    """
    start = time.monotonic()
    run, _, _, numbers = asked_to_predict(context, name, asked, fold)
    with locked(run.folder):
        jobs = [_part(context, run, numbers, asked, fold, (part, parts)) for part in range(parts)]
        failed = []
        with Cluster(options, Path()) as cluster, View() as view:
            view.asked(jobs)
            for job in jobs:
                cluster.submit(job)
            for event in cluster.events():
                view.show(event)
                failed += [f"{event.job.name}: {event.error}"] if isinstance(event, End) and event.error else []
    if failed:
        raise InputError(f"{len(failed)} of {parts} parts did not finish:{listed(failed)}")
    say(f"{run.name}: {parts} parts predicted in {time.monotonic() - start:.0f} s; put together here")
    predict(context, name, asked, fold)


def _part(
    context: Context, run: Run, numbers: list[int], asked: PredictSettings, fold: int | None, part: tuple[int, int]
) -> Job:
    words = ["predict-part", "--dataset", context.dataset, "--run", run.name, "--part", str(part[0])]
    words += ["--parts", str(part[1]), "--views", " ".join(asked.views), "--batch-size", str(asked.batch_size)]
    words += ["--fold", str(fold)] if fold is not None else []
    words += ["--study", context.places.study] if context.places.study else []
    trained = [run.fold(number) / name for number in numbers for name in ("manifest.json", "weights.h5")]
    name = f"{run.name} part {part[0] + 1} of {part[1]}"
    return Job(
        name=name,
        words=tuple(words),
        reads=tuple(map(str, [*common(context, run), *trained])),
        brings=tuple(str(run.fold(number) / ".shard-*") for number in numbers),
        log=str(log_of(run, f"part{part[0] + 1}")),
    )


def predict_part(
    context: Context, name: str, asked: PredictSettings, fold: int | None, part: tuple[int, int], leash: int
) -> None:
    """What a part's process does; who asked for it holds the run's lock meanwhile."""
    from driverwatch.models import backend

    end_with(leash)
    run, split, packs, numbers = asked_to_predict(context, name, asked, fold)
    backend.start()
    from driverwatch.models.halves import Together
    from driverwatch.training import outcome

    classifiers, mine = trained_classifiers(run, numbers, packs["train"]), outcome.Part(*part)
    if len(numbers) > 1:
        together = outcome.whole_predictor(Together(classifiers), run, asked.views, asked.batch_size)
        outcome.predict_together(together, run, numbers, packs["test"], mine)
    for number, classifier in zip(numbers, classifiers, strict=True):
        predictor = outcome.whole_predictor(classifier, run, asked.views, asked.batch_size)
        _, held_out = split.rows(packs["train"].drivers, number)
        turned = outcome.Part(
            (mine.number + number + 1) % mine.of, mine.of
        )  # a fold's only shard is another part's each
        outcome.predict_part(predictor, run, number, "held_out", packs["train"], held_out, turned)
        if len(numbers) == 1:
            everything = np.arange(len(packs["test"].names))
            outcome.predict_part(predictor, run, number, "test", packs["test"], everything, mine)
