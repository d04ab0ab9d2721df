"""`SKIP_BROKEN=1` from photos to submission: what is left out is recorded, and a broken test photo gets the class prior."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.project import QUICK as SET
from support.project import Verb

pytestmark = pytest.mark.line


@pytest.fixture
def broken(data: Path, project: Path) -> dict[str, str]:
    """A competition with a broken photo of each kind, by what is wrong with it."""
    settings = project / "configs" / "datasets" / "drawn.yaml"
    settings.write_text(settings.read_text().replace("folds: 3", "folds: 2"))
    photos, tests = sorted(data.glob("imgs/train/*/*.jpg")), sorted(data.glob("imgs/test/*.jpg"))
    photos[3].write_bytes(b"")
    photos[60].unlink()
    tests[5].write_bytes(tests[5].read_bytes()[:-400])
    photos[1].with_name("stray.jpg").write_bytes(photos[1].read_bytes())
    table = data / "driver_imgs_list.csv"
    table.write_text(table.read_text().replace(",c9,", ",c99,", 1))
    return {"empty": photos[3].name, "missing": photos[60].name, "test": tests[5].name}


def made(verb: Verb, *arguments: str) -> str:
    """What a verb says, which must succeed."""
    done = verb(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_fold_that_lost_all_its_photos_is_refused(verb: Verb, project: Path, data: Path) -> None:
    options = ["--dataset", "drawn", "--data", str(data)]
    made(verb, "folds", *options)
    fold = pd.read_csv(project / "folds" / "drawn.csv").set_index("driver")["fold"]
    for _, driver, label, image in pd.read_csv(data / "driver_imgs_list.csv").itertuples():
        if fold[driver] == 1:
            (data / "imgs" / "train" / label / image).write_bytes(b"")
    lost = verb("pack", "--size", "24x32", *options, "--skip-broken")
    assert lost.returncode == 2
    assert "every photo of fold 1's drivers" in lost.stderr


def test_groups_are_made_of_whole_photos_alone(verb: Verb, project: Path, data: Path) -> None:
    """Broken photos look alike to nobody; once mended they are in no group, until groups are made anew."""
    settings = project / "configs" / "datasets" / "drawn.yaml"
    settings.write_text(settings.read_text() + "columns: {driver: null}\n")
    options, photo = ["--dataset", "drawn", "--data", str(data)], sorted(data.glob("imgs/train/c4/*.jpg"))[0]
    whole = photo.read_bytes()
    photo.write_bytes(b"")
    assert verb("folds", *options).returncode == 2
    assert f"left out: imgs/train/c4/{photo.name}" in made(verb, "folds", *options, "--skip-broken")
    groups = pd.read_csv(project / "folds" / "drawn_groups.csv")
    assert len(groups) == 119
    made(verb, "pack", "--size", "24x32", *options, "--skip-broken")
    photo.write_bytes(whole)
    stale = verb("pack", "--size", "32x32", *options)
    assert stale.returncode == 2
    assert "make folds FORCE=1" in stale.stderr
    made(verb, "folds", *options, "--force")
    made(verb, "pack", "--size", "32x32", *options)


def test_the_whole_line_without_what_is_broken(verb: Verb, project: Path, data: Path, broken: dict[str, str]) -> None:
    options = ["--dataset", "drawn", "--data", str(data)]

    def ran(*arguments: str) -> str:
        made = verb(*arguments, *options)
        assert made.returncode == 0, made.stderr
        return made.stdout

    def refused(*arguments: str) -> str:
        made = verb(*arguments, *options)
        assert made.returncode == 2, made.stdout
        return made.stderr

    for_folds = refused("folds")
    assert "3 problems" in for_folds  # the row, the stray, the missing file: no photo has been opened
    assert "left out: extra file" in ran("folds", "--skip-broken")
    pack = ["pack", "--model", "tiny", "--set", SET]
    everything = refused(*pack)
    assert "5 problems" in everything
    for said in (
        "unknown class c99",
        "extra file",
        f"{broken['missing']}: missing file",
        f"{broken['empty']}: empty file",
        broken["test"],
    ):
        assert said in everything
    assert (project / "build" / "drawn" / "problems.txt").read_text().count("\n") == 5
    assert not list((project / "build").rglob("*.h5"))

    assert "2 left out as broken" in ran(*pack, "--skip-broken")
    folder = project / "build" / "drawn" / "pack" / "40x52"
    train, test = (json.loads((folder / f"{kind}.json").read_text()) for kind in ("train", "test"))
    assert train["left_out"].keys() == {broken["empty"], broken["missing"]}
    assert test["left_out"].keys() == {broken["test"]}
    assert len(train["left_out_rows"]) == 2
    assert train["images"] == 117
    assert "up to date" in ran(*pack, "--skip-broken")
    assert "empty file" in refused(*pack)  # without the word, nothing may be missing

    assert "2 of 2 folds finished" in ran("train", "tiny", "--set", SET)
    assert "1 broken ones at the class prior" in ran("ensemble", "--name", "first")
    assert "ready to go up" in ran("check", "submissions/drawn/first.csv")
    ran("score")
    made = pd.read_csv(project / "submissions" / "drawn" / "first.csv").set_index("img")
    labels = pd.read_csv(data / "driver_imgs_list.csv").query("classname != 'c99'").set_index("img")["classname"]
    kept = labels.drop([broken["empty"], broken["missing"]]).value_counts().sort_index()
    assert np.allclose(made.loc[broken["test"]], kept / kept.sum(), atol=1e-6)
    others = made.drop(index=broken["test"])
    assert len(others) == 39
    assert (abs(others - kept / kept.sum()).max(axis=1) > 1e-4).all()
    facts = json.loads((project / "submissions" / "drawn" / "first.json").read_text())
    assert "damaged or cut short" in facts["class_prior"][broken["test"]]

    (data / "imgs" / "test" / broken["test"]).write_bytes(sorted(data.glob("imgs/test/*.jpg"))[0].read_bytes())
    assert "packed from other files" in refused(
        *pack, "--skip-broken"
    )  # mended: the old pack's runs would no longer count
