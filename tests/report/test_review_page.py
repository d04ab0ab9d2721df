"""The review page in a browser: filters against NumPy, keys, the address, what the console says, widths."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import cv2
import numpy as np
import pytest
from support import browsing, finished
from support.reviewing import images_of, space_of, with_pixels

from driverwatch.ensemble import embeddings
from driverwatch.io.html import jpeg_uri, render
from driverwatch.report import review_measures as measures
from driverwatch.report import review_page, score_runs
from driverwatch.report.report_page import write_report
from driverwatch.report.review_measures import Measures, ReviewImages

pytestmark = pytest.mark.slow  # a browser
ODD = "p0_a#b%20&'c.jpg"  # a name that must be quoted in an address, and escaped in a page
DOUBTED = ["p3_4.jpg", "p1_2.jpg"]  # on the list of label issues


@dataclass(frozen=True)
class Opened:
    """A page in a browser, and the rows that it was made of."""

    driver: Any
    url: str
    train: ReviewImages
    test: ReviewImages
    found: Measures

    def at(self, fragment: str, clips: str = "clips=0") -> "Opened":
        """The page again, at an address; as it is opened without a word of clips, with `clips` empty."""
        self.driver.get("about:blank")
        self.driver.get(f"{self.url}#{'&'.join(filter(None, (fragment, clips)))}")
        self.wait()
        return self

    def wait(self) -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        ready = "return document.documentElement.dataset.ready !== undefined"
        WebDriverWait(self.driver, 60).until(lambda driver: driver.execute_script(ready))

    def element(self, css: str) -> Any:
        return self.driver.find_element("css selector", css)

    def press(self, *keys: str) -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def choose(self, name: str, value: str) -> None:
        from selenium.webdriver.support.ui import Select

        Select(self.element(f"#{name}")).select_by_visible_text(value)

    @property
    def count(self) -> int:
        """Of how many images the one shown is one."""
        found = re.search(r"of ([\d,]+)", self.element("#count").text)
        assert found is not None, self.element("#count").text
        return int(found[1].replace(",", ""))

    @property
    def shown(self) -> str:
        return str(self.element("#file").text)

    @property
    def hash(self) -> str:
        return str(self.driver.execute_script("return decodeURIComponent(location.hash)"))


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """A page of two runs, whose images lie where it looks for them, in one browser for all tests."""
    folder = tmp_path_factory.mktemp("review")
    with browsing.browser(folder / "profile") as driver, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        world = finished.world_of(folder)
        world.packs["train"].names[0] = ODD
        packs = {kind: with_pixels(pack, folder, kind) for kind, pack in world.packs.items()}
        world = replace(world, packs=packs)
        world.opened(patch)
        for name, seed in (("one", 1), ("two", 11)):
            world.run(name, seed=seed, skill=1.0)
        patch.setattr(embeddings, "built", lambda _: ["made_up"])
        names = np.concatenate([pack.names for pack in packs.values()])
        patch.setattr(embeddings, "open_embeddings", lambda *_: space_of(names))
        for pack in packs.values():
            write_images(folder / "data", pack)
        patch.setattr(score_runs, "open_packs", lambda *_: (world.folds, world.packs))
        write_report(world.context)
        listed = world.context.places.label_issues
        listed.parent.mkdir(parents=True)
        listed.write_text("\n".join(["rank,img", *(f"1,{name}" for name in [*DOUBTED, "gone.jpg"])]))
        path = review_page.write_review(world.context, [], None, None, 0)
        shown = review_page.read_predictions(world.context, [], None)
        found = measures.measure(shown.train, shown.runs)
        yield Opened(driver, (folder / path).as_uri(), shown.train, shown.test, found)


def write_images(data: Path, pack: Any) -> None:
    for name, label, image in zip(pack.names, pack.labels, pack.pixels, strict=True):
        path = data / "imgs" / ("test" if label < 0 else f"train/{finished.CLASSES[label]}") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), image)


def test_filters_leave_what_numpy_leaves(opened: Opened) -> None:
    train, made = opened.train, opened.found
    middle = float(np.sort(made.losses[0])[26:28].mean())
    cases = {
        "": np.full(54, True),
        "true=c1": train.labels == 1,
        "says=c2": made.said[0] == 2,
        "run=two&says=c2": made.said[2] == 2,
        "driver=p3": train.drivers == "p3",
        "fold=1": train.folds == 1,
        "wrong=1": made.said[0] != train.labels,
        "doubted=1": np.isin(train.names.astype(str), DOUBTED),
        "doubted=1&driver=p3": train.names.astype(str) == DOUBTED[0],
        "run=one&wrong=1&true=c0": (made.said[1] != train.labels) & (train.labels == 0),
        f"min={middle}": made.losses[0] >= middle,
        f"max={middle}&fold=0": (made.losses[0] <= middle) & (train.folds == 0),
        "name=P2_": np.char.startswith(train.names.astype(str), "p2_"),
        "sort=entropy&true=c2&wrong=1&driver=p1": (made.said[0] != train.labels)
        & (train.labels == 2)
        & (train.drivers == "p1"),
    }
    for fragment, left in cases.items():
        assert opened.at(fragment).count == left.sum(), fragment
    assert 0 < cases["wrong=1"].sum() < 54


@pytest.mark.parametrize("sort", ["loss", "disagreement", "entropy", "name"])
@pytest.mark.parametrize("judge", [0, 2])
def test_the_list_is_in_the_order_of_the_ranking(opened: Opened, sort: str, judge: int) -> None:
    made = opened.found
    opened.at(f"sort={sort}&run={made.judges[judge]}")
    values = {"loss": made.losses[judge], "entropy": made.entropies[judge], "disagreement": made.divergence}
    order = np.arange(54) if sort == "name" else measures.ranking(values[sort], opened.train.names)
    listed = [row.text for row in opened.driver.find_elements("css selector", ".row .file")]
    assert len(listed) > 5
    assert listed == [str(name) for name in opened.train.names[order][: len(listed)]]


def test_controls_set_the_address_and_going_back_undoes_them(opened: Opened) -> None:
    opened.at("")
    opened.choose("true", "c1 c1")
    opened.element("label[for=wrong]").click()
    wrong = opened.found.said[0] != opened.train.labels
    assert opened.count == (wrong & (opened.train.labels == 1)).sum()
    assert "true=c1" in opened.hash
    assert "wrong=1" in opened.hash
    opened.driver.back()
    assert opened.count == (opened.train.labels == 1).sum()
    assert not opened.element("#wrong").is_selected()
    opened.driver.back()
    assert opened.count == 54


def test_the_address_survives_a_reload_with_the_image(opened: Opened) -> None:
    opened.at("sort=entropy&says=c1&run=two")
    opened.press("j", "j")
    before = opened.shown, opened.hash, opened.element("#count").text
    assert before[2].startswith("3 of ")
    opened.driver.refresh()
    opened.wait()
    assert (opened.shown, opened.hash, opened.element("#count").text) == before
    assert opened.element("#run").get_attribute("value") == "two"


POINTED = """
const [select, value] = arguments;
select.focus();
select.dispatchEvent(new PointerEvent("pointerdown", {bubbles: true}));
select.value = value;
select.dispatchEvent(new Event("change", {bubbles: true}));
"""


def test_keys_step_filter_help_and_let_go(opened: Opened) -> None:
    from selenium.webdriver.common.keys import Keys

    opened.at("")
    order = [str(name) for name in opened.train.names[measures.ranking(opened.found.losses[0], opened.train.names)]]
    assert opened.shown == order[0]
    for key, place in (
        ("j", 1),
        (Keys.ARROW_RIGHT, 2),
        ("k", 1),
        (Keys.ARROW_LEFT, 0),
        ("k", 0),
        ("G", 53),
        ("j", 53),
        ("g", 0),
    ):
        opened.press(key)
        assert opened.shown == order[place], key
    opened.press("w")
    assert opened.count == (opened.found.said[0] != opened.train.labels).sum()
    opened.press("r")
    assert opened.count == 54
    opened.press("/", "p4_", "j")  # a letter in a field is a letter
    assert opened.element("#name").get_attribute("value") == "p4_j"
    opened.press(Keys.BACKSPACE)
    assert opened.count == 9
    opened.press(Keys.ESCAPE, "?")
    assert opened.element("#keys").is_displayed()
    opened.press(Keys.ESCAPE)
    assert not opened.element("#keys").is_displayed()
    opened.press("r", "t")
    assert opened.count == 12
    opened.press("t")  # there and back: the worst come first again
    assert opened.shown == order[0]
    opened.element("label[for=wrong]").click()
    opened.press("j")  # a box takes no letters
    assert opened.element("#count").text.startswith("2 of ")
    select = opened.element("#true")
    opened.driver.execute_script(POINTED, select, "c1")
    before = opened.shown
    opened.press("j")
    assert opened.shown != before
    opened.press("r")
    select.send_keys("c2")  # by keys it keeps them
    assert opened.driver.execute_script("return document.activeElement.id") == "true"


def test_the_list_takes_arrows_and_clicks_and_says_what_is_chosen(opened: Opened) -> None:
    from selenium.webdriver.common.keys import Keys

    opened.at("sort=name")
    opened.element("#list").send_keys(Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_UP, Keys.END)
    last = opened.element(f"#{opened.element('#list').get_attribute('aria-activedescendant')}")
    assert last.get_attribute("aria-selected") == "true"
    assert last.get_attribute("aria-posinset") == "54"
    assert opened.shown == str(opened.train.names[-1])
    opened.element("#list").send_keys(Keys.HOME)
    opened.element("#row-2").click()
    assert opened.shown == str(opened.train.names[2])


def test_buttons_step_and_stop_at_the_ends(opened: Opened) -> None:
    opened.at("name=p4_&sort=name")
    assert not opened.element("#previous").is_enabled()
    for _ in range(8):
        opened.element("#next").click()
    assert not opened.element("#next").is_enabled()
    assert opened.shown == "p4_8.jpg"


def test_an_image_is_shown_with_what_runs_say_of_it(opened: Opened) -> None:
    opened.at(f"image={ODD.replace('%', '%25').replace('#', '%23').replace('&', '%26')}")
    place = opened.train.names.tolist().index(ODD)
    assert opened.shown == ODD
    image = opened.element("#image figure img")
    assert image.get_attribute("src").endswith("imgs/train/c0/p0_a%23b%2520%26'c.jpg")
    loaded = "return new Promise(done => arguments[0].decode().then(() => done(arguments[0].naturalWidth)))"
    assert opened.driver.execute_script(loaded, image) == 44
    for label, line in enumerate(opened.driver.find_elements("css selector", ".probabilities tbody tr")[:3]):
        cells = [float(cell.text.strip("▸ %")) for cell in line.find_elements("css selector", ".digits")]
        own = opened.train.members[:, place, label]
        assert cells == pytest.approx([100 * own.mean(), *(100 * own)], abs=0.051)
        assert ("✓ true" in line.text) == (label == opened.train.labels[place])
    assert f"{opened.found.losses[0, place]:.3f}" in opened.element("#image dl").text


def test_neighbours_lead_on_and_back(opened: Opened) -> None:
    opened.at("sort=name")
    first, space = opened.shown, space_of(np.concatenate([opened.train.names, opened.test.names]))
    near = review_page.nearest_images(space, opened.train).indices[0]
    buttons = opened.driver.find_elements("css selector", ".near button")
    assert [button.get_attribute("title") for button in buttons] == [str(name) for name in opened.train.names[near]]
    same = [bool("✓ same" in button.text) for button in buttons]
    assert same == (opened.train.labels[near] == opened.train.labels[0]).tolist()
    buttons[0].click()
    assert opened.shown == str(opened.train.names[near[0]])
    opened.driver.back()
    assert opened.shown == first


def test_test_images_have_no_truth_and_no_way_to_give_them_one(opened: Opened) -> None:
    opened.at("set=test")
    entropies = measures.measure(opened.test, ["one", "two"]).entropies[0]
    assert opened.count == 12
    assert opened.shown == str(opened.test.names[measures.ranking(entropies, opened.test.names)[0]])
    assert "true" not in opened.element("#image").text
    assert not any(
        opened.element(f"#{name}").is_enabled() for name in ("true", "driver", "fold", "min", "max", "wrong", "doubted")
    )
    controls = opened.driver.find_elements(
        "css selector", "main input, main select, main textarea, [contenteditable], [download]"
    )
    named = {"set", "sort", "run", "true", "says", "driver", "fold", "name", "min", "max", "wrong", "doubted", "clips"}
    assert {control.get_attribute("id") for control in controls} == named
    opened.choose("sort", "disagreement")
    divergence = measures.divergence(opened.test.members)
    assert opened.shown == str(opened.test.names[measures.ranking(divergence, opened.test.names)[0]])


def test_cells_of_the_report_lead_to_their_images_and_back(opened: Opened) -> None:
    driver, made = opened.driver, opened.found
    opened.at("").element("#back").click()
    cells = driver.find_elements(
        "css selector", "section[aria-labelledby=confusions] .beside figure:nth-of-type(2) td a"
    )
    best = made.judges.index(dict(parse_qsl(urlsplit(cells[0].get_attribute("href")).fragment))["run"])
    assert len(cells) == len(set(zip(opened.train.labels, made.said[best], strict=True)))
    title, address = cells[1].get_attribute("title"), cells[1].get_attribute("href")
    assert cells[1].get_attribute("aria-label") == title
    cells[1].click()
    opened.wait()
    assert len(driver.window_handles) == 1  # in the same tab
    asked = dict(parse_qsl(urlsplit(address).fragment))
    label, says = int(asked["true"][1]), int(asked["says"][1])
    number = ((opened.train.labels == label) & (made.said[best] == says)).sum()
    assert (
        title == f"c{label} taken for c{says}: {number} of 18"
        if label != says
        else f"c{label} recognised: {number} of 18"
    )
    assert opened.element("#image h2").text.startswith(f"{number} image{'' if number == 1 else 's'}")
    clips = {
        (driver, says) for driver in opened.train.drivers[(opened.train.labels == label) & (made.said[best] == says)]
    }
    assert len(driver.find_elements("css selector", "#image .near button")) == opened.count == len(clips)
    opened.element("#back").click()
    assert driver.current_url.endswith("index.html#confusions")
    cell = driver.find_elements(
        "css selector", "section[aria-labelledby=drivers] figure:nth-of-type(2) tbody tr:last-child a"
    )[-1]
    driver.execute_script("arguments[0].click()", cell)  # it may lie below the bar
    opened.wait()
    chosen = dict(parse_qsl(urlsplit(driver.current_url).fragment))
    assert opened.count == 1
    assert (
        f"+{((opened.train.drivers == chosen['driver']) & (opened.train.labels == int(chosen['true'][1]))).sum() - 1} alike"
        in opened.element("#image").text
    )
    opened.element("#back").click()
    assert driver.current_url.endswith("index.html#drivers")
    sentence = driver.find_elements("css selector", ".findings a")[0]
    driver.execute_script("arguments[0].click()", sentence)
    assert driver.current_url.endswith("#runs")
    assert browsing.problems(driver) == []


def test_one_image_of_each_clip_stands_for_those_alike(opened: Opened) -> None:
    """By default: the first by the order; a click unfolds its clip."""
    opened.at("", clips="")
    assert opened.count == 18  # six drivers, three classes
    order = measures.ranking(opened.found.losses[0], opened.train.names)
    clips, listed = list(zip(opened.train.drivers[order], opened.train.labels[order], strict=True)), list[str]()
    for place, clip in zip(order, clips, strict=True):
        listed += [str(opened.train.names[place])] if clips.index(clip) == list(order).index(place) else []
    shown = [row.text for row in opened.driver.find_elements("css selector", ".row .file")]
    assert shown == listed[: len(shown)]
    assert opened.element("#alike").text == "+2 alike: show the clip"
    opened.element("#alike").click()
    assert opened.count == 3
    assert opened.shown == listed[0]
    assert "clips=0" in opened.hash
    opened.at(f"name={listed[0]}&view=grid", clips="")
    assert opened.element("#image h2").text == "1 image"
    opened.at(f"driver={clips[0][0]}&true=c{clips[0][1]}&view=grid", clips="")
    assert opened.element("#image h2").text == "3 images of 1 clip"
    opened.at("min=99&clips=0", clips="")
    assert opened.count == 0


@pytest.mark.parametrize(("typed", "number"), [("1,5", 1.5), ("1.5", 1.5), ("x", None), ("1,5,0", None)])
def test_a_decimal_comma_is_one_and_other_words_are_refused(opened: Opened, typed: str, number: float | None) -> None:
    opened.at("").element("#min").send_keys(typed)
    losses = opened.found.losses[0]
    if number is not None:
        assert opened.count == (losses >= number).sum()
        assert opened.element("#min").get_attribute("value") == typed  # as it was typed
    valid = opened.driver.execute_script("return document.getElementById('min').validity.valid")
    assert valid == (number is not None)


SWIPE = """
const [from, to] = arguments, image = document.querySelector("#image figure");
const touch = x => new Touch({identifier: 1, target: image, clientX: x, clientY: 300});
image.dispatchEvent(new TouchEvent("touchstart", {touches: [touch(from)], changedTouches: [touch(from)], bubbles: true}));
image.dispatchEvent(new TouchEvent("touchend", {touches: [], changedTouches: [touch(to)], bubbles: true}));
"""


def test_swipes_step(opened: Opened) -> None:
    first = opened.at("sort=name").shown
    opened.driver.execute_script(SWIPE, 300, 100)
    assert opened.shown == str(opened.train.names[1])
    opened.driver.execute_script(SWIPE, 100, 300)
    assert opened.shown == first
    opened.driver.execute_script(SWIPE, 100, 120)  # too short to be one
    assert opened.shown == first


def test_a_grid_shows_many_and_a_click_one(opened: Opened) -> None:
    opened.at("sort=name&true=c1")
    opened.press("v")
    buttons = opened.driver.find_elements("css selector", "#image .near button")
    assert [button.get_attribute("title") for button in buttons] == list(opened.train.names[opened.train.labels == 1])
    buttons[4].click()
    assert opened.shown == opened.train.names[opened.train.labels == 1][4]
    opened.driver.back()
    assert len(opened.driver.find_elements("css selector", "#image .near button")) == 18


def test_nothing_left_says_so_and_what_is_not_here_is_named(opened: Opened) -> None:
    opened.at("name=absent&driver=p99&min=-1&image=gone.jpg")
    assert opened.count == 0
    assert "No image is left" in opened.element("#image").text
    assert opened.element("#notice").text.endswith("left out: driver=p99, min=-1, image=gone.jpg.")
    opened.element("#reset").click()
    assert opened.count == 54


def test_an_image_that_filters_would_leave_out_is_shown_when_it_is_asked_for(opened: Opened) -> None:
    opened.at("true=c0&image=p1_1.jpg")
    assert opened.shown == "p1_1.jpg"
    assert opened.element("#count").text.startswith("\u2013 of 18")
    opened.press("j")
    assert opened.element("#count").text.startswith("1 of 18")


@pytest.mark.parametrize("width", browsing.WIDTHS)
@pytest.mark.parametrize("fragment", ["", "set=test", "name=absent", "run=two&says=c2&sort=disagreement"])
def test_nothing_scrolls_sideways_and_the_console_is_silent(opened: Opened, width: int, fragment: str) -> None:
    browsing.problems(opened.driver)
    browsing.set_width(opened.driver, width)
    try:
        opened.at(fragment)
        assert browsing.overflow(opened.driver) <= 0
        assert (opened.element("#panel").get_attribute("open") is None) == (width < 768)
        assert browsing.problems(opened.driver) == []
    finally:
        opened.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_browsers_that_cannot_read_base64_read_it_too(opened: Opened) -> None:
    made = opened.driver.execute_cdp_cmd(
        "Page.addScriptToEvaluateOnNewDocument", {"source": "delete Uint8Array.fromBase64"}
    )
    try:
        opened.at("true=c1")
        assert opened.driver.execute_script("return Uint8Array.fromBase64 === undefined")
        assert opened.count == (opened.train.labels == 1).sum()
    finally:
        opened.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", made)


def page_of(content: dict[str, Any], folder: Path, **facts: Any) -> str:
    empty = {
        "dataset": "x",
        "features": None,
        "thumbnails": {},
        "maps": {},
        "images": {"train": None, "test": None, "root": ""},
    }
    values = {"dataset": "x", "title": "y", "data": "z", "tta": {"a": "centre"}, "report": "", "made_of": ""} | facts
    path = folder / "page.html"
    path.write_text(render("review.html", content={**empty, **content}, **values), "utf-8")
    return path.as_uri()


def content_of(train: ReviewImages, test: ReviewImages, runs: list[str], classes: list[list[str]]) -> dict[str, Any]:
    return measures.content(train, test, (measures.measure(train, runs), measures.measure(test, runs))) | {
        "classes": classes
    }


def test_lists_have_class_names_and_room_for_them(opened: Opened, tmp_path: Path) -> None:
    train, test = images_of(["a", "b", "c"], runs=1), images_of(["t"], runs=1, known=False)
    names = [["c0", "safe driving"], ["c1", "radio"], ["c2", ""]]
    called = [name or key for key, name in names]
    page = replace(opened, url=page_of(content_of(train, test, ["only"], names), tmp_path)).at("sort=name")
    said = measures.measure(train, ["only"]).said[0]
    rows = [row.text for row in page.driver.find_elements("css selector", ".row > span:nth-of-type(2)")]
    assert len(rows) == 3
    for row, label, says in zip(rows, train.labels, said, strict=True):
        assert (f"says {called[says]}" in row) == (label != says)
        assert called[label] in row
    list_, last = page.element("#list"), page.element(".row:last-child")
    assert abs(list_.rect["y"] + list_.rect["height"] - last.rect["y"] - last.rect["height"]) <= 2  # no empty box below
    page.press("v")
    assert page.element("#image .near button").rect["width"] >= 160  # px
    browsing.set_width(page.driver, 390)
    try:
        assert page.element(".bar").rect["height"] < 70  # px: one line
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_names_are_text_whatever_is_in_them(opened: Opened, tmp_path: Path) -> None:
    bad = "</script><script>document.title='broken'</script><img src=x onerror=\"document.title='broken'\">{{ 1 }}"
    train, test = images_of([f"{bad}1", f"{bad}2"]), images_of([bad], known=False)
    train = replace(train, drivers=np.array([bad, bad]))
    content = content_of(train, test, [bad, "b"], [["<b>c0", bad], ["c1", bad], ["c2", bad]])
    url = page_of(content, tmp_path, dataset=bad, title=bad, data=bad, tta={bad: "centre"})
    for fragment in ("", "set=test"):
        page = replace(opened, url=url).at(fragment)
        assert bad in page.shown
        assert bad in page.driver.title
        assert bad in page.element("#image").text
        assert page.element("#image .thumb.missing").text.startswith("This image is not there")
    assert browsing.problems(opened.driver) == []


def test_one_run_without_test_images_has_no_disagreement(opened: Opened, tmp_path: Path) -> None:
    train, test = images_of(["a", "b", "c"], runs=1), images_of([], runs=1, known=False)
    content = content_of(train, test, ["only"], [["c0", "x"], ["c1", "y"], ["c2", "z"]])
    page = replace(opened, url=page_of(content, tmp_path)).at("sort=disagreement")
    assert page.element("#sort").get_attribute("value") == "loss"
    assert page.count == 3
    assert "disagreement" not in page.element("#image").text
    assert "make review EMBEDDINGS=own DATASET=x" in page.element("#image").text
    assert "make review N_CAMS=60 DATASET=x" in page.element("#image").text  # as it can be typed
    page.choose("set", "test")
    assert page.count == 0
    assert browsing.problems(opened.driver) == []


def test_class_activation_maps_lie_over_the_image(opened: Opened, tmp_path: Path) -> None:
    """By `h` that of the class which the run says, by a click that of any class which has one; with how it was made."""
    train, test = images_of(["a", "b"], runs=1), images_of(["t"], runs=1, known=False)
    dot = jpeg_uri(np.zeros((3, 4, 3), np.uint8), 4, 75)
    said = int(measures.measure(train, ["only"]).said[0, 1])
    other, _ = (label for label in range(3) if label != said)
    made = {"run": "only", "by": "occlusion", "picture": dot}
    maps = {"1": [made | {"label": label, "folds": [1]} for label in (said, other)]}
    maps["2"] = [made | {"label": label, "folds": [0, 1]} for label in range(3)]
    classes = [["c0", "x"], ["c1", "y"], ["c2", "z"]]
    content = content_of(train, test, ["only"], classes) | {"maps": maps, "thumbnails": {0: dot, 1: dot, 2: dot}}
    page = replace(opened, url=page_of(content, tmp_path)).at("image=b")

    def veil() -> list[str]:
        found = page.driver.find_elements("css selector", "#image .veil")
        return [each.get_attribute("alt") for each in found]

    assert veil() == []
    page.press("h")
    assert veil() == [f"Class activation map of {' '.join(classes[said])}"]
    assert "only, fold model 1, by occlusion." in page.element("#image figcaption").text
    buttons = {each.text: each for each in page.driver.find_elements("css selector", ".probabilities .class")}
    assert set(buttons) == {" ".join(classes[label]) for label in (said, other)}
    buttons[" ".join(classes[other])].click()
    assert veil() == [f"Class activation map of {' '.join(classes[other])}"]
    assert page.element(".probabilities .class[aria-pressed=true]").text == " ".join(classes[other])
    page.press("h")
    assert veil() == []
    page.at("image=a").press("h")
    assert veil() == []
    assert "of 2 images at the head of the lists, not of this one" in page.element("#image").text
    page.at("set=test").press("h")
    assert "mean of 2 fold models, by occlusion." in page.element("#image figcaption").text
    assert browsing.problems(opened.driver) == []
