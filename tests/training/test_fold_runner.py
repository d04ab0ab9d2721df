"""What the process that trains a fold is told, and what becomes of its end."""

import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.finished import World, world

from driverwatch import run as runs
from driverwatch.cli import main as cli
from driverwatch.errors import InputError
from driverwatch.io.atomic import write_json
from driverwatch.io.manifests import read_json
from driverwatch.models import backend
from driverwatch.training import fold_runner, train
from driverwatch.training import fold_runner as execution

__all__ = ["world"]


def unfinished(world: World, **settings: Any) -> runs.Run:
    """A run that was started with other ways to train than today's, and has no finished fold."""
    made, folder = world.settings(**settings), world.context.places.run("mine")
    checksums = {kind: pack.checksum for kind, pack in world.packs.items()}
    write_json(
        folder / "run.json", runs.identity(made, world.context.settings, [], world.folds.checksum, checksums, None)
    )
    return runs.load(folder)


@pytest.mark.keras
@pytest.mark.parametrize("asked", ["all", 2])
def test_a_folds_process_trains_as_it_was_asked_to(
    asked: Any,
    world: World,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The run does not record how, so that it may resume on other devices."""
    from driverwatch.training import fold

    told: list[Any] = []
    run = unfinished(world, epochs=3)
    wanted = world.settings(epochs=3, devices=asked, workers=3, loader="processes")
    predict = wanted.predict.model_copy(update={"tta": ["five_crop"], "batch_size": 7, "test": False})
    wanted = wanted.model_copy(update={"predict": predict})
    execution.write(world.context.places, run, wanted, None, [0, 1, 2])
    monkeypatch.setattr(train, "open_context", lambda *_: world.context)
    monkeypatch.setattr(runs, "open_packs", lambda *_: (world.folds, world.packs))
    monkeypatch.setattr(fold, "train_fold", lambda *given: told.extend(given))
    monkeypatch.setattr(backend, "start", lambda: None)
    monkeypatch.setattr(fold_runner, "exit_with_parent", lambda _: None)

    def ended(command: list[str], descriptors: list[int]) -> int:
        monkeypatch.setattr(sys, "argv", ["driverwatch", *command[3:]])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return int(end.value.code or 0)

    monkeypatch.setattr(fold_runner.FoldProcess, "run_to_end", lambda _, *given: ended(*given))
    fold_runner.FoldProcess().run_fold(run, 1, 0)
    trained, number, *_ = told
    assert (trained.settings.train, number) == (wanted.train, 1)
    assert (trained.settings.predict, told[5]) == (predict, predict)
    assert told[7] == 1, "fold 2 comes after it"
    assert runs.load(run.folder).identity == trained.identity


def test_a_folds_process_that_fails_is_said_with_the_way_out(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fold_runner.FoldProcess, "run_to_end", lambda *_: 3)
    with pytest.raises(InputError, match=r"mine/fold1: fold 1 ended with status 3 .*the same command without FORCE=1"):
        fold_runner.FoldProcess().run_fold(unfinished(world), 1, 0)


class Barrier:
    """A `FoldRunner` whose folds wait for each other, so that it ends only where as many run at once."""

    def __init__(self, world: World, at_once: int, fails: int | None = None) -> None:
        self.world, self.barrier, self.fails = world, threading.Barrier(at_once), fails
        self.began: list[int] = []
        self.stopped = False

    def run_fold(self, run: runs.Run, number: int, lock: int) -> None:
        self.began.append(number)
        self.barrier.wait(timeout=30)
        if number == self.fails:
            raise InputError("fold failed")
        validation = self.world.folds.indices(self.world.packs["train"].drivers, number)[1]
        self.world.finish(run, number, 0, 1.5, validation)

    def stop(self) -> None:
        self.stopped = True


def trained_by(runner: Barrier, world: World, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> runs.Run:
    """What comes of `train`'s part that has folds trained."""
    run = unfinished(world, **settings)
    monkeypatch.setattr(runs.Run, "verify", lambda *_: None)
    context = replace(world.context, runner=runner)
    request = train.TrainRequest(context=context, settings=world.settings(**settings), name=run.name)
    train._train_unfinished(request, train.LockedRun(run, [0, 1, 2], 3, 0))
    return run


def test_as_many_folds_as_asked_for_are_trained_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained_by(Barrier(world, at_once=3), world, monkeypatch, parallel_folds=3)
    assert all(map(run.finished, range(3)))
    in_turn = Barrier(world, at_once=1)
    trained_by(in_turn, world, monkeypatch)
    assert in_turn.began == [], "finished before"


def test_a_fold_that_fails_beside_another_costs_itself_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = Barrier(world, at_once=2, fails=0)
    with pytest.raises(InputError, match="fold failed"):
        trained_by(runner, world, monkeypatch, parallel_folds=2)
    run = runs.load(world.context.places.run("mine"))
    assert (run.finished(0), run.finished(1), runner.stopped) == (False, True, False)


def test_the_time_left_counts_folds_that_are_trained_at_once(world: World) -> None:
    run = unfinished(world)
    execution.write(world.context.places, run, world.settings(parallel_folds=2), None, [0, 1, 2])
    assert execution.read(run.folder).others(run, 0) == 1


def test_the_folder_of_weights_is_named_where_the_file_is_there_alone(world: World, tmp_path: Path) -> None:
    run, places = unfinished(world), world.context.places
    for folder in (None, tmp_path):  # from scratch, no file is looked for
        execution.write(places, run, run.settings, folder, [0])
        assert execution.read(run.folder).weights is None
    pretrained = run.settings.model_copy(update={"weights": "imagenet"})
    asked = runs.Run(**{**vars(run), "settings": pretrained.model_copy(update={"backbone": "squeezenet"})})
    (tmp_path / "squeezenet_v1.0_imagenet.npz").write_bytes(b"weights")
    execution.write(places, asked, asked.settings, tmp_path, [0])
    assert execution.read(run.folder).weights == str(tmp_path)


def test_a_damaged_record_is_one_sentence(world: World) -> None:
    run = unfinished(world)
    execution.write(world.context.places, run, run.settings, None, [0])
    path = run.folder / execution.NAME
    write_json(path, {**read_json(path), "folds": "all"})
    with pytest.raises(InputError, match=r"execution\.json"):
        execution.read(run.folder)
    path.unlink()
    with pytest.raises(InputError, match=r"execution\.json"):
        execution.read(run.folder)
