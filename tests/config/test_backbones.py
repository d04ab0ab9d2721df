"""The backbone table: what it holds is sound, and a damaged line says what is wrong with it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.places import ROOT

from driverwatch.config.backbones import BACKBONES, COLUMNS, TABLE, read
from driverwatch.config.loading import load, parse
from driverwatch.config.model import ModelSettings
from driverwatch.errors import InputError

TEXT = TABLE.read_text(encoding="utf-8")
LINES = TEXT.splitlines()


def test_every_backbone_of_the_issue_is_there() -> None:
    wanted = [
        "vgg16",
        "vgg19",
        "inception_v3",
        "inception_resnet_v2",
        "xception",
        "mobilenet",
        "mobilenet_v2",
        "squeezenet",
    ]
    wanted += [f"resnet{depth}{version}" for depth in (50, 101, 152) for version in ("", "_v2")]
    wanted += [f"mobilenet_v3_{size}" for size in ("small", "large")]
    wanted += [f"efficientnet_b{i}" for i in range(8)] + [
        f"efficientnet_v2_{i}" for i in ("b0", "b1", "b2", "b3", "s", "m")
    ]
    wanted += [f"densenet{depth}" for depth in (121, 169, 201)] + [f"convnext_{size}" for size in ("tiny", "small")]
    assert set(wanted) <= set(BACKBONES)


def test_depths_are_those_of_the_names() -> None:
    named = {"vgg16": 16, "vgg19": 19, "resnet50": 50, "resnet101": 101, "resnet152": 152, "densenet121": 121}
    named |= {"resnet50_v2": 50, "densenet169": 169, "densenet201": 201, "inception_v3": 48, "mobilenet": 28}
    assert {name: BACKBONES[name].depth for name in named} == named


def test_figures_are_those_the_guides_quote() -> None:
    quoted = {
        "vgg19": (143_667_240, 71.3, 90.0),
        "inception_v3": (23_851_784, 77.9, 93.7),
        "resnet50": (25_636_712, 74.9, 92.1),
    }
    for name, facts in quoted.items():
        row = BACKBONES[name]
        assert (row.parameters, row.top1, row.top5) == facts
    assert BACKBONES["vgg16"].backbone_parameters == 14_714_688
    sizes = {"vgg16": 528, "vgg19": 548, "resnet50": 98, "inception_v3": 91, "squeezenet": 5}
    assert {name: round(BACKBONES[name].megabytes) for name in sizes} == sizes


@pytest.mark.parametrize("name", BACKBONES)
def test_a_row_hangs_together(name: str) -> None:
    row = BACKBONES[name]
    assert row.smallest <= row.native
    assert len(row.freeze_points) == len(set(row.freeze_points)) > 0
    assert bool(row.whole.names) == bool(row.licence)
    assert row.top1 or not row.whole.names  # EfficientNet-Lite 3 and 4 have published accuracies and no weights here
    assert row.parameters or not row.top1  # AlexNet has a top, and no weights
    assert row.parameters is None or row.parameters > row.backbone_parameters
    model = load(ModelSettings, ROOT / "configs" / "models", name)
    assert model.backbone == name


@pytest.mark.parametrize("name", BACKBONES)
def test_smaller_inputs_are_refused(name: str) -> None:
    smallest = BACKBONES[name].smallest
    content = {"backbone": name, "weights": "none", "input": {"pack": "99x99", "size": f"99x{smallest}"}}
    assert parse(ModelSettings, content, "test").backbone == name
    content["input"] = {"pack": "99x99", "size": f"99x{smallest - 1}"}
    with pytest.raises(InputError, match=f"at least {smallest} px on each side for {name}"):
        parse(ModelSettings, content, "test")


def changed(column: str, value: str, line: int = 2) -> str:
    """The table with another value in one cell; no cell holds a comma before `block_ends`."""
    lines = [*LINES]
    cells = lines[line - 1].split(",")
    cells[list(COLUMNS).index(column)] = value
    lines[line - 1] = ",".join(cells)
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1: expected the column name, got none"),
        (TEXT.replace("native", "natvie", 1), "line 1: expected the column native, got natvie"),
        (TEXT.replace("\n", ",more\n", 1), "line 1: expected no more columns, got more"),
        (changed("package_checksum", "12ab"), "line 2: package_checksum: expected a SHA-256"),
        (changed("package", "some-package"), "line 2: expected a package with its file and checksum or none of them"),
        (changed("native", "22x"), "line 2: native: expected a whole number above 0, got '22x'"),
        (changed("depth", "0", line=4), "line 4: depth: expected a whole number above 0, got '0'"),
        (changed("depth", "", line=4), "line 4: depth: expected a whole number above 0, got ''"),
        (changed("scaling", "cafe"), "line 2: scaling: expected one of .*did you mean caffe.*got 'cafe'"),
        (changed("top1", "713"), "line 2: top1: expected a percentage like 71.3, or nothing, got '713'"),
        (changed("name", "VGG"), "line 2: name: expected small letters, digits and _, got 'VGG'"),
        (changed("name", "vgg19"), "line 3: name: vgg19 has a line already"),
        (changed("constructor", "VGG16"), "line 2: constructor: expected a dotted name"),
        (changed("block_ends", "block{1..}_pool"), "line 2: block_ends: expected names separated by single spaces"),
        (changed("block_ends", "a  b"), "line 2: block_ends: expected names separated by single spaces"),
        (changed("checksum", "12ab"), "line 2: checksum: expected an MD5 or SHA-256"),
        (changed("checksum", ""), "line 2: expected a download with its checksum or neither"),
        (changed("download", "/etc/passwd"), "line 2: download: expected a path below https://storage.googleapis.com/"),
        ("\n".join([*LINES[:3], LINES[3] + ",x"]), f"line 4: expected {len(COLUMNS)} cells, got {len(COLUMNS) + 1}"),
        ("\n".join([*LINES[:3], "", LINES[3]]), f"line 4: expected {len(COLUMNS)} cells, got 0"),
        ("\n".join([*LINES[:3], LINES[3][:40]]), f"line 4: expected {len(COLUMNS)} cells, got 3"),
        ("\n".join([*LINES[:3], '"' + LINES[3]]), "line 4: "),
    ],
)
def test_a_damaged_line_says_what_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "backbones.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=f"^{path}, {said}.*; fix that line$"):
        read(path)


def test_a_table_of_other_bytes_or_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "backbones.csv"
    with pytest.raises(InputError, match="the backbone table is not there"):
        read(path)
    path.write_bytes(b"\xff\xfe" + TEXT.encode("utf-16-le"))
    with pytest.raises(InputError, match="fix that line"):
        read(path)


def test_names_stand_for_several(tmp_path: Path) -> None:
    path = tmp_path / "backbones.csv"
    path.write_text(LINES[0] + "\n" + LINES[-1].replace("stage{1..5}_relu", "pool s{9..11} m{1b}_x"), encoding="utf-8")
    (row,) = read(path).values()
    assert row.freeze_points == ("pool", "s9", "s10", "s11", "m1b_x")
    assert BACKBONES["mobilenet_v2"].freeze_points[3:6] == ("block_3_project_BN", "block_4_add", "block_5_add")


@pytest.mark.parametrize("columns", [200, 80, 30])
def test_the_printed_table_fits_a_terminal(columns: int) -> None:
    """In a terminal every line fits, whole columns are left out from the end and named; into a file goes everything."""
    code = (
        "import shutil, sys, os; sys.stdout.isatty = lambda: True\n"
        f"shutil.get_terminal_size = lambda *a: os.terminal_size(({columns}, 24))\n"
        "from driverwatch.models.describe import print_backbones; print_backbones()"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    table = made.stdout.split("\n\n")[0].splitlines()
    assert len(table) == len(BACKBONES) + 1
    assert max(map(len, table)) <= max(columns, 19)
    assert [line.split()[0] for line in table[1:]] == list(BACKBONES)
    assert ("also gets" in made.stdout) == (columns < 200)
