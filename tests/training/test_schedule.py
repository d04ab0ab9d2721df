"""The learning rate of every step, whatever the number of steps and the share that warms up."""

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from driverwatch.config.loading import parse
from driverwatch.config.model import ModelSettings
from driverwatch.training.optimizer import schedule

pytestmark = pytest.mark.keras
PEAK = 0.1


def rates(kind: str, warmup: float, steps: int) -> list[float]:
    """The rate of each step, and the one after the last."""
    train = {"schedule": kind, "warmup": warmup}
    content = {"backbone": "tiny", "weights": "none", "input": {"pack": "32x32", "size": "32x32"}, "train": train}
    made = schedule(parse(ModelSettings, content, "test").train, PEAK, steps)
    return [made if isinstance(made, float) else float(made(step)) for step in range(steps + 1)]


@given(st.integers(1, 25), st.floats(0, 1, exclude_max=True), st.sampled_from(["cosine", "constant"]))
@example(4, 0.9, "cosine")
@example(1, 0.999999, "cosine")
@example(1, 0.5, "constant")
@example(2, 0.5, "cosine")
@settings(deadline=None, max_examples=60)
def test_every_schedule_moves_at_once_peaks_and_ends(steps: int, warmup: float, kind: str) -> None:
    """Right values by the definition: a rise of n steps is 1/n, ..., n/n of the rate; the cosine begins at its last one."""
    rise = max(round(warmup * steps), 1)
    found = rates(kind, warmup, steps)
    assert found[0] > 0
    assert found[:rise] == pytest.approx([PEAK * (step + 1) / rise for step in range(rise)], rel=1e-5)
    if kind == "constant":
        assert found[rise:] == pytest.approx([PEAK] * (steps + 1 - rise))
        return
    falls = steps - rise + 1
    cosine = [PEAK * 0.5 * (1 + math.cos(math.pi * (step + 1) / falls)) for step in range(steps + 1 - rise)]
    assert found[rise:] == pytest.approx(cosine, rel=1e-3, abs=1e-7)
    assert all(one > after for one, after in zip(found[rise - 1 :], found[rise:], strict=False))
    assert found[-1] == pytest.approx(0, abs=1e-7)


def test_a_schedule_without_warm_up_is_what_it_was() -> None:
    """Runs without `warmup` keep their numbers: Keras' own cosine over all steps."""
    import keras

    theirs = keras.optimizers.schedules.CosineDecay(PEAK, 7)
    assert rates("cosine", 0, 7) == [float(theirs(step)) for step in range(8)]
    assert rates("constant", 0, 7) == [PEAK] * 8
