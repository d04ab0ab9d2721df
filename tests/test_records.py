"""Records of experiments: pages are written from them, and no data set's command touches another's, or a page of docs/."""

import ast
import hashlib
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from support.finished import World, world
from support.places import ROOT

import driverwatch
from driverwatch.artifacts import Places
from driverwatch.blend.power_law import fitted
from driverwatch.errors import InputError
from driverwatch.steps import curve, levers, study
from driverwatch.experiments.experiment import CurveRecord, LeversRecord, StudyRecord, read_record

__all__ = ["world"]
KINDS: dict[str, tuple[Any, Any]] = {
    "levers": (LeversRecord, levers.page),
    "curve": (CurveRecord, curve.page),
    "study": (StudyRecord, study.page),
}
COMMITTED = sorted((ROOT / "experiments" / "results").glob("*/*.json"))


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_committed_pages_are_what_their_records_say(path: Path) -> None:
    kind, page = KINDS[path.stem.partition("-")[0]]
    record = read_record(kind, path)
    assert record is not None
    assert record.dataset == path.parent.name
    assert path.with_suffix(".md").read_text() == page(record)


def test_the_committed_records_are_those_of_the_mini_data_set() -> None:
    names = {path.relative_to(ROOT / "experiments" / "results").as_posix() for path in COMMITTED}
    assert names >= {
        f"statefarm_mini/{name}.json" for name in ("levers", "curve-mobilenet_v2_screen", "study-freezing")
    }
    record = read_record(StudyRecord, Places("statefarm_mini", ROOT).result("study-freezing"))
    assert record is not None
    assert record.clip == 1e-15  # its runs were scored so, and are not at hand


def digests(folder: Path) -> dict[str, str]:
    """Of every file below a folder."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def strangers(folder: Path) -> dict[str, str]:
    """What is committed here of real drivers."""
    for source in ("docs", "experiments"):
        for path in (ROOT / source).rglob("*"):
            if path.is_file() and (path.suffix in (".md", ".json", ".png")):
                copy = folder / path.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(path.read_bytes())
    return digests(folder / "docs") | digests(folder / "experiments")


def test_no_experiment_touches_what_is_there_of_another_data_set(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`make levers`, `make study` and `make curve` of a made-up data set, with the training replaced by finished runs."""
    before = strangers(tmp_path)
    base, longer = world.run("base", 0, study="levers"), world.run("longer", 50, study="levers")
    path = tmp_path / "configs" / "levers" / "made_up.yaml"
    path.parent.mkdir(parents=True)
    row = {"lever": "x", "before": {"runs": ["base"]}, "after": {"runs": ["longer"]}, "kept": True}
    path.write_text(yaml.safe_dump({"runs": {n: {"model": "tiny"} for n in ("base", "longer")}, "rows": {"k": [row]}}))
    levers.write_levers(world.context, False, None)

    pack = world.packs["train"]
    found: Any = SimpleNamespace(runs=[base, longer], train=pack, folds=world.folds, tests=[world.packs["test"]] * 2)
    settings = SimpleNamespace(
        train=SimpleNamespace(splits=SimpleNamespace(scored=True)), input=SimpleNamespace(key="k")
    )
    random = np.random.default_rng(0)
    each = [random.uniform(0.1, 2, len(pack.names)) / (1 + number) for number in range(2)]
    for step in (study, curve):
        for name in ("make_packs", "refuse_misfits", "train"):
            monkeypatch.setattr(step, name, lambda *_: None)
        monkeypatch.setattr(step, "finished_runs", lambda *_: found)
    monkeypatch.setattr(study, "load", lambda *_: SimpleNamespace(runs=lambda name: {"a": settings, "b": settings}))
    rows = [study.Scored(run, losses, 0.5, 1.2, 3.0) for run, losses in zip((base, longer), each, strict=True)]
    monkeypatch.setattr(study, "_scored", lambda run, _: rows[run is longer])
    monkeypatch.setattr(study.Scored, "depth", property(lambda row: "head" if row.run is base else "block"))
    study.run_study(world.context, "freezing", None)
    monkeypatch.setattr(curve, "open_packs", lambda *_: [None])
    monkeypatch.setattr(curve, "runs_of", lambda *_: {"a": settings, "b": settings})
    points = [curve.Point(run, "centre", 2 + run_at, 9, each[run_at]) for run_at, run in enumerate((base, longer))]
    monkeypatch.setattr(curve, "_point", lambda run, _: points[run is longer])
    curve.draw_curve(world.context, "tiny", settings, [2], None)  # type: ignore[arg-type]

    after = digests(tmp_path / "docs") | digests(tmp_path / "experiments")
    new = {name for name in after if name not in before}
    assert {name: after[name] for name in before} == before
    written = ["curve-tiny.json", "curve-tiny.md", "curve-tiny.png", "levers.json", "levers.md"]
    assert new == {f"results/made_up/{name}" for name in [*written, "study-freezing.json", "study-freezing.md"]}
    record = read_record(CurveRecord, world.context.places.result("curve-tiny"))
    assert record is not None
    fall = fitted([2, 3], each, pack.drivers)
    assert [record.exponent, *record.at_twice_as_many] == pytest.approx([fall.exponent, *fall.loss(6)])
    made = read_record(StudyRecord, world.context.places.result("study-freezing"))
    assert made is not None
    assert [(one.depth, one.change is None) for one in made.rows] == [("head", True), ("block", False)]
    assert made.rows[1].change is not None
    assert made.rows[1].change[0] == pytest.approx((each[1] - each[0]).mean())


def test_two_models_curves_are_two_records() -> None:
    places = Places("d")
    assert places.result("curve-a") != places.result("curve-b")
    with pytest.raises(InputError, match="NAME"):
        places.result("../up")


def test_a_record_of_another_version_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"dataset": "d", "images": 1, "drivers": 1, "folds": 2, "magic": 3}')
    with pytest.raises(InputError, match=r"x.json: [\s\S]*magic: unknown key"):
        read_record(LeversRecord, tmp_path / "x.json")
    assert read_record(LeversRecord, tmp_path / "y.json") is None


def test_steps_name_no_page_of_docs() -> None:
    """A path below docs/ in a step would be written whatever DATASET is."""
    for path in sorted((Path(driverwatch.__file__).parent / "steps").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            assert not (isinstance(node, ast.Constant) and node.value == "docs"), f"{path.name}:{node.lineno}"


def test_what_the_drawn_data_set_leaves_is_ignored() -> None:
    asked = ["git", "check-ignore", "-q", "--no-index", "experiments/results/drawn/levers.json"]
    assert subprocess.run(asked, cwd=ROOT, check=False).returncode == 0
