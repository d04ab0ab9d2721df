"""The precision that a network trains quicker in on this machine, for `precision: auto`."""

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np

from driverwatch import run as runs
from driverwatch.config.model import ModelSettings
from driverwatch.config.types import pixels
from driverwatch.io.atomic import write_json
from driverwatch.io.console import say

PRECISIONS = "float32", "mixed_bfloat16"
STEPS = 5  # of each that are timed, in turn, so that other work on the machine slows both
GAIN = 1.1  # least quotient of seconds that is worth a rounding of eight bits
NAME = "precision.json"


def resolved(settings: ModelSettings, folder: Path, classes: int, force: bool = False) -> ModelSettings:
    """Settings that name a precision: with `auto`, that of the run in `folder`, or the quicker one by a few timed steps.

    The seconds of a step are kept in `precision.json` beside the run, which is from then on one of that precision: it
    resumes in it, on any machine.

    Args:
        classes: C.
        force: time again, whatever the run was started with.
    """
    if settings.precision != "auto":
        return settings
    if (folder / "run.json").is_file() and not force:
        chosen: str = runs.load(folder).settings.precision
    else:
        # in a process of its own, which gives its memory back
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            seconds = process.submit(step_seconds, settings, classes).result()
        chosen = quicker(seconds)
        write_json(folder / NAME, {"precision": chosen, "step_seconds": seconds})
        each = ", ".join(f"{name} {second:.2f} s" for name, second in seconds.items())
        say(f"{folder.name}: a training step takes {each}; trains in {chosen}")
    return settings.model_copy(update={"precision": chosen})


def quicker(seconds: dict[str, float]) -> str:
    """The first of `PRECISIONS`, unless the second is quicker by `GAIN`."""
    plain, mixed = PRECISIONS
    return mixed if seconds[plain] >= GAIN * seconds[mixed] else plain


def step_seconds(settings: ModelSettings, classes: int) -> dict[str, float]:
    """Median seconds of a training step of the last stage, by precision."""
    from driverwatch.models import backend

    backend.start()
    made = steps(settings, classes)
    for step in made.values():
        step(), step()  # compiles
    seconds: dict[str, list[float]] = {precision: [] for precision in made}
    for _ in range(STEPS):
        for precision, step in made.items():
            start = time.monotonic()
            step()
            seconds[precision].append(time.monotonic() - start)
    return {precision: median(each) for precision, each in seconds.items()}


def steps(settings: ModelSettings, classes: int) -> dict[str, Callable[[], object]]:
    """A training step of the last stage, by precision; random weights and images cost as much as any."""
    from driverwatch.models.classifier import build
    from driverwatch.models.devices import devices
    from driverwatch.models.freezing import freeze
    from driverwatch.training.optimizer import lr_multipliers, plan, prepare

    train, stage = settings.train, plan(settings)[-1]
    on, (height, width) = devices(train.devices, train.batch_size), pixels(settings.input.size)
    shape = train.batch_size, height * len(settings.input.regions), width, 3
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    targets = np.eye(classes, dtype=np.float32)[np.arange(train.batch_size) % classes]

    def step_in(precision: str) -> Callable[[], object]:
        asked = settings.model_copy(update={"precision": precision})
        made = build(asked, classes, (127.0,) * 3, None, load=False, scope=on.scope())
        freeze(made, stage.freeze_until, stage.train_statistics)
        with on.scope():
            prepare(made, stage, train, STEPS, lr_multipliers(made, stage))

        def step() -> object:
            with on.scope():
                return made.train_on_batch(images, targets)

        return step

    return {precision: step_in(precision) for precision in PRECISIONS}
