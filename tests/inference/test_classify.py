"""`classify`: what is shown of an image, what is printed, where overlays lie, and each kind of wrong request."""

import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.datasets import load_sample_image
from support.places import SHARED, needs_images, needs_weights
from support.project import MINI

from driverwatch import run as runs
from driverwatch.cli import main as cli
from driverwatch.config.dataset import DatasetSettings
from driverwatch.config.loading import parse
from driverwatch.config.model import InputSettings, ModelSettings
from driverwatch.data.images import examine, resized
from driverwatch.data.regions import Box
from driverwatch.data.tta import centre_square, centre_view
from driverwatch.errors import InputError
from driverwatch.inference import classify as imagenet
from driverwatch.inference.classify import image_files, overlay_files
from driverwatch.inference.overlay import normalized, overlay, side_by_side, write_picture
from driverwatch.io.atomic import write_json
from driverwatch.io.manifests import checksum_of_file
from driverwatch.io.paths import Places

ANCHORS = {
    0: ("n01440764", "tench"),
    207: ("n02099601", "golden_retriever"),
    281: ("n02123045", "tabby"),
    285: ("n02124075", "Egyptian_cat"),
    404: ("n02690373", "airliner"),
    817: ("n04285008", "sports_car"),
    999: ("n15075141", "toilet_tissue"),
}


def test_the_class_names_stand_where_networks_put_them() -> None:
    classes = imagenet.classes()
    assert len(classes) == 1000
    assert list(classes) == sorted(classes)
    assert {i: list(classes.items())[i] for i in ANCHORS} == ANCHORS
    assert {name for name, count in Counter(classes.values()).items() if count > 1} == {"crane", "maillot"}


def noise(height: int, width: int) -> np.ndarray:
    small = np.random.default_rng(0).integers(0, 256, (height // 40, width // 40, 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


@pytest.mark.parametrize(("height", "width"), [(480, 640), (640, 480), (300, 300)])
def test_the_centre_square_is_the_published_crop(height: int, width: int) -> None:
    image = noise(height, width)
    seen = centre_square(image, 224)
    scale = 256 / min(height, width)
    whole = resized(image, (round(height * scale), round(width * scale)))
    top, left = ((side - 224) // 2 for side in whole.shape[:2])
    published = whole[top : top + 224, left : left + 224]
    assert seen.pixels.shape == (224, 224, 3)
    assert np.abs(seen.pixels.astype(int) - published).mean() < 2
    assert seen.boxes[0] == pytest.approx(
        (top / whole.shape[0], left / whole.shape[1], (top + 224) / whole.shape[0], (left + 224) / whole.shape[1]),
        abs=0.003,
    )


def test_the_centre_view_is_cut_from_what_packing_would_keep(data: Path) -> None:
    image = sorted((data / "imgs" / "test").glob("*.jpg"))[0]
    field = InputSettings(pack="40x52", size="36x48")
    packed, whole = examine(image, (40, 52)).pixels, examine(image, None).pixels
    assert packed is not None
    assert whole is not None
    assert whole.shape == (*map(int, MINI.size.split("x")), 3)
    seen = centre_view(whole, field)
    assert np.array_equal(seen.pixels, packed[2:38, 2:50])
    assert seen.boxes == (Box(2 / 40, 2 / 52, 38 / 40, 50 / 52),)


def test_an_overlay_lies_where_the_network_looked() -> None:
    image = noise(120, 200)
    heat = np.zeros((4, 4), np.float32)
    heat[1, 2] = 7.0
    made = overlay(image, heat, Box(0.25, 0.5, 0.75, 0.9))
    assert (made.shape, made.dtype) == (image.shape, np.uint8)
    inside = np.zeros((120, 200), bool)
    inside[30:90, 100:180] = True
    assert np.array_equal(made[~inside], image[~inside])
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None].astype(int)
    warmth = np.where(inside, (made - 0.5 * grey)[..., 0], -np.inf)  # red: viridis has most of it at its hot end
    y, x = np.unravel_index(warmth.argmax(), warmth.shape)
    assert 45 <= y < 60
    assert 140 <= x < 160
    assert np.array_equal(overlay(image, heat + 5, Box(0, 0, 1, 1)), overlay(image, heat * 3, Box(0, 0, 1, 1)))


def test_a_map_that_says_nothing_is_dark_and_one_pixel_is_a_picture() -> None:
    assert not normalized(np.full((2, 3), 4.0)).any()
    assert overlay(np.zeros((1, 1, 3), np.uint8), np.ones((3, 3), np.float32), Box(0.1, 0.1, 0.2, 0.2)).shape == (
        1,
        1,
        3,
    )


@pytest.mark.parametrize(("shape", "sheet"), [((30, 40), (536, 1328)), ((40, 20), (696, 688)), ((1, 900), (57, 1328))])
def test_pictures_of_any_shape_lie_side_by_side(shape: tuple[int, int], sheet: tuple[int, int]) -> None:
    dark, light = (np.full((*shape, 3), shade, np.uint8) for shade in (60, 120))
    made = side_by_side([dark, light], ["short", "a name that is far too long for its picture " * 9])
    assert made.shape == (*sheet, 3)
    middle = 16 + (sheet[0] - 56) // 2
    assert (made[middle, 20] == 60).all()
    assert (made[middle, -20] == 120).all()
    assert (made[:, -16:] == 255).all(), "no caption goes beyond its picture"


def test_overlays_are_read_back(tmp_path: Path) -> None:
    picture = noise(40, 56)
    write_picture(picture, tmp_path / "a.png")
    assert np.array_equal(examine(tmp_path / "a.png", None).pixels, picture)
    write_picture(picture, tmp_path / "a.JPG")
    assert examine(tmp_path / "a.JPG", None).problem is None


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Two images, one deeper with a blank in its name, and a text file."""
    folder = tmp_path / "album"
    (folder / "deep er").mkdir(parents=True)
    for name, shade in (("b.png", 40), ("deep er/a.PNG", 200)):
        write_picture(np.full((48, 64, 3), shade, np.uint8), folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


def test_folders_are_walked_and_named_files_taken_as_they_are(album: Path) -> None:
    found = image_files([album / "notes.txt", album, album / "b.png"])
    assert found == [album / "notes.txt", album / "b.png", album / "deep er" / "a.PNG"]


def test_where_overlays_go(album: Path, tmp_path: Path) -> None:
    images = image_files([album])
    (tmp_path / "maps").mkdir()
    assert overlay_files(None, images, []) == {}
    assert overlay_files("x.png", images[:1], []) == {images[0]: Path("x.png")}
    in_folder = {image: tmp_path / "maps" / f"{image.stem}.png" for image in images}
    assert overlay_files(str(tmp_path / "maps"), images, []) == in_folder
    assert overlay_files(f"{tmp_path}/maps/{{image}}-x.jpg", images, [])[images[0]] == tmp_path / "maps" / "b-x.jpg"


@pytest.mark.parametrize(
    ("cam", "said"),
    [
        ("x.png", "would be that of .*b.png and of .*a.PNG; name a folder"),
        ("nowhere/{image}.png", "no such folder as nowhere; make it first"),
        ("maps", "expected a .png or .jpg file, or a folder that is there"),
        ("{image}.gif", "expected a .png or .jpg file"),
        ("album/{image}.png", "would be written over the image album/b.png"),
    ],
)
def test_overlays_that_cannot_be(album: Path, monkeypatch: pytest.MonkeyPatch, cam: str, said: str) -> None:
    monkeypatch.chdir(album.parent)
    with pytest.raises(InputError, match=said):
        overlay_files(cam, image_files([album]), [])


Said = tuple[int, str, str]


@pytest.fixture
def classify(project: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    """Run the command in this process, in the project folder: status, standard output, standard error."""

    def run(*arguments: str | Path) -> Said:
        monkeypatch.setattr(sys, "argv", ["driverwatch", "classify", *map(str, arguments)])
        status = 0
        try:
            cli.main()
        except SystemExit as end:
            status = int(end.code or 0)
        return status, *capfd.readouterr()

    return run


def finished_run(classes: dict[str, str], fold_classes: dict[int, int]) -> None:
    """A run whose folds are whole and set by hand: fold k says mostly class `fold_classes[k]`, the brighter the more."""
    from driverwatch.models.backend import write_state
    from driverwatch.models.classifier import build

    settings = parse(
        ModelSettings, {"backbone": "tiny", "weights": "none", "input": {"pack": "40x56", "size": "32x48"}}, "test"
    )
    dataset = parse(DatasetSettings, {"title": "t", "data": "d", "classes": classes}, "test")
    folder = Places("demo").run("hand")
    runs.begin(folder, runs.identity(settings, dataset, [], "folds", {"train": "a", "test": "b"}, None), None, False)
    run = runs.load(folder)
    classifier = build(settings, len(classes), (0, 0, 0), None)
    for fold, label in fold_classes.items():
        classifier.top.bias.assign(3.0 * np.eye(len(classes))[label])
        classifier.top.kernel.assign(np.zeros(classifier.top.kernel.shape))
        path = run.fold(fold) / "weights.h5"
        write_state(path, {"model": classifier.weights}, {})
        made = {"settings": run.settings.model_dump(), **run.claim, "weights": checksum_of_file(path)}
        write_json(run.fold(fold) / "manifest.json", made)


@pytest.mark.keras
def test_a_run_prints_its_classes_and_the_mean_of_its_folds(
    classify: Callable[..., Said], demo_settings: DatasetSettings, album: Path, tmp_path: Path
) -> None:
    finished_run(demo_settings.classes, {0: 3, 2: 5})
    status, said, _ = classify("--run", "hand", "--dataset", "demo", "--fold", "2", album / "b.png")
    lines = said.splitlines()
    assert status == 0
    assert lines[0] == "hand, fold 2"
    share = np.exp(3) / (np.exp(3) + 9)
    assert lines[2:4] == [str(album / "b.png"), f"   1  c5  {demo_settings.classes['c5']}  {share:8.2%}"]
    (tmp_path / "maps").mkdir()
    asked = ["--cam", tmp_path / "maps", "--class", "c3", "--top", "10"]
    status, said, _ = classify("--run", "hand", "--dataset", "demo", *asked, album)
    assert status == 0
    assert "hand, mean of 2 fold models" in said
    tables = [line.split() for line in said.splitlines() if line.endswith("%")]
    assert len(tables) == 20
    assert {line[1] for line in tables[:2]} == {"c3", "c5"}
    assert tables[0][-1] == tables[1][-1] == f"{(share + 1 / (np.exp(3) + 9)) / 2:.2%}"
    assert len({len(line) for line in said.splitlines() if line.endswith("%")}) == 1
    assert f"{tmp_path}/maps/a.png: {demo_settings.classes['c3']}, by class activation" in said
    picture = examine(tmp_path / "maps" / "a.png", None).pixels
    assert picture is not None
    assert picture.shape == (480 + 56, 2 * 640 + 48, 3)
    photo, seen, captions = picture[16:496, 16:656], picture[16:496, 672:1312], picture[496:]
    assert (photo == 200).all()
    assert (seen[0] == 200).all()  # above the centre view
    assert (seen[240, 320] != 200).any()
    assert all(half.min() < 50 < 250 < half.max() for half in (captions[:, :664], captions[:, 664:])), "black on white"


@pytest.mark.keras
def test_invalid_images_are_listed_after_the_good_ones(
    classify: Callable[..., Said], demo_settings: DatasetSettings, album: Path
) -> None:
    finished_run(demo_settings.classes, {0: 3})
    (album / "c.jpg").write_bytes(b"")
    turned = cv2.imencode(".jpg", np.zeros((40, 60), np.uint8))[1].tobytes()
    (album / "d.jpg").write_bytes(turned)
    status, said, refused = classify("--run", "hand", "--dataset", "demo", album, album / "none.jpg")
    assert status == 2
    assert said.count("   1  c3") == 3
    assert f"{album / 'd.jpg'} (greyscale)" in said
    assert "IMAGE: 2 problems; the others are classified above:" in refused
    assert f"{album / 'c.jpg'}: empty file" in refused
    assert f"{album / 'none.jpg'}: missing file" in refused


@pytest.mark.keras
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="no /proc here, where not even root may write")
def test_an_overlay_that_cannot_be_written_is_one_sentence(
    classify: Callable[..., Said], demo_settings: DatasetSettings, album: Path
) -> None:
    finished_run(demo_settings.classes, {0: 3})
    status, _, refused = classify("--run", "hand", "--dataset", "demo", "--cam", "/proc/x.png", album / "b.png")
    assert status == 2
    assert "/proc/x.png: cannot be written" in refused
    status, _, refused = classify("--run", "hand", "--dataset", "demo", "--fold", "1", album / "b.png")
    assert status == 2
    assert "FOLD=1 is not finished (finished: 0)" in refused


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "vgg16", "--run", "a", "album"], "got both"),
        (["--model", "sqeezenet", "album"], "no such settings.*; did you mean squeezenet"),
        (
            ["--model", "squeezenet", "album/none.jpg"],
            "(?s)1 problem; none could be classified:.*none.jpg: missing file",
        ),
        (["--model", "squeezenet", "album/notes.txt"], "notes.txt: is neither JPEG nor PNG"),
        (["--model", "squeezenet", "empty"], "IMAGE=empty: no image in this folder"),
        (
            ["--model", "squeezenet", "--class", "crane", "album"],
            "names n02012849 and n03126707; give one of these ids",
        ),
        (["--model", "squeezenet", "--class", "tabbi", "album"], "from 0 to 999; did you mean tabby"),
        (["--model", "squeezenet", "--class", "1000", "album"], "CLASS=1000: no such class"),
        (["--model", "squeezenet", "--cam", "nowhere/x.png", "album/b.png"], "no such folder as nowhere"),
        (["--model", "squeezenet", "album"], "WEIGHTS=<folder>"),
        (["--run", "none", "--dataset", "demo", "album"], "no such run"),
    ],
)
def test_wrong_requests_are_one_sentence(
    classify: Callable[..., Said], project: Path, album: Path, arguments: list[str], said: str
) -> None:
    (project / "album").symlink_to(album)
    (project / "empty").mkdir()
    status, _, refused = classify(*arguments)
    assert status == 2
    assert "Traceback" not in refused
    assert re.search(said, refused), refused


@pytest.mark.keras
def test_without_a_model_the_network_whose_weights_are_here_answers(
    classify: Callable[..., Said], tmp_path: Path
) -> None:
    """On a fresh machine without a download: scikit-learn's photo of a palace, and ImageNet's five likeliest classes."""
    write_picture(load_sample_image("china.jpg"), tmp_path / "china.png")
    status, said, refused = classify("--cam", tmp_path / "cam.png", tmp_path / "china.png")
    assert (status, refused) == (0, "")
    assert said.startswith("efficientnet_lite0, ImageNet weights\n")
    assert "   1  n03877845  palace " in said
    assert said.count("%") == 5
    assert examine(tmp_path / "cam.png", None).pixels is not None


@pytest.mark.keras
@needs_weights
@needs_images
def test_real_weights_see_the_seat_belt(classify: Callable[..., Said], tmp_path: Path) -> None:
    image = SHARED / "statefarm" / "imgs" / "train" / "c0" / "img_100026.jpg"
    asked = ["--model", "squeezenet", "--weights", SHARED / "weights", "--cam", tmp_path / "x.png"]
    status, said, refused = classify(*asked, "--class", "car_mirror", image)
    assert status == 0, refused
    assert "squeezenet, ImageNet weights" in said
    assert "   1  n04162706  seat_belt" in said
    assert said.count("%") == 5
    assert f"{tmp_path / 'x.png'}: car_mirror, by class activation" in said
    assert examine(tmp_path / "x.png", None).shape == (480 + 56, 2 * 640 + 48)
