"""The report's first sentences and pictures: each number in them is the one computed by hand, each link leads somewhere."""

import re
from dataclasses import replace

import numpy as np
import pytest
from support.finished import World, world
from support.reviewing import with_pixels

from driverwatch.io.atomic import write_json
from driverwatch.io.manifests import read_json
from driverwatch.metrics import interval, log_losses
from driverwatch.report import example_images, score_runs
from driverwatch.report.report_data import Report, Sentence, against_noise, nested_temperature, verdict
from driverwatch.report.score_runs import RunScores, confusions
from driverwatch.submission.build import make_ensemble, make_submissions

__all__ = ["world"]


@pytest.fixture
def report(world: World, monkeypatch: pytest.MonkeyPatch) -> Report:
    """Of two runs, the second one clearly better, whose packs hold no pixels."""
    world.run("one", 0, 0.5)
    world.run("two", 50, 3.0)
    return collected(world, monkeypatch)


def collected(world: World, monkeypatch: pytest.MonkeyPatch) -> Report:
    monkeypatch.setattr(score_runs, "open_packs", lambda *_: (world.folds, world.packs))
    return Report(world.context)


def said(sentences: list[Sentence], start: str) -> Sentence:
    (found,) = [each for each in sentences if start in each.text]
    return found


def test_the_winner_leads_by_the_paired_difference(report: Report) -> None:
    best, other = report.scored
    sentence = said(report.sentences, "two has the lowest OOF log loss of 2 runs")
    losses = other.each["loss"] - best.each["loss"]
    low, high = interval(losses.to_numpy(), best.each["driver"].to_numpy())
    assert low > 0
    assert f"is {losses.mean():.3f} higher (beyond noise: 95 % over drivers {low:+.3f} to {high:+.3f})" in sentence.text
    assert sentence.section == "runs"
    assert against_noise(-0.1, 0.2).startswith("within noise")
    assert against_noise(-0.2, -0.1).startswith("beyond noise")


def test_three_drivers_carry_what_they_carry(report: Report) -> None:
    each = report.scored[0].each
    means = each.groupby("driver")["loss"].mean().sort_values(ascending=False)
    worst = list(means.index[:3])
    share = each.loc[each["driver"].isin(worst), "loss"].sum() / each["loss"].sum()
    sentence = said(report.sentences, "carry")
    assert (
        f"{worst[0]}, {worst[1]} and {worst[2]} carry {share:.0%} of the loss with 50% of the images" in sentence.text
    )


def test_the_most_frequent_confusion_is_named_with_its_count(report: Report) -> None:
    counts = report.scored[0].confusion.to_numpy().copy()
    np.fill_diagonal(counts, 0)
    true, says = np.unravel_index(counts.argmax(), counts.shape)
    sentence = said(report.sentences, "confusion")
    assert f"“c{true}” taken for “c{says}”: {counts.max()} of 18 images" in sentence.text
    assert [pair.mistaken for pair in confusions(report.scored[0])] == sorted(counts[counts > 0], reverse=True)


def test_the_temperature_of_other_folds_is_what_a_grid_finds(report: Report, world: World) -> None:
    best = report.scored[0]
    folds = best.each["driver"].map(dict(world.folds.of_driver)).to_numpy()
    labels, losses = best.each["label"].to_numpy(), np.empty(len(best.each))
    for fold in range(3):
        rest = folds != fold
        by_hand = {t: log_losses(warmed(best, t)[rest], labels[rest]).mean() for t in np.geomspace(0.1, 10, 400)}
        losses[~rest] = log_losses(warmed(best, min(by_hand, key=by_hand.__getitem__))[~rest], labels[~rest])
    assert nested_temperature(best, folds) == pytest.approx(losses.mean(), abs=2e-3)


def warmed(made: RunScores, temperature: float) -> np.ndarray:
    rows = made.probabilities ** (1 / temperature)
    return np.asarray(rows / rows.sum(axis=1, keepdims=True))


@pytest.mark.parametrize(("power", "word"), [(0.2, "too timid"), (6.0, "too sure")])
def test_probabilities_are_called_what_they_are(report: Report, world: World, power: float, word: str) -> None:
    best = report.scored[0]
    rows = warmed(best, 1 / power)
    made = replace(best, probabilities=rows, each=best.each.assign(sure=rows.max(axis=1)))
    found = verdict([made], {}.fromkeys(("c0", "c1", "c2"), ""), dict(world.folds.of_driver), None)
    assert word in said(found, "calibration error").text
    sure = replace(made, calibration_error=0.001)
    assert "mean what they say" in said(verdict([sure], {f"c{i}": "" for i in range(3)}, {}, None), "calibration").text


def test_averaging_and_tta_are_compared_with_the_best_run(report: Report) -> None:
    best, other = report.scored
    labels = best.each["label"].to_numpy()
    mean = log_losses((best.probabilities + other.probabilities) / 2, labels)
    change = mean.mean() - best.loss
    words = f"Averaging 2 runs {'lowers' if change < 0 else 'raises'} the loss of the best one by {abs(change):.3f}"
    assert words in said(report.sentences, "Averaging").text
    made = replace(best, against_centre=(-0.25, -0.3, -0.2))
    found = verdict([made], {f"c{i}": "" for i in range(3)}, {}, None)
    assert "five_crop lowers the loss of its centre crop by 0.250 (beyond noise" in said(found, "centre crop").text


def test_diagnostics_are_not_what_the_best_submission_was_chosen_from(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.run("one", 0, 3.0)
    world.run("two", 50, 0.1)
    make_submissions(world.context, [])
    alone = collected(world, monkeypatch)
    assert {made.name for made in alone.submissions if made.diagnostic} == {made.name for made in alone.submissions}
    assert len(alone.submissions) == 8  # one TTA set and three folds of each run
    assert [made.name for made in alone.candidates] == ["one-five_crop", "two-five_crop"]  # there is nothing else
    make_ensemble(world.context, [], "both", None, None)
    make_ensemble(world.context, ["two"], "mine", None, None)
    found = collected(world, monkeypatch)
    assert found.best_submission is not None
    assert {made.name for made in found.candidates} == {"both", "mine"}
    assert found.best_submission.name == "both"  # though one-five_crop alone has a lower loss


def test_photos_are_the_worst_of_each_clip_and_lead_to_themselves(
    world: World, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.run("one", 0, 1.0)
    packs = {kind: with_pixels(pack, tmp_path, kind) for kind, pack in world.packs.items()}  # type: ignore[arg-type]
    found = collected(replace(world, packs=packs), monkeypatch)
    each = found.scored[0].each
    order = each.sort_values("loss", ascending=False)
    expected = order[~order.duplicated(["driver", "class"])].index[: example_images.WORST]
    assert [re.search(r"image=([^&]+)", thumbnail.fragment)[1] for thumbnail in found.thumbnails] == list(expected)  # type: ignore[index]
    for thumbnail, name in zip(found.thumbnails, expected, strict=True):
        row = each.loc[name]
        assert (thumbnail.says, thumbnail.true) == (
            f"says {row['says']} {row['sure']:.0%}",
            f"is {row['class']} {row['true']:.0%}",
        )
        assert thumbnail.source.startswith("data:image/jpeg")
    assert len(found.strips) == 3
    for strip, pair in zip(found.strips, confusions(found.scored[0]), strict=False):
        assert f"true={pair.true}&says={pair.says}" in strip.fragment
        assert all(thumbnail.says.startswith(f"says {pair.says} ") for thumbnail in strip.thumbnails)


def test_what_was_written_by_hand_is_no_diagnostic(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.run("one")
    make_ensemble(world.context, ["one"], "one-fold0", None, None)
    beside = world.context.places.submission("one-fold0").with_suffix(".json")
    write_json(beside, {**read_json(beside), "runs": {"one": "five_crop", "two": "five_crop"}})
    (made,) = collected(world, monkeypatch).submissions
    assert not made.diagnostic
