"""Kaggle packs one competition in more than one way: each arrives, and none is fetched twice."""

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from support.places import ROOT

from driverwatch.config.dataset import DatasetSettings
from driverwatch.data import competition
from driverwatch.data.competition import read_both
from driverwatch.data.context import Context, open_context
from driverwatch.errors import InputError
from driverwatch.submission.download import download_competition, unpack

STANDIN = str(ROOT / "tests" / "support" / "standin_kaggle.py")
SLUG = "state-farm-distracted-driver-detection"
TABLE, SAMPLE = "driver_imgs_list.csv", "sample_submission.csv"
Change = Callable[[str], str]

LAYOUTS: dict[str, Change] = {
    "as ever": lambda name: name,
    "one folder above": lambda name: f"{SLUG}/{name}",
    "three folders above": lambda name: f"a/b/{SLUG}/{name}",
    "a folder of the table's name": lambda name: name.replace(TABLE, f"{TABLE}/{TABLE}"),
    "folders of both tables' names": lambda name: f"{name}/{name}" if name.endswith(".csv") else name,
    "both": lambda name: f"{SLUG}/{name}/{name}" if name == SAMPLE else f"{SLUG}/{name}",
    "images doubled": lambda name: f"imgs/{name}" if name.startswith("imgs/") else name,
    "classes doubled": lambda name: name.replace("imgs/train/", "imgs/train/train/"),
    "tables apart": lambda name: f"csv/{name}" if name.endswith(".csv") else f"images/{name}",
    "images without imgs": lambda name: name.removeprefix("imgs/"),
}


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What Kaggle holds, and a token."""
    folder = tmp_path / "remote"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("STANDIN", str(folder))
    monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_0a1b2c3d4e5f")
    return folder


@pytest.fixture
def context(project: Path) -> Context:
    """A competition that Kaggle has and this machine has not."""
    settings = (project / "configs/datasets/demo.yaml").read_text().replace("test_labels: test_labels.csv\n", "")
    settings += f"slug: {SLUG}\nexpected: {{train: 120, test: 40, gigabytes: 0.001}}\n"
    (project / "configs/datasets/there.yaml").write_text(settings.replace("build/demo/data", "data/there"))
    return open_context("there", None)


def packed(archive: Path, data: Path, change: Change, *, mac: bool = False) -> None:
    """Zip the synthetic competition, each file under the name that `change` gives it."""
    with zipfile.ZipFile(archive, "w") as made:
        for path in sorted(
            p for p in data.rglob("*") if p.is_file() and p.name != "test_labels.csv" and p.suffix != ".json"
        ):
            name = change(path.relative_to(data).as_posix())
            made.write(path, name)
            if mac:
                made.writestr(f"__MACOSX/{name.rpartition('/')[0]}/._{path.name}".replace("//", "/"), b"mac")


def downloads(remote: Path) -> int:
    return (remote / "calls.txt").read_text().count(" download ")


def whole(context: Context) -> None:
    tables = read_both(context.settings, context.data)
    assert (len(tables.train), len(tables.test), tables.problems, tables.missing) == (120, 40, [], [])
    assert not context.data.with_name("there.download").exists()


@pytest.mark.parametrize("change", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("mac", [False, True], ids=["plain", "from a Mac"])
def test_every_layout_arrives(
    context: Context, remote: Path, data: Path, change: Change, mac: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    packed(remote / "archive.zip", data, change, mac=mac)
    download_competition(context, STANDIN)
    assert "120 labelled and 40 test images" in capsys.readouterr().out
    whole(context)
    download_competition(context, STANDIN)
    assert "up to date" in capsys.readouterr().out
    assert downloads(remote) == 1


@pytest.mark.parametrize("above", ["", f"{SLUG}/", "zip"])
def test_zips_inside_whatever_is_above(context: Context, remote: Path, data: Path, tmp_path: Path, above: str) -> None:
    """Kaggle's older layout had `imgs.zip` and zipped tables; one folder, or one zip, may be around them."""
    inner = tmp_path / "inner.zip"
    with zipfile.ZipFile(tmp_path / "imgs.zip", "w") as images:
        for path in sorted((data / "imgs").rglob("*.jpg")):
            images.write(path, path.relative_to(data / "imgs"))
    with zipfile.ZipFile(inner, "w") as made:
        prefix = "" if above == "zip" else above
        made.write(tmp_path / "imgs.zip", f"{prefix}imgs.zip")
        for name in (TABLE, SAMPLE):
            with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as table:
                table.write(data / name, name)
            made.write(tmp_path / f"{name}.zip", f"{prefix}{name}.zip")
    if above == "zip":
        with zipfile.ZipFile(remote / "archive.zip", "w") as made:
            made.write(inner, f"{SLUG}.zip")
    else:
        shutil.copy(inner, remote / "archive.zip")
    download_competition(context, STANDIN)
    whole(context)


def test_one_name_twice_is_seen_below_a_folder_too(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "imgs.zip", "w") as images:
        images.writestr("test/2.jpg", b"one")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        made.write(tmp_path / "imgs.zip", "above/imgs.zip")
        made.writestr("above/imgs/test/2.jpg", b"two")
    with pytest.raises(InputError, match="is there twice"):
        unpack(tmp_path / "a.zip", tmp_path / "data")


def test_killed_while_parts_are_moved(
    context: Context, remote: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each move: the same command resumes with the archive that is there."""
    packed(remote / "archive.zip", data, LAYOUTS["both"])
    rename, left = Path.rename, [0]

    def killed(self: Path, target: Path) -> Path:
        if "arranged" in str(target):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", killed)
    for moves in range(4):
        left[0] = moves
        with pytest.raises(KeyboardInterrupt):
            download_competition(context, STANDIN)
        assert not context.data.exists()
    left[0] = 100
    download_competition(context, STANDIN)
    whole(context)
    assert downloads(remote) == 1


def test_what_is_not_found_is_named_and_nothing_is_fetched_again(
    context: Context, remote: Path, data: Path, project: Path
) -> None:
    """The way out works as it says: a changed YAML, and the same command."""
    packed(remote / "archive.zip", data, lambda name: name.replace(TABLE, "drivers.csv"))
    for _ in range(2):
        with pytest.raises(InputError) as refused:
            download_competition(context, STANDIN)
        said = str(refused.value)
        assert f"holds no {TABLE}; it holds drivers.csv, imgs, {SAMPLE}" in said
        assert "name its files in configs/datasets/there.yaml" in said
        assert "remove" not in said
    yaml = project / "configs/datasets/there.yaml"
    yaml.write_text(yaml.read_text() + "table: drivers.csv\n")
    download_competition(open_context("there", None), STANDIN)
    assert (context.data / "drivers.csv").is_file()
    assert downloads(remote) == 1


def test_two_of_a_kind_are_named(context: Context, remote: Path, data: Path) -> None:
    packed(remote / "archive.zip", data, lambda name: f"a/{name}")
    with zipfile.ZipFile(remote / "archive.zip", "a") as archive:
        archive.write(data / TABLE, f"b/{TABLE}")
    with pytest.raises(InputError, match=rf"holds {TABLE} at a/{TABLE} and b/{TABLE}; name one") as refused:
        download_competition(context, STANDIN)
    assert "remove" not in str(refused.value)


def test_a_folder_of_ones_own_is_looked_into_and_left_alone(data: Path, demo_settings: DatasetSettings) -> None:
    """DATA that was unpacked by hand: where it lies, or which part belongs where; nothing is moved."""
    deeper = data.parent / "outer" / SLUG
    deeper.parent.mkdir()
    data.rename(deeper)
    with pytest.raises(InputError, match=f"the competition lies deeper: use DATA={deeper}"):
        read_both(demo_settings, deeper.parent)
    whole_there = read_both(demo_settings, deeper)
    assert len(whole_there.train) == 120
    (deeper / SAMPLE).rename(deeper / "x")
    (deeper / SAMPLE).mkdir()
    (deeper / "x").rename(deeper / SAMPLE / SAMPLE)
    with pytest.raises(InputError) as refused:
        read_both(demo_settings, deeper)
    assert f"{deeper / SAMPLE / SAMPLE} belongs to {deeper / SAMPLE}" in str(refused.value)
    (deeper / SAMPLE / SAMPLE).rename(deeper / "x")
    (deeper / SAMPLE).rmdir()
    (deeper / "x").rename(deeper / SAMPLE)
    (deeper / "imgs/train").rename(deeper / "train")
    found = read_both(demo_settings, deeper)
    assert f"{deeper / 'train'} belongs to {deeper / 'imgs/train'}" in found.problems[0]
    assert len(found.missing) == 120
    assert competition.layout_hint(demo_settings, deeper.parent / "nothing") == ""
