"""A search over made-up trainings: what each setting is worth is known, nothing is trained, so that hundreds of folds take seconds.

Run as a program, it searches in the folder it is started in and kills itself after so many changes of the study.
"""

import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np

from driverwatch import run as runs
from driverwatch.config.model import ModelSettings
from driverwatch.data import splits
from driverwatch.experiments import search as steps
from driverwatch.training import train
from support.finished import World, world_of

SPACE = """
space:
  train.learning_rate: {low: 1e-5, high: 1e-1, log: true}
  head.dropout: {low: 0, high: 0.6, step: 0.1}
  train.epochs: {low: 1, high: 9}
  augment.preset: {choices: [null, light]}
startup: 3
prune_after: 2
"""
CHANGES = (
    "create_new_trial",
    "set_trial_param",
    "set_trial_state_values",
    "set_trial_intermediate_value",
    "set_trial_user_attr",
)


def skill(settings: ModelSettings) -> float:
    """How often such a model is right: most at a rate of 1e-3, few epochs matter little."""
    rate = abs(np.log10(settings.train.learning_rate) + 3)
    return float(3 - rate - 2 * abs(settings.head.dropout - 0.3) + 0.02 * settings.train.epochs)


Trainer = Callable[[steps.FoldRequest], None]


def made_up(world: World, noise: int = 0) -> Trainer:
    """Leaves a finished fit, right as often as `skill` says."""

    def trainer(ask: steps.FoldRequest) -> None:
        context, name, settings, fit = ask.context, ask.name, ask.settings, ask.fold
        folder, checksums = context.places.run(name), {kind: pack.checksum for kind, pack in world.packs.items()}
        wanted = runs.identity(settings, context.settings, [], world.folds.checksum, checksums, None)
        runs.begin(folder, wanted, None, False)
        run, split = runs.load(folder), splits.of(settings.train, world.folds)
        if not run.finished(fit):
            world.finish(run, fit, noise, skill(settings), split.indices(world.packs["train"].drivers, fit)[1])
            with Path("trained.txt").open("a") as trained:
                trained.write(f"{name}/{fit}\n")

    return trainer


def patched() -> list:
    """What stands between a search and images, networks and files of presets."""
    return [
        mock.patch.object(steps, "make_packs", lambda *_: None),
        mock.patch.object(steps, "read_augmentation", lambda *_: []),
        mock.patch.object(steps, "refuse_misfits", lambda *_: None),
    ]


def searched(
    world: World,
    trials: int,
    trainer: Trainer | None = None,
    space: str = SPACE,
    run_works: steps.WorkRunner | None = None,
    **asked: object,
) -> Path:
    """Search in the working directory; the search's folder."""
    path = Path("configs/searches/made.yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(space)
    given = {"seed": 0, "weights": None, **asked}
    opened = [
        mock.patch.object(step, "open_packs", lambda *_: (world.folds, world.packs)) for step in (steps, train, runs)
    ]
    with _all([*patched(), *opened]):
        steps.search(
            world.context,
            world.settings(),
            steps.SearchRequest("tiny", "made", "found", trials, **given),
            run_works or steps.in_turn(trainer or made_up(world)),
        )
    return world.context.places.search("found")


class _all:  # noqa: N801
    """Several patches as one."""

    def __init__(self, patches: list) -> None:
        self.patches = patches

    def __enter__(self) -> None:
        for one in self.patches:
            one.start()

    def __exit__(self, *_: object) -> None:
        for one in self.patches:
            one.stop()


def killing(after: int) -> None:
    """End this process, as SIGKILL does, once the study was changed `after` times."""
    from optuna.storages._cached_storage import _CachedStorage  # what a study keeps before its RDBStorage

    left = [after]

    def counted(change: Callable) -> Callable:
        def done(*arguments: object, **named: object) -> object:
            made = change(*arguments, **named)
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return made

        return done

    for name in CHANGES:
        setattr(_CachedStorage, name, counted(getattr(_CachedStorage, name)))


if __name__ == "__main__":
    killing(int(sys.argv[2]))
    made = world_of(Path(tempfile.mkdtemp(dir=".")))
    searched(made, int(sys.argv[1]), made_up(made))
