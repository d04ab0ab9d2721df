"""`SKIP_INVALID=1` from images to submission: what is left out is recorded, and a broken test image gets the class prior."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.project import QUICK as SET
from support.project import Verb

pytestmark = pytest.mark.line


@pytest.fixture
def invalid(data: Path, project: Path) -> dict[str, str]:
    """A competition with an invalid image of each kind, by what is wrong with it."""
    settings = project / "configs" / "datasets" / "demo.yaml"
    settings.write_text(settings.read_text().replace("folds: 3", "folds: 2"))
    images, tests = sorted(data.glob("imgs/train/*/*.jpg")), sorted(data.glob("imgs/test/*.jpg"))
    images[3].write_bytes(b"")
    images[60].unlink()
    tests[5].write_bytes(tests[5].read_bytes()[:-400])
    images[1].with_name("stray.jpg").write_bytes(images[1].read_bytes())
    table = data / "driver_imgs_list.csv"
    table.write_text(table.read_text().replace(",c9,", ",c99,", 1))
    return {"empty": images[3].name, "missing": images[60].name, "test": tests[5].name}


def made(verb: Verb, *arguments: str) -> str:
    """What a command says, which must succeed."""
    done = verb(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_fold_that_lost_all_its_images_is_refused(verb: Verb, project: Path, data: Path) -> None:
    options = ["--dataset", "demo", "--data", str(data)]
    made(verb, "folds", *options)
    fold = pd.read_csv(project / "folds" / "demo.csv").set_index("driver")["fold"]
    for _, driver, label, image in pd.read_csv(data / "driver_imgs_list.csv").itertuples():
        if fold[driver] == 1:
            (data / "imgs" / "train" / label / image).write_bytes(b"")
    lost = verb("pack", "--size", "24x32", *options, "--skip-invalid")
    assert lost.returncode == 2
    assert "every image of fold 1's drivers" in lost.stderr


def test_groups_are_made_of_whole_images_alone(verb: Verb, project: Path, data: Path) -> None:
    """Broken images look alike to nobody; once fixed they are in no group, until groups are made again."""
    settings = project / "configs" / "datasets" / "demo.yaml"
    settings.write_text(settings.read_text() + "columns: {driver: null}\n")
    options, image = ["--dataset", "demo", "--data", str(data)], sorted(data.glob("imgs/train/c4/*.jpg"))[0]
    whole = image.read_bytes()
    image.write_bytes(b"")
    assert verb("folds", *options).returncode == 2
    assert f"left out: imgs/train/c4/{image.name}" in made(verb, "folds", *options, "--skip-invalid")
    groups = pd.read_csv(project / "folds" / "demo_groups.csv")
    assert len(groups) == 119
    made(verb, "pack", "--size", "24x32", *options, "--skip-invalid")
    image.write_bytes(whole)
    stale = verb("pack", "--size", "32x32", *options)
    assert stale.returncode == 2
    assert "make folds FORCE=1" in stale.stderr
    made(verb, "folds", *options, "--force")
    made(verb, "pack", "--size", "32x32", *options)


@pytest.mark.slow
def test_the_whole_pipeline_without_what_is_broken(
    verb: Verb, project: Path, data: Path, invalid: dict[str, str]
) -> None:
    options = ["--dataset", "demo", "--data", str(data)]

    def ran(*arguments: str) -> str:
        made = verb(*arguments, *options)
        assert made.returncode == 0, made.stderr
        return made.stdout

    def refused(*arguments: str) -> str:
        made = verb(*arguments, *options)
        assert made.returncode == 2, made.stdout
        return made.stderr

    for_folds = refused("folds")
    assert "3 problems" in for_folds  # the row, the stray, the missing file: no image has been opened
    assert "left out: extra file" in ran("folds", "--skip-invalid")
    pack = ["pack", "--model", "tiny", "--set", SET]
    everything = refused(*pack)
    assert "5 problems" in everything
    for said in (
        "unknown class c99",
        "extra file",
        f"{invalid['missing']}: missing file",
        f"{invalid['empty']}: empty file",
        invalid["test"],
    ):
        assert said in everything
    assert (project / "build" / "demo" / "problems.txt").read_text().count("\n") == 5
    assert not list((project / "build").rglob("*.h5"))

    assert "2 left out as broken" in ran(*pack, "--skip-invalid")
    folder = project / "build" / "demo" / "pack" / "40x52"
    train, test = (json.loads((folder / f"{kind}.json").read_text()) for kind in ("train", "test"))
    assert train["left_out"].keys() == {invalid["empty"], invalid["missing"]}
    assert test["left_out"].keys() == {invalid["test"]}
    assert len(train["left_out_rows"]) == 2
    assert train["images"] == 117
    assert "up to date" in ran(*pack, "--skip-invalid")
    assert "empty file" in refused(*pack)  # without the word, nothing may be missing

    assert "2 of 2 folds finished" in ran("train", "tiny", "--set", SET)
    assert "1 broken ones at the class prior" in ran("ensemble", "--name", "first")
    assert "ready to go up" in ran("check", "submissions/demo/first.csv")
    ran("score")
    made = pd.read_csv(project / "submissions" / "demo" / "first.csv").set_index("img")
    labels = pd.read_csv(data / "driver_imgs_list.csv").query("classname != 'c99'").set_index("img")["classname"]
    kept = labels.drop([invalid["empty"], invalid["missing"]]).value_counts().sort_index()
    assert np.allclose(made.loc[invalid["test"]], kept / kept.sum(), atol=1e-6)
    others = made.drop(index=invalid["test"])
    assert len(others) == 39
    assert (abs(others - kept / kept.sum()).max(axis=1) > 1e-4).all()
    facts = json.loads((project / "submissions" / "demo" / "first.json").read_text())
    assert "damaged or cut short" in facts["class_prior"][invalid["test"]]

    (data / "imgs" / "test" / invalid["test"]).write_bytes(sorted(data.glob("imgs/test/*.jpg"))[0].read_bytes())
    assert "packed from other files" in refused(
        *pack, "--skip-invalid"
    )  # fixed: the old pack's runs would no longer count
