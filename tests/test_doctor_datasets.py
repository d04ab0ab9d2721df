"""What the doctor says of other competitions: their files are those that their own YAML names, in whatever form it is written."""

from pathlib import Path

import pytest
from support.doctoring import Make, fake_venv, makes_places, says, write
from support.places import ROOT

from driverwatch.dataset_settings import DatasetSettings
from driverwatch.typed_yaml import load
from driverwatch.yaml_files import read_yaml
from scripts.doctor import folders, material
from scripts.doctor.dataset_file import DEFAULTS, dataset_settings, plain_values

CLASSES = "classes: {still: nothing, moved: something}\n"
OTHER = """# five gestures
title: 'Gestures: five'
data: "photos of gestures"   # where they are
table: labels/train.csv
columns: {image: file, label: gesture, driver: null}
train_images: 'pictures/{image}'
test_images: unseen/{image}
sample_submission: labels/example.csv
"""
FORMS = {
    "plain": OTHER,
    "with a byte order mark and Windows' line ends": "\ufeff" + OTHER.replace("\n", "\r\n"),
    "keys in quotes, a document's start": "---\n" + OTHER.replace("table:", '"table":').replace("data:", "data :"),
    "other keys on several lines": OTHER + "mirrored_pairs:\n- [still, moved]\n".replace("\n- ", "\n  - "),
    "a title in a block": OTHER.replace("'Gestures: five'", "|\n  data: elsewhere\n  table: none.csv"),
}
TAKES_A_LIBRARY = {
    "a table in a block": OTHER.replace("labels/train.csv", ">-\n  labels/train.csv"),
    "a value on two lines": OTHER.replace("unseen/{image}", "\n  unseen/{image}"),
    "escapes": OTHER.replace("labels/train.csv", '"labels/tr\\u0061in.csv"'),
    "one mapping in braces": "{title: x, data: photos of gestures, table: labels/train.csv, "
    "train_images: 'pictures/{image}', test_images: 'unseen/{image}', sample_submission: labels/example.csv, "
    + CLASSES.strip() + "}\n",
    "an anchor": OTHER.replace("table: labels", "table: &where labels"),
}  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Make:
    return makes_places(tmp_path)


def filled(root: Path) -> Path:
    folder = root / "photos of gestures"
    for name in ("labels/train.csv", "labels/example.csv", "pictures/a.jpg", "unseen/b.jpg"):
        write(folder / name, "x")
    return folder


def test_defaults_are_those_of_the_settings() -> None:
    fields = DatasetSettings.model_fields
    assert {key: fields[key].default for key in DEFAULTS} == DEFAULTS


@pytest.mark.parametrize("path", sorted((ROOT / "configs/datasets").glob("*.yaml")), ids=lambda path: path.stem)
def test_our_own_data_sets_are_read_as_the_line_reads_them(place: Make, path: Path) -> None:
    s = place(dataset=path.stem)
    settings = load(DatasetSettings, path.parent, path.stem).model_dump()
    found = dataset_settings(s)
    assert found == {key: settings[key] for key in found}
    assert {"data", *DEFAULTS} <= found.keys()
    assert ("slug" in found) == (settings["slug"] is not None)


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS)
def test_a_sound_other_competition_is_ok(place: Make, text: str) -> None:
    s = place(dataset="own")
    path = write(s.root / "configs/datasets/own.yaml", "")
    path.write_bytes((text + CLASSES).encode())
    settings = read_yaml(path)
    assert plain_values(path.read_text(encoding="utf-8-sig")) is not None
    assert dataset_settings(s) == {key: settings[key] for key in ("data", *DEFAULTS)}
    says(material.dataset(s), "note", "there is no folder", "Put its files there")
    folder = filled(s.root)
    says(material.dataset(s), "ok", "labels/train.csv, pictures, labels/example.csv, unseen")
    assert folders.disk(s).mark in ("ok", "note")
    (folder / "labels/train.csv").unlink()
    says(material.dataset(s), "problem", "lacks labels/train.csv")
    write(folder / "labels/train.csv", "x")
    (folder / "unseen/b.jpg").unlink()
    (folder / "unseen").rmdir()
    says(material.dataset(s), "note", "lacks unseen")


@pytest.mark.parametrize("text", TAKES_A_LIBRARY.values(), ids=TAKES_A_LIBRARY)
def test_what_takes_a_library_is_no_problem_without(place: Make, text: str) -> None:
    s = place(dataset="own")
    write(s.root / "configs/datasets/own.yaml", text if text.startswith("{") else text + CLASSES)
    filled(s.root)
    says(material.dataset(s), "note", "cannot be read without PyYAML", "make setup")
    assert folders.disk(s).mark in ("ok", "note")
    fake_venv(s, "exit 1")
    says(material.dataset(s), "note", "cannot be read without PyYAML")
    with_library = place(dataset="own", interpreter=str(ROOT / ".venv/bin/python"))
    says(material.dataset(with_library), "ok", "labels/train.csv, pictures, labels/example.csv, unseen")


def test_a_drawn_competition_is_told_by_its_truth(place: Make) -> None:
    s = place(dataset="own")
    write(s.root / "configs/datasets/own.yaml", OTHER + "truth: labels/answers.csv\n" + CLASSES)
    says(material.dataset(s), "note", "make sample DATASET=own draws it")
    write(s.root / "configs/datasets/own.yaml", OTHER + "slug: gestures\n" + CLASSES)
    says(material.dataset(s), "note", "Unpack the competition there")


def test_photos_in_the_data_folder_itself(place: Make) -> None:
    s = place(dataset="own")
    flat = "data: flat\ntrain_images: '{label}_{image}'\ntest_images: 'new_{image}'\n"
    write(s.root / "configs/datasets/own.yaml", flat + CLASSES)
    for name in ("driver_imgs_list.csv", "sample_submission.csv", "still_a.jpg"):
        write(s.root / "flat" / name, "x")
    says(material.dataset(s), "ok", "driver_imgs_list.csv, sample_submission.csv")
