"""A run's identity: what it was started with, and the refusal of anything else."""

from pathlib import Path
from typing import Any

import pytest
from support.runs import started_folder, wanted

from driverwatch import run as runs
from driverwatch.errors import InputError
from driverwatch.io.atomic import write_json
from driverwatch.io.manifests import read_json


def test_the_same_again_resumes(tmp_path: Path) -> None:
    folder = started_folder(tmp_path)
    speed = "train.workers=3 train.devices=all predict.batch_size=7"  # these decide no more than that
    runs.begin(folder, wanted(speed), None, False)
    assert runs.load(folder).finished(1)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (wanted("train.epochs=2"), "settings.train.epochs: 12 -> 2"),
        (wanted("augment.hflip=keep_labels"), 'settings.augment.hflip: "swap_left_right" -> "keep_labels"'),
        (wanted(folds="g"), 'folds: "f" -> "g"'),
        (wanted(packs={"train": "p", "test": "r"}), 'packs.test: "q" -> "r"'),
        (wanted(weights={"file": "w"}), 'weights: null -> {"file": "w"}'),
        (wanted(preset=[{"Affine": {}}]), "preset"),
    ],
)
def test_anything_else_is_refused_with_the_difference(tmp_path: Path, other: dict[str, Any], said: str) -> None:
    folder = started_folder(tmp_path)
    with pytest.raises(InputError) as error:
        runs.begin(folder, other, None, False)
    assert said in str(error.value)
    assert "RUN=" in str(error.value)
    assert runs.load(folder).finished(0)
    runs.begin(folder, other, 1, True)  # other settings: no fold of the old run may stay
    assert not list(folder.glob("fold*"))
    runs.begin(folder, other, None, False)


def test_force_trains_again_what_it_names(tmp_path: Path) -> None:
    folder = started_folder(tmp_path)
    runs.begin(folder, wanted(), 1, True)
    assert [p.name for p in folder.glob("fold*")] == ["fold0"]
    runs.begin(folder, wanted(), None, True)
    assert not list(folder.glob("fold*"))


def test_folds_of_nobody_knows_what_are_refused(tmp_path: Path) -> None:
    folder = started_folder(tmp_path)
    (folder / "run.json").unlink()
    with pytest.raises(InputError, match="missing"):
        runs.begin(folder, wanted(), None, False)
    (folder / "run.json").write_text("{")
    with pytest.raises(InputError, match="expected a JSON manifest"):
        runs.begin(folder, wanted(), None, False)
    runs.begin(folder, wanted(), 0, True)
    assert not list(folder.glob("fold*"))


def test_a_run_without_a_finished_epoch_may_begin_again(tmp_path: Path) -> None:
    runs.begin(tmp_path, wanted(), None, False)
    (tmp_path / "fold0").mkdir()
    runs.begin(tmp_path, wanted("train.epochs=2"), None, False)
    assert runs.load(tmp_path).settings.train.epochs == 2


def test_a_manifest_must_be_of_its_run(tmp_path: Path) -> None:
    folder = started_folder(tmp_path)
    run = runs.load(folder)
    good = {"settings": run.settings.model_dump(), "weights": "w", **run.claim}
    write_json(folder / "fold0" / "manifest.json", good)
    assert run.manifest(0)["weights"] == "w"
    other = {**good, "settings": {**good["settings"], "backbone": "tiny_separable"}}
    for wrong in (
        other,
        {**good, "folds": "g"},
        {**good, "train_pack": "x"},
        {k: v for k, v in good.items() if k != "weights"},
    ):
        write_json(folder / "fold0" / "manifest.json", wrong)
        with pytest.raises(InputError, match="is of another run"):
            run.manifest(0)
    with pytest.raises(InputError, match="other folds than today's"):
        run.refuse_other_inputs("g", run.packs)
    with pytest.raises(InputError, match="another pack than today's"):
        run.refuse_other_inputs("f", {})


def test_settings_added_since_do_not_end_a_run(tmp_path: Path) -> None:
    folder = started_folder(tmp_path)
    made = read_json(folder / "run.json")
    del made["settings"]["train"]["warmup"]  # stored before `warmup` was a setting: its default is meant
    write_json(folder / "run.json", made)
    with pytest.raises(InputError, match=r"train.warmup: 0.0 -> 0.1"):
        runs.begin(folder, wanted(), None, False)
    runs.begin(folder, wanted("train.warmup=0"), None, False)


def test_unknown_and_damaged_runs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such run; there are: none"):
        runs.load(tmp_path / "x")
    folder = started_folder(tmp_path / "y")
    with pytest.raises(InputError, match="there are: y"):
        runs.load(tmp_path / "z")
    started_folder(tmp_path / "build" / "demo" / "runs" / "one")
    with pytest.raises(InputError, match=r"none; one of this name is there: add DATASET=demo$"):
        runs.load(tmp_path / "build" / "statefarm" / "runs" / "one")
    write_json(folder / "run.json", {"settings": read_json(folder / "run.json")["settings"]})
    with pytest.raises(InputError, match=r"run.json: lacks 'classes'"):
        runs.load(folder)


def test_a_run_from_before_pseudo_labels_and_splits_resumes(tmp_path: Path) -> None:
    folder = started_folder(tmp_path)
    old = read_json(folder / "run.json")
    del old["learned_from"]
    for added in ("splits", "pseudo", "max_epochs"):
        del old["settings"]["train"][added]
    write_json(folder / "run.json", old)
    runs.begin(folder, wanted(), None, False)
    assert runs.load(folder).finished(1)
    assert runs.load(folder).learned_from is None


def test_what_was_learned_from_is_part_of_a_run(tmp_path: Path) -> None:
    def pseudo_labels(checksum: str) -> dict[str, Any]:
        return wanted(learned_from={"teachers": {"t": {"predictions": ["a", checksum]}}})

    runs.begin(tmp_path, pseudo_labels("b"), None, False)
    (tmp_path / "fold0").mkdir()
    (tmp_path / "fold0" / "checkpoint.h5").write_bytes(b"")
    before = runs.load(tmp_path)
    runs.begin(tmp_path, pseudo_labels("b"), None, False)
    with pytest.raises(InputError, match=r'learned_from.teachers.t.predictions.1: "b" -> "c"'):
        runs.begin(tmp_path, pseudo_labels("c"), None, False)
    runs.begin(tmp_path, pseudo_labels("c"), None, True)
    assert runs.load(tmp_path).identity != before.identity


def test_a_fold_under_way_outlives_settings_that_came_after_it(tmp_path: Path) -> None:
    """Its checkpoint holds the checksum of settings before `precision`, `label_issues` and `splits.train_drivers` came."""
    checksums = []
    changes = ("", "precision=mixed_bfloat16", "train.splits.train_drivers=3", "train.label_issues=drop")
    for number, changed in enumerate(changes):
        runs.begin(tmp_path / str(number), wanted(f"train.epochs=13 train.batch_size=32 {changed}"), None, False)
        checksums.append(runs.load(tmp_path / str(number)).identity)
    assert checksums[0] == "6bc10b1b91b852ef87326d8e2a74f6f5e5819d71d60b80fbeaeb70bbfcc9a814"
    assert len(set(checksums)) == len(changes)
