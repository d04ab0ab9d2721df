"""What a command needs and can make, it makes: a pack that is not there, and features, with a word of size and time."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.project import Verb

from driverwatch import run as runs
from driverwatch.cli.options import making
from driverwatch.config.loading import parse
from driverwatch.config.model import ModelSettings
from driverwatch.data import images, splits
from driverwatch.data.context import Context, open_context, open_packs
from driverwatch.data.prepare import make_folds, make_packs
from driverwatch.ensemble import embeddings
from driverwatch.errors import InputError
from driverwatch.inference import predictions
from driverwatch.inference.predictions import Predictions, prediction_path
from driverwatch.io.atomic import write_json
from driverwatch.io.manifests import checksum_of_file, read_json
from driverwatch.io.paths import Places

SIZE = "40x52"
MODEL = {
    "backbone": "tiny",
    "weights": "none",
    "input": {"pack": SIZE, "size": "36x48"},
    "predict": {"tta": "five_crop"},
}
SAID = f"build/demo/pack/{SIZE}: made in "


@pytest.fixture
def place(project: Path, data: Path) -> list[str | Path]:
    """A synthetic competition, folded; nothing is packed."""
    make_folds(open_context("demo", data), False)
    return ["--dataset", "demo", "--data", data]


def pack_folder(size: str = SIZE) -> Path:
    return Places("demo").pack(size)


@pytest.fixture
def trained(place: list[str | Path], data: Path) -> runs.Run:
    """A finished run whose predictions are drawn numbers, and whose pack was removed since."""
    context = open_context("demo", data)
    make_packs(context, SIZE, None, "", False)
    folds, packs = open_packs(context, SIZE)
    settings = parse(ModelSettings, MODEL, "x")
    checksums = {kind: pack.checksum for kind, pack in packs.items()}
    folder = context.places.run("one")
    write_json(folder / "run.json", runs.identity(settings, context.settings, [], folds.checksum, checksums, None))
    run = runs.load(folder)
    for fit in range(folds.count):
        (run.fold(fit)).mkdir(parents=True)
        facts = {"weights": f"w{fit}", "seconds": 60.0, "commit": "c", "log_loss": {"five_crop": 1.0}}
        write_json(run.fold(fit) / "manifest.json", {"settings": run.settings.model_dump(), **run.claim, **facts})
        validation = splits.of(settings.train, folds).indices(packs["train"].drivers, fit)[1]
        for kind, names in (("validation", packs["train"].names[validation]), ("test", packs["test"].names)):
            rows = np.random.default_rng(fit).dirichlet(np.ones(len(run.classes)), len(names)).astype(np.float32)
            made = Predictions(names, rows, run.predicted(fit, "five_crop"))
            predictions.write(made, prediction_path(run.fold(fit), kind, "five_crop"))
    shutil.rmtree(pack_folder())
    return run


@pytest.mark.parametrize(
    "command",
    [["ensemble"], ["score"], ["review"], ["blends"], ["submissions"], ["tta", "one"], ["pseudo-labels", "three"]],
    ids=lambda words: words[0],
)
def test_commands_pack_what_they_need(
    trained: runs.Run, place: list[str | Path], verb: Verb, command: list[str]
) -> None:
    ended = verb(*command, *place)
    assert ended.returncode == 0, ended.stderr
    assert f"{pack_folder()}: no pack yet; packing" in ended.stdout
    assert SAID in ended.stdout
    assert " MB" in ended.stdout.split(SAID)[1].split("\n")[0]
    again = verb(*command, *place)
    assert again.returncode == 0
    assert "no pack yet" not in again.stdout


@pytest.mark.parametrize("command", [["report"], ["status"]], ids=lambda words: words[0])
def test_who_only_looks_makes_nothing(
    trained: runs.Run, place: list[str | Path], verb: Verb, command: list[str]
) -> None:
    assert verb(*command, *place).returncode == 0
    assert not pack_folder().exists()


def making_context(data: Path) -> Context:
    return making("demo", data)


def test_the_pack_is_the_one_that_make_pack_makes(place: list[str | Path], data: Path) -> None:
    made = open_packs(making_context(data), SIZE)[1]
    whole = {kind: checksum_of_file(pack_folder() / f"{kind}.h5") for kind in made}
    shutil.rmtree(pack_folder())
    make_packs(open_context("demo", data), SIZE, None, "", False)
    assert {kind: checksum_of_file(pack_folder() / f"{kind}.h5") for kind in made} == whole


@pytest.mark.parametrize("missing", ["train.h5", "train.json", "test.h5", "test.json"])
def test_a_pack_that_is_not_whole_on_disk_is_completed(place: list[str | Path], data: Path, missing: str) -> None:
    context = making_context(data)
    checksums = {kind: pack.checksum for kind, pack in open_packs(context, SIZE)[1].items()}
    (pack_folder() / missing).unlink()
    assert {kind: pack.checksum for kind, pack in open_packs(context, SIZE)[1].items()} == checksums


def test_without_the_images_the_sentence_names_what_is_there(place: list[str | Path], data: Path) -> None:
    context = making_context(data)
    open_packs(context, SIZE)
    shutil.rmtree(data)
    open_packs(context, SIZE)  # which is there
    with pytest.raises(InputError) as error:
        open_packs(context, "20x26")
    assert f"no pack, and {data} is not here to make it from (resized again, {SIZE} would give other pixels)" in str(
        error.value
    )
    assert "give DATA=" in str(error.value)
    shutil.rmtree(pack_folder())
    with pytest.raises(InputError, match=r"is not here to make it from; give DATA="):
        open_packs(context, "20x26")


def resized_pack(data: Path) -> Context:
    """A context whose images are gone, with the packs of one larger size, of one smaller, and a pack of regions."""
    context = making_context(data)
    for size in (SIZE, "18x24", "40x52-whole+wheel"):
        open_packs(context, size)
    shutil.rmtree(data)
    return context


def test_embeddings_take_a_larger_pack_where_the_images_are_gone(
    place: list[str | Path], data: Path, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of_images = {kind: pack.checksum for kind, pack in open_packs(making_context(data), "20x26")[1].items()}
    assert making_context(data).packs_for_embeddings("20x26") == "20x26"
    shutil.rmtree(pack_folder("20x26"))
    assert making_context(data).packs_for_embeddings("20x26") == "20x26", "the images are here"
    context = resized_pack(data)
    key = context.packs_for_embeddings("20x26")
    assert key == f"20x26@{SIZE}"
    assert context.packs_for_embeddings("20x26-whole+wheel") == f"20x26@{SIZE}-whole+wheel"
    assert context.packs_for_embeddings("41x52") == "41x52", "none is as large"
    capsys.readouterr()
    packs = open_packs(context, key)[1]
    said = capsys.readouterr().out
    assert f"build/demo/pack/{key}: no such pack, and {data} is not here; resizing {SIZE}" in said
    assert f"build/demo/pack/{key}: made in " in said
    larger = open_packs(context, SIZE)[1]
    for kind, pack in packs.items():
        wanted = [images.resized(image, (20, 26)) for image in larger[kind].pixels]
        assert np.array_equal(pack.pixels, wanted)
        assert list(pack.names) == list(larger[kind].names)
        assert np.array_equal(pack.labels, larger[kind].labels)
        assert pack.checksum not in (of_images[kind], larger[kind].checksum), "no run was trained on it"
        assert pack.mean == pytest.approx(pack.pixels.mean(axis=(0, 1, 2)))
    with pytest.raises(InputError, match="give DATA="):
        open_packs(context, "20x26")  # as a run asks for it
    open_packs(context, key)
    assert capsys.readouterr().out == "", "it is there"


def test_a_resized_pack_keeps_its_regions_apart_and_is_of_one_larger_pack(
    place: list[str | Path], data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    context = resized_pack(data)
    key = context.packs_for_embeddings("20x26-whole+wheel")
    pack, larger = open_packs(context, key)[1]["train"], open_packs(context, "40x52-whole+wheel")[1]["train"]
    whole, wheel = larger.pixels[0][:40], larger.pixels[0][40:]
    assert np.array_equal(pack.pixels[0], np.concatenate([images.resized(one, (20, 26)) for one in (whole, wheel)]))
    made = read_json(pack_folder(key) / "train.json")
    assert made["resized_from"] == larger.checksum
    made["resized_from"] = made["signature"] = "another"
    write_json(pack_folder(key) / "train.json", made)
    (pack_folder(key) / "test.json").unlink()
    with pytest.raises(InputError, match=r"packed from other files than .*40x52-whole\+wheel/train\.h5 now holds"):
        open_packs(context, key)


def test_what_a_larger_pack_was_made_without_is_missing_in_the_resized_one(place: list[str | Path], data: Path) -> None:
    image = sorted((data / "imgs" / "train").rglob("*.jpg"))[0]
    image.write_bytes(b"no image")
    make_packs(open_context("demo", data), SIZE, None, "", False, skip=True)
    shutil.rmtree(data)
    pack = open_packs(making_context(data), f"20x26@{SIZE}")[1]["train"]
    assert list(pack.left_out.names) == [image.name]
    assert image.name not in pack.names
    assert len(pack.names) == len(pack.pixels)


def test_embeddings_of_a_resized_pack_say_so_and_are_computed_again_from_the_images(
    place: list[str | Path],
    data: Path,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(embeddings.weight_files, "identity", lambda *_: {"file": "x"})

    def computed(context: object, settings: object, backbone: object, packs: dict, weights: object) -> tuple:
        return [pack.pixels.mean(axis=(1, 2)) + 1 for pack in (packs["train"], packs["test"])], "counting"

    monkeypatch.setattr(embeddings, "_computed", computed)
    monkeypatch.setattr(embeddings, "_settings", lambda _: parse(ModelSettings, MODEL, "x"))
    open_packs(making_context(data), "60x78")
    moved = data.rename(data.with_name("elsewhere"))
    resized = embeddings.open_embeddings(making_context(data), "small")
    assert "resizing 60x78" in capsys.readouterr().out
    assert embeddings.open_embeddings(open_context("demo", data), "small").checksum == resized.checksum, (
        "who only looks"
    )
    moved.rename(data)
    with pytest.raises(InputError, match="made from other train_pack, test_pack than today's"):
        embeddings.open_embeddings(making_context(data), "small")


def test_invalid_images_stay_left_out_where_they_were(place: list[str | Path], data: Path) -> None:
    """A run of each size is to know the same images; with nothing left out before, invalid images are said, not dropped."""
    image = sorted((data / "imgs" / "train").rglob("*.jpg"))[0]
    image.write_bytes(b"no image")
    context = making_context(data)
    with pytest.raises(InputError, match="SKIP_INVALID=1"):
        open_packs(context, SIZE)
    make_packs(open_context("demo", data), SIZE, None, "", False, skip=True)
    assert list(read_json(pack_folder() / "train.json")["left_out"]) == [image.name]
    packs = open_packs(context, "20x26")[1]
    assert list(packs["train"].left_out.names) == [image.name]


def test_no_maker_no_pack(place: list[str | Path], data: Path) -> None:
    with pytest.raises(InputError, match=f"no pack; run make pack SIZE={SIZE} first"):
        open_packs(open_context("demo", data), SIZE)
    with pytest.raises(InputError, match=f"no pack; run make pack SIZE={SIZE} first"):
        open_packs(replace(making_context(data), maker=None), SIZE)
    assert not pack_folder().exists()


def test_features_are_made_on_the_way_or_the_sentence_says_why_not(
    trained: runs.Run, place: list[str | Path], project: Path, verb: Verb, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "configs/models/small.yaml").write_text("backbone: squeezenet\ninput: {pack: 36x48, size: 32x40}\n")
    ended = verb("ensemble", *place, "--knn", "small:fire3_concat")
    assert ended.returncode == 2
    assert (
        "small-fire3_concat-1x1.h5: no such features; make knn EMBEDDINGS=small:fire3_concat DATASET=demo computes them ("
        in ended.stderr
    )
    assert (
        "pass WEIGHTS=<folder>, take efficientnet_lite0, whose weights are here, or name another model with EMBEDDINGS="
        in ended.stderr
    )
    assert "train from scratch" not in ended.stderr
    assert (pack_folder("36x48") / "train.h5").is_file()  # the pack was no obstacle

    def computed(
        context: Context, settings: ModelSettings, backbone: object, packs: dict, weights: Path | None
    ) -> tuple:
        assert weights == project / "files"
        rng = np.random.default_rng(0)
        return [rng.normal(size=(len(packs[kind].names), 3)).astype(np.float32) for kind in ("train", "test")], "chance"

    monkeypatch.setattr(embeddings, "_computed", computed)
    monkeypatch.setattr(embeddings.weight_files, "identity", lambda *_: {"file": "x"})
    made = verb("ensemble", *place, "--knn", "small:fire3_concat", "--weights", project / "files")
    assert made.returncode == 0, made.stderr
    assert "small-fire3_concat-1x1.h5: 160 images, 3 features, " in made.stdout
    assert "made in" in made.stdout
