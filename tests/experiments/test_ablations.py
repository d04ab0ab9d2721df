"""The table of ablations: its numbers, what is missing, and the commands that make a row; nothing is trained."""

import csv
import io
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from support.finished import World, world
from typer.testing import CliRunner

from driverwatch.cli.main import app
from driverwatch.config.ensemble import EnsembleSettings
from driverwatch.config.experiments import AblationSettings, AblationsSettings
from driverwatch.config.loading import parse
from driverwatch.errors import InputError
from driverwatch.experiments import ablations, experiment
from driverwatch.experiments.ablations import AblationStudy, ensemble_command, run_ablations
from driverwatch.inference import predictions
from driverwatch.inference.predictions import prediction_path
from driverwatch.metrics import FLOOR, interval, limited, log_losses

__all__ = ["world"]
RUNS = {"base": {"model": "tiny"}, "longer": {"model": "tiny", "set": "train.epochs=9"}}


def row(ablation: str, before: dict, after: dict, **more: object) -> dict[str, Any]:
    return {"ablation": ablation, "before": before, "after": after, "kept": True, **more}


def asked(folder: Path, *rows: dict[str, Any], runs: dict | None = None) -> None:
    """Write the settings of a study."""
    path = folder / "configs" / "ablations" / "made_up.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({"runs": RUNS if runs is None else runs, "rows": {"Training": list(rows)}}))


def losses(world: World, *names: str, study: str = "studies/ablations") -> np.ndarray:
    """By hand: each image's loss by the mean of the models that did not see its driver."""
    pack, found = world.packs["train"], np.empty((len(names), len(world.packs["train"].names), 3))
    for member, name in enumerate(names):
        for fold in range(3):
            path = prediction_path(world.context.places.build / study / name / f"fold{fold}", "validation", "five_crop")
            made = predictions.read(path, {})
            for image, p in zip(made.names, made.probabilities.astype(float), strict=True):
                found[member, list(pack.names).index(image)] = p / p.sum()
    return log_losses(limited(found.mean(axis=0), FLOOR), pack.labels)


def page_of(folder: Path) -> Path:
    return folder / "experiments" / "results" / "made_up" / "ablations.md"


def commands(folder: Path) -> dict[str, tuple[str, str]]:
    """Command and commits by ablation, from the CSV beside the page."""
    rows = csv.DictReader(io.StringIO(page_of(folder).with_suffix(".csv").read_text()))
    return {row["ablation"]: (row["command"], row["commits"]) for row in rows}


def lines(folder: Path) -> dict[str, list[str]]:
    """The table's cells by ablation."""
    text = page_of(folder).read_text()
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")
    ]
    return {first: rest for first, *rest in cells if first != "ablation"}


def test_the_numbers_are_those_computed_by_hand(world: World, tmp_path: Path) -> None:
    world.run("base", 0, 1.0, study="ablations")
    world.run("longer", 50, 2.0, study="ablations")
    asked(
        tmp_path,
        row("epochs", {"runs": ["base"]}, {"runs": ["longer"]}, why="half the loss"),
        row("averaging", {"runs": ["base"]}, {"runs": ["base", "longer"]}, kept=False),
    )
    run_ablations(world.context, False, None)
    found, base = lines(tmp_path), losses(world, "base")
    for ablation, names, kept in (
        ("epochs", ["longer"], "yes: half the loss"),
        ("averaging", ["base", "longer"], "no"),
    ):
        after = losses(world, *names)
        low, high = interval(after - base, world.packs["train"].drivers)
        difference = f"{(after - base).mean():+.3f} ({low:+.3f} to {high:+.3f})"
        assert found[ablation][:3] == [f"{base.mean():.3f}", f"{after.mean():.3f}", difference]
        assert found[ablation][3] == "6"  # 1 + 2 + 3 minutes of the run that is new
        assert found[ablation][4] == kept
        assert commands(tmp_path)[ablation] == (
            'make train MODEL=tiny RUN=longer STUDY=ablations SET="train.epochs=9"',
            "c-base c-longe",  # seven characters of a commit
        )
    head = page_of(tmp_path).read_text()
    assert "54 images of 6 drivers, 3 driver folds" in head
    assert "Not measured" not in head


def test_what_is_fitted_is_scored_on_drivers_left_out(world: World, tmp_path: Path) -> None:
    """A calibration's row is the nested loss, not that of the rows it was fitted on."""
    world.run("base", 0, 3.0, study="ablations")
    asked(tmp_path, row("bias", {"runs": ["base"]}, {"runs": ["base"], "calibrate": "bias"}))
    content = yaml.safe_load(Path("configs/ablations/made_up.yaml").read_text())
    study = AblationStudy(world.context, parse(AblationsSettings, content, "x"), None)
    side = EnsembleSettings(runs=["base"], calibrate="bias")
    first = study.scored(side).losses
    labels, rows = world.packs["train"].labels.copy(), world.folds.indices(world.packs["train"].drivers, 0)[1]
    other = world.labelled(np.where(np.isin(np.arange(len(labels)), rows), (labels + 1) % 3, labels))
    changed = _predicted(other, side)
    assert np.array_equal(changed[rows], _predicted(world, side)[rows])  # fold 0's labels fit nothing for fold 0
    assert np.allclose(log_losses(_predicted(world, side), labels), first)


def _predicted(world: World, side: EnsembleSettings) -> np.ndarray:
    from driverwatch import run as runs
    from driverwatch.ensemble import members as blending
    from driverwatch.ensemble import post_processing

    run = runs.load(world.context.places.build / "studies" / "ablations" / "base")
    rows = blending.oof_of_members(
        [blending.Member(run, world.packs["test"], "five_crop")], world.packs["train"], world.folds
    )
    return post_processing.fit(side, rows, world.packs["train"].labels, world.packs["train"].drivers).probabilities


def test_missing_runs_are_named_with_what_trains_them(world: World, tmp_path: Path) -> None:
    world.run("base", 0, study="ablations")
    asked(
        tmp_path,
        row("clip", {"runs": ["base"]}, {"runs": ["base"], "clip": 0.01}),
        row("epochs", {"runs": ["base"]}, {"runs": ["longer"]}),
        row("none of both", {"runs": ["longer"]}, {"runs": ["wider"]}),
        runs={**RUNS, "wider": {"model": "tiny", "set": "head.dense=[9]"}},
    )
    run_ablations(world.context, False, None)
    assert list(lines(tmp_path)) == ["clip"]
    longer = 'make train MODEL=tiny RUN=longer STUDY=ablations SET="train.epochs=9"'
    wider = 'make train MODEL=tiny RUN=wider STUDY=ablations SET="head.dense=[9]"'
    _, missing = page_of(tmp_path).read_text().split("## Not measured\n\n")
    first, second = " ".join(missing.split()).removeprefix("- ").split(" - ")  # lines are wrapped
    assert first.startswith("epochs: ")
    assert "longer" in first
    assert first.endswith(f"`{longer}`")
    assert second.endswith(f"`{longer}; {wider}`")
    (world.context.places.build / "studies" / "ablations" / "base" / "fold1" / "manifest.json").unlink()
    with pytest.raises(
        InputError, match=r"no ablation's runs are finished; make ablation TRAIN=1 trains them:\n- clip: .*fold"
    ):
        run_ablations(world.context, False, None)


def test_a_row_of_runs_that_are_gone_stays_until_it_means_something_else(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world.run("base", 0, study="ablations")
    world.run("longer", 50, study="ablations")
    clip = row("clip", {"runs": ["base"]}, {"runs": ["base"], "clip": 0.01})
    epochs = row("epochs | bars", {"runs": ["base"]}, {"runs": ["longer"]})
    asked(tmp_path, clip, epochs)
    run_ablations(world.context, False, None)
    page = page_of(tmp_path)
    before = page.read_text()
    shutil.rmtree(world.context.places.build / "studies" / "ablations" / "longer")
    run_ablations(world.context, False, None)
    assert page.read_text() == before
    world.run("base", 7, study="ablations")
    run_ablations(world.context, False, None)
    mended, kept = page.read_text().splitlines()[-2:]
    assert mended not in before  # measured again
    assert kept == before.splitlines()[-1]
    assert "no longer holds" not in capsys.readouterr().out
    asked(tmp_path, clip, epochs, runs={**RUNS, "longer": {"model": "tiny", "set": "train.epochs=10"}})
    run_ablations(world.context, False, None)
    assert kept not in page.read_text()
    assert "ablations.md: no longer holds epochs | bars (make train " in " ".join(capsys.readouterr().out.split())
    assert "## Not measured" in page.read_text()


def test_rows_of_different_images_are_not_compared(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many images in the same places are not yet the same images."""
    world.run("base", 0, study="ablations")
    world.run("longer", 50, study="ablations")
    asked(tmp_path, row("epochs", {"runs": ["base"]}, {"runs": ["longer"]}))
    content = yaml.safe_load(Path("configs/ablations/made_up.yaml").read_text())
    study = AblationStudy(world.context, parse(AblationsSettings, content, "x"), None)
    made = study.settings.rows["Training"][0]
    assert study.measured("Training", made)
    other = study.scored(made.after)
    pack = replace(other.found.train, names=other.found.train.names[::-1])
    study.sides[made.after.model_dump_json()] = replace(other, found=other.found._replace(train=pack))
    with pytest.raises(InputError, match="packs that hold different images"):
        study.measured("Training", made)


@pytest.mark.parametrize(
    ("side", "command"),
    [
        ({"runs": ["a"]}, 'make ensemble MODELS="a"'),
        ({"runs": ["a", "b"], "tta": "centre"}, 'make ensemble MODELS="a b" TTA=centre'),
        (
            {"runs": ["a"], "blend": "greedy", "calibrate": "bias"},
            'make ensemble MODELS="a" BLEND=greedy CALIBRATE=bias',
        ),
        ({"runs": ["a"], "clip": 0.01, "class_balance": "m"}, 'make ensemble MODELS="a" CLASS_BALANCE=m CLIP=0.01'),
        ({"runs": ["a"], "clip": "fitted"}, 'make ensemble MODELS="a" CLIP=fitted'),
        ({"runs": ["a"], "knn": {"embeddings": "m:x:2x2"}}, 'make ensemble MODELS="a" KNN=m:x:2x2'),
    ],
)
def test_an_ensembles_command_says_what_differs(side: dict, command: str) -> None:
    assert ensemble_command(parse(EnsembleSettings, side, "x")) == command


@pytest.mark.parametrize(
    ("runs", "after", "command"),
    [
        ({}, {"runs": ["a", "b"], "blend": "greedy"}, 'make ensemble MODELS="a b" BLEND=greedy'),
        (RUNS, {"runs": ["base"], "blend": "greedy"}, "make ablation"),  # no ensemble sees a study's runs
        ({}, {"runs": ["a"], "knn": {"embeddings": "m", "k": 9}}, "make ablation"),  # no variable says k
        (RUNS, {"runs": ["base", "longer"]}, 'make train MODEL=tiny RUN=longer STUDY=ablations SET="train.epochs=9"'),
    ],
)
def test_a_rows_command_is_one_that_works(world: World, runs: dict, after: dict, command: str) -> None:
    before = {"runs": ["base"] if runs else ["a"]}
    made = parse(AblationsSettings, {"runs": runs, "rows": {"x": [row("x", before, after)]}}, "x")
    assert AblationStudy(world.context, made, None).command(made.rows["x"][0]) == command


def test_views_that_a_finished_run_has_not_predicted_are_named_and_predicted(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.run("base", 0, study="ablations")

    def seen(tta: str, **more: object) -> dict[str, Any]:
        return {"runs": ["base"], "tta": tta, **more}

    clip = row("clip", seen("five_crop"), seen("five_crop", clip=0.01))
    asked(tmp_path, clip, row("shifts", seen("five_crop"), seen("shifts")), runs={"base": {"model": "tiny"}})
    run_ablations(world.context, False, None)
    _, missing = page_of(tmp_path).read_text().split("## Not measured\n\n")
    assert missing.startswith("- shifts: ")
    assert " ".join(missing.split()).endswith('`make predict RUN=base STUDY=ablations TTA="shifts"`')
    done: list[tuple[str | None, str, list[str]]] = []
    monkeypatch.setattr(experiment, "train_missing", lambda *_: None)
    monkeypatch.setattr(experiment, "load_runs", dict)
    monkeypatch.setattr(
        ablations,
        "predict",
        lambda context, name, options, fold: done.append((context.places.study, name, options.tta)),
    )
    run_ablations(world.context, True, None)
    assert done == [("ablations", "base", ["shifts"])]


def test_a_studys_teachers_are_of_its_runs() -> None:
    side = {"runs": ["base"], "tta": "centre"}
    content = {"runs": RUNS, "pseudo_labels": {"pipeline": {"runs": ["base"]}}, "rows": {"x": [row("x", side, side)]}}
    assert parse(AblationsSettings, content, "x").tta == {"base": ["centre"]}
    content["pseudo_labels"] = {"pipeline": {"runs": ["base", "elsewhere"]}}
    with pytest.raises(InputError, match=r"pseudo_labels\.pipeline\.runs must be of this study's runs, got elsewhere"):
        parse(AblationsSettings, content, "x")


def test_runs_of_a_study_and_others_are_not_compared() -> None:
    content = {"runs": RUNS, "rows": {"x": [row("mixed", {"runs": ["base"]}, {"runs": ["elsewhere"]})]}}
    with pytest.raises(InputError, match="mixed: must compare runs of this study, or none of them"):
        parse(AblationsSettings, content, "x")
    assert AblationSettings(**content["rows"]["x"][0]).ablation == "mixed"  # type: ignore[index]


def test_the_data_sets_own_runs_are_found_too(world: World, tmp_path: Path) -> None:
    world.run("one", 0, 1.0)
    world.run("two", 50, 2.0)
    asked(tmp_path, row("more", {"runs": ["one"]}, {"runs": ["one", "two"]}), runs={})
    run_ablations(world.context, False, None)
    after = losses(world, "one", "two", study="runs")
    assert lines(tmp_path)["more"][1] == f"{after.mean():.3f}"
    assert commands(tmp_path)["more"][0] == 'make ensemble MODELS="one two"'


@pytest.mark.parametrize("option", [[], ["--train"]])
def test_only_train_trains(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: list[str]) -> None:
    """TRAIN=1 trains the study's runs, in the study's own place, before the page is written."""
    world.run("base", 0, study="ablations")
    asked(tmp_path, row("clip", {"runs": ["base"]}, {"runs": ["base"], "clip": 0.01}))
    (tmp_path / "configs" / "datasets").mkdir()
    content = world.context.settings.model_dump()
    (tmp_path / "configs" / "datasets" / "made_up.yaml").write_text(yaml.safe_dump(content))
    trained: list[tuple[str | None, list[str], dict]] = []
    monkeypatch.setattr(experiment, "load_runs", dict)
    monkeypatch.setattr(
        experiment,
        "train_missing",
        lambda context, runs, weights, pseudo_labels: trained.append((context.places.study, list(runs), pseudo_labels)),
    )
    made = CliRunner().invoke(app, ["ablation", "--dataset", "made_up", *option], catch_exceptions=False)
    assert made.exit_code == 0
    assert trained == ([("ablations", ["base", "longer"], {})] if option else [])
    assert list(lines(tmp_path)) == ["clip"]
