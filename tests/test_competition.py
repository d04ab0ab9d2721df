"""Tables and folders: what does not fit is listed, all at once."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from driverwatch.data.competition import read_sample_submission, read_test, read_train
from driverwatch.errors import InputError
from driverwatch.settings import DatasetSettings

TABLE = "driver_imgs_list.csv"
Edit = Callable[[str], str]


def rows(text: str) -> list[str]:
    return text.splitlines()


def edited(path: Path, edit: Edit) -> None:
    path.write_bytes(edit(path.read_text()).encode("utf-8", "surrogateescape"))


def test_the_table_is_sorted_and_numbered(data: Path, drawn_settings: DatasetSettings) -> None:
    table = read_train(drawn_settings, data)
    assert table.names == sorted(table.names)
    assert set(table.frame["label"]) == set(range(10))
    assert table.frame["driver"].nunique() == 6
    assert all((data / path).is_file() for path in table.frame["path"])


def test_harmless_differences_are_taken(data: Path, drawn_settings: DatasetSettings) -> None:
    before = read_train(drawn_settings, data).frame
    edited(data / TABLE, lambda text: "\ufeff" + text.replace("\n", "\r\n"))  # a Windows editor was here
    (data / "imgs" / "train" / "c0" / "Thumbs.db").write_bytes(b"x")
    (data / "imgs" / "train" / "c0" / "._img_1.jpg").write_bytes(b"x")
    assert read_train(drawn_settings, data).frame.equals(before)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda t: t.replace("subject,", "driver,"), "missing column subject"),
        (lambda t: t.replace(",c3,", ",c33,"), r"unknown class c33 \(12 rows\)"),
        (lambda t: t + rows(t)[1] + "\n", "repeated name img_"),
        (lambda t: t.replace(",c3,", ",,", 1), "1 blank values in column classname, first in line"),
        (lambda t: t + "p000,c0,img_none.jpg\n", "missing file imgs/train/c0/img_none.jpg"),
        (lambda t: "\n".join(rows(t)[:-1]) + "\n", "extra file imgs/train/c9/img_"),
        (lambda t: t + "p000,c0,../../secret.jpg\n", "not a plain file name"),
        (lambda t: "", "expected a UTF-8 CSV"),
        (lambda t: t + "\udcff\udcfe", "expected a UTF-8 CSV"),
        (lambda t: rows(t)[0] + "\n", "extra file"),
    ],
)
def test_broken_tables(data: Path, drawn_settings: DatasetSettings, edit: Edit, said: str) -> None:
    edited(data / TABLE, edit)
    with pytest.raises(InputError, match=said):
        read_train(drawn_settings, data)


def test_everything_wrong_is_listed_at_once(data: Path, drawn_settings: DatasetSettings) -> None:
    edited(data / TABLE, lambda t: t.replace(",c3,", ",c33,", 1) + "p000,c0,img_none.jpg\n")
    with pytest.raises(InputError) as error:
        read_train(drawn_settings, data)
    assert "4 problems" in str(
        error.value
    )  # the class, its file elsewhere, the file it left, the file that is not there
    assert "unknown class c33" in str(error.value)
    assert "missing file imgs/train/c0/img_none.jpg" in str(error.value)


def test_no_data_at_all(tmp_path: Path, drawn_settings: DatasetSettings) -> None:
    with pytest.raises(InputError, match=r"no such file; DATA=<folder>"):
        read_train(drawn_settings, tmp_path)


def test_sample_submission_and_test_folder_must_agree(data: Path, drawn_settings: DatasetSettings) -> None:
    names = read_sample_submission(drawn_settings, data)
    assert read_test(drawn_settings, data).names == sorted(names)
    first = data / "imgs" / "test" / names[0]
    shutil.move(first, first.with_name("img_other.jpg"))
    with pytest.raises(InputError, match=r"2 problems.*\n.*missing file.*\n.*extra file imgs/test/img_other.jpg"):
        read_test(drawn_settings, data)


def test_another_competitions_sample_submission(data: Path, drawn_settings: DatasetSettings) -> None:
    edited(data / "sample_submission.csv", lambda t: t.replace("c8,c9", "c9,c8", 1))
    with pytest.raises(InputError, match="expected the columns img,c0"):
        read_sample_submission(drawn_settings, data)
