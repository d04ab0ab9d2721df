"""The learning-rate range test: what is read off a course of losses, and the command on synthetic images."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.project import Verb

from driverwatch.io.html import PALETTE
from driverwatch.io.paths import Places
from driverwatch.training import lr_finder
from driverwatch.training.lr_finder import SETTLING_STEPS, RangeTest, diverged, plot, smoothed, suggested, usable_steps
from driverwatch.training.pseudo_labels import FoldIndices

RATES = np.geomspace(1e-7, 10, 161)


def course(noise: float = 0.0) -> np.ndarray:
    """Losses that fall fastest at 1e-3, are least at 1e-1, and rise from there."""
    where = np.log10(RATES)
    falling = 2.3 - 1.5 / (1 + np.exp(-4 * (where + 3)))
    return falling + np.maximum(where + 1, 0) ** 2 * 5 + noise * np.random.default_rng(0).normal(size=len(RATES))


def test_of(losses: np.ndarray) -> RangeTest:
    """A range test of ten classes."""
    return RangeTest(RATES[: len(losses)], losses, float(np.log(10)))


test_of.__test__ = False  # type: ignore[attr-defined]


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_both_rates_are_read_off(noise: float) -> None:
    """The mean of the last ten steps lags behind by about as many: half a decade here."""
    steepest, tenth = suggested(test_of(course(noise))).values()
    assert 1e-3 <= steepest < 1e-2
    assert 1e-2 <= tenth < 1e-1


def collapsed(noise: float = 0.0) -> np.ndarray:
    """A network from scratch: 2.75 until it diverges at 1e-2, and then falls to the uniform guess's 2.3 at 0.3."""
    where = np.log10(RATES)
    risen = 2.75 + 1.2 * np.exp(-(((where + 1.3) / 0.3) ** 2)) - 0.45 / (1 + np.exp(-8 * (where + 0.8)))
    return risen + noise * np.random.default_rng(0).normal(size=len(RATES))


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.2])
def test_a_collapse_to_the_uniform_guess_is_no_descent(noise: float) -> None:
    """Neither after a divergence, nor without one."""
    assert suggested(test_of(collapsed(noise))) is None
    gentle = 2.75 - 0.45 / (1 + np.exp(-4 * (np.log10(RATES) + 1)))
    assert suggested(test_of(gentle + noise * np.random.default_rng(1).normal(size=len(RATES)))) is None


RECORD = json.loads(Path(__file__).with_name("range_tests.json").read_text())
RECORDED = RECORD["models"]


def test_both_rates_of_a_recorded_head_train_as_well_as_the_best() -> None:
    """Each lies between the two rates that trained best, a decade's half apart; one at either side trained worse."""
    head = RECORD["head"]
    made = RangeTest(np.array(head["rates"]), np.array(head["losses"]), float(np.log(10)))
    first, second = sorted(map(float, sorted(head["trained"], key=head["trained"].__getitem__)[:2]))
    assert all(first <= rate <= second for rate in suggested(made).values())


def recorded(name: str) -> tuple[RangeTest, dict[float, float]]:
    """A range test that was made on a real network, and the validation loss after training at each rate."""
    kept = RECORD[name]
    losses = np.array(kept["losses"])
    rates = np.array(kept["rates"]) if "rates" in kept else np.geomspace(1e-5, 1, 400)[: len(losses)]
    trained = {float(rate): loss for rate, loss in kept["trained"].items()}
    return RangeTest(rates, losses, float(np.log(10))), trained


@pytest.mark.parametrize("name", ["head", "mobilenet_v2_head"])
def test_suggestions_on_real_networks_lie_within_a_factor_of_three_of_the_best_trained_rate(name: str) -> None:
    """Heads of EfficientNet-Lite0 and MobileNetV2 on the demo's fold 0, trained at five rates and more."""
    made, trained = recorded(name)
    best = min(trained, key=trained.__getitem__)
    assert min(trained) < best < max(trained), "the best is no end of what was tried"
    found = suggested(made)
    assert found is not None
    assert all(best / 3 < rate < best * 3 for rate in found.values()), found
    assert max(found.values()) < made.rates[usable_steps(made) - 1]


@pytest.mark.parametrize("model", RECORDED)
def test_recorded_courses_without_a_clear_fall_suggest_nothing(model: str) -> None:
    """Real networks' losses: their noise, and a fall that ends near the uniform guess, are no range."""
    recorded = RECORDED[model]
    made = RangeTest(np.array(recorded["rates"]), np.array(recorded["losses"]), float(np.log(10)))
    assert suggested(made) is None
    assert SETTLING_STEPS < usable_steps(made) < len(made.losses)
    assert recorded["configured"] < made.rates[usable_steps(made)]


def test_the_rate_that_is_kept_is_the_best_by_training() -> None:
    """And one at which training ends at the uniform guess lies beyond the first clear rise."""
    tiny = RECORDED["tiny"]
    trained = {float(rate): loss for rate, loss in tiny["trained"].items()}
    assert min(trained, key=trained.__getitem__) == tiny["configured"]
    made = RangeTest(np.array(tiny["rates"]), np.array(tiny["losses"]), float(np.log(10)))
    assert abs(trained[3e-2] - made.uniform) < 1e-3
    assert made.rates[usable_steps(made)] < 3e-2


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.2])
def test_no_rate_beyond_the_first_clear_rise(noise: float) -> None:
    """The loss falls to 1.2 at 1e-3, rises to 4 at 1e-2, and falls again, lower than before, at 1: as bounded losses do."""
    where = np.log10(RATES)
    fallen = 2.2 - 1.0 / (1 + np.exp(-6 * (where + 4)))
    risen = fallen + 3.0 / (1 + np.exp(-8 * (where + 2))) - 3.8 / (1 + np.exp(-8 * where))
    made = test_of(risen + noise * np.random.default_rng(2).normal(size=len(RATES)))
    assert made.losses[-1] < 1
    usable = usable_steps(made)
    assert 1e-3 < RATES[usable] < 5e-2
    steepest, tenth = suggested(made).values()
    assert 1e-5 < steepest < 2e-3
    assert tenth < 2e-3
    figure = plot(made, 3e-4, "title")
    [axes] = figure.axes
    grey = [line for line in axes.lines if line.get_color() == PALETTE["c7"]]
    assert len(grey) == 2
    assert all(line.get_xdata()[0] == RATES[usable - 1] for line in grey), "what comes after the rise is grey"
    assert "configured: 0.0003" in [text.get_text() for text in axes.get_legend().get_texts()]


def test_noise_alone_is_no_fall_and_hardly_ever_a_rise() -> None:
    made = [test_of(1.5 + 0.4 * np.random.default_rng(seed).normal(size=len(RATES))) for seed in range(40)]
    assert not any(map(suggested, made))
    assert sum(usable_steps(each) < len(RATES) for each in made) <= 2


def test_a_smoothed_course_begins_at_its_first_loss_and_is_a_weighted_mean() -> None:
    losses = np.array([5.0, 1.0, 2.0])
    weights = 0.9 ** np.arange(3)[::-1]
    assert smoothed(losses)[0] == pytest.approx(5)
    assert smoothed(losses)[2] == pytest.approx((weights * losses).sum() / weights.sum())
    assert smoothed(np.full(7, 3.0)) == pytest.approx(np.full(7, 3.0))


def test_nothing_is_read_off_where_nothing_falls() -> None:
    assert suggested(test_of(np.linspace(2, 3, len(RATES)))) is None
    assert suggested(test_of(course()[:8])) is None
    ended = np.append(course()[:100], np.nan)
    assert suggested(test_of(ended)) is not None, "what comes before a loss that is no number counts"


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
    for words, said in (
        (["--lr-min", "1", "--lr-max", "0.1"], "expected 0 < LR_MIN < LR_MAX"),
        (["--fold", "7"], "FOLD=7"),
    ):
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
    assert 'SET="train.learning_rate=' in made.stdout or "no clear range" in made.stdout


@pytest.mark.slow
@pytest.mark.line
def test_the_list_of_label_issues_counts_as_in_training(
    verb: Verb, data: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = ["--dataset", "demo", "--data", data]
    assert verb("folds", *place).returncode == 0
    shown = "input.pack=40x52 input.size=36x48 train.batch_size=16 train.label_issues="
    asked = ["lr-find", "tiny", "--lr-steps", "20", "--fold", "0", *place, "--set"]
    missing = verb(*asked, f"{shown}drop")
    assert (missing.returncode, "label_issues.csv is not there" in missing.stderr) == (2, True)
    table = pd.read_csv(data / "driver_imgs_list.csv")
    folds = pd.read_csv(project / "folds" / "demo.csv").set_index("driver")["fold"]
    doubted = table[table["subject"].map(folds) != 0].iloc[::5]
    listed = doubted[["img"]].assign(**{"class": doubted["classname"], "kind": "error", "weight": 0.25})
    path = Places("demo").label_issues
    path.parent.mkdir(parents=True)
    listed.to_csv(path, index=False)
    found: list[FoldIndices] = []
    run = lr_finder.range_test
    monkeypatch.setattr(lr_finder, "range_test", lambda made, rates: found.append(made.indices) or run(made, rates))
    for rule in ("none", "drop", "down_weight"):
        made = verb(*asked, f"{shown}{rule}")
        assert made.returncode == 0, made.stderr
    every, dropped, weighed = found
    assert every.sample_weights is None
    assert len(every.training) - len(dropped.training) == len(listed)
    assert np.array_equal(weighed.training, every.training)
    assert (weighed.sample_weights == 0.25).sum() == len(listed)
