"""`precision: auto`: timed once, kept with the run, and never a run of its own kind."""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import pytest
from support.finished import World, world

from driverwatch import run as runs
from driverwatch.io.manifests import read_json
from driverwatch.training import precision, train

__all__ = ["world"]


@pytest.fixture(autouse=True)
def _packs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "open_packs", lambda *_: (world.folds, world.packs))


class Timed:
    """In place of the process that times: says what it is given, and how often it was asked."""

    def __init__(self, plain: float, mixed: float) -> None:
        self.seconds, self.asked = {"float32": plain, "mixed_bfloat16": mixed}, 0

    def __call__(self, *_: Any) -> "Timed":
        return self

    def __enter__(self) -> "Timed":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, work: Callable[..., Any], *given: Any) -> "Future[Any]":
        assert work is precision.step_seconds and given[1] == 3
        self.asked += 1
        made: Future[Any] = Future()
        made.set_result(self.seconds)
        return made


def request(world: World, **more: Any) -> train.TrainRequest:
    settings = world.settings(epochs=3).model_copy(update={"precision": "auto"})
    return train.TrainRequest(context=world.context, settings=settings, name="mine", **more)


@pytest.mark.parametrize(
    ("plain", "mixed", "chosen"),
    [(1.0, 0.5, "mixed_bfloat16"), (1.0, 0.95, "float32"), (1.0, 2.0, "float32")],
)
def test_the_quicker_precision_is_the_runs(
    plain: float, mixed: float, chosen: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = Timed(plain, mixed)
    monkeypatch.setattr(precision, "ProcessPoolExecutor", timed)
    with train.started_run(request(world)) as held:
        assert held.run.settings.precision == chosen
    assert read_json(held.run.folder / "precision.json") == {"precision": chosen, "step_seconds": timed.seconds}
    with train.started_run(request(world)) as again:
        assert again.run.identity == held.run.identity
    assert timed.asked == 1, "a started run keeps its precision"
    assert runs.changed(held.run, request(world).settings) == []


def test_a_run_resumes_in_the_precision_that_it_was_started_in(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "ProcessPoolExecutor", Timed(1.0, 0.5))
    asked = request(world)
    with train.started_run(replace(asked, settings=world.settings(epochs=3))) as held:
        assert held.run.settings.precision == "float32"
    with train.started_run(asked) as again:
        assert again.run.settings.precision == "float32"
    with train.started_run(replace(asked, force=True, fold=0)) as one_fold:
        assert one_fold.run.settings.precision == "float32"
    with train.started_run(replace(asked, force=True)) as again:
        assert again.run.settings.precision == "mixed_bfloat16"


@pytest.mark.keras
def test_steps_of_both_precisions_are_timed(world: World) -> None:
    seconds = precision.step_seconds(request(world).settings, 3)
    assert list(seconds) == list(precision.PRECISIONS)
    assert all(0 < second < 60 for second in seconds.values())
