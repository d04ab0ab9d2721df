"""Report and review as a reader meets them: at three widths, in light and dark, on paper, by keyboard and screen reader."""

import base64
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from support import browsing, finished
from support.reviewing import with_pixels

from driverwatch.report import score_runs
from driverwatch.report.report_page import write_report
from driverwatch.submission.build import make_ensemble

pytestmark = pytest.mark.slow  # a browser


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, dict[str, str]]]:
    """A browser, and the addresses of both pages of two runs and a submission whose packs hold pixels."""
    folder = tmp_path_factory.mktemp("pages")
    with browsing.browser(folder / "profile") as driver, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        world = finished.world_of(folder)
        world = replace(world, packs={kind: with_pixels(pack, folder, kind) for kind, pack in world.packs.items()})
        world.opened(patch)
        for name, seed in (("one", 1), ("a-run-whose-name-takes-room", 11)):
            world.run(name, seed=seed, skill=1.0)
        make_ensemble(world.context, [], "both", None, None)
        patch.setattr(score_runs, "open_packs", lambda *_: (world.folds, world.packs))
        report = write_report(world.context)
        review = (folder / report).with_name("review.html").as_uri()
        shown = {"report": (folder / report).as_uri(), "review": review, "grid": f"{review}#view=grid"}
        yield driver, shown


@pytest.mark.parametrize("page", ["report", "review", "grid"])
def test_a_page_fits_any_width_in_light_and_dark(pages: tuple[Any, dict[str, str]], page: str) -> None:
    driver, addresses = pages
    browsing.problems(driver)
    for width in (390, 820, 1440):
        for dark in (False, True):
            browsing.set_dark(driver, dark)
            browsing.set_width(driver, width)
            driver.get("about:blank")
            driver.get(addresses[page])
            assert browsing.overflow(driver) <= 0, (width, dark)
    found = [
        problem for problem in browsing.problems(driver) if "ERR_FILE_NOT_FOUND" not in problem
    ]  # the images' own files
    assert found == []


@pytest.mark.parametrize("page", ["report", "review", "grid"])
def test_a_checker_of_accessibility_finds_nothing(pages: tuple[Any, dict[str, str]], page: str) -> None:
    driver, addresses = pages
    script = browsing.axe()
    for dark in (False, True):
        browsing.set_dark(driver, dark)
        browsing.set_width(driver, 1440)
        driver.get("about:blank")
        driver.get(addresses[page])
        assert browsing.violations(driver, script) == []


def test_the_report_opens_with_sentences_and_pictures_that_lead_on(pages: tuple[Any, dict[str, str]]) -> None:
    driver, addresses = pages
    browsing.set_width(driver, 1440)
    driver.get(addresses["report"])
    assert len(driver.find_elements("css selector", ".findings li")) >= 4
    thumbnails = driver.find_elements("css selector", ".thumbnails.worst a")
    assert len(thumbnails) == 9
    assert thumbnails[0].location["y"] < 900  # on the first screen
    assert driver.execute_script("return [...document.images].every(one => one.complete && one.naturalWidth)")
    name = thumbnails[0].find_element("css selector", "img").get_attribute("alt").split(", ")[1]
    thumbnails[0].click()
    assert driver.find_element("id", "file").text == name
    driver.find_element("id", "back").click()
    assert driver.current_url.endswith("index.html#verdict")


CROPPED = """return [...document.querySelectorAll('.thumbnails img')].filter(
  one => Math.abs(one.clientWidth / one.clientHeight - 4 / 3) > 0.02).length"""


def test_pictures_are_whole_and_no_column_is_cut_at_a_desk(pages: tuple[Any, dict[str, str]]) -> None:
    driver, addresses = pages
    for width in browsing.WIDTHS:
        browsing.set_width(driver, width)
        driver.get(addresses["report"])
        assert driver.execute_script(CROPPED) == 0, width
    beyond = "return [...document.querySelectorAll('.beside .scroll')].filter(one => one.scrollWidth > one.clientWidth).length"
    assert driver.execute_script(beyond) == 0


def test_heads_sort_their_table(pages: tuple[Any, dict[str, str]]) -> None:
    driver, addresses = pages
    driver.get(addresses["report"])
    table = driver.find_element("css selector", "[aria-labelledby=drivers] table")

    def lines() -> list[tuple[str, float]]:
        rows = table.find_elements("css selector", "tbody tr")
        return [(cells[0], float(cells[1])) for cells in (row.text.split() for row in rows)]

    before = lines()
    assert [loss for _, loss in before] == sorted((loss for _, loss in before), reverse=True)
    for place, way, key in ((0, "ascending", 0), (1, "ascending", 1), (1, "descending", 1)):
        head = table.find_elements("css selector", "thead tr:last-child th")[place]
        driver.execute_script("arguments[0].querySelector('button').click()", head)
        assert head.get_attribute("aria-sort") == way
        found = [line[key] for line in lines()]
        assert found == sorted(found, reverse=way == "descending")  # type: ignore[type-var]
    assert len(table.find_elements("css selector", "th[aria-sort]")) == 1
    confusions = "[aria-labelledby=confusions] .beside figure:last-child"
    driver.execute_script(f"document.querySelectorAll('{confusions} th.name button')[1].click()")
    cells = driver.find_elements("css selector", f"{confusions} tbody td:nth-child(3) > *")
    counts = [int(cell.get_attribute("title").split(": ")[1].split(" of ")[0]) for cell in cells]
    assert counts == sorted(counts)  # an empty cell is none


CLOSED = """return [...document.querySelectorAll('main details')].filter(one => !one.closest('.side')
  && !one.lastElementChild.getClientRects().length).length"""


def test_on_paper_details_are_open_and_controls_are_not_there(pages: tuple[Any, dict[str, str]]) -> None:
    driver, addresses = pages
    review = ["nav", ".side", ".images"]
    kept = {"review": ".probabilities th[scope=row]", "report": ".beside .heat th[scope=row]", "grid": ".near button"}
    for page, gone in (("review", review), ("report", ["nav"]), ("grid", review)):
        driver.get(addresses[page])
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
        try:
            for css in gone:
                assert not driver.find_element("css selector", css).is_displayed(), css
            closed = driver.execute_script(CLOSED)
            assert closed == 0
            there = driver.find_elements("css selector", kept[page])
            assert there
            assert all(one.is_displayed() and one.text.strip() for one in there)
            torn = "return [...document.querySelectorAll('main p')].filter(one => getComputedStyle(one).breakInside != 'avoid')"
            assert driver.execute_script(torn) == []
            printed = base64.b64decode(driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": False})["data"])
            assert len(re.findall(rb"/Type\s*/Page\b", printed)) <= 12
        finally:
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
