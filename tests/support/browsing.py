"""A headless Chromium for tests of pages; where there is none, such a test is skipped and says so."""

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless=new",
    "--no-sandbox",  # root has none
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--force-prefers-reduced-motion",  # a click must not fall where a page is still scrolling
    "--window-size=1400,900",
)
WIDTHS = (390, 820, 1400)  # px: a phone, a tablet, a desk


@contextmanager
def browser(profile: Path) -> Iterator[Any]:
    """A driver of Chromium with a fresh profile that logs what the console says; skips the test where there is none."""
    binary, service = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or service is None:
        pytest.skip("no chromium and chromedriver on PATH (Debian: apt install chromium chromium-driver)")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(service))
    try:
        yield driver
    finally:
        driver.quit()


def set_width(driver: Any, width: int, height: int = 900) -> None:
    """Give the page a width in px, narrower than any window can be; as a phone would."""
    sizes = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", sizes)


def set_dark(driver: Any, dark: bool) -> None:
    """Ask the page for its dark or light colours."""
    feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def problems(driver: Any) -> list[str]:
    """What the console has said since the last time: warnings and errors, and files that were not found."""
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def overflow(driver: Any) -> int:
    """How many px the page is wider than its window."""
    script = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    return int(driver.execute_script(script))


def axe() -> str:
    """axe-core's script, out of the Python package that carries it; skips the test where it is not installed."""
    spec = importlib.util.find_spec("axe_core_python")
    for folder in spec.submodule_search_locations or [] if spec else []:
        if found := sorted(Path(folder).rglob("axe.min.js")):
            return found[0].read_text("utf-8")
    pytest.skip("axe-core-python is not installed; make test-slow installs it")


def violations(driver: Any, script: str) -> list[str]:
    """What axe-core finds wrong with the page as it is shown, everything folded in it opened: rule, count and first element."""
    driver.set_script_timeout(120)
    driver.execute_script("document.querySelectorAll('details').forEach(one => one.open = true)")
    driver.execute_script(script)
    return list(driver.execute_async_script(AXE))


AXE = """const done = arguments[arguments.length - 1];
axe.run().then(found => done(found.violations.map(one => `${one.id}, ${one.nodes.length}: ${one.nodes[0].html.slice(0, 200)}`)));"""
