"""The local page as one meets it: in a browser, and as a command that ends at Ctrl-C."""

import base64
import io
import json
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import browsing
from support.fabricated import fabricated
from support.serving import CLASSES, animated, image, stand_in
from werkzeug.datastructures import FileStorage
from werkzeug.serving import make_server
from werkzeug.test import encode_multipart

from driverwatch.config.dataset import DatasetSettings
from driverwatch.data.context import open_context
from driverwatch.errors import InputError
from driverwatch.report.example_images import Example
from driverwatch.report.serve import Subject, app_of, serve

pytestmark = pytest.mark.slow  # a browser, and a process that imports TensorFlow


@contextmanager
def served(subject: Subject, folder: Path) -> Iterator[Any]:
    """A browser that has opened the page of a subject; a stand-in answers."""
    app = app_of(subject, stand_in)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with browsing.browser(folder / "profile") as driver:
            driver.get(f"http://127.0.0.1:{server.server_port}/")
            yield driver
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Any]:
    """A browser that has opened the page; a stand-in answers."""
    with served(Subject("tiny, mean of 2 fold models", "synthetic images", CLASSES), tmp_path) as driver:
        yield driver


def wait(driver: Any, script: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(driver, 60).until(lambda driver: driver.execute_script(f"return {script}"), script)


def shown(driver: Any, css: str) -> list[str]:
    return [found.text for found in driver.find_elements("css selector", css)]


DROP = """
const bytes = Uint8Array.from(atob(arguments[1]), (c) => c.charCodeAt(0)), moved = new DataTransfer();
const dropped = new File([bytes], "dropped.jpg", { type: "image/jpeg" });
for (let i = bytes.length ? arguments[2] ?? 1 : 0; i > 0; i--) moved.items.add(dropped);
const event = arguments[0] === "paste"
  ? new ClipboardEvent("paste", { clipboardData: moved, bubbles: true })
  : new DragEvent("drop", { dataTransfer: moved, bubbles: true, cancelable: true });
document.body.dispatchEvent(event);
"""


def test_an_image_is_chosen_dropped_and_pasted(page: Any, tmp_path: Path) -> None:
    (tmp_path / "a <b>.jpg").write_bytes(image(size=(640, 480)))
    field = page.find_element("id", "image")
    field.send_keys(str(tmp_path / "a <b>.jpg"))
    wait(page, "!document.getElementById('answer').hidden")
    assert shown(page, "#verdict") == ["texting <right>, 60.0 %"]
    assert shown(page, "#classes .name") == ["texting <right>", "c2", "safe driving", "radio"]
    assert shown(page, "#classes .share") == ["60.0 %", "25.0 %", "10.0 %", "5.0 %"]
    bars = "[...document.querySelectorAll('#classes .track span')].map((bar) => bar.offsetWidth / bar.parentNode.offsetWidth)"
    assert page.execute_script(f"return {bars}") == pytest.approx([0.6, 0.25, 0.1, 0.05], abs=0.01)
    size = (
        "(() => { const p = document.getElementById('picture'); return [p.naturalWidth, p.naturalHeight, p.alt]; })()"
    )
    wait(page, "document.getElementById('picture').naturalWidth > 0")
    assert page.execute_script(f"return {size}") == [
        640,
        480,
        "The image with a class activation map of “texting <right>”",
    ]

    picture = page.find_element("id", "picture")
    page.find_element("id", "heat").send_keys(" ")  # by the keyboard
    assert picture.get_attribute("src").startswith("blob:")
    assert picture.get_attribute("alt") == "The image as it was given"
    page.find_element("id", "heat").send_keys(" ")
    assert picture.get_attribute("src").startswith("data:image/jpeg")

    page.find_elements("css selector", "#classes button")[3].send_keys("\n")  # another class' map
    wait(page, "document.getElementById('caption').textContent.includes('radio')")
    assert shown(page, "#classes button[aria-pressed=true] .name") == ["radio"]
    assert page.execute_script("return document.activeElement.dataset.id") == "c3"

    page.execute_script(DROP, "drop", base64.b64encode(image(mode="L")).decode())
    wait(page, "!document.getElementById('answer').hidden && !document.getElementById('traits').hidden")
    assert shown(page, "#traits") == ["This image: greyscale."]
    page.execute_script(DROP, "paste", base64.b64encode(image(mode="CMYK")).decode())
    wait(page, "document.getElementById('traits').textContent.includes('CMYK')")
    assert browsing.problems(page) == []


@pytest.fixture
def with_examples(tmp_path: Path) -> Iterator[Any]:
    """The page with two examples, of which a stand-in recognises one."""
    found = []
    for number, truth in enumerate(("c1", "c3")):
        path = tmp_path / f"example{number}.jpg"
        path.write_bytes(image(size=(64, 48)))
        found.append(Example(path, "data:image/jpeg;base64,", truth, "no model was trained on its driver"))
    with served(Subject("tiny", "synthetic images", CLASSES, tuple(found)), tmp_path) as driver:
        yield driver


def test_examples_are_tried_by_a_click_and_the_truth_is_shown_after(with_examples: Any) -> None:
    page = with_examples
    assert "radio" not in page.find_element("css selector", "[aria-labelledby=try]").text  # not before
    for number, words in ((0, "✓ It is “texting <right>”"), (1, "✗ It is not; it is “radio”")):
        page.find_elements("css selector", "[data-example]")[number].click()
        wait(page, f"document.getElementById('truth').textContent.startsWith('{words}')")
        assert shown(page, "#truth") == [f"{words}: no model was trained on its driver."]
        assert shown(page, "#verdict") == ["texting <right>, 60.0 %"]
        assert not page.find_element("id", "traits").is_displayed()  # a JPEG under its own name
    assert page.find_element("id", "legend").is_displayed()
    page.find_element("id", "heat").click()
    assert not page.find_element("id", "legend").is_displayed()
    page.execute_script(DROP, "drop", base64.b64encode(image(mode="L")).decode())
    wait(page, "!document.getElementById('traits').hidden")
    assert not page.find_element("id", "truth").is_displayed()  # it is unknown of an image of one's own
    for width in browsing.WIDTHS:
        browsing.set_width(page, width)
        assert browsing.overflow(page) == 0
    assert browsing.problems(page) == []


SLOW_EXAMPLE = """const real = window.fetch;
window.fetch = async (...asked) => {
  if (String(asked[0]).endsWith("/example/0")) await new Promise(done => setTimeout(done, 1000));
  return real(...asked).finally(() => { window.asked = (window.asked || 0) + 1; });
};"""


def test_what_was_chosen_last_is_answered(with_examples: Any) -> None:
    with_examples.execute_script(SLOW_EXAMPLE)
    for button in with_examples.find_elements("css selector", "[data-example]"):
        button.click()
    wait(with_examples, "window.asked === 3")  # two examples, and one question
    assert shown(with_examples, "#truth") == ["✗ It is not; it is “radio”: no model was trained on its driver."]


def test_an_answer_can_be_printed_and_a_remark_stands_out(page: Any) -> None:
    page.execute_script(DROP, "drop", base64.b64encode(image(size=(200, 20))).decode())
    wait(page, "!document.getElementById('answer').hidden")
    assert shown(page, "#remarks.problem") == ["This image is unlike the camera's images."]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert not page.find_element("id", "form").is_displayed()
    assert shown(page, "#classes .share") == ["60.0 %", "25.0 %", "10.0 %", "5.0 %"]
    page.execute_script(DROP, "drop", base64.b64encode(image()).decode())
    wait(page, "document.getElementById('remarks').hidden")


def test_bad_files_are_refused_and_the_page_resumes(page: Any, tmp_path: Path) -> None:
    (tmp_path / "a.gif").write_bytes(animated())
    (tmp_path / "a.jpg").write_bytes(image())
    with (tmp_path / "large.jpg").open("wb") as large:
        large.truncate(100 * 2**20)
    field = page.find_element("id", "image")
    field.send_keys(str(tmp_path / "large.jpg"))
    wait(page, "!document.getElementById('problem').hidden")
    assert shown(page, "#problem") == ["large.jpg is too large; at most 64 MB are read."]
    assert browsing.problems(page) == []
    field.send_keys(str(tmp_path / "a.gif"))
    wait(page, "document.getElementById('problem').textContent.includes('GIF')")
    assert not page.find_element("id", "answer").is_displayed()
    page.execute_script(DROP, "drop", "")
    wait(page, "document.getElementById('problem').textContent.includes('no file in that')")
    field.send_keys(str(tmp_path / "a.jpg"))
    wait(page, "!document.getElementById('answer').hidden")
    assert not page.find_element("id", "problem").is_displayed()
    page.execute_script(DROP, "drop", base64.b64encode(image()).decode(), 2)
    assert shown(page, "#problem") == ["These are 2 files; one image at a time."]
    assert not page.find_element("id", "answer").is_displayed()
    said = browsing.problems(page)
    assert len(said) == 1, said  # Chromium notes every 4xx
    assert "422" in said[0]


@pytest.mark.parametrize("dark", [False, True])
def test_nothing_is_cut_off_at_any_width(page: Any, tmp_path: Path, dark: bool) -> None:
    (tmp_path / "a.jpg").write_bytes(image(size=(640, 480)))
    browsing.set_dark(page, dark)
    page.find_element("id", "image").send_keys(str(tmp_path / "a.jpg"))
    wait(page, "!document.getElementById('answer').hidden")
    for width in browsing.WIDTHS:
        browsing.set_width(page, width)
        assert browsing.overflow(page) == 0, width
        low = (
            "Math.min(...[...document.querySelectorAll('button, #form label, .switch')].map((one) => one.offsetHeight))"
        )
        assert page.execute_script(f"return {low}") >= 36  # px: large enough for a finger
    assert browsing.problems(page) == []


def get(url: str, content: bytes | None = None) -> tuple[int, str]:
    boundary, body = encode_multipart({"image": FileStorage(io.BytesIO(content), "a.jpg")}) if content else ("", None)
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"} if content else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=600) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.keras
def test_the_command_answers_as_classify_does_and_ends_at_ctrl_c(
    project: Path, demo_settings: DatasetSettings, tmp_path: Path
) -> None:
    from driverwatch.data.images import examine_content
    from driverwatch.data.tta import centre_view
    from driverwatch.inference.class_activation import networks_of_run, probabilities

    run = fabricated(demo_settings, "hand")
    begin = "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # a shell's background jobs ignore it
    begin += "; runpy.run_module('driverwatch', run_name='__main__')"
    command = [sys.executable, "-c", begin, "serve", "hand", "--dataset", "demo", "--port", "0"]
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(command, cwd=project, stdout=said, stderr=subprocess.STDOUT, text=True)
    try:
        end = time.monotonic() + 600
        while "http://" not in (tmp_path / "said").read_text():
            assert process.poll() is None, (tmp_path / "said").read_text()
            assert time.monotonic() < end
            time.sleep(0.2)
        url = next(word for word in (tmp_path / "said").read_text().split() if word.startswith("http://"))
        assert url.startswith("http://127.0.0.1:")
        assert "hand, mean of 2 fold models" in get(url)[1]
        status, answer = get(f"{url}/classify", image(size=(80, 60)))
        assert status == 200, answer
        found = {row["id"]: row["probability"] for row in json.loads(answer)["classes"]}
        pixels = examine_content(image(size=(80, 60)), ".jpg", None).pixels
        assert pixels is not None
        seen = centre_view(pixels, run.settings.input)
        files = [run.fold(number) / "weights.h5" for number in (0, 2)]
        wanted = probabilities(networks_of_run(run.settings, 10, (0, 0, 0), files), seen.pixels[None])[0]
        assert np.allclose([found[key] for key in run.classes], wanted, atol=1e-6)
        assert np.ptp(wanted) > 1e-3
        with pytest.raises(InputError, match=r"PORT=\d+: cannot be used \(Address already in use\); choose another"):
            serve(open_context("demo", None), "hand", None, int(url.rsplit(":", 1)[1]))
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 0
    finally:
        process.kill()
        process.wait()
    assert (tmp_path / "said").read_text().splitlines()[-1] == "ended; nothing was kept"
    assert "Traceback" not in (tmp_path / "said").read_text()
