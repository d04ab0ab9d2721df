"""Screenshots for the documentation: small files, the same colours, and a sentence where there is nothing to photograph."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.browsing import browser
from support.places import ROOT

from driverwatch.errors import InputError
from driverwatch.io.paths import Places
from scripts import docs_images


def test_a_picture_of_few_colours_is_kept_as_it_is() -> None:
    picture = Image.new("RGB", (300, 200), "#ffffff")
    picture.paste("#0072b2", (20, 20, 100, 60))
    made = Image.open(io.BytesIO(docs_images.small_png(picture)))
    assert made.size == (300, 200)
    assert np.array_equal(np.asarray(made.convert("RGB")), np.asarray(picture))


@pytest.mark.slow
def test_a_picture_that_does_not_fit_loses_colours_then_pixels() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    content = docs_images.small_png(Image.fromarray(noise), 40_000)
    made = Image.open(io.BytesIO(content))
    assert len(content) <= 40_000
    assert made.width == made.height < 400


def test_the_committed_pictures_are_small_and_of_one_width() -> None:
    paths = sorted((ROOT / docs_images.FOLDER).glob("*.png"))
    assert paths
    for path in paths:
        assert path.stat().st_size <= docs_images.LARGEST_BYTES, path
        with Image.open(path) as picture:
            assert picture.width <= docs_images.WIDTH_PX


def test_without_a_demo_it_says_what_to_do(tmp_path: Path) -> None:
    places = Places("demo", tmp_path)
    with pytest.raises(InputError, match="build the demo first: make demo"):
        docs_images.demo_run(places)
    path = places.submission("demo").with_suffix(".json")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"runs": {"first": "ten_crop", "second": "ten_crop"}}))
    assert docs_images.demo_run(places) == "first"


def test_without_chromium_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="apt install chromium"), docs_images.chromium():
        pass


@pytest.mark.slow
def test_a_screenshot_is_the_top_of_the_page_in_light_colours(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    style = (
        "body{margin:0;background:#0072b2}@media(prefers-color-scheme:dark){body{background:#000}}div{height:3000px}"
    )
    page.write_text(f"<style>{style}</style><div></div>")
    with browser(tmp_path / "profile") as driver:
        driver.get(page.as_uri())
        picture = docs_images.screenshot(driver, 500, 400)
    assert picture.size == (500, 400)
    assert picture.convert("RGB").getpixel((250, 390)) == (0, 114, 178)
