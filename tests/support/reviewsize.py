"""Seconds and MB of the review page at the size of the competition, from made-up predictions; run with PYTHONPATH=src."""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from driverwatch.io.html import jpeg_uri, render
from driverwatch.report import review_measures as measures
from driverwatch.report import review_page
from support import browsing

TRAIN, TEST, RUNS, CLASSES = 22424, 79726, 5, 10
SCRIPTS = {
    "filter: only wrong, of one class": "state = fitting({...state, wrong: '1', true: 'c3'}, rows); apply(true)",
    "sort by another run": "state = fitting({...state, wrong: '', true: '', run: rows.judges[3], image: ''}, rows); apply(true)",
    "name has 12": "state = fitting({...state, name: '12', image: ''}, rows); apply(true)",
    "a step": "step(1)",
    "test images by disagreement": "state = stateOf('#set=test&sort=disagreement', rows).state; apply(true)",
    "a step among test images": "step(1)",
}


def images(first: int, count: int, known: bool) -> measures.ReviewImages:
    random = np.random.default_rng(first)
    names = np.array([f"img_{first + number}.jpg" for number in range(count)])
    labels = random.integers(0, CLASSES, count) if known else np.full(count, -1)
    scores = random.normal(size=(1, count, CLASSES)) * 3 + random.normal(size=(RUNS, count, CLASSES))
    rows = np.exp(scores) / np.exp(scores).sum(axis=2, keepdims=True)
    drivers = np.array([f"p{number % 26:03d}" for number in range(count)]) if known else np.full(count, "")
    folds = np.arange(count) % 26 % 5 if known else np.full(count, -1)
    return measures.sorted_images(names, labels, drivers, folds, rows)


def content(train: measures.ReviewImages, test: measures.ReviewImages) -> dict[str, object]:
    runs, random = [f"run_{number}" for number in range(RUNS)], np.random.default_rng(0)
    sets = measures.measure(train, runs), measures.measure(test, runs)
    count, pixels = len(train.names) + len(test.names), random.integers(0, 256, (24, 32, 3), np.uint8)
    picture = jpeg_uri(
        cv2.resize(pixels, (320, 240), interpolation=cv2.INTER_CUBIC), review_page.WIDTH_PX, measures.JPEG_QUALITY
    )
    heads = [
        number
        for made, names in zip(sets, (train.names, test.names), strict=True)
        for number in measures.heads(made, names, review_page.THUMBNAILS)
    ]
    near = measures.packed_array(random.integers(0, len(train.names), (count, review_page.NEAR)).astype(np.int32))
    more = {
        "features": "made up",
        "near": near,
        "cosine": measures.packed_array(np.zeros((count, review_page.NEAR), np.uint16)),
    }
    more |= {"thumbnails": dict.fromkeys(map(int, heads), picture), "maps": {}}
    more |= {
        "images": {"root": ".", "train": None, "test": None},
        "classes": [[f"c{i}", f"class {i}"] for i in range(CLASSES)],
    }
    return measures.content(train, test, sets) | more


def measure(name: str, train: measures.ReviewImages, test: measures.ReviewImages, folder: Path) -> None:
    start, page = time.monotonic(), folder / f"{name}.html"
    facts = {"dataset": name, "title": "made up", "data": "nowhere", "tta": {"run": "centre"}, "report": ""}
    page.write_text(render("review.html", content=content(train, test), **facts), "utf-8")
    seconds, size = time.monotonic() - start, page.stat().st_size / 1e6
    print(
        f"{len(train.names)} + {len(test.names)} images, {RUNS} runs: {size:.1f} MB, {seconds:.1f} s to write",
        flush=True,
    )
    with browsing.browser(folder / f"{name}-profile") as driver:
        driver.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
        driver.get("about:blank")
        driver.get(page.as_uri())
        while not (ready := driver.execute_script("return document.documentElement.dataset.ready")):
            time.sleep(0.2)
        paint = driver.execute_script("return performance.getEntriesByName('first-contentful-paint')[0]?.startTime")
        print(
            f"  first paint {paint or -1:.0f} ms, ready {ready} ms, of the processor {busy(driver):.0f} ms", flush=True
        )
        for what, script in SCRIPTS.items():
            took = f"const start = performance.now(); {script}; document.body.offsetHeight; return performance.now() - start"
            before, wall = busy(driver), driver.execute_script(took)
            shown = driver.find_element("id", "count").text
            print(f"  {what}: {wall:.0f} ms, of the processor {busy(driver) - before:.0f} ms; {shown}", flush=True)
        print(f"  console: {browsing.problems(driver) or 'silent'}")


def busy(driver: Any) -> float:
    """Milliseconds of processor time that the page's main thread has had: what others do on the machine does not count."""
    found = driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return 1000 * next(metric["value"] for metric in found if metric["name"] == "TaskDuration")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        train = images(0, TRAIN, True)
        if len(sys.argv) < 2:
            measure("training", train, images(TRAIN, 1000, False), Path(folder))
        measure("everything", train, images(TRAIN, TEST, False), Path(folder))


if __name__ == "__main__":
    main()
