"""Training, beside the same network fed one constant batch."""

import os

from benchmarks.baselines import refuse_other_backends
from benchmarks.epoch_workload import built, last_stage, on_accelerator
from benchmarks.result import Line
from benchmarks.timing import Side, Spread, Timing, interleaved, over_rounds
from benchmarks.workload import Bench

STEPS = 64  # of an epoch at the least, where there are as many: `fit` takes its time to begin, and real epochs have hundreds
WHAT = (
    "Both `fit` the same compiled network, last stage of its YAML, for as many steps; ours through our loader, the "
    "rival on one constant batch held as tensors; the figure is (ours - policy) / rival - 1, where policy is the CPU "
    "seconds of the same epoch's augmentation alone, divided by the cores (by nothing, and not subtracted, where the "
    "network runs on an accelerator)."
)
LEFT_OUT = "Scoring the held-out drivers and keeping a bundle after each epoch."


def lines(bench: Bench) -> list[Line]:
    """What the loader costs a training step beyond the policy's own work."""
    refuse_other_backends()
    rows = bench.few(bench.batch, STEPS)
    epoch = last_stage(bench, built(bench, bench.settings), rows)
    with epoch.augmenting:
        sides = {"ours": Side(epoch.fit), "constant": Side(epoch.fed()), "policy": Side(epoch.policy)}
        timed = interleaved(sides, bench.asked.repeat)
    cores = os.cpu_count() or 1
    hidden = on_accelerator()
    facts = {
        "model": bench.model,
        "images": len(rows),
        "steps": len(rows) // bench.batch,
        "batch": bench.batch,
        "policy_subtracted": not hidden,
        "with_policy": overhead(timed, None).median,
        "images_per_second": len(rows) / timed["ours"].median,
    }
    figure = overhead(timed, None if hidden else cores)
    return [Line("train", "the network fed one constant batch", WHAT, LEFT_OUT, "lower", 0.03, figure, timed, facts)]


def overhead(timed: dict[str, Timing], cores: int | None) -> Spread:
    """(ours - policy / cores) / constant - 1 in each repetition; with `cores` None nothing is subtracted.

    The policy must be computed by somebody: where the network keeps all cores busy, C cores cannot hide its P CPU seconds, which
    cost P / C of passing time at the least. What is above that is the loader's own.
    """
    share = 0.0 if cores is None else 1 / cores
    ours, constant, policy = timed["ours"], timed["constant"], timed["policy"]
    return over_rounds(
        lambda mine, fed, spent: (mine - spent * share) / fed - 1, ours.seconds, constant.seconds, policy.cpu
    )
