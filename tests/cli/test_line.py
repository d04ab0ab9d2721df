"""The whole line through the command line, as the make targets call it, on a small synthetic competition."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from support.in_process import folds_by
from support.places import ROOT
from support.project import SMALL, Verb

from driverwatch.inference import predictions
from driverwatch.training.fold_runner import FoldProcess

pytestmark = pytest.mark.line


def test_from_images_to_submission(
    verb: Verb, project: Path, drawn: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    """One fold is trained in this process, the other one as `make train` has it, in a process of its own."""

    def ran(*arguments: str) -> str:
        made = verb(*arguments, *drawn)
        assert made.returncode == 0, made.stderr
        return made.stdout

    assert "1 of 2 folds finished" in ran("train", "tiny", "--set", SMALL, "--fold", "0")
    capfd.readouterr()
    with folds_by(FoldProcess()):
        assert "2 of 2 folds finished" in ran("train", "tiny", "--set", SMALL)
    assert "tiny fold 1, epoch 1" in capfd.readouterr().out
    again = ran("train", "tiny", "--set", SMALL)
    assert "epoch" not in again
    assert "2 of 2 folds finished" in again
    assert "checked" in ran("ensemble", "--name", "first")
    assert "weighted, calibrated by bias" in ran(
        "ensemble", "--name", "first", "--blend", "weighted", "--calibrate", "bias"
    )
    fitted = json.loads((project / "submissions" / "demo" / "first.json").read_text())
    assert list(fitted["pipeline"]["steps"]) == ["weighted", "bias"]
    assert "checked" in ran("ensemble", "--name", "first")
    ran("submissions")
    names = {p.stem for p in (project / "submissions" / "demo").glob("*.csv")}
    held = ("centre", "five_crop", "ten_crop", "ten_crop_keep", "ten_crop_swap")
    assert names == {"first", *(f"tiny-{v}" for v in held), "tiny-fold0", "tiny-fold1"}
    first = pd.read_csv(project / "submissions" / "demo" / "first.csv")
    sample = pd.read_csv(Path(drawn[-1]) / "sample_submission.csv")
    assert list(first["img"]) == list(sample["img"])
    ten = pd.read_csv(project / "submissions" / "demo" / "tiny-ten_crop.csv")
    assert first.equals(ten)  # tiny trains with flipped images, so ten crops are its honest views
    folds = [pd.read_csv(project / "submissions" / "demo" / f"tiny-fold{k}.csv") for k in range(2)]
    both = (folds[0].drop(columns="img") + folds[1].drop(columns="img")) / 2
    assert (both - ten.drop(columns="img")).abs().to_numpy().max() < 1e-4
    manifest = json.loads((project / "submissions" / "demo" / "first.json").read_text())
    scores = ran("score")
    assert scores.count("\n") <= 8
    assert f"{manifest['out_of_fold_log_loss']:.4f}" in scores
    assert "Unseen test drivers" in scores
    assert "ready to go up" in ran("check", "submissions/demo/first.csv")

    known = predictions.read(project / "build/demo/runs/tiny/fold1/test-centre.h5", {})
    image = Path(drawn[-1]) / "imgs" / "test" / known.names[0]
    way = ran("trace", str(image), "--name", "first")
    assert "as in first.csv" in way
    assert "ten_crop, fold 1" in way
    assert "not yet" not in way
    asked = ["--run", "tiny", "--dataset", "demo", "--fold", "1", "--top", "1", "--cam", "map.png"]
    said = verb("classify", *asked, image).stdout
    assert float(said.split("%")[0].split()[-1]) == pytest.approx(100 * known.probabilities[0].max(), abs=0.01)
    assert (project / "map.png").is_file()

    refused = verb("train", "tiny", *drawn, "--set", SMALL.replace("epochs=1", "epochs=2"))
    assert refused.returncode == 2
    assert "settings.train.epochs: 1 -> 2" in refused.stderr
    assert "RUN=" in refused.stderr
    runs = project / "build" / "demo" / "runs"
    shutil.copytree(runs / "tiny" / "fold1", runs / "other" / "fold1")  # as FOLD=1 RUN=other would leave it
    shutil.copyfile(runs / "tiny" / "run.json", runs / "other" / "run.json")
    assert "left out, not finished: other" in ran("score")
    unfinished = verb("ensemble", *drawn, "--models", "other")
    assert unfinished.returncode == 2
    assert "not every fold is finished" in unfinished.stderr

    shutil.rmtree(drawn[-1])  # packs repeat all that training and prediction need
    assert (
        "validation log loss centre"
        in verb("predict", "tiny", "--dataset", "demo", "--tta", "centre", "--fold", "0").stdout
    )
    assert "kept" in verb("pack", *drawn, "--model", "tiny", "--set", SMALL).stdout

    table = project / "folds" / "demo.csv"
    edited = pd.read_csv(table)
    edited["fold"] = 1 - edited["fold"]
    edited.to_csv(table, index=False)
    moved = verb("score", *drawn)
    assert moved.returncode == 2
    assert "packed under other folds" in moved.stderr


@pytest.mark.slow
def test_blends_of_two_tta_sets(verb: Verb, project: Path, finished: list[str]) -> None:
    def ran(*arguments: str) -> str:
        made = verb(*arguments, *finished)
        assert made.returncode == 0, made.stderr
        return made.stdout

    assert verb("predict", "tiny", "--dataset", "demo", "--tta", "centre ten_crop").returncode == 0
    blends = ran("blends", "--tta", "centre ten_crop")
    assert "weighted_geometric" in blends
    table = project / "build" / "demo" / "blends.json"
    before = table.read_bytes()
    assert ran("blends", "--tta", "centre ten_crop") == blends
    assert table.read_bytes() == before
    assert len(json.loads(before)["blends"]) == 18
    assert len(list(project.glob("build/demo/calibration/*.png"))) == 6


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "tinny"], "no such settings; did you mean tiny. .expected one of "),
        (["train", "tiny"], "no fold file; build/demo/data: no such folder; .*make synthetic"),
        (["predict", "tiny"], "no such run"),
        (["ensemble"], "no run is there"),
        (["ensemble", "--name", "../x"], "NAME=../x: expected letters"),
        (["predict", "a/b"], "RUN=a/b: expected letters"),
        (["pack", "--size", "256"], "SIZE=256: expected <height>x<width>"),
        (["synthetic", "--seed", "-1"], "SEED=-1 must be at least 0"),
        (["synthetic", "--dataset", "statefarm"], "is not synthetic"),
        (["ensemble", "--models", "a"], "no such run"),
        (["predict", "tiny", "--tta", "ten"], r"TTA: tta: must be a TTA set .*centre, .*got \['ten'\]"),
        (["folds", "--dataset", "stategarm"], "did you mean statefarm"),
        (["folds"], "DATA=<folder>"),
        (["pack"], "expected SIZE="),
        (["synthetic", "--drivers", "0"], "DRIVERS must be at least 1"),
        (["subset", "--dataset", "demo", "--source", "x"], "names no list"),
    ],
)
def test_wrong_input_is_one_sentence_and_status_2(verb: Verb, arguments: list[str], said: str) -> None:
    options = [] if "--dataset" in arguments else ["--dataset", "demo"]
    made = verb(*arguments, *options)
    assert made.returncode == 2
    assert "Traceback" not in made.stderr
    assert pd.Series([made.stderr]).str.contains(said).all(), made.stderr


def test_help_needs_no_keras_and_no_pandas(process: Verb, project: Path) -> None:
    for heavy in ("keras", "tensorflow", "pandas", "albumentations", "cv2"):
        (project / heavy).mkdir()
        (project / heavy / "__init__.py").write_text("raise ImportError")
    for arguments in (["--help"], ["train", "--help"], ["backbones"]):
        assert process(*arguments).returncode == 0


def test_subset_picks_the_listed_images(verb: Verb, project: Path, data: Path, tmp_path: Path) -> None:
    full = pd.read_csv(data / "driver_imgs_list.csv", dtype=str)
    wanted = full[full["subject"].isin(["p001", "p004"])]
    wanted.to_csv(project / "configs" / "datasets" / "statefarm_mini_images.csv", index=False)
    made = verb("subset", "--source", data, "--data", tmp_path / "picked")
    assert made.returncode == 0, made.stderr
    assert len(list((tmp_path / "picked").rglob("*.jpg"))) == len(wanted) == 40
    again = verb("subset", "--source", data, "--data", tmp_path / "picked")
    assert again.returncode == 2
    options = ["--dataset", "statefarm_mini", "--data", tmp_path / "picked"]
    settings = project / "configs" / "datasets" / "statefarm_mini.yaml"
    settings.write_text(settings.read_text().replace("folds: 5", "folds: 2"))
    for step in (["folds", "--force"], ["pack", "--size", "24x32"]):  # no test image is no obstacle
        made = verb(*step, *options)
        assert made.returncode == 0, made.stderr
    (
        data / full["img"].map(lambda i: f"imgs/train/{full.set_index('img').loc[i, 'classname']}/{i}")[wanted.index[0]]
    ).unlink()
    lacks = verb("subset", "--source", data, "--data", tmp_path / "other")
    assert "lacks 1 of the listed images" in lacks.stderr


def test_subset_picks_the_listed_test_images_too(verb: Verb, project: Path, data: Path, tmp_path: Path) -> None:
    full = pd.read_csv(data / "driver_imgs_list.csv", dtype=str)
    tests = pd.read_csv(data / "sample_submission.csv")["img"]
    listed = pd.concat([full.head(12), pd.DataFrame({"subject": "", "classname": "", "img": tests[::3]})])
    path = project / "configs" / "datasets" / "statefarm_mini_images.csv"
    listed.to_csv(path, index=False)
    made = verb("subset", "--source", data, "--data", tmp_path / "picked")
    assert made.returncode == 0, made.stderr
    assert f"12 labelled images of 1 drivers, {len(tests[::3])} test images" in made.stdout
    sample = pd.read_csv(tmp_path / "picked" / "sample_submission.csv")
    assert list(sample["img"]) == list(tests[::3])
    assert (sample.drop(columns="img") == 0.1).all(axis=None)
    assert {p.name for p in (tmp_path / "picked" / "imgs" / "test").iterdir()} == set(tests[::3])
    assert len(pd.read_csv(tmp_path / "picked" / "driver_imgs_list.csv")) == 12
    path.write_text(path.read_text() + f",c0,{tests[0]}\n")
    half = verb("subset", "--source", data, "--data", tmp_path / "other")
    assert half.returncode == 2
    assert "blank subject" in half.stderr


def test_a_list_of_images_cannot_leave_its_folder(verb: Verb, project: Path, data: Path, tmp_path: Path) -> None:
    table = data / "driver_imgs_list.csv"
    for row, said in (
        ("p000,c0,../../../evil.jpg", "not a plain file name"),
        ("p000,c99,img_1.jpg", "unknown class c99"),
    ):
        (project / "configs/datasets/statefarm_mini_images.csv").write_text(f"subject,classname,img\n{row}\n")
        table.write_text(table.read_text() + row + "\n")
        made = verb("subset", "--source", data, "--data", tmp_path / "deep" / "picked")
        assert made.returncode == 2
        assert said in made.stderr
    assert not list(tmp_path.rglob("evil.jpg"))
    assert not (tmp_path / "deep").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_standard_output_is_one_sentence(project: Path) -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "driverwatch", "backbones"]
        made = subprocess.run(command, cwd=project, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert made.returncode == 2
    assert "No space left on device" in made.stderr
    assert "Traceback" not in made.stderr


def test_the_makefile_lists_every_target_and_variable() -> None:
    text = (ROOT / "Makefile").read_text()
    phony = text.split(".PHONY:")[1].split("\n\n")[0].replace("\\", "").split()
    listed = [line.split(":")[0] for line in text.splitlines() if " ## " in line]
    assert sorted(phony) == sorted(listed)
    used = set(re.findall(r"\$\(call \w+,[a-z-]+,([A-Z_]+)\)", text)) | set(re.findall(r"need-([A-Z_]+)", text))
    documented = " ".join(line for line in text.splitlines() if line.startswith("#:"))
    assert all(re.search(rf"\b{name}\b", documented) for name in used)
