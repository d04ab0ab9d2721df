"""Folders of users: what tools leave in them is no image, and linked folders are looked into as others are."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.project import Verb

from driverwatch.config.dataset import DatasetSettings
from driverwatch.config.loading import load
from driverwatch.data.competition import Tables, read_both
from driverwatch.data.pack import sources
from driverwatch.errors import InputError
from driverwatch.inference.classify import image_files
from driverwatch.io.paths import is_of_tools, walk
from driverwatch.remote.kaggle_notebook import copy_project
from scripts.doctor import project as doctor
from scripts.doctor.machine import Surroundings

FOLDERS = [
    ".ipynb_checkpoints", "@eaDir", "@EADIR", "__MACOSX", ".git", ".Trash-1000", ".AppleDouble", "$RECYCLE.BIN", "#recycle",
    "System Volume Information", "lost+found", "__pycache__", "@Recycle",
]  # fmt: skip
FILES = [
    ".DS_Store",
    "Thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "._img_1.jpg",
    ".img_1.jpg",
    "Icon\r",
    "SYNOFILE_THUMB_M.jpg",
]
Change = Callable[[Path], object]


def wrong(tables: Tables) -> list[str]:
    return [*tables.problems, *tables.missing]


def littered(folder: Path, content: bytes) -> None:
    """What tools leave: a copy of an image in folders of theirs, two deep, and files of their own."""
    for name in FOLDERS:
        for place in (folder / name, folder / name / "c0"):
            place.mkdir(parents=True, exist_ok=True)
            (place / "img_1-checkpoint.jpg").write_bytes(content)
    for name in FILES:
        (folder / name).write_bytes(b"x")


@pytest.mark.parametrize("name", [*FOLDERS, *FILES])
def test_what_is_a_tools_own(name: str) -> None:
    assert is_of_tools(name)


@pytest.mark.parametrize(
    "name", ["img_1.jpg", "c0", "#1.jpg", "@home.jpg", "a.b", "$5", "~me", "thumbs", "found", "test"]
)
def test_what_is_a_users(name: str) -> None:
    assert not is_of_tools(name)


def test_what_tools_leave_is_in_no_list(data: Path, demo_settings: DatasetSettings) -> None:
    image = next(data.glob("imgs/train/c0/*.jpg"))
    before = sources(demo_settings, data, [])
    for place in ("imgs/train", "imgs/train/c0", "imgs/test", "imgs", "."):
        littered(data / place, image.read_bytes())
    assert wrong(read_both(demo_settings, data)) == []
    assert sources(demo_settings, data, []) == before
    (data / "imgs" / "train" / "c0" / "stray.jpg").write_bytes(b"x")
    assert wrong(read_both(demo_settings, data)) == ["extra file imgs/train/c0/stray.jpg (in no table)"]


def test_a_class_is_a_class_whatever_it_is_called(data: Path, demo_settings: DatasetSettings) -> None:
    """A table may name folders as tools do."""
    content = demo_settings.model_dump() | {"left_right_pairs": [], "classes": {".c0": "", "@eaDir": ""}}
    settings = DatasetSettings.model_validate(content)
    lines = ["subject,classname,img", "p0,.c0,a.jpg", "p1,@eaDir,b.jpg"]
    (data / settings.table).write_text("\n".join(lines) + "\n")
    (data / settings.sample_submission).write_text("img,.c0,@eaDir\n")
    shutil.rmtree(data / "imgs")
    for place in (".c0/a.jpg", "@eaDir/b.jpg", "@eaDir/stray.jpg", ".c1/thumb.jpg"):
        (data / "imgs/train" / place).parent.mkdir(parents=True, exist_ok=True)
        (data / "imgs/train" / place).write_bytes(b"x")
    assert wrong(read_both(settings, data)) == ["extra file imgs/train/@eaDir/stray.jpg (in no table)"]


def linked(*places: str) -> Change:
    """Each folder is moved elsewhere, and a link put in its place."""

    def change(data: Path) -> None:
        for number, place in enumerate(places):
            elsewhere = data.parent / f"elsewhere{number}"
            shutil.move(data / place, elsewhere)
            (data / place).symlink_to(elsewhere, target_is_directory=True)

    return change


LINKS = {
    "a class": linked("imgs/train/c3"),
    "every class": linked(*(f"imgs/train/c{i}" for i in range(10))),
    "training": linked("imgs/train"),
    "test": linked("imgs/test"),
    "classes in a linked folder": linked("imgs/train/c3", "imgs/train"),
    "everything": linked("imgs"),
    "links within links": linked("imgs/train/c3", "imgs/train", "imgs"),
}


@pytest.mark.parametrize("change", LINKS.values(), ids=LINKS)
def test_linked_folders_are_held_against_the_table(data: Path, demo_settings: DatasetSettings, change: Change) -> None:
    change(data)
    assert wrong(read_both(demo_settings, data)) == []
    before = sources(demo_settings, data, [])
    (data / "imgs/train/c3/stray.jpg").write_bytes(b"x")
    (data / "imgs/test/stray.png").write_bytes(b"x")
    lost = next((data / "imgs/train/c3").glob("img_*.jpg"))
    lost.unlink()
    assert wrong(read_both(demo_settings, data)) == [
        "extra file imgs/test/stray.png (in no table)",
        "extra file imgs/train/c3/stray.jpg (in no table)",
        f"imgs/train/c3/{lost.name}",
    ]
    assert sources(demo_settings, data, []) != before


def test_links_in_a_circle_end(data: Path, demo_settings: DatasetSettings) -> None:
    train = data / "imgs/train"
    (train / "c0/self").symlink_to(train / "c0")
    (train / "c1/up").symlink_to("../..")
    (train / "c2/nowhere").symlink_to("gone")
    (train / "c2/loop").symlink_to("loop")
    assert wrong(read_both(demo_settings, data)) == []
    (train / "c3/across").symlink_to("../c4")
    (train / "c4/across").symlink_to("../c3")
    found = [str(path) for path in walk(train)]
    assert len(set(found)) == len(found)
    strays = wrong(read_both(demo_settings, data))  # as if the folders lay there
    assert len(strays) == 24
    assert all("across/img_" in problem for problem in strays)


def test_templates_may_begin_within_a_name(data: Path, demo_settings: DatasetSettings) -> None:
    settings = demo_settings.model_copy(update={"train_images": "imgs/train/c_{label}/{image}"})
    for folder in list((data / "imgs/train").iterdir()):
        folder.rename(folder.with_name(f"c_{folder.name}"))
    assert wrong(read_both(settings, data)) == []
    (data / "imgs/train/c_c3/stray.jpg").write_bytes(b"x")
    (data / "imgs/train/others").mkdir()
    (data / "imgs/train/others/stray.jpg").write_bytes(b"x")
    assert wrong(read_both(settings, data)) == ["extra file imgs/train/c_c3/stray.jpg (in no table)"]


def test_folders_of_images_to_classify(data: Path) -> None:
    folder = data / "imgs/train"
    plain = image_files([folder])
    assert len(plain) == 120
    littered(folder / "c0", b"x")
    linked("imgs/train/c3")(data)
    assert image_files([folder]) == plain
    littered(data / "nothing", b"x")
    with pytest.raises(InputError, match="no image in this folder"):
        image_files([data / "nothing"])


def test_settings_beside_copies_of_tools(project: Path) -> None:
    """Jupyter and macOS leave copies beside files that were opened; none is a setting, and none goes up to Kaggle."""
    for folder in (project / "configs/models", project / "configs/datasets", project / "configs"):
        (folder / ".ipynb_checkpoints").mkdir()
        (folder / ".ipynb_checkpoints/own-checkpoint.yaml").write_text("title: x\n")
        (folder / "._own.yaml").write_bytes(b"\0\xff\xfe")
    with pytest.raises(InputError) as refused:
        load(DatasetSettings, Path("configs/datasets"), "own")
    assert "._own" not in str(refused.value)
    (project / "folds/demo.csv").write_text("driver,fold,images\n")
    copy_project(project, "demo", project / "elsewhere")
    assert (project / "elsewhere/folds/demo.csv").is_file()
    assert not list((project / "elsewhere").rglob("*own*"))
    assert "._own" not in doctor.CHECKS["data set"](Surroundings(root=project, dataset="own")).found


def test_a_folder_with_nothing_but_a_tools_files_is_empty(verb: Verb, project: Path) -> None:
    littered(project / "fresh", b"x")
    small = ["--drivers", "2", "--test-drivers", "1", "--frames", "1", "--size", "48x64"]
    made = verb("synthetic", *small, "--dataset", "demo", "--data", "fresh")
    assert made.returncode == 0, made.stderr
    assert (project / "fresh/driver_imgs_list.csv").is_file()
