"""The preview: images of different drivers, and exactly what training is given."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.mixing import COUNT, DRIVERS, IMAGES, LABELS, TRAINING, model, pack
from support.project import Verb

from driverwatch import run as runs
from driverwatch.config.loading import load
from driverwatch.config.model import ModelSettings
from driverwatch.data.augment import AugmentedInputs, epoch_mixing
from driverwatch.data.context import open_context, open_packs
from driverwatch.data.mix import Mixing
from driverwatch.data.pack import Pack
from driverwatch.report import contact_sheets
from driverwatch.report.contact_sheets import (
    INK,
    WIDTH,
    Caption,
    Cell,
    Line,
    Shown,
    captions,
    chosen_rows,
    contact_sheet,
)
from driverwatch.training.train import read_augmentation


class Images(Pack):
    """A pack whose pixels are here already."""

    pixels = IMAGES  # type: ignore[assignment]


def shown(**augment: object) -> Shown:
    made = Images(**{name: getattr(pack(), name) for name in Pack.__dataclass_fields__})
    return Shown(model(**augment), [], made, TRAINING, tuple("abcd"), [1, 0, 3, 2])


def mixing_of(kind: str, partner: int, share: float) -> Mixing:
    made = Mixing(kind, np.arange(COUNT), np.ones(COUNT, np.float32), np.zeros((COUNT, 4), np.int32))
    made.partners[0], made.shares[0] = partner, share
    return made


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from("pqrst")), min_size=1, max_size=30), st.randoms())
def test_one_image_per_class_of_different_drivers(table: list[tuple[int, str]], random: object) -> None:
    labels, drivers = np.array([label for label, _ in table]), np.array([driver for _, driver in table], dtype=object)
    rows = np.array(sorted(random.sample(range(len(table)), random.randint(1, len(table)))))  # type: ignore[attr-defined]
    found = chosen_rows(labels, drivers, rows)
    assert set(found) <= set(rows)
    assert labels[found].tolist() == sorted(set(labels[rows]))
    for place, row in enumerate(found):
        free = set(drivers[rows[labels[rows] == labels[row]]]) - set(drivers[found[:place]])
        assert drivers[row] in free or not free


def test_cells_hold_what_training_is_given() -> None:
    about = shown(mix="cutmix", mix_prob=1.0, hflip="swap_left_right")
    columns, lines = contact_sheets._sheet(about, ["w", "x", "y", "z"])
    rows = chosen_rows(LABELS, DRIVERS, TRAINING)
    assert columns == ["centre view", "epoch 1", "epoch 2", "epoch 3", "epoch 4"]
    assert [line.name[0].text for line in lines] == list("abcd")
    assert all(
        np.array_equal(line.cells[0].picture, IMAGES[row][1:-1, 1:-1]) for line, row in zip(lines, rows, strict=True)
    )
    for epoch in range(4):
        mixing = epoch_mixing(about.settings, about.pack, TRAINING, epoch)
        given_, _ = AugmentedInputs(IMAGES, about.settings, [], epoch, mixing)(rows)
        assert all(np.array_equal(line.cells[epoch + 1].picture, one) for line, one in zip(lines, given_, strict=True))
        assert all(line.cells[epoch + 1].captions[1].ink == "mixed" for line in lines)


def test_cells_of_regions_are_mosaics() -> None:
    about = shown(mix="cutmix", mix_prob=1.0)
    mosaics = np.concatenate([IMAGES, 255 - IMAGES], axis=1)
    held: object = SimpleNamespace(
        images=SimpleNamespace(shape=mosaics.shape), pixels=mosaics, labels=LABELS, drivers=DRIVERS
    )
    field = about.settings.input.model_copy(update={"regions": ["whole", "head"]})
    two = about._replace(pack=held, settings=about.settings.model_copy(update={"input": field}))
    plain, made = (contact_sheets._sheet(one, ["w", "x", "y", "z"])[1] for one in (about, two))
    for line, both in zip(plain, made, strict=True):
        for cell, mosaic in zip(line.cells, both.cells, strict=True):
            assert np.array_equal(mosaic.picture, np.concatenate([cell.picture, 255 - cell.picture]))
            assert mosaic.captions == cell.captions
    assert "whole above head: 12x18 cut to 10x16" in contact_sheets._said(two)[1]
    assert "above" not in contact_sheets._said(about)[1]


def texts(said: list[Caption]) -> list[str]:
    return [caption.text for caption in said]


def test_captions_say_class_driver_share_and_flipping() -> None:
    about, names = shown(hflip="swap_left_right"), "abcd"
    other = int(np.flatnonzero(LABELS[0] != LABELS)[0])
    me, you = (f"{names[LABELS[row]]} {DRIVERS[row]}" for row in (0, other))
    swapped = [names[about.swap[LABELS[row]]] for row in (0, other)]
    assert texts(captions(about, 0, False, None)) == [me]
    assert texts(captions(about, 0, True, None)) == [me, f"flipped, learnt as {swapped[0]}"]
    assert texts(captions(about, 0, True, mixing_of("mixup", 0, 1.0))) == [me, f"flipped, learnt as {swapped[0]}"]
    mixed = captions(about, 0, True, mixing_of("cutmix", other, 0.625))
    assert texts(mixed) == [f"{me} 62%", f"+ {you} 38%", f"flipped, learnt as {' + '.join(swapped)}"]
    assert texts(captions(about, 0, False, mixing_of("same_class_halves", other, 1.0))) == [
        f"{me} left",
        f"+ {you} right",
    ]
    assert texts(captions(shown(hflip="keep_labels"), 0, True, None)) == [me, "flipped"]


def test_a_sheet_shows_its_pictures() -> None:
    colours = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (90, 90, 20)]
    cells = [Cell(np.full((30, 40, 3), colour, np.uint8), [Caption("H" * 500, "flipped")]) for colour in colours]
    made = contact_sheet(["title", "more"], ["one", "two"], [Line([Caption("a")], cells[:2]), Line([], cells[2:])])
    assert made.dtype == np.uint8
    for colour in colours:
        assert (made == colour).all(axis=2).sum() == WIDTH * WIDTH * 30 // 40
    assert (made[:, -8:] == 255).all(), "text is cut short, not run out of the sheet"
    ink = tuple(int(INK["flipped"][i : i + 2], 16) for i in (1, 3, 5))
    assert (np.abs(made.astype(int) - ink).max(axis=2) < 30).any()


@pytest.fixture
def packed(verb: Verb, data: Path) -> Verb:
    def run(*arguments: str | Path) -> object:
        return verb(*arguments, "--dataset", "demo", "--data", data)

    assert run("folds").returncode == 0
    assert run("pack", "--model", "tiny", "--set", "input.pack=48x64 input.size=44x60").returncode == 0
    return run


@pytest.mark.line
def test_the_command_draws_a_sheet(packed: Verb, project: Path) -> None:
    small = "input.pack=48x64 input.size=44x60"
    done = packed("preview", "--model", "tiny", "--run", "mine", "--set", f"{small} augment.mix=same_class_halves")
    assert done.returncode == 0, done.stderr
    sheet = cv2.imread(str(project / "build" / "demo" / "preview" / "mine.png"))
    assert sheet.shape[0] > 10 * WIDTH * 44 // 60
    assert sheet.shape[1] > 6 * WIDTH
    for arguments, said in (
        (["--run", "none"], "no such run"),
        ([], "expected MODEL="),
        (["--model", "tiny", "--set", small, "--fold", "9"], "FOLD=9: expected 0 to"),
        (["--model", "tiny", "--set", small, "--run", "../x"], "RUN=../x: expected letters"),
        (["--model", "tiny", "--set", f"{small} augment.preset=lite"], "did you mean light"),
    ):
        done = packed("preview", *arguments)
        assert done.returncode == 2
        assert said in done.stderr


@pytest.mark.line
def test_a_run_is_shown_as_it_was_started(packed: Verb, project: Path, data: Path) -> None:
    small = "input.pack=48x64 input.size=44x60"
    settings = load(ModelSettings, project / "configs" / "models", "tiny", f"{small} augment.mix=mixup")
    context = open_context("demo", data)
    folds, packs = open_packs(context, "48x64")
    preset = read_augmentation(context, settings)
    checksums = {kind: pack.checksum for kind, pack in packs.items()}
    runs.begin(
        context.places.run("started"),
        runs.identity(settings, context.settings, preset, folds.checksum, checksums, None),
        None,
        False,
    )
    (project / "configs" / "models" / "tiny.yaml").unlink()
    assert packed("preview", "--run", "started", "--set", "augment.mix=none").returncode == 2
    done = packed("preview", "--run", "started")
    assert done.returncode == 0, done.stderr
    sheets = project / "build" / "demo" / "preview"
    contact_sheets.preview_model(context, settings, "model", 0)
    made, expected = (cv2.imread(str(sheets / f"{name}.png"))[60:] for name in ("started", "model"))
    assert np.array_equal(made, expected)


def test_it_needs_no_keras_and_no_pytorch() -> None:
    code = "import sys, driverwatch.report.contact_sheets; sys.exit('keras' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
