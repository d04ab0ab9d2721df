"""The learning-rate range test: what is read off a course of losses, and the command on synthetic images."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from support.project import Verb

from driverwatch.training.lr_finder import diverged, smoothed, suggested

RATES = np.geomspace(1e-7, 10, 161)


def course(noise: float = 0.0) -> np.ndarray:
    """Losses that fall fastest at 1e-3, are least at 1e-1, and rise from there."""
    where = np.log10(RATES)
    falling = 2.3 - 1.5 / (1 + np.exp(-4 * (where + 3)))
    return falling + np.maximum(where + 1, 0) ** 2 * 5 + noise * np.random.default_rng(0).normal(size=len(RATES))


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_both_rates_are_read_off(noise: float) -> None:
    """The mean of the last ten steps lags behind by about as many: half a decade here."""
    steepest, tenth = suggested(RATES, smoothed(course(noise))).values()
    assert 1e-3 <= steepest < 1e-2
    assert 1e-2 <= tenth < 1e-1


def test_a_smoothed_course_begins_at_its_first_loss_and_is_a_weighted_mean() -> None:
    losses = np.array([5.0, 1.0, 2.0])
    weights = 0.9 ** np.arange(3)[::-1]
    assert smoothed(losses)[0] == pytest.approx(5)
    assert smoothed(losses)[2] == pytest.approx((weights * losses).sum() / weights.sum())
    assert smoothed(np.full(7, 3.0)) == pytest.approx(np.full(7, 3.0))


def test_nothing_is_read_off_where_nothing_falls() -> None:
    assert suggested(RATES, smoothed(np.linspace(2, 3, len(RATES)))) is None
    assert suggested(RATES, smoothed(course()[:8])) is None
    ended = smoothed(np.append(course()[:100], np.nan))
    assert suggested(RATES, ended) is not None, "what comes before a loss that is no number counts"


def test_divergence_is_believed_after_a_few_steps() -> None:
    settled = [1.0, 9.0, *[1.0] * 60]
    assert not any(diverged(settled[:steps]) for steps in range(len(settled) + 1))
    assert any(diverged([*settled, *[10.0] * steps]) for steps in range(12))
    assert diverged([2.0, float("nan")])
    assert diverged([2.0, float("inf")])


@pytest.mark.line
def test_the_command_rises_step_by_step_and_touches_no_run(
    verb: Verb, data: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = ["--dataset", "demo", "--data", data]
    assert verb("folds", *place).returncode == 0
    stages = '[{"epochs":1,"learning_rate":0.003},{"freeze_until":"stage1"}]'
    shown = f"input.pack=40x52 input.size=36x48 train.stages={stages} train.batch_size=16 train.select=best"
    shown = [*place, "--set", shown]
    for words, said in ((["--lr-min", "1", "--lr-max", "0.1"], "expected 0 < LOW < HIGH"), (["--fold", "7"], "FOLD=7")):
        refused = verb("lr-find", "tiny", *words, *shown)
        assert refused.returncode == 2
        assert said in refused.stderr

    from driverwatch.models.classifier import Learner

    took: list[tuple[float, int, int]] = []
    step = Learner.train_on_batch

    def counted(self: Learner, *given: object, **named: object) -> object:
        took.append((float(self.optimizer.learning_rate), len(given[0]), len(self.trainable_variables)))
        return step(self, *given, **named)

    monkeypatch.setattr(Learner, "train_on_batch", counted)
    made = verb("lr-find", "tiny", "--lr-min", "1e-5", "--lr-max", "10", "--lr-steps", "60", "--fold", "1", *shown)
    assert made.returncode == 0, made.stderr
    lines = list(csv.DictReader(io.StringIO((project / "build/demo/lr_find/tiny.csv").read_text())))
    rates, sizes, trainable = zip(*took, strict=True)
    assert [float(line["learning_rate"]) for line in lines] == pytest.approx(rates, rel=1e-4)
    assert rates == pytest.approx(np.geomspace(1e-5, 10, 60)[: len(rates)], rel=1e-4)
    assert set(sizes) == {16}, "a smaller last batch would weigh as much as any other"
    assert len(set(trainable)) == 1
    losses = np.array([float(line["loss"]) for line in lines])
    assert [float(line["smoothed"]) for line in lines] == pytest.approx(smoothed(losses), rel=1e-5)
    assert losses[:10].mean() < 5, "the stage before was trained"
    assert (project / "build/demo/lr_find/tiny.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in (project / "build/demo/lr_find").iterdir()} == {"tiny.csv", "tiny.png", ".tiny.lock"}
    assert not (project / "build/demo/runs").exists()
    assert 'SET="train.learning_rate=' in made.stdout or "falls nowhere" in made.stdout
