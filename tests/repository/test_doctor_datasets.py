"""What the doctor says of other competitions: their files are those that their own YAML names, in whatever form it is written."""

from pathlib import Path

import pytest
from support.doctoring import Make, makes_places, says, write

from scripts.doctor import project

CLASSES = "classes: {still: nothing, moved: something}\n"
OTHER = """# five gestures
title: 'Gestures: five'
data: "images of gestures"   # where they are
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
    "other keys on several lines": OTHER + "left_right_pairs:\n- [still, moved]\n".replace("\n- ", "\n  - "),
    "a title in a block": OTHER.replace("'Gestures: five'", "|\n  data: elsewhere\n  table: none.csv"),
    "a table in a block": OTHER.replace("labels/train.csv", ">-\n  labels/train.csv"),
    "a value on two lines": OTHER.replace("unseen/{image}", "\n  unseen/{image}"),
    "escapes": OTHER.replace("labels/train.csv", '"labels/tr\\u0061in.csv"'),
    "one mapping in braces": "{title: x, data: images of gestures, table: labels/train.csv, "
    "train_images: 'pictures/{image}', test_images: 'unseen/{image}', sample_submission: labels/example.csv, "
    + CLASSES.strip() + "}\n",
    "an anchor": OTHER.replace("table: labels", "table: &where labels"),
}  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Make:
    return makes_places(tmp_path)


def filled(root: Path) -> Path:
    folder = root / "images of gestures"
    for name in ("labels/train.csv", "labels/example.csv", "pictures/a.jpg", "unseen/b.jpg"):
        write(folder / name, "x")
    return folder


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS)
def test_a_sound_other_competition_is_ok(place: Make, text: str) -> None:
    s = place(dataset="own")
    path = write(s.root / "configs/datasets/own.yaml", "")
    path.write_bytes((text if text.startswith("{") else text + CLASSES).encode())
    says(project.dataset(s), "note", "there is no folder", "Put its files there")
    folder = filled(s.root)
    says(project.dataset(s), "ok", "labels/train.csv, pictures, labels/example.csv, unseen")
    assert project.disk(s).mark in ("ok", "note")
    (folder / "labels/train.csv").unlink()
    says(project.dataset(s), "problem", "lacks labels/train.csv")
    write(folder / "labels/train.csv", "x")
    (folder / "unseen/b.jpg").unlink()
    (folder / "unseen").rmdir()
    says(project.dataset(s), "note", "lacks unseen")


def test_a_synthetic_competition_is_known_by_its_test_labels(place: Make) -> None:
    s = place(dataset="own")
    write(s.root / "configs/datasets/own.yaml", OTHER + "test_labels: labels/answers.csv\n" + CLASSES)
    says(project.dataset(s), "note", "make synthetic DATASET=own draws it")
    write(s.root / "configs/datasets/own.yaml", OTHER + "slug: gestures\n" + CLASSES)
    says(project.dataset(s), "note", "Unpack the competition there")


def test_images_in_the_data_folder_itself(place: Make) -> None:
    s = place(dataset="own")
    flat = "title: flat\ndata: flat\ntrain_images: '{label}_{image}'\ntest_images: 'new_{image}'\n"
    write(s.root / "configs/datasets/own.yaml", flat + CLASSES)
    for name in ("driver_imgs_list.csv", "sample_submission.csv", "still_a.jpg"):
        write(s.root / "flat" / name, "x")
    says(project.dataset(s), "ok", "driver_imgs_list.csv, sample_submission.csv")
