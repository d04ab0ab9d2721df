"""`make profile`: where a training step's time goes. Parts are timed in isolation, in turn with the whole step."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import table
from benchmarks.epoch_workload import Epoch, built, last_stage
from benchmarks.timing import Side, Timing, interleaved, over_rounds
from benchmarks.train import STEPS
from benchmarks.workload import Bench
from driverwatch.artifacts import provenance
from driverwatch.terminal import say
from driverwatch.training.inputs import AugmentedInputs
from driverwatch.writing import write_json

HOST = {
    "reading": "a batch copied out of the mapped pack, on all cores",
    "augmentation": "the policy, the crop and stacking, images in memory, on all cores",
    "transfer": "a batch of images, targets and weights made tensors on the device",
}
# JAX has no tape: there a forward pass alone is `stateless_call` under `jax.jit`, a forward and backward pass `jax.value_and_grad`
# of it. Until somebody needs them, the three are one part under every backend but TensorFlow.
DEVICE = {
    "forward": "loss of one constant batch, as in training",
    "backward": "gradients and loss of it, less the forward pass",
    "update": "the optimizer, on gradients that are there",
}
TOGETHER = {"forward, backward, update": "`fit` on one constant batch"}

Parts = dict[str, Callable[[], object]]


def profile(bench: Bench) -> None:
    """Print the parts of a step of the model's last stage, with shares, and keep them in `build/<dataset>/profile-<model>.json`."""
    if warned := table.warning(table.load()):
        say(f"warning: {warned}")
    rows = bench.few(bench.batch, STEPS)
    epoch = last_stage(bench, built(bench, bench.settings), rows)
    steps = len(rows) // bench.batch
    import keras

    backend = keras.backend.backend()
    parts = {**host_parts(bench, epoch), **(device_parts(epoch) if backend == "tensorflow" else together(epoch))}
    sides = {"step": Side(epoch.fit), **{name: Side(part) for name, part in parts.items()}}
    with epoch.augmenting:
        timed = interleaved(sides, bench.asked.repeat)
    lines = shares(timed, steps)
    path = bench.context.places.build / f"profile-{bench.model}.json"
    write(path, bench, lines, timed, backend)
    images = len(rows)
    say(f"{bench.model}, {images} images in {steps} steps of {bench.batch}, {os.cpu_count()} cores, {backend}")
    say(told(lines))
    say(f"{path}: every repetition; docs/performance.md says how to read it")


def host_parts(bench: Bench, epoch: Epoch) -> Parts:
    """What the loader's threads do, for a whole epoch, and what the device is handed."""
    images, settings, batch = bench.pack.pixels, bench.settings, bench.batch
    starts, held = range(0, len(epoch.rows), batch), images[epoch.rows]
    inputs = AugmentedInputs(held, settings, epoch.run.policy, epoch=0)

    def on_cores(work: Callable[[int], object]) -> Callable[[], object]:
        def run() -> None:
            with ThreadPoolExecutor(settings.train.workers or os.cpu_count()) as pool:
                list(pool.map(work, starts))

        return run

    return {
        "reading": on_cores(lambda start: images[epoch.rows[start : start + batch]]),
        "augmentation": on_cores(lambda start: inputs(np.arange(start, start + batch))),
        "transfer": transfer(epoch, len(starts)),
    }


def transfer(epoch: Epoch, steps: int) -> Callable[[], object]:
    """A batch uploaded as often as an epoch has steps; each is waited for."""
    from keras import ops

    batch = epoch.batches()[0]

    def run() -> None:
        for _ in range(steps):
            for array in batch:
                made = ops.convert_to_tensor(array)
            ops.convert_to_numpy(ops.sum(made))  # the weights, uploaded last: what was queued before is there

    return run


def together(epoch: Epoch) -> Parts:
    """The device's work as one part."""
    batches = epoch.batches()
    fed, steps = [batches[0]], len(batches)

    def run() -> None:
        epoch.learner.fit((batch for batch in fed * steps), steps_per_epoch=steps, shuffle=False, verbose=0)

    return {next(iter(TOGETHER)): run}


def device_parts(epoch: Epoch) -> Parts:
    """Forward, forward and backward, and update, compiled as `fit` compiles them, on one constant batch."""
    import tensorflow as tf

    learner, batches = epoch.learner, epoch.batches()
    images, targets, weights = (tf.constant(array) for array in batches[0])
    variables, steps = learner.trainable_weights, len(batches)

    def loss() -> Any:
        found = learner(images, training=True)
        return learner.compute_loss(images, targets, found, weights, training=True)

    def gradients() -> Any:
        with tf.GradientTape() as tape:
            value = loss()
        return tape.gradient(value, variables)

    jit = bool(learner.jit_compile)
    forward, both = (tf.function(part, jit_compile=jit) for part in (loss, gradients))
    there = both()
    update = tf.function(lambda: learner.optimizer.apply(there, variables), jit_compile=jit)

    def repeated(part: Callable[[], Any]) -> Callable[[], object]:
        def run() -> None:
            for _ in range(steps):
                made = part()
            np.asarray(variables[0] if made is None else tf.nest.flatten(made)[0])  # waits for the device

        return run

    return {"forward": repeated(forward), "forward and backward": repeated(both), "update": repeated(update)}


def shares(timed: dict[str, Timing], steps: int) -> list[dict[str, Any]]:
    """Milliseconds per step and share of the whole step of each part, the remainder last.

    The remainder is the whole step less all parts: what feeding costs beyond them, or below 0 what overlaps (augmentation beside
    a network that leaves cores free).
    """
    whole = timed["step"].seconds
    found = {name: timing.seconds for name, timing in timed.items() if name != "step"}
    if "forward and backward" in found:
        both = found.pop("forward and backward")
        found["backward"] = tuple(a - b for a, b in zip(both, found["forward"], strict=True))
        found["update"] = found.pop("update")
    found["remainder"] = tuple(a - sum(parts) for a, *parts in zip(whole, *found.values(), strict=True))
    return [
        {
            "part": name,
            "milliseconds": over_rounds(lambda taken: 1000 * taken / steps, seconds)._asdict(),
            "share": over_rounds(lambda taken, step: taken / step, seconds, whole)._asdict(),
            "what": {**HOST, **DEVICE, **TOGETHER, "remainder": "the whole step less all of these"}.get(
                name, "as `fit` has it"
            ),
        }
        for name, seconds in {"whole step": whole, **found}.items()
    ]


def told(lines: list[dict[str, Any]]) -> str:
    """The parts as an aligned table."""
    rows = [("part", "ms per step", "least to most", "share", "")]
    for line in lines:
        taken = line["milliseconds"]
        spread = f"{taken['low']:.2f} to {taken['high']:.2f}"
        rows.append((line["part"], f"{taken['median']:.2f}", spread, f"{line['share']['median']:.1%}", line["what"]))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def write(path: Path, bench: Bench, lines: list[dict[str, Any]], timed: dict[str, Timing], backend: str) -> None:
    """Keep parts and every repetition's seconds."""
    every = {name: {"seconds": list(timing.seconds), "cpu": list(timing.cpu)} for name, timing in timed.items()}
    facts = {"model": bench.model, "dataset": bench.context.dataset, "batch": bench.batch, "backend": backend}
    write_json(path, {**facts, "parts": lines, "timings": every, "load_average": table.load(), **provenance()})
