"""Runs that were trained elsewhere: taken whole where they fit and are further, refused in one sentence where they do not."""

import errno
import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from support.elsewhere import FOLDS, KAGGLE, partly_trained, trained_elsewhere, with_weights
from support.finished import World, world  # noqa: F401

from driverwatch import run as runs
from driverwatch.errors import InputError
from driverwatch.inference import predictions
from driverwatch.inference.predictions import Predictions
from driverwatch.io.atomic import write_json
from driverwatch.io.manifests import read_json
from driverwatch.remote import import_runs
from driverwatch.run import Run
from driverwatch.submission import build


@pytest.fixture
def here(world: World, monkeypatch: pytest.MonkeyPatch) -> World:  # noqa: F811
    monkeypatch.setattr(import_runs, "open_packs", lambda *_: (world.folds, world.packs))
    return world


def contents(folder: Path) -> dict[str, bytes]:
    """All but locks, which say who wrote last."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.endswith(".lock"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_run_comes_home_and_takes_part_beside_a_local_one(here: World, capsys: pytest.CaptureFixture[str]) -> None:
    here.run("local", seed=7)
    sent = contents(trained_elsewhere(here).folder)
    (KAGGLE / "driverwatch-away.log").write_text("what Kaggle's machine said")
    (KAGGLE / "runs" / "away" / "fold0" / "tensorboard").mkdir()  # not of the known names, so it stays
    import_runs.import_runs(here.context, KAGGLE, None, False)
    assert contents(here.context.places.run("away")) == sent
    assert "3 of 3 folds finished" in capsys.readouterr().out
    build.make_ensemble(here.context, [], "both", None, None)
    made = read_json(here.context.places.submissions / "both.json")
    assert json.dumps(made).count('"away"') >= 1
    assert json.dumps(made).count('"local"') >= 1


@pytest.mark.parametrize("where", [KAGGLE, KAGGLE / "runs", KAGGLE / "runs" / "away"])
def test_the_folder_may_be_the_output_its_runs_or_the_run(here: World, where: Path) -> None:
    trained_elsewhere(here)
    import_runs.import_runs(here.context, where, None, False)
    assert all(runs.load(here.context.places.run("away")).finished(number) for number in range(FOLDS))


def test_taken_twice_is_taken_once(here: World, capsys: pytest.CaptureFixture[str]) -> None:
    trained_elsewhere(here)
    import_runs.import_runs(here.context, KAGGLE, None, False)
    target = here.context.places.run("away")
    times = {path: path.stat().st_mtime_ns for path in target.rglob("*.h5")}
    capsys.readouterr()
    import_runs.import_runs(here.context, KAGGLE, None, False)
    assert capsys.readouterr().out.count("is here already") == FOLDS
    assert {path: path.stat().st_mtime_ns for path in target.rglob("*.h5")} == times


def test_one_of_several_is_taken_by_name(here: World) -> None:
    for name in ("away", "also"):
        trained_elsewhere(here, name)
    import_runs.import_runs(here.context, KAGGLE, "also", False)
    assert [path.name for path in here.context.places.runs.glob("*/run.json")] == ["run.json"]
    assert here.context.places.run("also").is_dir()
    with pytest.raises(InputError, match="expected a run called absent, got also, away"):
        import_runs.import_runs(here.context, KAGGLE, "absent", False)


def test_tta_sets_that_were_predicted_since_are_added(here: World) -> None:
    run = trained_elsewhere(here)
    import_runs.import_runs(here.context, KAGGLE, None, False)
    for number in range(FOLDS):
        for kind in ("test", "validation"):
            made = predictions.read(run.fold(number) / f"{kind}-five_crop.h5", {})
            origin = run.predicted(number, "centre")
            predictions.write(
                Predictions(made.names, made.probabilities, origin), run.fold(number) / f"{kind}-centre.h5"
            )
    import_runs.import_runs(here.context, KAGGLE, None, False)
    assert contents(here.context.places.run("away")) == contents(run.folder)


State = tuple[str, int]  # what a fold is, and which: so many epochs, or which weights
STATES: list[State] = [("none", 0), ("started", 1), ("started", 2), ("finished", 0), ("finished", 1)]


def put(here: World, run: Run, state: State) -> None:
    kind, which = state
    if kind == "finished":
        with_weights(run, 0, b"weights %d" % which)
    elif kind == "started":
        partly_trained(run, 0, which)
    else:
        shutil.rmtree(run.fold(0))


def further(theirs: State, mine: State) -> bool:
    order = [("none", 0), ("started", 1), ("started", 2)]
    rank = [order.index(s) if s in order else len(order) for s in (theirs, mine)]
    return rank[0] > rank[1]


@pytest.mark.parametrize(("theirs", "mine"), list(itertools.product(STATES, STATES)), ids=str)
@pytest.mark.parametrize("force", [False, True], ids=["", "force"])
def test_no_fold_goes_back(here: World, theirs: State, mine: State, force: bool) -> None:
    """Whatever is on either side, what is further stays; two different ends are the user's to choose between."""
    away = trained_elsewhere(here)
    home = here.run("away")
    for number in (1, 2):
        shutil.rmtree(away.fold(number))
        shutil.rmtree(home.fold(number))
    put(here, away, theirs)
    put(here, home, mine)
    before = contents(home.folder)
    ends = theirs[0] == mine[0] == "finished" and theirs != mine
    if ends and not force:
        with pytest.raises(InputError, match="finished here too, with other weights"):
            import_runs.import_runs(here.context, KAGGLE, None, force)
        assert contents(home.folder) == before
        return
    import_runs.import_runs(here.context, KAGGLE, None, force)
    taken = further(theirs, mine) or ends
    assert contents(home.fold(0)) == contents((away if taken else home).fold(0))
    assert contents(home.folder).keys() - {"run.json"} == {
        f"fold0/{name}" for name in contents((away if taken else home).fold(0))
    }
    if not taken:
        assert contents(home.folder) == before


def test_runs_of_other_folds_or_images_are_refused(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    trained_elsewhere(here)
    for kind in ("train", "test"):
        packs = {**here.packs, kind: replace(here.packs[kind], checksum="another")}
        monkeypatch.setattr(import_runs, "open_packs", lambda *_, packs=packs: (here.folds, packs))
        with pytest.raises(InputError, match=rf'other folds or images(.|\n)*packs\.{kind}: "{kind}" -> "another"'):
            import_runs.import_runs(here.context, KAGGLE, None, False)
    folds = replace(here.folds, frame=here.folds.frame.assign(fold=here.folds.frame["fold"][::-1].to_numpy()))
    monkeypatch.setattr(import_runs, "open_packs", lambda *_: (folds, here.packs))
    with pytest.raises(InputError, match="other folds or images"):
        import_runs.import_runs(here.context, KAGGLE, None, False)
    assert not here.context.places.run("away").exists()


def test_runs_of_other_classes_are_refused(here: World) -> None:
    run = trained_elsewhere(here)
    path = run.folder / "run.json"
    write_json(path, read_json(path) | {"classes": ["c0", "c2", "c1"]})
    with pytest.raises(InputError, match="is of classes c0, c2, c1, this data set's are c0, c1, c2"):
        import_runs.import_runs(here.context, KAGGLE, None, False)


def rewritten(path: Path, change: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]) -> None:
    """Change names and rows of a prediction file, checksum and all, as somebody might who has read how it is made."""
    made = predictions.read(path, {})
    names, rows = change(made.names.copy(), made.probabilities.copy())
    forged = object.__new__(Predictions)
    for key, value in {"names": names, "probabilities": rows, "origin": made.origin, "where": ""}.items():
        object.__setattr__(forged, key, value)
    predictions.write(forged, path)


FORGERIES: dict[str, Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    "images missing": lambda names, rows: (names[1:], rows[1:]),
    "not asked for": lambda names, rows: (np.append(names, "x.jpg"), np.concatenate([rows, rows[:1]])),
    "named twice": lambda names, rows: (np.append(names, names[0]), np.concatenate([rows, rows[:1]])),
    "sum to 1": lambda names, rows: (names, rows * 2),
    "finite": lambda names, rows: (names, np.where(rows == rows.max(), np.nan, rows)),
    "expected 3 classes": lambda names, rows: (names, np.eye(4, dtype=np.float32)[np.zeros(len(rows), int)]),
    "names for probabilities": lambda names, rows: (names, rows[1:]),
}


@pytest.mark.parametrize("kind", ["test", "validation"])
@pytest.mark.parametrize("said", FORGERIES)
def test_strange_predictions_are_refused(here: World, kind: str, said: str) -> None:
    run = trained_elsewhere(here)
    rewritten(run.fold(1) / f"{kind}-five_crop.h5", FORGERIES[said])
    with pytest.raises(InputError, match=said):
        import_runs.import_runs(here.context, KAGGLE, None, False)
    assert not here.context.places.run("away").exists()


def test_held_out_rows_of_another_fold_are_refused(here: World) -> None:
    """Predictions for drivers that the fold has trained on would flatter every score."""
    run = trained_elsewhere(here)
    other = predictions.read(run.fold(0) / "validation-five_crop.h5", {})
    rewritten(run.fold(1) / "validation-five_crop.h5", lambda *_: (other.names, other.probabilities))
    with pytest.raises(InputError, match="images missing"):
        import_runs.import_runs(here.context, KAGGLE, None, False)


@pytest.mark.parametrize(
    ("name", "said"),
    [("weights.h5", "is not what fold 1 was trained to"), ("manifest.json", "expected a JSON manifest"),
     ("test-five_crop.h5", "test-five_crop.h5")],
)  # fmt: skip
def test_damaged_files_are_refused(here: World, name: str, said: str) -> None:
    run = trained_elsewhere(here)
    path = run.fold(1) / name
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(InputError, match=said):
        import_runs.import_runs(here.context, KAGGLE, None, False)
    assert not here.context.places.run("away").exists()


def test_a_checkpoint_of_another_run_is_refused(here: World) -> None:
    run = trained_elsewhere(here)
    partly_trained(replace(run, folds="other"), 1, 2)
    with pytest.raises(InputError, match="is of another run than this folder's"):
        import_runs.import_runs(here.context, KAGGLE, None, False)


def test_a_checkpoint_without_its_history_is_refused(here: World) -> None:
    run = trained_elsewhere(here)
    partly_trained(run, 1, 2)
    with h5py.File(run.fold(1) / "checkpoint.h5", "a") as file:
        file.attrs["progress"] = json.dumps({"epoch": 1, "history": [{"stage": 0}], "best": 1.0})
    with pytest.raises(InputError, match="not a whole checkpoint"):
        import_runs.import_runs(here.context, KAGGLE, None, False)
    assert not here.context.places.run("away").exists()


def test_a_manifest_of_another_run_is_refused(here: World) -> None:
    run, other = trained_elsewhere(here), trained_elsewhere(here, "also", epochs=9)
    shutil.copytree(other.fold(1), run.fold(1), dirs_exist_ok=True)
    with pytest.raises(InputError, match="is of another run than"):
        import_runs.import_runs(here.context, KAGGLE, "away", False)


@pytest.mark.parametrize("name", ["run.json", "fold1/weights.h5", "fold2/test-five_crop.h5"])
def test_links_are_refused(here: World, name: str) -> None:
    path = trained_elsewhere(here).folder / name
    path.rename(KAGGLE / "elsewhere")
    path.symlink_to((KAGGLE / "elsewhere").absolute())
    with pytest.raises(InputError, match="expected a plain file"):
        import_runs.import_runs(here.context, KAGGLE, None, False)
    assert not here.context.places.run("away").exists()


def test_the_same_name_for_other_settings_is_refused_until_renamed(here: World) -> None:
    run = trained_elsewhere(here, epochs=9)
    home = here.run("away")
    before = contents(home.folder)
    with pytest.raises(InputError, match=r"rename the folder(.|\n)*train\.epochs: 9 -> 4"):
        import_runs.import_runs(here.context, KAGGLE, None, True)
    assert contents(home.folder) == before
    run.folder.rename(run.folder.with_name("renamed"))
    import_runs.import_runs(here.context, KAGGLE, None, False)
    assert runs.load(here.context.places.run("renamed")).settings.train.epochs == 9


def test_its_own_folder_and_nothing_at_all(here: World) -> None:
    here.run("local")
    with_weights(runs.load(here.context.places.run("local")), 0, b"x")
    for number in (1, 2):
        shutil.rmtree(here.context.places.run("local") / f"fold{number}")
    with pytest.raises(InputError, match="own folder of runs"):
        import_runs.import_runs(here.context, here.context.places.runs, None, False)
    with pytest.raises(InputError, match=r"no run\.json in it"):
        import_runs.import_runs(here.context, Path("nowhere"), None, False)


def test_a_full_disk_leaves_whole_folds_and_the_same_command_resumes(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, target = trained_elsewhere(here), here.context.places.run("away")
    copied, copy = [], shutil.copyfile

    def full(source: Path, to: Path) -> None:
        if len(copied) == len(contents(run.fold(0))) + 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        copied.append(copy(source, to))

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(InputError, match="No space left on device"):
        import_runs.import_runs(here.context, KAGGLE, None, False)
    assert [runs.load(target).finished(number) for number in range(FOLDS)] == [True, False, False]
    assert not (target / "fold1").exists()
    monkeypatch.setattr(shutil, "copyfile", copy)
    import_runs.import_runs(here.context, KAGGLE, None, False)
    assert contents(target) == contents(run.folder)
