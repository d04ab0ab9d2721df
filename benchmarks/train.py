"""Training steps: what the loader costs beside one constant batch (`make bench`), and where their time goes (`make profile`)."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from benchmarks import result
from benchmarks.baselines import refuse_other_backends
from benchmarks.result import Result
from benchmarks.timing import Side, Spread, Timing, interleaved, over_rounds
from benchmarks.workload import Bench, Epoch, last_stage
from driverwatch.data.augment import AugmentedInputs
from driverwatch.io.atomic import write_json
from driverwatch.io.console import say
from driverwatch.io.manifests import provenance

STEPS = 64  # of an epoch at the least, where there are as many: `fit` takes its time to start, and real epochs have hundreds
# JAX has no tape: there a forward pass alone is `stateless_call` under `jax.jit`, a forward and backward pass `jax.value_and_grad`
# of it. Until somebody needs them, the three are one part under every backend but TensorFlow.
TOGETHER = "forward, backward, update"
EXPLAINED = {
    "whole step": "as `fit` has it",
    "reading": "a batch copied out of the mapped pack, on all cores",
    "augmentation": "the preset, the crop and stacking, images in memory, on all cores",
    "transfer": "a batch of images, targets and weights made tensors on the device",
    "forward": "loss of one constant batch, as in training",
    "backward": "gradients and loss of it, less the forward pass",
    "update": "the optimizer, on gradients that are there",
    TOGETHER: "`fit` on one constant batch",
    "remainder": "the whole step less all of these",
}
Parts = dict[str, Callable[[], object]]


def results(bench: Bench) -> list[Result]:
    """What our loader costs a training step beyond the preset's own work: the model's last stage, beside a constant batch."""
    refuse_other_backends()
    indices = bench.few(bench.batch, STEPS)
    epoch = last_stage(bench, indices)
    with epoch.augmenting:
        sides = {"ours": Side(epoch.fit), "constant": Side(epoch.fed()), "preset": Side(epoch.preset)}
        timed = interleaved(sides, bench.asked.repeat)
    hidden = _on_accelerator()
    facts = {
        "model": bench.model,
        "images": len(indices),
        "steps": len(indices) // bench.batch,
        "batch": bench.batch,
        "preset_subtracted": not hidden,
        "with_preset": overhead(timed, None).median,
        "images_per_second": len(indices) / timed["ours"].median,
    }
    figure = overhead(timed, None if hidden else os.cpu_count() or 1)
    return [Result("train", "the network fed one constant batch", "lower", 0.03, figure, timed, facts)]


def _on_accelerator() -> bool:
    """Whether Keras' backend computes on something else than the processor, which augmentation then does not compete with."""
    import keras

    return any(not str(device).lower().startswith("cpu") for device in keras.distribution.list_devices())


def overhead(timed: dict[str, Timing], cores: int | None) -> Spread:
    """(ours - preset / cores) / constant - 1 in each repetition; with `cores` None nothing is subtracted.

    The preset must be computed by somebody: where the network keeps all cores busy, C cores cannot hide its P CPU seconds, which
    cost P / C of wall-clock time at the least. What is above that is the loader's own.
    """
    share = 0.0 if cores is None else 1 / cores
    ours, constant, preset = timed["ours"].seconds, timed["constant"].seconds, timed["preset"].cpu
    return over_rounds(lambda mine, fed, spent: (mine - spent * share) / fed - 1, ours, constant, preset)


def profile(bench: Bench) -> None:
    """Print the parts of a step of the model's last stage, timed in isolation, in turn with the whole step.

    Keeps them in `build/<dataset>/profile-<model>.json`.
    """
    if warned := result.busy_warning(result.load()):
        say(f"warning: {warned}")
    indices = bench.few(bench.batch, STEPS)
    epoch, steps = last_stage(bench, indices), len(indices) // bench.batch
    import keras

    backend = keras.backend.backend()
    parts = {**host_parts(bench, epoch), **(device_parts(epoch) if backend == "tensorflow" else together(epoch))}
    sides = {"whole step": Side(epoch.fit), **{name: Side(part) for name, part in parts.items()}}
    with epoch.augmenting:
        timed = interleaved(sides, bench.asked.repeat)
    lines, path = shares(timed, steps), bench.context.places.build / f"profile-{bench.model}.json"
    every = {name: {"seconds": list(timing.seconds), "cpu": list(timing.cpu)} for name, timing in timed.items()}
    facts = {"model": bench.model, "dataset": bench.context.dataset, "batch": bench.batch, "backend": backend}
    write_json(path, {**facts, "parts": lines, "timings": every, "load_average": result.load(), **provenance()})
    say(f"{bench.model}, {len(indices)} images in {steps} steps of {bench.batch}, {os.cpu_count()} cores, {backend}")
    say(profile_table(lines))
    say(f"{path}: every repetition; docs/dev/benchmarks.md says how to read it")


def host_parts(bench: Bench, epoch: Epoch) -> Parts:
    """What the loader's threads do, for a whole epoch, and what the device is handed."""
    images, settings, batch = bench.pack.pixels, bench.settings, bench.batch
    starts, held = range(0, len(epoch.indices), batch), images[epoch.indices]
    inputs = AugmentedInputs(held, settings, epoch.run.preset, epoch=0)

    def on_cores(work: Callable[[int], object]) -> Callable[[], object]:
        def run() -> None:
            with ThreadPoolExecutor(settings.train.workers or os.cpu_count()) as pool:
                list(pool.map(work, starts))

        return run

    return {
        "reading": on_cores(lambda start: images[epoch.indices[start : start + batch]]),
        "augmentation": on_cores(lambda start: inputs(np.arange(start, start + batch))),
        "transfer": _transfer(epoch, len(starts)),
    }


def _transfer(epoch: Epoch, steps: int) -> Callable[[], object]:
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
        epoch.network.fit((batch for batch in fed * steps), steps_per_epoch=steps, shuffle=False, verbose=0)

    return {TOGETHER: run}


def device_parts(epoch: Epoch) -> Parts:
    """Forward, forward and backward, and update, compiled as `fit` compiles them, on one constant batch."""
    import tensorflow as tf

    network, batches = epoch.network, epoch.batches()
    images, targets, weights = (tf.constant(array) for array in batches[0])
    variables, steps = network.trainable_weights, len(batches)

    def loss() -> Any:
        found = network(images, training=True)
        return network.compute_loss(images, targets, found, weights, training=True)

    def gradients() -> Any:
        with tf.GradientTape() as tape:
            value = loss()
        return tape.gradient(value, variables)

    jit = bool(network.jit_compile)
    forward, both = (tf.function(part, jit_compile=jit) for part in (loss, gradients))
    there = both()
    update = tf.function(lambda: network.optimizer.apply(there, variables), jit_compile=jit)

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
    found = {name: timing.seconds for name, timing in timed.items()}
    whole = found.pop("whole step")
    if "forward and backward" in found:
        both, update = found.pop("forward and backward"), found.pop("update")
        found["backward"] = tuple(a - b for a, b in zip(both, found["forward"], strict=True))
        found["update"] = update
    found["remainder"] = tuple(a - sum(parts) for a, *parts in zip(whole, *found.values(), strict=True))
    return [
        {
            "part": name,
            "milliseconds": over_rounds(lambda taken: 1000 * taken / steps, seconds)._asdict(),
            "share": over_rounds(lambda taken, step: taken / step, seconds, whole)._asdict(),
            "what": EXPLAINED[name],
        }
        for name, seconds in {"whole step": whole, **found}.items()
    ]


def profile_table(parts: list[dict[str, Any]]) -> str:
    """The parts as an aligned table."""
    lines = [("part", "ms per step", "least to most", "share", "")]
    for part in parts:
        taken = part["milliseconds"]
        ranged = f"{taken['low']:.2f} to {taken['high']:.2f}"
        lines.append((part["part"], f"{taken['median']:.2f}", ranged, f"{part['share']['median']:.1%}", part["what"]))
    return result.aligned(lines)
