"""The report: its numbers are those of the scores, its charts those of its tables, and what is missing or broken is said."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from support.browsing import browser, overflow, set_dark, set_width
from support.finished import CLASSES, World, world, world_of
from support.places import ROOT
from typer.testing import CliRunner

from driverwatch.cli.main import app
from driverwatch.config.dataset import DatasetSettings, LeaderboardSettings
from driverwatch.config.loading import parse
from driverwatch.data import folds as fold_tables
from driverwatch.experiments import ablations
from driverwatch.experiments.ablations import AblationsRecord
from driverwatch.experiments.experiment import read_record
from driverwatch.inference import predictions
from driverwatch.inference.predictions import prediction_path
from driverwatch.io.atomic import write_json
from driverwatch.io.html import EMPTY
from driverwatch.io.manifests import read_json
from driverwatch.metrics import FLOOR, interval, limited, log_losses
from driverwatch.report import score_runs
from driverwatch.report.report_data import Report
from driverwatch.report.report_page import write_report
from driverwatch.submission.build import make_ensemble

__all__ = ["world"]
TARGETS = set(re.findall("^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
VOID = {"meta", "link", "img", "br", "image", "path", "use", "rect", "input"}


@dataclass
class Part:
    """A section, or a figure in one: its tables as lists of cells, and all its text."""

    tables: list[list[list[str]]] = field(default_factory=list)
    text: str = ""
    drawn: list[str] = field(default_factory=list)  # texts of its charts, in order
    titles: list[str] = field(default_factory=list)  # what its shaded cells say in full, in order
    shades: list[float] = field(default_factory=list)


class Page(HTMLParser):
    """A page's sections by their key, its figures by caption, and every reference and id in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text("utf-8")
        self.sections: dict[str, Part] = {}
        self.figures: dict[str, Part] = {}
        self.references: list[tuple[str, str, str]] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.part, self.figure, self.caption = Part(), None, ""  # type: ignore[assignment]
        self.figure: Part | None
        self.open: list[str] = []
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {key: value or "" for key, value in attrs}
        self.tags.append(tag)
        self.ids += [found["id"]] if "id" in found else []
        self.references += [(tag, key, found[key]) for key in ("src", "href", "xlink:href") if key in found]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "section":
            self.part = self.sections[found["aria-labelledby"]] = Part()
        if tag == "figure":
            self.figure, self.caption = Part(), ""
        for part in self._parts():
            if tag == "table":
                part.tables.append([])
            elif tag == "tr":
                part.tables[-1].append([])
            elif tag in ("td", "th"):
                part.tables[-1][-1].append("")
            elif tag == "text":
                part.drawn.append("")
            part.titles += [found["title"]] if "title" in found else []
            part.shades += (
                [float(found["style"].split(": ")[1])] if found.get("style", "").startswith("--shade") else []
            )

    def _parts(self) -> list[Part]:
        return [self.part, *([self.figure] if self.figure else [])]

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        assert self.open.pop() == tag
        if tag == "figure":
            assert self.figure is not None
            self.figures[self.caption], self.figure = self.figure, None

    def handle_data(self, data: str) -> None:
        if "figcaption" in self.open:
            self.caption += data
        for part in self._parts():
            part.text += data
            if "td" in self.open or "th" in self.open:
                part.tables[-1][-1][-1] += data
            if "text" in self.open:
                part.drawn[-1] += data

    def frame(self, key: str, number: int = 0) -> pd.DataFrame:
        """A section's table by its number, without the name of its columns above it."""
        head, *rows = [row for row in self.sections[key].tables[number] if len(row) != 2 or row[0] != ""]
        return pd.DataFrame(rows, columns=head)

    def titles(self, key: str) -> dict[str, str]:
        """What a section's shaded cells say in full: the last word by what stands before it."""
        return dict(title.rsplit(": ", 1) for title in self.sections[key].titles)


@pytest.fixture
def shown(world: World, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Page]:
    """Write the report of the made-up data set, whose packs hold no pixels, and read it as a browser would."""
    fold_tables.write(world.folds, world.context.places.folds)

    def write(of: World = world) -> Page:
        monkeypatch.setattr(score_runs, "open_packs", lambda *_: (of.folds, of.packs))
        page = Page(write_report(of.context))
        assert set(re.findall("<code>make ([a-z-]+)", page.source)) <= TARGETS
        return page

    return write


def by_hand(world: World, name: str, tta: str = "five_crop") -> np.ndarray:
    """Each image's probabilities by the model that did not see its driver, read from the files one image at a time."""
    pack, found = world.packs["train"], np.empty((len(world.packs["train"].names), len(world.context.settings.classes)))
    for fold in range(world.folds.count):
        made = predictions.read(prediction_path(world.context.places.run(name) / f"fold{fold}", "validation", tta), {})
        for image, p in zip(made.names, made.probabilities.astype(float), strict=True):
            found[list(pack.names).index(image)] = p
    return limited(found, FLOOR)


def epochs(world: World, name: str, fold: int, *losses: tuple[int, int, float, float | str]) -> None:
    lines = "\n".join(f"{epoch},{stage},{loss},0.5,{validation}" for epoch, stage, loss, validation in losses)
    path = world.context.places.run(name) / f"fold{fold}" / "history.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"epoch,stage,loss,accuracy,val_loss\n{lines}\n")


def test_the_scores_are_those_computed_by_hand(world: World, shown: Callable[..., Page]) -> None:
    world.run("one", 0, 1.0)
    world.run("two", 50, 2.5)
    page, pack = shown(), world.packs["train"]
    made = page.frame("runs").set_index("run")
    for name in ("one", "two"):
        rows = by_hand(world, name)
        losses = log_losses(rows, pack.labels)
        low, high = interval(losses, pack.drivers)
        right = (rows.argmax(axis=1) == pack.labels).mean()
        expected = ["five_crop", f"{losses.mean():.4f}", f"{low:.3f} to {high:.3f}", f"{right:.1%}", "6.0", f"c-{name}"]
        assert made.loc[name].tolist()[:6] == expected  # 1 + 2 + 3 minutes
    assert page.frame("runs")["run"].tolist() == ["two", "one"]  # the best first
    best = log_losses(by_hand(world, "two"), pack.labels).mean()
    assert f"{best:.3f}" in page.sections["verdict"].text
    assert "54 images" in page.sections["verdict"].text
    assert "of 6 drivers" in page.sections["verdict"].text


def test_tables_by_driver_and_class_and_confusions_are_those_by_hand(world: World, shown: Callable[..., Page]) -> None:
    world.run("one", 0, 1.0)
    page, pack = shown(), world.packs["train"]
    rows = by_hand(world, "one")
    losses = log_losses(rows, pack.labels)
    titles = page.titles("drivers")
    for driver, loss in page.frame("drivers").itertuples(index=False):
        assert titles[f"{driver}, one"] == f"{losses[pack.drivers == driver].mean():.4f}"
        assert loss == f"{losses[pack.drivers == driver].mean():.2f}"
    for line in page.frame("drivers", 1).itertuples(index=False):
        for label, loss in enumerate(line[1:]):
            mean = losses[(pack.drivers == line[0]) & (pack.labels == label)].mean()
            assert (titles[f"{line[0]}, {CLASSES[label]}"], loss) == (f"{mean:.4f}", f"{mean:.2f}")
    by_driver = [losses[pack.drivers == driver].mean() for driver in page.frame("drivers")["driver"]]
    assert by_driver == sorted(by_driver, reverse=True)
    titles = page.titles("confusions")
    for name, _ in page.frame("confusions").itertuples(index=False):
        assert titles[f"{name}, one"] == f"{losses[pack.labels == int(name[1])].mean():.4f}"
    for label, taken in np.ndindex(3, 3):
        verb = "recognised" if label == taken else f"taken for {CLASSES[taken]}"
        count = ((pack.labels == label) & (rows.argmax(axis=1) == taken)).sum()
        assert titles[f"{CLASSES[label]} {verb}"] == f"{count} of {(pack.labels == label).sum()}"


def test_charts_show_what_their_tables_say(world: World, shown: Callable[..., Page]) -> None:
    world.run("one", 0, 1.0)
    world.run("two", 50, 2.0)
    page = shown()
    maps = [part for caption, part in page.figures.items() if caption.startswith("Log loss of each")]
    assert len(maps) == 3
    for part in maps:
        losses = [float(title.rsplit(": ", 1)[1]) for title in part.titles]
        printed = [text for row in part.tables[0] for text in row if re.fullmatch(r"\d+\.\d\d", text)]
        assert [float(text) for text in printed] == pytest.approx(losses, abs=0.0051)
        assert part.shades == pytest.approx([loss / max(losses) for loss in losses], abs=1e-3)
    matrices = [part for caption, part in page.figures.items() if "it took for which" in caption]
    assert len(matrices) == 2
    for part in matrices:
        counts = np.array([int(title.rsplit(": ", 1)[1].split(" of ")[0]) for title in part.titles]).reshape(3, 3)
        shares = (100 * counts / counts.sum(axis=1, keepdims=True)).ravel()
        printed = [text for row in part.tables[0][2:] for text in row[1:]]
        assert printed == ["" if share == 0 else f"{share:.0f}" if share >= 0.5 else "<1" for share in shares]
        assert part.shades == pytest.approx(shares / 100, abs=1e-3)


def test_the_page_needs_nothing_beside_it(world: World, shown: Callable[..., Page]) -> None:
    world.run("one")
    epochs(world, "one", 0, (1, 0, 1.0, 1.1), (2, 0, 0.8, 0.9))
    page = shown()
    for tag, key, value in page.references:
        assert tag == "a" or value.startswith(("data:", "#")), (tag, key, value)
    for inside in re.findall(r"url\(([^)]*)\)|@import", page.source):
        assert inside.startswith("#")
    assert not {"iframe", "object", "embed"} & set(page.tags)
    assert page.tags.count("script") == 1  # the page's own
    assert len(page.ids) == len(set(page.ids))
    for tag, _, value in page.references:
        assert not value.startswith("#") or value[1:] in page.ids, (tag, value)
    assert "#16191d" not in re.sub(r"<style>.*?</style>", "", page.source, flags=re.S)  # a colour of light paper alone


NAME = '<b>&"$x$ y$'


def test_names_are_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Markup, quotes and two dollars (mathematics to a plotting library) in the names of classes, drivers and runs."""
    monkeypatch.chdir(tmp_path)
    made = world_of(tmp_path)
    classes = {"<i>": NAME, "$a$": "b", "c&amp;": "<script>alert(1)</script>"}
    content = made.context.settings.model_dump() | {"classes": classes, "title": NAME}
    settings = parse(DatasetSettings, content, "x")
    names = dict(zip(sorted(set(made.packs["train"].drivers)), ["<u>", "$d$", *"qrst"], strict=True))
    pack = replace(made.packs["train"], drivers=np.array([names[d] for d in made.packs["train"].drivers], object))
    folds = fold_tables.make(report_table(pack, tuple(classes)), 3)
    other = replace(
        made, context=replace(made.context, settings=settings), folds=folds, packs={**made.packs, "train": pack}
    )
    fold_tables.write(folds, other.context.places.folds)
    other.run("one")
    (other.context.places.runs / "one").rename(other.context.places.runs / "<b>one")
    monkeypatch.setattr(score_runs, "open_packs", lambda *_: (other.folds, other.packs))
    page = Page(write_report(other.context))
    assert not {"i", "u"} & set(page.tags)
    assert page.tags.count("script") == 1  # the page's own
    assert page.tags.count("b") == page.source.count('<div class="card">')
    assert page.frame("runs")["run"].tolist() == ["<b>one"]
    assert page.frame("drivers", 1).columns.tolist() == ["driver", NAME, "b", "<script>alert(1)</script>"]
    assert {"<u>", "$d$"} <= set(page.frame("drivers")["driver"])


def report_table(pack: object, classes: tuple[str, ...]) -> object:
    from driverwatch.data.context import table_of

    return table_of(pack, classes)  # type: ignore[arg-type]


def test_of_nothing_there_is_one_card(world: World, shown: Callable[..., Page]) -> None:
    """What is first to do, and where else there are runs; no section without content."""
    world.context.places.folds.unlink()
    page = shown()
    assert list(page.sections) == ["verdict"]
    assert page.tags.count("table") == page.tags.count("svg") == page.tags.count("nav") == 0
    assert "Nothing is built for made_up" in page.sections["verdict"].text
    assert "make folds DATASET=made_up" in page.sections["verdict"].text
    other = replace(world, context=replace(world.context, places=replace(world.context.places, dataset="second")))
    other.run("one")
    assert "make report DATASET=second" in shown().sections["verdict"].text


def test_of_a_run_without_scores_each_part_says_what_makes_it(world: World, shown: Callable[..., Page]) -> None:
    run = world.run("started")
    for fold in range(3):
        (run.fold(fold) / "manifest.json").unlink()
    world.context.places.folds.unlink()
    page = shown()
    for key, command in {
        "verdict": "make train DATASET=made_up",
        "submissions": "make ensemble DATASET=made_up",
        "runs": "make train",
        "drivers": "make train",
        "confusions": "make train",
        "learning": "make train",
        "calibration": "make blends",
        "ablations": "make ablation DATASET=made_up TRAIN=1",
        "folds": "make folds DATASET=made_up",
        "figures": "make preview",
        "settings": "No fold is finished",
    }.items():
        assert command in page.sections[key].text, key
    assert "svg" not in page.tags
    assert f"{np.log(3):.3f}" in page.sections["verdict"].text  # the uniform baseline


def test_a_run_that_is_not_finished_is_named(
    world: World, shown: Callable[..., Page], capsys: pytest.CaptureFixture[str]
) -> None:
    run = world.run("slow")
    for fold in (1, 2):
        (run.fold(fold) / "manifest.json").unlink()
    epochs(world, "slow", 0, (1, 0, 1.0, 1.2), (2, 1, 0.5, 0.75))
    epochs(world, "slow", 1, (1, 0, 0.9, 1.0))
    page = shown()
    note = page.frame("runs").set_index("run").loc["slow", "notes"]
    assert "1 of 3 folds; make train DATASET=made_up MODEL=<its model> RUN=slow resumes it" in note
    assert "slow (1 of 3 folds)" in page.sections["verdict"].text
    table = page.frame("learning")
    assert table[["fold", "epoch", "validation loss"]].to_numpy().tolist() == [
        ["0", "1", "1.2000"],
        ["0", "2", "0.7500"],
        ["1", "1", "1.0000"],
    ]
    assert "RUN=slow" in capsys.readouterr().out.split("next ")[1]


def test_a_broken_run_is_named_and_the_others_are_drawn(world: World, shown: Callable[..., Page]) -> None:
    world.run("sound", 0, 1.0)
    cut, torn, strange, odd = (
        world.run(name, seed) for seed, name in enumerate(("cut", "torn", "strange", "odd"), start=9)
    )
    file = prediction_path(cut.fold(1), "validation", "five_crop")
    file.write_bytes(file.read_bytes()[:200])
    (torn.folder / "run.json").write_text('{"settings": ')
    (strange.fold(0) / "manifest.json").write_text("[]")
    (odd.fold(2) / "history.csv").write_text("epoch,stage\n1,x\n")
    page = shown()
    why = dict(page.sections["runs"].tables[-1][1:])
    assert set(why) == {"cut", "torn", "strange", "odd"}
    assert "fold1/validation-five_crop.h5: not a whole prediction file" in why["cut"]
    assert "run.json: expected a JSON manifest" in why["torn"]
    assert "manifest.json: expected a JSON object, got list" in why["strange"]
    assert "history.csv: expected a line of numbers per epoch" in why["odd"]
    made = page.frame("runs").set_index("run")
    assert made.index.tolist()[:2] == sorted(["odd", "sound"], key=lambda name: float(made.loc[name, "log loss"]))
    assert made.loc["cut", "log loss"] == EMPTY
    assert "not a whole prediction file" in made.loc["cut", "notes"]
    assert page.frame("drivers").columns.tolist() == ["driver", *made.index.tolist()[:2]]


def test_of_a_broken_tta_set_the_others_are_scored(world: World, shown: Callable[..., Page]) -> None:
    run = world.run("one")
    for fold in range(3):
        found = predictions.read(prediction_path(run.fold(fold), "validation", "five_crop"), {})
        origin = {**found.origin, "tta": "centre"}
        predictions.write(replace(found, origin=origin), prediction_path(run.fold(fold), "validation", "centre"))
    prediction_path(run.fold(0), "validation", "five_crop").write_bytes(b"no file of predictions")
    line = shown().frame("runs").set_index("run").loc["one"]
    assert line["tta"] == "centre"
    assert line["log loss"] == f"{log_losses(by_hand(world, 'one', 'centre'), world.packs['train'].labels).mean():.4f}"
    assert "validation-five_crop.h5: not a whole prediction file" in line["notes"]


def test_runs_on_other_folds_or_without_a_pack_are_not_scored(
    world: World, shown: Callable[..., Page], monkeypatch: pytest.MonkeyPatch
) -> None:
    world.run("one")
    frame = world.folds.frame.copy()
    frame["fold"] = frame["fold"].to_numpy()[::-1]
    page = shown(replace(world, folds=fold_tables.FoldTable(frame)))
    assert "was trained on other folds than today's" in page.frame("runs")["notes"][0]
    monkeypatch.undo()
    monkeypatch.chdir(world.context.data.parent)
    page = Page(write_report(world.context))  # really opened now, and not there
    assert "no pack; run make pack SIZE=36x44 first" in page.frame("runs")["notes"][0]
    assert "No run has an out-of-fold score yet" in page.sections["confusions"].text


def test_optimistic_and_unscored_runs_are_called_so(world: World, shown: Callable[..., Page]) -> None:
    world.run("honest", 0, 0.5)
    world.run("chosen", 50, 4.0, select="best")
    world.run("everybody", 90, splits={"kind": "all"})
    make_ensemble(world.context, ["honest"], "sound", None, None)
    make_ensemble(world.context, ["chosen"], "lucky", None, None)
    page = shown()
    notes = page.frame("runs").set_index("run")["notes"]
    assert notes["chosen"].startswith("optimistic")
    assert notes["everybody"] == "not scored: trained on all drivers"
    assert page.figures  # the verdict's chart among them
    assert "honest, five_crop" in page.sections["verdict"].text  # though the chosen one looks better
    for what in ("run", "submission"):  # "best of" counts what it chose from
        assert f"Best of 1 {what}, OOF log loss" in page.sections["verdict"].text
    assert page.frame("drivers").columns.tolist() == ["driver", "honest", "chosen"]


def test_one_driver_alone_has_no_interval(world: World) -> None:
    run, pack = world.run("one"), world.packs["train"]
    alone = replace(pack, drivers=np.full(len(pack.names), pack.drivers[0]))
    losses = log_losses(by_hand(world, "one"), pack.labels)
    assert all(np.isnan(interval(losses, alone.drivers)))
    made = score_runs.score_tables(run, "five_crop", {"five_crop": by_hand(world, "one")}, alone)
    assert np.isnan([made.low, made.high]).all()
    assert made.drivers.tolist() == [pytest.approx(made.loss)]


def test_a_class_that_a_driver_lacks_is_a_dash(world: World, shown: Callable[..., Page]) -> None:
    labels = world.packs["train"].labels.copy()
    labels[:9] = 0  # the first driver does one thing alone
    other = world.labelled(labels)
    other.run("one")
    page = shown(other)
    line = page.frame("drivers", 1).set_index("driver").loc[world.packs["train"].drivers[0]].tolist()
    assert line[1:] == [EMPTY, EMPTY]
    assert (
        page.sections["drivers"].text.count(f">{EMPTY}<")
        + sum(cell == EMPTY for row in page.sections["drivers"].tables[1] for cell in row)
        == 2
    )


def test_submissions_say_what_they_are_worth(world: World, shown: Callable[..., Page]) -> None:
    world.run("one", 0, 1.0)
    world.run("two", 50, 2.5)
    make_ensemble(world.context, ["one", "two"], "both", None, None)
    make_ensemble(world.context, ["one"], "part", None, 0)
    rows = (by_hand(world, "one") + by_hand(world, "two")) / 2
    page, facts = shown(), read_json(world.context.places.submission("both").with_suffix(".json"))
    losses, drivers = log_losses(rows, world.packs["train"].labels), world.packs["train"].drivers
    assert facts["out_of_fold_95%"] == pytest.approx(interval(losses, drivers), abs=1e-3)
    line = page.frame("submissions").set_index("submission").loc["both"]
    assert line["OOF log loss"] == f"{facts['out_of_fold_log_loss']:.4f}" == f"{losses.mean():.4f}"
    assert line["95 % over drivers"] == "{:.3f} to {:.3f}".format(*facts["out_of_fold_95%"])
    assert line["prediction interval"] == "{:.3f} to {:.3f} (90%)".format(
        facts["prediction_interval"]["low"], facts["prediction_interval"]["high"]
    )
    assert line["members"] == "one (five_crop), two (five_crop)"
    assert page.frame("submissions", 1)["submission"].tolist() == ["part"]
    assert "part" not in page.frame("submissions")["submission"].tolist()


def test_submissions_of_other_folds_or_broken_ones_are_no_verdict(world: World, shown: Callable[..., Page]) -> None:
    world.run("one", 0, 1.0)
    for name in ("old", "torn", "bare", "gone"):
        make_ensemble(world.context, ["one"], name, None, None)
    beside = {
        name: world.context.places.submission(name).with_suffix(".json") for name in ("old", "torn", "bare", "gone")
    }
    write_json(beside["old"], {**read_json(beside["old"]), "folds": "others", "out_of_fold_log_loss": 0.01})
    beside["torn"].write_text("{")
    write_json(beside["bare"], {"out_of_fold_log_loss": 0.001})
    content = {**read_json(beside["gone"]), "runs": {"elsewhere": "centre"}, "out_of_fold_log_loss": 0.02}
    write_json(beside["gone"], content)
    page = shown()
    why = dict(page.sections["runs"].tables[-1][1:])
    assert set(why) == {"torn.csv", "bare.csv"}
    notes = page.frame("submissions").set_index("submission")["notes"]
    assert notes["old"] == "made on other folds than today's"
    assert notes["gone"] == "not among the runs here: elsewhere"
    assert "0.010" not in page.sections["verdict"].text
    assert "not among the runs here" in page.sections["verdict"].text


def test_the_board_stands_beside_with_its_warning(world: World, shown: Callable[..., Page]) -> None:
    world.run("one", 0, 1.0)
    leaderboard = [
        LeaderboardSettings(team="1st", log_loss=0.0871, confirmed=False),
        LeaderboardSettings(team="2nd", log_loss=0.09),
    ]
    settings = world.context.settings.model_copy(update={"leaderboard": leaderboard})
    page = shown(replace(world, context=replace(world.context, settings=settings)))
    head, *lines = page.frame("verdict").to_numpy().tolist()
    assert [head[0], head[1]] == ["1st [unconfirmed], 0.087", "0.0871"]
    assert lines[0][0] == "2nd, 0.090"
    assert lines[-1][0].startswith("uniform guess, 1/3") or lines[-2][0].startswith("uniform guess, 1/3")
    assert "of other drivers than those here" in page.sections["verdict"].text
    assert "Unconfirmed" in page.sections["verdict"].text


def test_ablations_are_read_as_they_were_written(world: World, tmp_path: Path, shown: Callable[..., Page]) -> None:
    for seed, name in enumerate(("base", "longer")):
        world.run(name, 50 * seed, 1.0 + seed, study="ablations")
    sides = {"before": {"runs": ["base"]}, "after": {"runs": ["longer"]}}
    rows = [
        {"ablation": "epochs: more | of them", **sides, "kept": True, "why": "it is: better"},
        {"ablation": "other way", "before": sides["after"], "after": sides["before"], "kept": False},
        {"ablation": "not there: yet", "before": {"runs": ["base"]}, "after": {"runs": ["never"]}, "kept": False},
    ]
    made = {name: {"model": "tiny"} for name in ("base", "longer", "never")}
    path = tmp_path / "configs" / "ablations" / "made_up.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"runs": made, "rows": {"Training": rows}}))
    ablations.run_ablations(world.context, False, None)
    place = world.context.places.result("ablations")
    found = read_record(AblationsRecord, place)
    assert found is not None
    assert [one.ablation for one in found.unmeasured] == ["not there: yet"]
    base, longer = (log_losses(_study(world, name), world.packs["train"].labels) for name in ("base", "longer"))
    low, high = interval(longer - base, world.packs["train"].drivers)
    first, second = found.rows
    assert first.ablation == "epochs: more | of them"
    assert [first.kept, first.why, second.kept, second.why] == [True, "it is: better", False, ""]
    numbers = [first.before, first.after, *first.change, first.minutes]
    assert numbers == pytest.approx([base.mean(), longer.mean(), (longer - base).mean(), low, high, 6], abs=1e-5)
    assert second.change[0] == pytest.approx(-first.change[0])
    page = shown()
    assert page.frame("ablations")["ablation"].tolist() == ["epochs: more | of them", "other way"]
    assert page.frame("ablations", 1)["ablation"].tolist() == ["not there: yet"]
    assert read_record(AblationsRecord, replace(world.context.places, dataset="made").result("ablations")) is None


def _study(world: World, name: str) -> np.ndarray:
    places = replace(world.context.places, study="ablations")
    return by_hand(replace(world, context=replace(world.context, places=places)), name)


@pytest.mark.parametrize("damage", ["{", "[]", '{"rows": [{"ablation": "x", "before": "0.1"}]}'])
def test_a_damaged_record_of_ablations_is_said_to_be_one(world: World, shown: Callable[..., Page], damage: str) -> None:
    place = world.context.places.result("ablations")
    place.parent.mkdir(parents=True)
    place.write_text(damage)
    assert "ablations.json: " in shown().sections["ablations"].text


@pytest.mark.parametrize("text", ["", "driver,fold\n", "driver,fold,images,c0,c1,c2\np0,x,1,1,0,0\n"])
def test_a_broken_fold_file_is_reported_in_its_place(world: World, shown: Callable[..., Page], text: str) -> None:
    world.run("one")
    world.context.places.folds.write_text(text)
    assert "folds/made_up.csv: " in shown().sections["folds"].text


def test_folds_are_summed_by_class(world: World, shown: Callable[..., Page]) -> None:
    world.run("one")
    page = shown()
    summed = page.frame("folds").set_index("fold")
    for fold, group in world.folds.frame.groupby("fold"):
        assert summed.loc[str(fold)].tolist() == [
            *(str(group[key].sum()) for key in ("images", "c0", "c1", "c2")),
            " ".join(group["driver"]),
        ]
    assert len(page.frame("folds", 1)) == 6
    classes = {**world.context.settings.classes, "c1": "radio"}
    settings = world.context.settings.model_copy(update={"classes": classes})
    named = shown(replace(world, context=replace(world.context, settings=settings)))
    for number in (0, 1):
        assert [name for name in named.frame("folds", number) if name in ("c0", "c1", "radio")] == ["c0", "radio"]


def test_settings_say_what_differs(world: World, shown: Callable[..., Page]) -> None:
    world.run("one", epochs=9, momentum=0.5)
    page = shown()
    titles = dict(page.sections["settings"].tables[0][1:])
    assert titles == {
        "backbone": "tiny",
        "weights": "none",
        "input.pack": "36x44",
        "input.size": "32x40",
        "train.epochs": "9",
        "train.momentum": "0.5",
    }
    assert ["seed", "0"] in page.sections["settings"].tables[1]
    assert page.frame("settings", 2)["minutes"].tolist() == ["1.0", "2.0", "3.0"]


def test_without_images_the_page_says_so(world: World, shown: Callable[..., Page]) -> None:
    world.run("one")
    assert "No such file" in shown().sections["figures"].text


def test_the_command_prints_the_path_and_what_is_next(
    world: World, shown: Callable[..., Page], capsys: pytest.CaptureFixture[str]
) -> None:
    world.run("one")
    shown()
    said = capsys.readouterr().out
    assert "build/made_up/report/index.html: 1 run, 0 submissions, " in said
    assert re.search(r"  next +make ensemble DATASET=made_up\n$", said)
    configs = Path("configs") / "datasets"
    configs.mkdir(parents=True)
    (configs / "made_up.yaml").write_text(yaml.safe_dump(world.context.settings.model_dump()))
    made = CliRunner().invoke(app, ["report", "--dataset", "made_up"], catch_exceptions=False)
    assert made.exit_code == 0
    assert Report(world.context).runs[0].name == "one"


def test_a_report_changes_nothing_but_its_page(world: World, shown: Callable[..., Page]) -> None:
    world.run("one")
    shown()
    before = {path: path.read_bytes() for path in _files(Path())}
    shown()
    after = {path: path.read_bytes() for path in _files(Path())}
    pages = {Path("build/made_up/report") / name for name in ("index.html", "review.html")}
    assert {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)} <= pages


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


@pytest.mark.line
@pytest.mark.slow
def test_a_browser_shows_it_at_any_width(world: World, shown: Callable[..., Page], tmp_path: Path) -> None:
    """From a file: nothing is fetched or logged, nothing but tables and pictures scrolls sideways, in light and in dark."""
    for number in range(3):
        world.run(f"a-run-whose-name-takes-a-lot-of-room-{number}", 10 * number, 1.0 + number)
        epochs(world, f"a-run-whose-name-takes-a-lot-of-room-{number}", 0, (1, 0, 1.0, 1.1), (2, 1, 0.8, 0.9))
    make_ensemble(world.context, [], "all-of-them", None, None)
    shown()
    with browser(tmp_path / "profile") as page:
        page.get((tmp_path / "build/made_up/report/index.html").resolve().as_uri())
        inks = {}
        for width, dark in ((390, False), (820, True), (1400, False)):
            set_dark(page, dark)
            set_width(page, width)
            assert overflow(page) == 0
            assert page.execute_script(BEYOND) == []
            inks[dark] = page.execute_script("return getComputedStyle(document.querySelector('svg.chart text')).fill")
        assert inks[False] != inks[True]
        page.execute_script("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert overflow(page) == 0
        invalid = "return [...document.images].filter(one => !one.complete || !one.naturalWidth).length"
        assert page.execute_script(invalid) == 0
        assert page.execute_script("return performance.getEntriesByType('resource').length") == 0
        assert page.get_log("browser") == []


BEYOND = """return [...document.querySelectorAll('main *, nav *')].filter(one => !one.closest('.scroll')
  && one.getBoundingClientRect().right > innerWidth + 1).map(one => one.outerHTML.slice(0, 80))"""


def test_drawing_imports_no_network() -> None:
    import subprocess
    import sys

    code = "import sys, driverwatch.report.report_page; sys.exit('keras' in sys.modules or 'tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
