"""`make status`: every state that a fold can be in, every reason to be stale, and files that are broken."""

import fcntl
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from rich.console import Console
from support.finished import CLASSES, MODEL_FILE, World, world  # noqa: F401
from support.places import ROOT

from driverwatch.data import folds as fold_file
from driverwatch.data import folds as fold_tables
from driverwatch.data.folds import FoldTable
from driverwatch.data.pack import stamp
from driverwatch.ensemble import embeddings
from driverwatch.errors import InputError
from driverwatch.io.atomic import write_json, writer_of
from driverwatch.io.hdf5 import created
from driverwatch.io.manifests import read_json
from driverwatch.metrics import over_folds
from driverwatch.report.status import Status, folds_cell, render, status
from driverwatch.run import Run
from driverwatch.submission.submit import Entry, append_entry
from driverwatch.training.checkpoint import Progress, is_over
from driverwatch.training.run_summary import FoldState

SIZE = "36x44"
STAGES = {"train": {"epochs": 3}}


def placed(world: World) -> World:  # noqa: F811
    """The world's folds and packs as files, and a settings file `one`, as far as the status reads them."""
    places = world.context.places
    fold_tables.write(world.folds, places.folds)
    for kind, pack in world.packs.items():
        path = places.pack(SIZE) / f"{kind}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        with created(path, 100):
            pass
        facts = {
            "checksum": pack.checksum,
            "folds": world.folds.checksum,
            "contents": "",
            "signature": "",
            "left_out": {},
        }
        write_json(path.with_suffix(".json"), {**facts, "images": len(pack.names), "stamp": stamp(path)})
    Path("configs/models").mkdir(parents=True)
    Path("configs/models/one.yaml").write_text(json.dumps(MODEL_FILE))
    return world


@pytest.fixture
def there(world: World) -> World:  # noqa: F811
    return placed(world)


def with_losses(run: Run, losses: dict[int, float]) -> Run:
    """Manifests that say what training does: validation loss, and weights beside them."""
    for number, loss in losses.items():
        path = run.fold(number) / "manifest.json"
        write_json(path, {**read_json(path), "log_loss": {"five_crop": loss}})
        (run.fold(number) / "weights.h5").touch()
    return run


def started_run(world: World, name: str, folds: int = 0, **train: Any) -> Run:  # noqa: F811
    """A run of which only the first `folds` folds are left."""
    run = with_losses(world.run(name, **train), {0: 0.5, 1: 0.7, 2: 0.6})
    for number in range(folds, 3):
        shutil.rmtree(run.fold(number))
    return run


def checkpoint(run: Run, number: int, stages: list[int], identity: str | None = None) -> Path:
    """A fold's checkpoint after an epoch of each of these stages."""
    path = run.fold(number) / "checkpoint.h5"
    path.parent.mkdir(exist_ok=True)
    history = [{"stage": stage, "val_loss": 2.0 + i, "seconds": 9.0} for i, stage in enumerate(stages)]
    with h5py.File(path, "w") as file:
        file.attrs["run"] = identity or run.identity
        file.attrs["progress"] = json.dumps(asdict(Progress(len(stages), history)))
    return path


@contextmanager
def holding(folder: Path) -> Iterator[None]:
    """Another process at work in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        lock.write("4711")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def text(found: Status, columns: int = 10_000) -> str:
    printed = io.StringIO()
    render(found, Console(file=printed, width=columns, highlight=False, markup=False))
    return printed.getvalue()


def test_nothing_at_all(tmp_path: Path, world: World) -> None:  # noqa: F811
    gone = replace(world.context, data=tmp_path / "nowhere")
    found = status(gone)
    assert (found.folds.checksum, found.packs, found.runs, found.submissions) == (None, [], [], [])
    assert found.next == "make data DATASET=made_up"
    drawn = gone.settings.model_copy(update={"test_labels": "test_labels.csv"})
    assert status(replace(gone, settings=drawn)).next == "make synthetic DATASET=made_up"
    said = text(found)
    assert "missing: not here; DATA=<folder>" in said
    assert "no fold file; run make folds DATASET=" in said
    assert "no run yet" in said
    assert not Path("build").exists()  # nothing is written by looking
    assert "elsewhere" not in said
    write_json(Path("build/demo/runs/one/run.json"), {})
    assert "elsewhere  runs of demo are here: make status DATASET=demo" in text(status(gone))


def test_images_are_counted_and_held_against_what_is_expected(there: World) -> None:
    for path in ("train/c0/a.jpg", "train/c1/b.JPG", "train/c1/._b.jpg", "train/c1/Thumbs.db", "test/x.jpg"):
        (there.context.data / "imgs" / path).parent.mkdir(parents=True, exist_ok=True)
        (there.context.data / "imgs" / path).touch()
    found = status(there.context).images
    assert (found.training, found.test, found.problem) == (2, 1, None)


def test_every_state_of_a_fold(there: World) -> None:
    with_losses(there.run("one", epochs=3), {0: 0.5, 1: 0.7, 2: 0.6})
    half = started_run(there, "half", 1, epochs=3)
    checkpoint(half, 1, [0, 0])
    predicting = started_run(there, "predicting", epochs=3)
    checkpoint(predicting, 0, [0, 0, 0])
    patient = started_run(there, "patient", epochs=9, patience=1)
    checkpoint(patient, 0, [0, 0])  # the second was worse than the first
    killed = started_run(there, "killed", epochs=3)
    checkpoint(killed, 0, [0]).write_bytes(b"\x89HDF\r\n\x1a\n cut short")
    foreign = started_run(there, "foreign", epochs=3)
    checkpoint(foreign, 0, [0], "another run's identity")
    found = {run.name: run for run in status(there.context).runs}
    states = {name: [fold.state for fold in run.folds] for name, run in found.items()}
    assert states == {
        "one": ["finished"] * 3,
        "half": ["finished", "training", "not started"],
        "predicting": ["trained", "not started", "not started"],
        "patient": ["trained", "not started", "not started"],
        "killed": ["invalid", "not started", "not started"],
        "foreign": ["invalid", "not started", "not started"],
    }
    assert (found["half"].folds[1].epoch, found["half"].folds[1].epochs) == (2, 3)
    assert found["one"].tta == ["five_crop"]
    assert "not a whole state file" in found["killed"].problems[0]
    assert "of another run" in found["foreign"].problems[0]
    said = text(status(there.context))
    assert "done 2/3 -" in said
    assert "predict - -" in said
    assert "all 3 done" in said


def test_the_loss_is_over_images_of_all_folds_and_knows_how_many_are_done(there: World) -> None:
    there.folds.frame.loc[there.folds.frame["fold"] == 0, ["images", "c0"]] += 9  # folds of different sizes
    fold_tables.write(there.folds, there.context.places.folds)
    with_losses(there.run("one"), {0: 0.5, 1: 0.7, 2: 0.6})
    started_run(there, "half", 2)
    found = {run.name: run for run in status(there.context).runs}
    images = fold_file.glance(there.context.places.folds, CLASSES).images
    assert len(set(images)) == 2
    assert found["one"].log_loss == pytest.approx(np.average([0.5, 0.7, 0.6], weights=images))
    assert found["one"].standard_error == pytest.approx(over_folds([0.5, 0.7, 0.6], images)[1])
    assert found["half"].log_loss == pytest.approx(np.average([0.5, 0.7], weights=images[:2]))
    assert "so far" in text(status(there.context))


def test_no_loss_where_no_driver_is_held_out_or_an_epoch_was_chosen_on_them(there: World) -> None:
    there.run("whole", splits="all")
    with_losses(there.run("chosen", select="best"), {0: 0.5, 1: 0.7, 2: 0.6})
    found = {run.name: run for run in status(there.context).runs}
    assert found["whole"].log_loss is None
    assert found["whole"].unscored == "trained on all drivers"
    assert len(found["whole"].folds) == 1
    assert found["chosen"].chosen_on_validation
    assert "0.6000!" in text(status(there.context))


def test_a_run_that_is_at_work_now_says_so(there: World) -> None:
    run = started_run(there, "one", 1)
    with holding(run.folder), holding(run.fold(1)):
        found = status(there.context)
        assert found.runs[0].writer == found.runs[0].folds[1].writer == "4711"
        assert "done >0/4 -" in text(found)
        assert found.next is None  # what it trains is not asked for again
    assert writer_of(run.folder) is None
    assert status(there.context).next == "make train DATASET=made_up MODEL=one"
    assert writer_of(run.fold(2)) is None


STALE = {
    "folds": (lambda w: _swap_folds(w), "started on other folds than folds/made_up.csv has today"),
    "pack": (
        lambda w: _edit(w.context.places.pack(SIZE) / "train.json", checksum="x"),
        "started on another pack 36x44",
    ),
    "no pack": (
        lambda w: shutil.rmtree(w.context.places.pack(SIZE)),
        "its pack 36x44 is not there; make pack SIZE=36x44 DATASET=made_up",
    ),
    "classes": (lambda w: w.context.settings.classes.update(c3="new"), "started with other classes"),
}


def _edit(path: Path, **facts: Any) -> None:
    write_json(path, read_json(path) | facts)


def _swap_folds(world: World) -> None:  # noqa: F811
    """Two drivers change places."""
    frame = world.folds.frame.copy()
    frame["fold"] = frame["fold"].replace({0: 1, 1: 0})
    fold_tables.write(FoldTable(frame), world.context.places.folds)


@pytest.mark.parametrize("case", STALE)
def test_every_reason_to_be_stale(there: World, case: str) -> None:
    with_losses(there.run("one"), {0: 0.5, 1: 0.7, 2: 0.6})
    assert status(there.context).runs[0].stale == []
    change, said = STALE[case]
    change(there)
    reasons = status(there.context).runs[0].stale
    assert any(said in reason for reason in reasons), reasons


def test_folds_that_are_stale_are_so_for_packs_too(there: World) -> None:
    _swap_folds(there)
    assert "packed under other folds than today's" in status(there.context).packs[0].stale[0]


def test_a_pack_that_was_copied_or_cut_is_reported(there: World) -> None:
    path = there.context.places.pack(SIZE) / "test.h5"
    os.utime(path, ns=(1, 1))
    assert "test.h5 was copied or changed since" in status(there.context).packs[0].stale[0]
    path.unlink()
    assert "no pack; run make pack" in str(status(there.context).packs[0].problem)
    assert "invalid: build/made_up/pack/36x44/test.h5: no pack" in text(status(there.context))


def test_settings_that_were_edited_since_and_weights_that_are_gone(there: World) -> None:
    run = with_losses(there.run("one"), {0: 0.5, 1: 0.7, 2: 0.6})
    assert status(there.context).runs[0].differs == []
    settings = {**MODEL_FILE, "train": {"epochs": 7, "seed": 1}, "predict": {"tta": "centre"}}
    Path("configs/models/one.yaml").write_text(json.dumps(settings))
    assert status(there.context).runs[0].differs == [
        "train.epochs: 4 -> 7",
        "train.seed: 0 -> 1",
    ]  # views decide nothing
    assert "differs: configs/models/one.yaml says otherwise today: train.epochs: 4 -> 7" in text(status(there.context))
    (run.fold(1) / "weights.h5").unlink()
    assert any("fold 1: its weights.h5 is gone" in problem for problem in status(there.context).runs[0].problems)
    Path("configs/models/one.yaml").write_text("backbone: [")
    assert "expected YAML" in status(there.context).runs[0].differs[0]


def test_the_transforms_of_a_preset_are_compared_too(there: World) -> None:
    there.run("one")
    Path("configs/presets").mkdir()
    Path("configs/presets/mine.yaml").write_text("- Blur: {p: 0.5}")
    Path("configs/models/one.yaml").write_text(json.dumps({**MODEL_FILE, "augment": {"preset": "mine"}}))
    assert status(there.context).runs[0].differs == ['augment.preset: null -> "mine"', "the preset's transforms"]


def test_a_broken_file_is_a_line_and_no_crash(there: World) -> None:
    for name in ("one", "two", "three"):
        there.run(name)
    runs = there.context.places.runs
    (runs / "one" / "run.json").write_text("{")
    (runs / "two" / "fold1" / "manifest.json").write_text("[]")
    _edit(runs / "three" / "fold2" / "manifest.json", folds="another's")
    (runs / "four").mkdir()
    (runs / ".DS_Store").touch()
    found = {run.name: run for run in status(there.context).runs}
    assert "expected a JSON manifest" in str(found["one"].problem)
    assert [fold.state for fold in found["two"].folds] == ["finished", "invalid", "finished"]
    assert "is of another run" in str(found["three"].folds[2].problem)
    assert "no such run" in str(found["four"].problem)
    said = text(status(there.context))
    assert said.count("invalid:") >= 4
    assert json.loads(status(there.context).as_json())["runs"][0]["name"] == "four"


@pytest.mark.parametrize("spoilt", ["driver,fold\n", "", "\x00", "driver,fold,images,c0,c1,c2\np0,zero,9,3,3,3\n"])
def test_a_broken_fold_file_breaks_nothing_else(there: World, spoilt: str) -> None:
    there.run("one")
    there.context.places.folds.write_text(spoilt)
    found = status(there.context)
    assert found.folds.checksum is None
    assert "restore it" in str(found.folds.problem)
    assert found.runs[0].finished


def test_studies_have_places_of_their_own(there: World) -> None:
    there.run("one")
    there.run("one", study="freezing")
    assert [run.label for run in status(there.context).runs] == ["one", "freezing/one"]


def submission(world: World, name: str, runs: list[Run], **facts: Any) -> Path:  # noqa: F811
    """What `make ensemble` leaves."""
    path = world.context.places.submission(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"img,c0,c1,c2\n{name}\n")
    made = {"runs": {run.name: "five_crop" for run in runs}, "folds": world.folds.checksum, "images": 12}
    made |= {"weights": {run.name: run.checksums(range(3)) for run in runs}, "out_of_fold_log_loss": 0.6}
    made |= {"submission": _checksum(path)}
    write_json(path.with_suffix(".json"), {key: value for key, value in {**made, **facts}.items() if value is not None})
    return path


def _checksum(path: Path) -> str:
    from driverwatch.io.manifests import checksum_of_file

    return checksum_of_file(path)


def test_submissions_are_stale_for_runs_that_changed_or_went(there: World) -> None:
    one, two = there.run("one"), there.run("two")
    submission(there, "fine", [one, two])
    assert [made.stale for made in status(there.context).submissions] == [[]]
    _edit(two.fold(1) / "manifest.json", weights="trained again")
    assert status(there.context).submissions[0].stale == ["run two was trained again since"]
    shutil.rmtree(two.folder)
    assert status(there.context).submissions[0].stale == ["run two is gone"]
    assert "stale: run two is gone (fine)" in text(status(there.context))
    _swap_folds(there)
    assert "made on other folds than today's" in status(there.context).submissions[0].stale


def test_manifests_from_before_they_had_weights_go_by_time(there: World) -> None:
    one = there.run("one")
    path = submission(there, "old", [one], weights=None).with_suffix(".json")
    assert status(there.context).submissions[0].stale == []
    os.utime(path, (1, 1))
    assert status(there.context).submissions[0].stale == ["run one was trained on since"]


def test_an_edited_submission_and_one_without_its_manifest(there: World) -> None:
    one = there.run("one")
    path, other = submission(there, "a", [one]), submission(there, "b", [one])
    path.write_text("edited")
    os.utime(path, (2e9, 2e9))
    other.with_suffix(".json").unlink()
    a, b = status(there.context).submissions
    assert a.stale == ["a.csv was changed since it was written and checked"]
    assert "b.json: is not there" in str(b.problem)


def test_uploads_come_from_the_ledger_and_a_broken_ledger_is_a_line(there: World) -> None:
    one = there.run("one")
    path = submission(there, "up", [one])
    for dataset, checksum in (("made_up", _checksum(path)), ("other", _checksum(path)), ("made_up", "another")):
        append_entry(
            Path("submissions/ledger.csv"),
            Entry("t", dataset, "f", checksum, "m", "complete", "0.3", "", "", ""),
        )
    assert status(there.context).submissions[0].uploads == ["complete, public 0.3"]
    Path("submissions/ledger.csv").write_text("nonsense")
    found = status(there.context)
    assert found.submissions[0].uploads == []
    assert "restore it (git checkout" in found.invalid[0]
    assert "invalid: submissions/ledger.csv" in text(found)


def test_what_was_made_with_embeddings_is_stale_once_they_are_computed_again(there: World) -> None:
    """As after `make knn WEIGHTS=<other weights>`: the submission's own file, its runs and its folds are as they were."""
    one = there.run("one")
    path = there.context.places.embeddings / "mobilenet_v2-1x1.h5"
    path.parent.mkdir(parents=True)
    place = there.context.places.pseudo_labels("class")
    place.mkdir(parents=True)

    def compute(weights: str) -> str:
        embeddings.write(path, np.array(["a", "b"]), [np.ones((2, 3), np.float32)], {"weights": weights})
        return str(embeddings.checksum(path))

    def stale() -> list[list[str]]:
        found = status(there.context)
        return [made.stale for made in (*found.submissions, *found.pseudo_labels)]

    used = {"embeddings": {"mobilenet_v2": compute("first")}}
    submission(there, "near", [one], **used)
    facts = {"folds": there.folds.checksum, "runs": {"one": "five_crop"}, "weights": {"one": one.checksums(range(3))}}
    write_json(place / "manifest.json", {**facts, **used})
    assert stale() == [[], []]
    compute("second")
    assert stale() == [["embeddings mobilenet_v2 were computed again since"]] * 2
    assert "stale: embeddings mobilenet_v2 were computed again since (near)" in text(status(there.context))
    compute("first")
    assert stale() == [[], []]
    path.write_bytes(b"torn")
    assert stale() == [[], []]
    path.unlink()
    assert stale() == [[], []]


def test_what_are_pseudo_labels_and_what_is_cached(there: World) -> None:
    one = there.run("one")
    place = there.context.places.pseudo_labels("class")
    place.mkdir(parents=True)
    facts = {"folds": there.folds.checksum, "runs": {"one": "five_crop"}, "weights": {"one": one.checksums(range(3))}}
    write_json(place / "manifest.json", {**facts, "out_of_fold_log_loss": 0.4})
    folder = there.context.places.embeddings
    folder.mkdir(parents=True)
    for name, packs in (("good", ["train", "test"]), ("old", ["x", "test"])):
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file.attrs["origin"] = json.dumps(dict(zip(["train_pack", "test_pack"], packs, strict=True)))
    (folder / "torn.h5").write_bytes(b"x")
    backbone = there.context.places.feature_caches / "abc"
    backbone.mkdir(parents=True)
    (backbone / "view-1.h5").write_bytes(b"0" * 2_000_000)
    found = status(there.context)
    assert (found.pseudo_labels[0].log_loss, found.pseudo_labels[0].stale) == (0.4, [])
    assert [bool(kept.stale) for kept in found.features] == [False, True, False]
    assert "not a whole file of features" in str(found.features[2].problem)
    assert (found.feature_caches.files, found.feature_caches.megabytes) == (1, 2.0)


def test_the_next_command_follows_the_line(there: World) -> None:
    assert status(there.context).next == "make train DATASET=made_up MODEL=mobilenet_v2"
    one = with_losses(there.run("one"), {0: 0.5, 1: 0.7, 2: 0.6})
    assert status(there.context).next == "make ensemble DATASET=made_up"
    submission(there, "x", [one])
    assert status(there.context).next == "make report DATASET=made_up"  # there is nowhere to send it
    write_json(there.context.places.page("index"), {})
    assert status(there.context).next is None
    there = replace(
        there, context=replace(there.context, settings=there.context.settings.model_copy(update={"slug": "s"}))
    )
    assert status(there.context).next == 'make submit DATASET=made_up FILE=submissions/made_up/x.csv MESSAGE="..."'
    there.context.places.folds.unlink()
    assert status(there.context).next == "make folds DATASET=made_up"


@pytest.mark.parametrize("columns", [40, 80, 140])
def test_the_screen_fits_the_terminal(there: World, columns: int) -> None:
    for name in ("one", "a_name_that_is_quite_long_as_some_are"):
        submission(there, name, [with_losses(there.run(name), {0: 0.5, 1: 0.7, 2: 0.6})])
    (there.context.places.runs / "invalid").mkdir()
    lines = text(status(there.context), columns).splitlines()
    wide = [line for line in lines if len(line) > columns and not line.startswith("next")]  # that one is to be copied
    assert wide == []
    assert any("one" in line for line in lines)


def test_many_fits_are_counted_instead_of_listed() -> None:
    found = [FoldState(i, "finished", 3, 3) for i in range(8)] + [
        FoldState(8, "training", 1, 3),
        FoldState(9, "not started", 0, 3),
    ]
    assert folds_cell(found, False) == "8 of 10 done, 8: 1/3"
    assert folds_cell([FoldState(0, "finished", 3, 3)], False) == "done"


def test_a_fold_file_is_read_alike_with_and_without_pandas(there: World) -> None:
    path = there.context.places.folds
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")  # in any order
    found = fold_file.glance(path, CLASSES)
    assert (found.checksum, found.count, found.drivers) == (there.folds.checksum, 3, 6)
    path.write_text(path.read_text().replace("p0,", '"p0",').replace(",9,", ",09,"))
    assert fold_file.glance(path, CLASSES).checksum == there.folds.checksum
    with pytest.raises(InputError, match="no fold file"):
        fold_file.glance(path.with_name("none.csv"), CLASSES)


def test_a_stage_is_over_by_its_epochs_or_its_patience() -> None:
    history = [{"stage": 0, "val_loss": loss} for loss in (1.0, 0.5, 0.6, 0.7)]
    assert [is_over(history, 0, stop, None) for stop in (3, 4, 5)] == [True, True, False]
    assert [is_over(history, 0, 9, patience) for patience in (1, 2, 3)] == [True, True, False]
    assert not is_over(history, 1, 1, 1)  # not started
    assert is_over([{"stage": 0, "val_loss": None}], 0, 1, None)  # no driver held out


WALK = """
import sys
sys.argv = ["driverwatch", *sys.argv[1:]]
from driverwatch.cli.main import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
heavy = {"keras", "tensorflow", "torch", "pandas", "matplotlib", "sklearn", "scipy", "albumentations"} & set(sys.modules)
print("HEAVY", sorted(heavy), file=sys.stderr)
"""


def heavy(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    made = subprocess.run(
        [sys.executable, "-c", WALK, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert made.stdout
    return made.stderr.splitlines()[-1]


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["status", "--dataset", "demo"]])
def test_who_only_looks_imports_nothing_heavy(project: Path, arguments: list[str]) -> None:
    assert heavy(project, *arguments) == "HEAVY []"


@pytest.mark.line
def test_a_finished_make_train_typed_again_imports_nothing_heavy(project: Path, data: Path) -> None:
    from typer.testing import CliRunner

    from driverwatch.cli.main import app

    asked = ["--dataset", "demo", "--data", str(data), "--set", "input.pack=36x44 input.size=32x40"]
    for verb in (["folds", *asked[:4]], ["pack", *asked, "--model", "tiny"]):
        made = CliRunner().invoke(app, verb)
        assert made.exit_code == 0, made.output
    finish(project, asked[-1])
    said = heavy(project, "pack", *asked, "--model", "tiny"), heavy(project, "train", "tiny", *asked)
    assert said == ("HEAVY []", "HEAVY []")


def finish(project: Path, overrides: str) -> None:
    """Fabricate what training `tiny` leaves, but for the predictions."""
    from driverwatch import run as runs
    from driverwatch.config.loading import load
    from driverwatch.config.model import ModelSettings
    from driverwatch.data.context import open_context, open_packs
    from driverwatch.io.manifests import checksum_of_file
    from driverwatch.training.train import TrainRequest, _wanted

    context = open_context("demo", None)
    settings = load(ModelSettings, Path("configs/models"), "tiny", overrides)
    folds, _ = open_packs(context, settings.input.key)
    folder = context.places.run("tiny")
    runs.begin(folder, _wanted(TrainRequest(context=context, settings=settings, name="tiny")).identity, None, False)
    run = runs.load(folder)
    for number in range(folds.count):
        run.fold(number).mkdir()
        (run.fold(number) / "weights.h5").write_bytes(b"w")
        facts = {"weights": checksum_of_file(run.fold(number) / "weights.h5"), "log_loss": {"ten_crop": 0.5}}
        write_json(run.fold(number) / "manifest.json", {"settings": run.settings.model_dump(), **run.claim, **facts})
