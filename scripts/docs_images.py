"""Screenshots of the demo's pages for the documentation, as small PNG files.

    PYTHONPATH=src:. python -m scripts.docs_images

writes the demo's report and review pages, serves its run, and photographs all three in headless Chromium (`make docs-images`). The
demo's images are synthetic, so that the screenshots are free of rights.
"""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from driverwatch.errors import InputError
from driverwatch.io.atomic import replacing
from driverwatch.io.paths import Places

FOLDER, DATASET = Path("docs/images"), "demo"
WIDTH_PX, HEIGHT_PX, PHONE_PX = 1200, 820, 390
LARGEST_BYTES, COLOURS = 150_000, (256, 128, 64, 32)
COMMAND = [sys.executable, "-m", "driverwatch"]
WAIT_SECONDS = 120  # for a page to be ready; the first prediction compiles the network


def small_png(picture: Image.Image, largest: int = LARGEST_BYTES) -> bytes:
    """The picture as a PNG of at most `largest` bytes: with as many colours as fit, then also at a smaller size."""
    picture = picture.convert("RGB")
    while True:
        for colours in COLOURS:
            content = io.BytesIO()
            quantised = picture.quantize(colours, dither=Image.Dither.NONE)
            quantised.save(content, format="png", optimize=True)
            if content.tell() <= largest:
                return content.getvalue()
        picture = picture.resize((picture.width * 9 // 10, picture.height * 9 // 10), Image.Resampling.LANCZOS)


def demo_run(places: Places) -> str:
    """The run that the demo's submission names first.

    Raises:
        InputError: there is no demo.
    """
    path = places.submission(DATASET).with_suffix(".json")
    if not path.is_file():
        raise InputError(f"{path}: no such file; build the demo first: make demo")
    return str(next(iter(json.loads(path.read_text(encoding="utf-8"))["runs"])))


@contextmanager
def chromium() -> Iterator[Any]:
    """A driver of headless Chromium. Raises `InputError` where there is none."""
    binary, service = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or service is None:
        raise InputError(
            "make docs-images needs chromium and chromedriver (Debian: apt install chromium chromium-driver)"
        )
    from selenium import webdriver

    with tempfile.TemporaryDirectory(prefix="chromium-") as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = binary
        for flag in ("headless=new", "no-sandbox", "disable-gpu", "hide-scrollbars", f"user-data-dir={profile}"):
            options.add_argument(f"--{flag}")
        driver = webdriver.Chrome(options, webdriver.ChromeService(service))
        try:
            yield driver
        finally:
            driver.quit()


def screenshot(driver: Any, width: int = WIDTH_PX, height: int = HEIGHT_PX) -> Image.Image:
    """The top of the page that is open, in its light colours."""
    light = {"features": [{"name": "prefers-color-scheme", "value": "light"}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", light)
    sizes = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", sizes)
    return Image.open(io.BytesIO(driver.get_screenshot_as_png()))


@contextmanager
def served(run: str) -> Iterator[str]:
    """The address at which a run's page is served meanwhile."""
    words = [*COMMAND, "serve", run, "--dataset", DATASET, "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        try:
            lines = iter(process.stdout or ())
            found = next(filter(None, (re.search(r"http://[\d.]+:\d+", line) for line in lines)), None)
            if found is None:
                raise InputError(f"make serve RUN={run} DATASET={DATASET}: ended before it served anything")
            yield found[0]
        finally:
            process.terminate()


def answered(driver: Any, address: str, image: Path) -> None:
    """Open the served page, choose an image, and wait for its probabilities."""
    from selenium.webdriver.support.ui import WebDriverWait

    driver.get(address)
    driver.find_element("id", "image").send_keys(str(image))
    ready = "const answer = document.getElementById('answer'); return !answer.hidden && document.images[0]?.complete"
    WebDriverWait(driver, WAIT_SECONDS).until(lambda driver: driver.execute_script(ready))


def main() -> int:
    places = Places(DATASET)
    try:
        run = demo_run(places)
        for page in ("report", "review"):
            subprocess.run([*COMMAND, page, "--dataset", DATASET], check=True)
        pictures: dict[str, Image.Image] = {}
        with chromium() as driver:
            for name, page in (("report", "index"), ("review", "review")):
                driver.get(places.page(page).resolve().as_uri())
                pictures[name] = screenshot(driver)
            with served(run) as address:
                image = sorted((places.build / "data" / "imgs" / "test").glob("*.jpg"))[0]
                answered(driver, address, image.resolve())
                pictures["serve"] = screenshot(driver)
        FOLDER.mkdir(parents=True, exist_ok=True)
        for name, picture in pictures.items():
            with replacing(FOLDER / f"{name}.png") as temporary:
                temporary.write_bytes(small_png(picture))
            print(f"{FOLDER / f'{name}.png'}: {(FOLDER / f'{name}.png').stat().st_size // 1000} kB")
    except InputError as error:
        print(f"driverwatch: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
