"""The frozen-feature cache, beside plain `fit`, at three depths, against the bound that measured costs allow.

Five folds of ten epochs, frozen to a depth: plain `fit`, and `DRAWS` passes of the frozen part computed once, kept in HDF5, and the
rest trained on them; no preset but random crops. The figure is the speed-up as a share of the bound
STEPS p / (DRAWS f + STEPS q), where p and q are an epoch of the whole network and of the tail fed one constant batch, and f is the
frozen part run once over all images in memory. One epoch of each kind and one draw are timed and counted as often as the
schedule has them, because all are the same work; FULL=1 runs them all.
"""

import shutil
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from benchmarks.baselines import refuse_other_backends
from benchmarks.result import Result
from benchmarks.timing import Side, Timing, interleaved, spread
from benchmarks.workload import Bench, Epoch, quiet
from driverwatch.config.backbones import BACKBONES
from driverwatch.config.model import AugmentSettings, ModelSettings
from driverwatch.config.training import Stage
from driverwatch.data.pack import Pack
from driverwatch.run import Run

FOLDS, EPOCHS, DRAWS = 5, 10, 4
TARGET = 0.9  # of the bound
STEPS = FOLDS * EPOCHS  # epochs in all
PASSES = EPOCHS * (FOLDS - 1)  # over the whole data: each epoch leaves a fold out


def results(bench: Bench) -> list[Result]:
    """The share of the bound at each depth."""
    refuse_other_backends()
    indices = bench.few(FOLDS * bench.batch)
    return [_result(bench, depth, indices) for depth in depths(bench.settings.backbone)]


def depths(backbone: str) -> list[str]:
    """Block ends a third and two thirds up, and the whole backbone."""
    ends = BACKBONES[backbone].freeze_points
    found = [ends[round(len(ends) * share) - 1] for share in (1 / 3, 2 / 3)] if len(ends) > 1 else list(ends)
    return list(dict.fromkeys([*found, "head"]))


def _result(bench: Bench, depth: str, indices: np.ndarray) -> Result:
    against, full = f"plain fit, frozen to {depth}", bench.asked.full
    split = _split(bench, depth, indices)
    if split is None:
        skipped = "no single tensor lies below this boundary, so nothing is cached"
        return Result("cache", against, "higher", TARGET, skipped=skipped)
    timed = interleaved({**split.schedule(full), **split.constant(bench.batch)}, bench.asked.repeat)
    gain, bound, frozen = gains(timed, full), bounds(timed), frozen_share(timed)
    facts = {
        "model": bench.model,
        "images": len(indices),
        "draws": DRAWS,
        "cut": split.half.cut.layer or "pooled features",
        "speed_up": spread(gain)._asdict(),
        "bound": spread(bound)._asdict(),
        "backbone_share_of_forward": frozen,
        "bound_if_backward_costs_two_forwards": rule_of_thumb(frozen),
    }
    share = spread([ours / most for ours, most in zip(gain, bound, strict=True)])
    return Result("cache", against, "higher", TARGET, share, timed, facts)


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


def frozen_share(timed: dict[str, Timing]) -> float:
    """T: the frozen part's share of a forward pass, per image."""
    below, above = timed["frozen"].median / FOLDS, timed["tail forward"].median / (FOLDS - 1)
    return below / (below + above)


def rule_of_thumb(frozen: float) -> float:
    """40 (T + 3 L) / (D T + 120 L), L = 1 - T: the bound, if a backward pass cost two forward passes and nothing else did."""
    tail = 1 - frozen
    return PASSES * (frozen + 3 * tail) / (DRAWS * frozen + 3 * PASSES * tail)


class _Split(NamedTuple):
    """A classifier frozen to a depth, whole and with its frozen part apart, and the epochs of both."""

    half: Any
    pack: Pack
    run: Run
    whole: Epoch
    tail: Epoch

    def schedule(self, full: bool) -> dict[str, Side]:
        """All epochs and draws (`full`), or one of each kind."""

        def forget() -> None:
            shutil.rmtree(self.half.cache.folder, ignore_errors=True)

        def all_of(epoch: Epoch, draws: int) -> None:
            for draw in range(draws):
                fill(draw)
            for _ in range(STEPS):
                epoch.fit()

        fill = partial(_filled, self.half, self.pack, self.run)
        if full:
            cached = Side(lambda: all_of(self.tail, DRAWS), forget)
            return {"plain": Side(lambda: all_of(self.whole, 0)), "cached": cached}
        return {"plain": Side(self.whole.fit), "fill": Side(lambda: fill(0), forget), "tail": Side(self.tail.fit)}

    def constant(self, batch: int) -> dict[str, Side]:
        """The same work on constant batches: epochs of both, and forward passes of the frozen part and of the tail."""
        from driverwatch.inference.feature_cache import AT_ONCE

        count = len(self.pack.names)
        images, features = self.whole.inputs(0)(np.arange(AT_ONCE) % count)[0], self.tail.batches()[0][0]

        def forward(network: Any, data: Any, passes: int) -> Side:
            return Side(lambda: [network.predict_on_batch(data) for _ in range(passes)])

        return {
            "whole constant": Side(self.whole.fed()),
            "tail constant": Side(self.tail.fed()),
            "frozen": forward(self.half.cache.frozen, images, -(-count // AT_ONCE)),
            "tail forward": forward(self.half.tail, features, -(-len(self.tail.indices) // batch)),
        }


def _filled(half: Any, pack: Pack, run: Run, draw: int) -> Any:
    """The outputs of a draw, computed unless they are there."""
    from driverwatch.inference.feature_cache import augmented_pass

    with quiet():
        return half.cache.outputs(pack, augmented_pass(run, draw), "bench")


def _frozen_settings(settings: ModelSettings, depth: str) -> ModelSettings:
    """One stage of the bench's epochs, frozen to a depth; no preset, nothing flipped; draws cached."""
    one_stage = {"stages": [Stage(freeze_until=depth, epochs=EPOCHS)], "augmentation_passes": DRAWS}
    train = settings.train.model_copy(update={**one_stage, "patience": None, "max_epochs": None})
    field = settings.input.model_copy(update={"crop": "random"})
    return settings.model_copy(update={"train": train, "augment": AugmentSettings(), "input": field})


def _split(bench: Bench, depth: str, indices: np.ndarray) -> _Split | None:
    """A classifier built, frozen and split; None where it cannot be split at this depth."""
    settings, pack = _frozen_settings(bench.settings, depth), bench.packed(indices)
    classifier, run = bench.classifier(settings), bench.run(settings)
    from driverwatch.data.augment import AugmentedInputs
    from driverwatch.models.freezing import freeze
    from driverwatch.training.cached_stages import StageCaching
    from driverwatch.training.optimizer import plan, prepare

    stages = plan(settings)
    freeze(classifier, depth, stages[0].train_statistics)
    half = StageCaching(classifier, run, stages, bench.place / "backbone").cached_stage(stages[0])
    if half is None:
        return None
    shown = np.flatnonzero(np.arange(len(pack.names)) % FOLDS)
    for network in (classifier, half.tail):
        prepare(network, stages[0], settings.train, len(shown) // bench.batch, {})
    draws = DRAWS if bench.asked.full else 1  # beside one draw that is timed there is no other
    about = run, pack.pixels, bench.targets[np.sort(indices)], shown
    whole = Epoch(classifier, *about, lambda epoch: AugmentedInputs(pack.pixels, settings, run.preset, epoch))
    tail = Epoch(half.tail, *about, lambda epoch: _filled(half, pack, run, epoch % draws))
    return _Split(half, pack, run, whole, tail)
