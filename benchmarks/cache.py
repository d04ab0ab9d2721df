"""The frozen-trunk cache, beside plain `fit`, at three depths, against the bound that measured costs allow."""

import shutil
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from benchmarks.baselines import refuse_other_backends
from benchmarks.epoch_workload import Epoch, built, run_of, targets_of
from benchmarks.result import Line
from benchmarks.timing import Side, Timing, interleaved, spread
from benchmarks.workload import Bench, quiet
from driverwatch.backbones import BACKBONES
from driverwatch.data.pack import Pack
from driverwatch.settings import AugmentSettings, ModelSettings
from driverwatch.training.run import Run

FOLDS, EPOCHS, DRAWS = 5, 10, 4
AIM = 0.9
STEPS = FOLDS * EPOCHS  # epochs in all
PASSES = EPOCHS * (FOLDS - 1)  # over the whole data: each epoch leaves a fold out
WHAT = (
    f"Five folds of ten epochs, frozen to {{depth}}: plain `fit`, and {DRAWS} draws of the frozen half computed once, "
    "kept in HDF5 and the rest trained on them; no policy but random crops. The figure is the speed-up as a share of "
    f"the bound {STEPS} p / ({DRAWS} f + {STEPS} q), where p and q are an epoch of the whole network and of the tail "
    "fed one constant batch, and f is the frozen half run once over all images in memory."
)
WHOLE = "All epochs and draws were run."
PART = (
    "One epoch of each kind and one draw were timed and counted as often as the schedule has them, because all are the "
    "same work; FULL=1 runs them all."
)


def lines(bench: Bench) -> list[Line]:
    """A line for each depth."""
    refuse_other_backends()
    rows = bench.few(FOLDS * bench.batch)
    return [_line(bench, depth, rows) for depth in depths(bench.settings.backbone)]


def depths(backbone: str) -> list[str]:
    """Block ends a third and two thirds up, and the whole trunk."""
    ends = BACKBONES[backbone].freeze_points
    found = [ends[round(len(ends) * share) - 1] for share in (1 / 3, 2 / 3)] if len(ends) > 1 else list(ends)
    return list(dict.fromkeys([*found, "head"]))


def _line(bench: Bench, depth: str, rows: np.ndarray) -> Line:
    against, what = f"plain fit, frozen to {depth}", WHAT.format(depth=depth)
    halves = halved(bench, depth, rows)
    if halves is None:
        skipped = "no single tensor lies below this boundary, so nothing is cached"
        return Line("cache", against, what, "", "higher", AIM, skipped=skipped)
    full = bench.asked.full
    timed = interleaved(halves.sides(full), bench.asked.repeat)
    gain, bound, trunk = gains(timed, full), bounds(timed), shared(timed)
    facts = {
        "model": bench.model,
        "images": len(rows),
        "draws": DRAWS,
        "cut": halves.half.cut.layer or "pooled features",
        "speed_up": spread(gain)._asdict(),
        "bound": spread(bound)._asdict(),
        "trunk_share_of_forward": trunk,
        "bound_if_backward_costs_two_forwards": rule_of_thumb(trunk),
    }
    share = spread([ours / most for ours, most in zip(gain, bound, strict=True)])
    return Line("cache", against, what, WHOLE if full else PART, "higher", AIM, share, timed, facts)


def gains(timed: dict[str, Timing], full: bool) -> list[float]:
    """The schedule's speed-up in each repetition: run whole, or from one epoch of each kind and one draw."""
    if full:
        return [plain / cached for plain, cached in _rounds(timed, "plain", "cached")]
    return [speed_up(*times) for times in _rounds(timed, "plain", "fill", "tail")]


def bounds(timed: dict[str, Timing]) -> list[float]:
    """The same with nothing but the networks' own work, on constant batches."""
    return [speed_up(*times) for times in _rounds(timed, "whole constant", "frozen", "tail constant")]


def _rounds(timed: dict[str, Timing], *sides: str) -> list[tuple[float, ...]]:
    return list(zip(*(timed[side].seconds for side in sides), strict=True))


def speed_up(plain: float, fill: float, tail: float) -> float:
    """Seconds of all plain epochs over those of all draws and all epochs of the tail."""
    return STEPS * plain / (DRAWS * fill + STEPS * tail)


def shared(timed: dict[str, Timing]) -> float:
    """T: the frozen half's share of a forward pass, per image."""
    below, above = timed["frozen"].median / FOLDS, timed["tail forward"].median / (FOLDS - 1)
    return below / (below + above)


def rule_of_thumb(trunk: float) -> float:
    """40 (T + 3 L) / (D T + 120 L), L = 1 - T: the bound, if a backward pass cost two forward passes and nothing else did."""
    tail = 1 - trunk
    return PASSES * (trunk + 3 * tail) / (DRAWS * trunk + 3 * PASSES * tail)


@dataclass(frozen=True, eq=False)
class Halves:
    """A classifier at one depth, whole and halved, and the epochs of both."""

    bench: Bench
    half: Any
    pack: Pack
    run: Run
    whole: Epoch
    tail: Epoch
    rows: np.ndarray

    def sides(self, full: bool) -> dict[str, Side]:
        """What is timed: the schedule (`full`) or its parts, and the same fed one constant batch."""
        constant = {
            "whole constant": Side(self.whole.fed()),
            "tail constant": Side(self.tail.fed()),
            "frozen": Side(self._frozen()),
            "tail forward": Side(self._tail_forward()),
        }
        if full:
            whole = {"plain": Side(self._all_plain), "cached": Side(self._all_cached, self.forget)}
        else:
            whole = {
                "plain": Side(self.whole.fit),
                "fill": Side(lambda: self.fill(0), self.forget),
                "tail": Side(self.tail.fit),
            }
        return {**whole, **constant}

    def forget(self) -> None:
        """Remove what was cached."""
        shutil.rmtree(self.half.cache.folder, ignore_errors=True)

    def fill(self, draw: int) -> Any:
        return filled(self.half, self.pack, self.run, draw)

    def _all_plain(self) -> None:
        for _ in range(STEPS):
            self.whole.fit()

    def _all_cached(self) -> None:
        for draw in range(DRAWS):
            self.fill(draw)
        for _ in range(STEPS):
            self.tail.fit()

    def _frozen(self) -> Any:
        from driverwatch.training.trunk_cache import AT_ONCE

        images = self.whole.inputs(0)(np.arange(AT_ONCE) % len(self.pack.names))[0]
        times = -(-len(self.pack.names) // AT_ONCE)
        return lambda: [self.half.cache.frozen.predict_on_batch(images) for _ in range(times)]

    def _tail_forward(self) -> Any:
        features = self.tail.batches()[0][0]
        times = -(-len(self.rows) // self.bench.batch)
        return lambda: [self.half.tail.predict_on_batch(features) for _ in range(times)]


def filled(half: Any, pack: Pack, run: Run, draw: int) -> Any:
    """The outputs of a draw, computed unless they are there."""
    from driverwatch.training.trunk_cache import augmented_draw

    with quiet():
        return half.cache.outputs(pack, augmented_draw(run, draw), "bench")


def frozen_settings(settings: ModelSettings, depth: str) -> ModelSettings:
    """One stage of the bench's epochs, frozen to a depth; no policy, nothing mirrored; draws cached."""
    from driverwatch.train_settings import Stage

    stages = [Stage(freeze_until=depth, epochs=EPOCHS)]
    train = settings.train.model_copy(
        update={"stages": stages, "cache_trunk": DRAWS, "patience": None, "stop_after": None}
    )
    field = settings.input.model_copy(update={"crop": "random"})
    return settings.model_copy(update={"train": train, "augment": AugmentSettings(), "input": field})


def halved(bench: Bench, depth: str, rows: np.ndarray) -> Halves | None:
    """Build, freeze and halve a classifier; None where it cannot be halved at this depth."""
    from driverwatch.models.freezing import freeze
    from driverwatch.training.halving import Halving
    from driverwatch.training.inputs import AugmentedInputs
    from driverwatch.training.stages import plan, prepare

    settings, pack = frozen_settings(bench.settings, depth), bench.packed(rows)
    classifier, run = built(bench, settings), run_of(bench, settings)
    stages = plan(settings)
    freeze(classifier, depth, stages[0].train_statistics)
    halving = Halving(classifier, run, stages, bench.place / "trunk")
    half = halving.half(stages[0])
    if half is None:
        return None
    shown = np.arange(len(pack.names))[np.arange(len(pack.names)) % FOLDS > 0]
    for learner in (classifier, half.tail):
        prepare(learner, stages[0], settings.train, len(shown) // bench.batch, {})
    targets = targets_of(bench)[rows]

    def augmented(epoch: int) -> Any:
        return AugmentedInputs(pack.pixels, settings, run.policy, epoch)

    whole = Epoch(classifier, run, pack.pixels, targets, shown, augmented, count())
    draws = DRAWS if bench.asked.full else 1  # beside one draw that is timed there is no other
    tail = Epoch(
        half.tail, run, pack.pixels, targets, shown, lambda epoch: filled(half, pack, run, epoch % draws), count()
    )
    return Halves(bench, half, pack, run, whole, tail, shown)
