"""Tables and folders: what does not fit is listed, all at once."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from driverwatch.config.dataset import DatasetSettings
from driverwatch.data.competition import Tables, read_both, read_sample_submission, read_test, read_train
from driverwatch.errors import InputError

TABLE = "driver_imgs_list.csv"
Edit = Callable[[str], str]


def rows(text: str) -> list[str]:
    return text.splitlines()


def edited(path: Path, edit: Edit) -> None:
    path.write_bytes(edit(path.read_text()).encode("utf-8", "surrogateescape"))


def wrong(tables: Tables) -> list[str]:
    return [*tables.problems, *(f"missing file {path}" for path in tables.missing)]


def test_the_table_is_sorted_and_numbered(data: Path, demo_settings: DatasetSettings) -> None:
    table = read_both(demo_settings, data).train
    assert table.names == sorted(table.names)
    assert set(table.frame["label"]) == set(range(10))
    assert table.frame["driver"].nunique() == 6
    assert all((data / path).is_file() for path in table.frame["path"])


def test_harmless_differences_are_taken(data: Path, demo_settings: DatasetSettings) -> None:
    before = read_both(demo_settings, data).train.frame
    edited(data / TABLE, lambda text: "\ufeff" + text.replace("\n", "\r\n"))  # a Windows editor was here
    (data / "imgs" / "train" / "c0" / "Thumbs.db").write_bytes(b"x")
    (data / "imgs" / "train" / "c0" / "._img_1.jpg").write_bytes(b"x")
    found = read_both(demo_settings, data)
    assert found.train.frame.equals(before)
    assert wrong(found) == []


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda t: t.replace("subject,", "driver,"), "missing column subject"),
        (lambda t: "", "expected a UTF-8 CSV"),
        (lambda t: t + "\udcff\udcfe", "expected a UTF-8 CSV"),
        (lambda t: t.replace(",", ";"), "missing column subject, classname, img; got subject;classname;img"),
        (lambda t: rows(t)[0] + "\n", "expected labelled images, got none"),
    ],
)
def test_unreadable_tables(data: Path, demo_settings: DatasetSettings, edit: Edit, said: str) -> None:
    edited(data / TABLE, edit)
    with pytest.raises(InputError, match=said):
        read_both(demo_settings, data)


@pytest.mark.parametrize(
    ("edit", "said", "left"),
    [
        (lambda t: t.replace(",c3,", ",c33,"), r"unknown class c33 \(12 rows\)", 108),
        (lambda t: t + rows(t)[1] + "\n", "repeated name img_", 119),
        (lambda t: t.replace(",c3,", ",,", 1), r"line \d+: blank classname", 119),
        (lambda t: t.replace("p003,", "p003 ,", 1), r"line \d+: blanks around subject 'p003 '", 119),
        (lambda t: t + "p000,c0\n", "line 122: blank img", 120),
        (lambda t: t + "p000,c0,img_none.jpg\n", "missing file imgs/train/c0/img_none.jpg", 121),
        (lambda t: "\n".join(rows(t)[:-1]) + "\n", "extra file imgs/train/c9/img_", 119),
        (lambda t: t + "p000,c0,../../secret.jpg\n", "not a plain file name", 120),
    ],
)
def test_unsound_rows(data: Path, demo_settings: DatasetSettings, edit: Edit, said: str, left: int) -> None:
    edited(data / TABLE, edit)
    found = read_both(demo_settings, data)
    assert re.search(said, "\n".join(wrong(found)))
    assert len(wrong(found)) == 1
    assert len(found.train) == left


def test_everything_wrong_is_listed_at_once(data: Path, demo_settings: DatasetSettings) -> None:
    edited(data / TABLE, lambda t: t.replace(",c3,", ",c33,", 1) + "p000,c0,img_none.jpg\n")
    (data / "imgs" / "test" / "img_new.png").write_bytes(b"x")
    assert [problem.split(": ")[-1].split(" img")[0] for problem in wrong(read_both(demo_settings, data))] == [
        "unknown class c33 (1 rows); expected c0, c1, c2, c3, c4, c5, c6, c7, c8, c9", "extra file", "missing file"
    ]  # fmt: skip


def test_no_data_at_all(tmp_path: Path, demo_settings: DatasetSettings) -> None:
    with pytest.raises(InputError, match=r"no such file; DATA=<folder>"):
        read_train(demo_settings, tmp_path)


def test_sample_submission_and_test_folder_must_agree(data: Path, demo_settings: DatasetSettings) -> None:
    names = read_sample_submission(demo_settings, data)
    assert read_test(demo_settings, data).table.names == sorted(names)
    first = data / "imgs" / "test" / names[0]
    shutil.move(first, first.with_name("img_other.jpg"))
    found = read_both(demo_settings, data)
    assert found.problems == ["extra file imgs/test/img_other.jpg (in no table)"]
    assert found.missing == [f"imgs/test/{names[0]}"]


def test_another_competitions_sample_submission(data: Path, demo_settings: DatasetSettings) -> None:
    edited(data / "sample_submission.csv", lambda t: t.replace("c8,c9", "c9,c8", 1))
    with pytest.raises(InputError, match="expected the columns img,c0"):
        read_sample_submission(demo_settings, data)
