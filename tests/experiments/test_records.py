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
from driverwatch.errors import InputError
from driverwatch.experiments import ablations, confident_learning, data_scaling, experiment, freezing_study
from driverwatch.experiments.ablations import AblationsRecord
from driverwatch.experiments.confident_learning import LabelIssuesRecord
from driverwatch.experiments.data_scaling import ScalingRecord, fit_power_law
from driverwatch.experiments.experiment import ScoredRun, read_record
from driverwatch.experiments.freezing_study import FreezingRecord
from driverwatch.io.paths import Places

__all__ = ["world"]
KINDS: dict[str, tuple[Any, Any]] = {
    "ablations": (AblationsRecord, ablations.page),
    "label_issues": (LabelIssuesRecord, confident_learning.page),
    "curve": (ScalingRecord, data_scaling.page),
    "study": (FreezingRecord, freezing_study.page),
}
COMMITTED = sorted((ROOT / "experiments" / "results").glob("*/*.json"))
COMMITTED = [path for path in COMMITTED if path.stem != "leakage"]  # a table of docs/explain/: test_results_page.py


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_committed_pages_are_what_their_records_say(path: Path) -> None:
    kind, page = KINDS[path.stem.partition("-")[0]]
    record = read_record(kind, path)
    assert record is not None
    assert record.dataset == path.parent.name
    assert path.with_suffix(".md").read_text() == page(record)
    assert max(map(len, page(record).splitlines())) <= 160


def test_the_committed_table_of_commands_is_what_the_record_says() -> None:
    path = Places("statefarm_mini", ROOT).result("ablations")
    record = read_record(AblationsRecord, path)
    assert record is not None
    assert path.with_suffix(".csv").read_text() == ablations.bookkeeping(record)


def test_the_committed_records_are_those_of_the_mini_data_set() -> None:
    names = {path.relative_to(ROOT / "experiments" / "results").as_posix() for path in COMMITTED}
    assert names >= {
        f"statefarm_mini/{name}.json" for name in ("ablations", "curve-mobilenet_v2_screen", "study-freezing")
    }
    record = read_record(FreezingRecord, Places("statefarm_mini", ROOT).result("study-freezing"))
    assert record is not None
    assert record.clip == 1e-15  # its runs were scored so, and are not at hand


def checksums(folder: Path) -> dict[str, str]:
    """Of every file below a folder."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def foreign_files(folder: Path) -> dict[str, str]:
    """What is committed here of real drivers."""
    for source in ("docs", "experiments"):
        for path in (ROOT / source).rglob("*"):
            if path.is_file() and (path.suffix in (".md", ".json", ".png")):
                copy = folder / path.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(path.read_bytes())
    return checksums(folder / "docs") | checksums(folder / "experiments")


def test_no_experiment_touches_what_is_there_of_another_data_set(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`make ablation`, `make study` and `make data-scaling` of a made-up data set, with the training replaced by finished runs."""
    before = foreign_files(tmp_path)
    base, longer = world.run("base", 0, study="ablations"), world.run("longer", 50, study="ablations")
    path = tmp_path / "configs" / "ablations" / "made_up.yaml"
    path.parent.mkdir(parents=True)
    row = {"ablation": "x", "before": {"runs": ["base"]}, "after": {"runs": ["longer"]}, "kept": True}
    path.write_text(yaml.safe_dump({"runs": {n: {"model": "tiny"} for n in ("base", "longer")}, "rows": {"k": [row]}}))
    ablations.run_ablations(world.context, False, None)

    pack = world.packs["train"]
    found: Any = SimpleNamespace(runs=[base, longer], train=pack, folds=world.folds, tests=[world.packs["test"]] * 2)
    settings = SimpleNamespace(
        train=SimpleNamespace(splits=SimpleNamespace(scored=True)), input=SimpleNamespace(key="k")
    )
    random = np.random.default_rng(0)
    each = [random.uniform(0.1, 2, len(pack.names)) / (1 + number) for number in range(2)]
    for name in ("make_packs", "refuse_misfits", "train", "train_missing"):
        monkeypatch.setattr(experiment, name, lambda *_: None)
    monkeypatch.setattr(experiment, "finished_runs", lambda *_: found)
    scored = [ScoredRun(run, "centre", losses, 0.5) for run, losses in zip((base, longer), each, strict=True)]
    monkeypatch.setattr(experiment, "score_runs", lambda *_: scored)
    wanted: Any = SimpleNamespace(runs=lambda name: {"a": settings, "b": settings})
    monkeypatch.setattr(freezing_study, "load", lambda *_: wanted)
    monkeypatch.setattr(freezing_study, "training_cost", lambda *_: (1.2, 3.0))
    monkeypatch.setattr(freezing_study, "depth_of", lambda run: "head" if run is base else "block")
    freezing_study.run_study(world.context, "freezing", None)
    monkeypatch.setattr(data_scaling, "open_packs", lambda *_: [None])
    monkeypatch.setattr(data_scaling, "runs_of", lambda *_: {"a": settings, "b": settings})
    amounts = {"base": {"drivers": 2, "images": 9}, "longer": {"drivers": 3, "images": 9}}
    monkeypatch.setattr(data_scaling, "amounts_of", lambda run, _: amounts[run.name])
    data_scaling.run_data_scaling(world.context, "tiny", settings, [2], None)  # type: ignore[arg-type]

    after = checksums(tmp_path / "docs") | checksums(tmp_path / "experiments")
    new = {name for name in after if name not in before}
    assert {name: after[name] for name in before} == before
    written = ["curve-tiny.json", "curve-tiny.md", "curve-tiny.png", "ablations.json", "ablations.md", "ablations.csv"]
    assert new == {f"results/made_up/{name}" for name in [*written, "study-freezing.json", "study-freezing.md"]}
    record = read_record(ScalingRecord, world.context.places.result("curve-tiny"))
    assert record is not None
    law = fit_power_law([2, 3], each, pack.drivers)
    assert [record.exponent, *record.at_twice_as_many] == pytest.approx([law.exponent, *law.loss(6)])
    made = read_record(FreezingRecord, world.context.places.result("study-freezing"))
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
        read_record(AblationsRecord, tmp_path / "x.json")
    assert read_record(AblationsRecord, tmp_path / "y.json") is None


def test_commands_name_no_page_of_docs() -> None:
    """A path below docs/ in a command would be written whatever DATASET is."""
    source = Path(driverwatch.__file__).parent
    for path in sorted(source.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            assert not (isinstance(node, ast.Constant) and node.value == "docs"), f"{path.name}:{node.lineno}"


def test_what_the_synthetic_data_set_leaves_is_ignored() -> None:
    asked = ["git", "check-ignore", "-q", "--no-index", "experiments/results/demo/ablations.json"]
    assert subprocess.run(asked, cwd=ROOT, check=False).returncode == 0
