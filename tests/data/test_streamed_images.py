"""Test images without packed pixels: the same images from their files, checked at each reading; and when that is chosen."""

import os
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from support.project import Verb

from driverwatch.cli.options import making
from driverwatch.data import pack, pack_writer, prepare
from driverwatch.data.augment import AugmentedInputs
from driverwatch.data.context import Context, open_context, open_packs
from driverwatch.data.pack import Pack
from driverwatch.data.prepare import make_folds, make_packs
from driverwatch.errors import InputError
from driverwatch.io.manifests import read_json
from driverwatch.io.paths import Places

SIZE = "40x52"
STREAMED = "predict.test_images=streamed"
MODEL = f"backbone: tiny\nweights: none\ninput: {{pack: {SIZE}, size: 36x48}}\n"


@pytest.fixture
def place(project: Path, data: Path) -> Context:
    """A synthetic competition, folded, and a model of its own."""
    (project / "configs" / "models" / "small.yaml").write_text(MODEL)
    context = open_context("demo", data)
    make_folds(context, False)
    return context


def packed(context: Context, setting: str = "", force: bool = False) -> dict[str, Pack]:
    make_packs(context, None, "small", setting, force)
    return open_packs(context, SIZE)[1]


@pytest.fixture
def both(place: Context) -> tuple[np.ndarray, Pack]:
    """The test images' packed pixels, and the pack without them."""
    return np.array(packed(place)["test"].pixels), packed(place, STREAMED)["test"]


def first_test_image(context: Context) -> Path:
    return sorted((context.data / "imgs" / "test").iterdir())[0]


def test_a_streamed_pack_is_the_same_pack_without_its_pixels(place: Context) -> None:
    raw = packed(place)["test"]
    size, pixels = Path(raw.images.path).stat().st_size, np.array(raw.pixels)
    made, streamed = (read_json(Path(raw.images.path).with_suffix(".json")), packed(place, STREAMED)["test"])
    again = read_json(Path(raw.images.path).with_suffix(".json"))
    assert Path(streamed.images.path).stat().st_size < size - pixels.nbytes * 0.9
    with h5py.File(streamed.images.path) as file:
        assert "images" not in file
    assert streamed.checksum == raw.checksum, "a run may continue on either"
    assert again["contents"] == made["contents"]
    assert (streamed.mean, streamed.std) == (raw.mean, raw.std)
    assert list(streamed.names) == list(raw.names)
    assert again["streamed_from"] == str(place.data.absolute())
    assert streamed.pixels.shape == pixels.shape
    assert np.array_equal(streamed.pixels[:], pixels)


@pytest.mark.parametrize(
    "key",
    [3, np.int64(-1), slice(2, 9), slice(None, None, -7), np.array([5, 0, 39, 5]), np.arange(40) % 3 == 0, np.array([], int)],
    ids=str,
)  # fmt: skip
def test_it_is_indexed_as_an_array(both: tuple[np.ndarray, Pack], key: object) -> None:
    raw, streamed = both
    found = streamed.pixels[key]
    assert found.dtype == np.uint8
    assert np.array_equal(found, raw[key])  # type: ignore[index]


def test_an_index_beyond_its_end_is_an_error(both: tuple[np.ndarray, Pack]) -> None:
    with pytest.raises(IndexError):
        both[1].pixels[40]


def test_in_order_the_next_images_are_decoded_ahead_and_each_once(
    both: tuple[np.ndarray, Pack], monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, streamed = both
    decoded: list[str] = []
    real = pack.examine

    def counted(path: Path, *more: object) -> object:
        decoded.append(path.name)
        return real(path, *more)

    monkeypatch.setattr(pack, "examine", counted)
    monkeypatch.setattr(pack, "AHEAD", 8)
    images = streamed.images.open()
    for start in range(0, 40, 5):  # as `Predictor` asks, the last batch filled up with its first image
        rows = np.minimum(np.arange(start, start + 5), 39)
        assert np.array_equal(images[rows], raw[rows])
        assert len(decoded) <= start + 5 + 10, "no further than it may"
    assert sorted(decoded) == sorted(streamed.names), "each once"
    decoded.clear()
    for start in (10, 10, 15, 20):  # as where an engine tries the first batch of a shard
        assert np.array_equal(images[np.arange(start, start + 5)], raw[start : start + 5])
    assert max(images._ahead.made) > 24, "ahead again"
    images._ahead.close()
    images = streamed.images.open()
    decoded.clear()
    images[np.array([7, 30])]
    assert len(decoded) == 2, "nothing ahead of what is asked for in another order"


def test_training_shows_the_same_of_either(both: tuple[np.ndarray, Pack], project: Path) -> None:
    from driverwatch.config.loading import parse
    from driverwatch.config.model import ModelSettings

    raw, streamed = both
    for crop in ("random", "centre"):
        settings = parse(ModelSettings, {"backbone": "tiny", "weights": "none",
                                         "input": {"pack": SIZE, "size": "36x48", "crop": crop}}, "x")  # fmt: skip
        rows = np.array([3, 17, 3])
        shown = [AugmentedInputs(images, settings, [], 0)(rows)[0] for images in (raw, streamed.images.open())]
        assert np.array_equal(*shown), crop


def test_another_process_reads_it_too(both: tuple[np.ndarray, Pack]) -> None:
    raw, streamed = both
    there = pickle.loads(pickle.dumps(streamed.images)).open()
    assert np.array_equal(there[4], raw[4])


def test_a_file_that_shows_something_else_is_refused(place: Context) -> None:
    streamed = packed(place, STREAMED)["test"]
    image = first_test_image(place)
    other = sorted(image.parent.iterdir())[1]
    content = image.read_bytes()
    image.write_bytes(other.read_bytes())
    with pytest.raises(InputError, match=rf"{image.name}: shows something else than when it was packed"):
        streamed.images.open()[:3]
    image.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=rf"{image.name}: damaged or cut short .* restore it"):
        streamed.images.open()[0]
    image.unlink()
    with pytest.raises(InputError, match=rf"{image.name}: missing file; .*DATA="):
        streamed.images.open()[0]
    image.write_bytes(content)
    assert len(streamed.images.open()[:]) == 40


def test_a_decoder_that_gives_other_pixels_is_refused(place: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    from driverwatch.data.images import pixel_hash

    streamed, real = packed(place, STREAMED)["test"], pack.examine

    def swapped(*about: object) -> object:
        image = real(*about)
        pixels = np.ascontiguousarray(image.pixels[..., ::-1])
        return image._replace(pixels=pixels, look=pixel_hash(pixels))

    monkeypatch.setattr(pack, "examine", swapped)
    with pytest.raises(InputError, match="shows something else"):
        streamed.images.open()[0]


def test_edited_columns_are_refused(place: Context) -> None:
    path = Path(packed(place, STREAMED)["test"].images.path)
    with h5py.File(path, "r+") as file:
        file["looks"][3] = 0
    with pytest.raises(InputError, match="changed since packing"):
        open_packs(place, SIZE)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match="not a whole pack"):
        open_packs(place, SIZE)


def test_moved_images_are_found_by_DATA(place: Context, tmp_path: Path) -> None:  # noqa: N802
    wanted = packed(place, STREAMED)["test"].pixels[7]
    moved = tmp_path / "moved"
    shutil.move(place.data, moved)
    found = open_packs(open_context("demo", moved), SIZE)[1]["test"]
    assert np.array_equal(found.pixels[7], wanted)


def test_gone_images_are_refused_before_training(place: Context) -> None:
    images = packed(place, STREAMED)["test"].images
    pack.refuse_absent(images)
    shutil.rmtree(place.data)
    with pytest.raises(InputError, match=r"holds no pixels, and .* is not there; give DATA="):
        pack.refuse_absent(images)


def test_auto_streams_what_is_large_and_keeps_what_is_there(
    place: Context, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = place.places.pack(SIZE)
    packed(place)
    assert pack.is_streamed(folder) is False
    monkeypatch.setattr(prepare, "PACKED_BYTES", 1000)
    packed(place)
    assert pack.is_streamed(folder) is False, "a pack that is there is kept"
    capsys.readouterr()
    packed(place, "predict.test_images=streamed")
    said = capsys.readouterr().out
    assert f"packing again: {folder}/test.h5 is to hold no pixels" in said
    assert f"{folder}/test.h5: 40 images, decoded from their files in each pass over them" in said
    packed(place)
    assert pack.is_streamed(folder) is True
    capsys.readouterr()
    packed(place, "predict.test_images=packed")
    assert f"{folder}/test.h5 is to hold pixels" in capsys.readouterr().out
    assert pack.is_streamed(folder) is False
    shutil.rmtree(folder)
    packed(place)
    assert pack.is_streamed(folder) is True, "it is large"


def test_the_disk_is_asked_before_anything_is_written(
    place: Context, monkeypatch: pytest.MonkeyPatch, data: Path
) -> None:
    folder, image = place.places.pack(SIZE), 40 * 52 * 3

    def disk(free: float) -> None:
        monkeypatch.setattr("driverwatch.io.manifests.shutil.disk_usage", lambda _: SimpleNamespace(free=int(free)))

    disk(180 * image)  # 160 images fit, but fill more than half of it
    packed(place)
    assert pack.is_streamed(folder) is True
    shutil.rmtree(folder)
    disk(150 * image)  # the test images fit, or the training images, but not both
    with pytest.raises(InputError, match=r"what is packed needs .*SET=.predict.test_images=streamed"):
        packed(place, "predict.test_images=packed")
    assert not list(folder.glob("*.h5*")), "nothing was started"
    disk(100 * image)
    with pytest.raises(InputError, match=r"what is packed needs .*choose a smaller pack size$"):
        packed(place, STREAMED)


def test_a_resized_pack_is_never_made_from_one_without_pixels(place: Context, data: Path) -> None:
    packed(place, STREAMED)
    shutil.rmtree(data)
    context = making("demo", data)
    assert context.packs_for_embeddings("20x26") == "20x26"
    with pytest.raises(InputError, match="give DATA="):
        open_packs(context, "20x26")


def test_copies_of_test_images_are_found_in_a_streamed_pack(place: Context) -> None:
    train = sorted((place.data / "imgs" / "train").rglob("*.jpg"))[0]
    shutil.copyfile(first_test_image(place), train)
    with pytest.raises(InputError, match="the same image as the test image"):
        packed(place, STREAMED)


def test_invalid_test_images_are_left_out_of_a_streamed_pack(place: Context) -> None:
    first_test_image(place).write_bytes(b"no image")
    make_packs(place, None, "small", STREAMED, False, skip=True)
    streamed = open_packs(place, SIZE)[1]["test"]
    assert len(streamed.pixels[:]) == 39
    assert list(streamed.left_out.names) == [first_test_image(place).name]


def test_a_pack_cut_short_under_way_leaves_what_was_there(place: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    before = packed(place)["test"].checksum

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(pack_writer, "_columns", full)
        with pytest.raises(InputError, match=r"No space left on device.; what was there before is unchanged"):
            packed(place, STREAMED)
    assert open_packs(place, SIZE)[1]["test"].checksum == before
    assert pack.is_streamed(place.places.pack(SIZE)) is False


def test_times_of_files_decide_nothing(place: Context) -> None:
    checksum = packed(place, STREAMED)["test"].checksum
    for path in (place.data / "imgs" / "test").iterdir():
        os.utime(path, (1, 1))
    again = packed(place)["test"]
    assert again.checksum == checksum
    assert again.images.files is not None


@pytest.mark.line
def test_predictions_are_the_same_of_either(verb: Verb, place: Context, data: Path, project: Path) -> None:
    options = ["--dataset", "demo", "--data", str(data)]
    tables = []
    for name in ("packed", "streamed"):
        setting = f"predict.test_images={name} train.epochs=1 predict.tta=centre"
        for command in (["pack", "--model=small"], ["train", "small", f"--run={name}"]):
            ended = verb(*command, *options, "--set", setting, *(["--fold=0"] if "train" in command else []))
            assert ended.returncode == 0, ended.stderr
        with h5py.File(Places("demo").run(name) / "fold0" / "test-centre.h5") as file:
            tables.append(file["probabilities"][...])
    assert np.array_equal(*tables)
