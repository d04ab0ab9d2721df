"""Take two synthetic competitions through the whole pipeline, one of full size and one of a tenth, and compare time and memory.

`make test-size` runs this file. The large one has as many labelled and test images as State Farm's has in sum, 102,150. Its
images are tiny, so what is measured is the bookkeeping: tables, names, checksums, predictions. What grows with an image's or a
network's size is left out, and so are real networks, competitions that name no driver, and the Kaggle client.

Memory is private (anonymous) memory, summed over a command's processes at a moment and sampled by
`benchmarks.memory_sampler`; pages of a mapped pack belong to the page cache and do not count.
"""

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.memory_sampler import watched

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / "build" / "size"
DEMO = {"tenth": (5, 17), "full": (50, 177)}  # training and test drivers, 450 images each
IMAGES = {name: 450 * sum(drivers) for name, drivers in DEMO.items()}
SET = (
    "input.pack=32x40 input.size=32x36 train.epochs=1 predict.tta=centre predict.batch_size=200 train.loader=processes"
)
PACK = ["pack", "--model", "tiny", "--set", SET]
STEPS = {
    "synthetic": ["synthetic", "--frames", "45", "--size", "32x40"],
    "folds": ["folds"],
    "folds-again": ["folds"],
    "pack": PACK,
    "pack-again": PACK,
    "pack-copied": PACK,  # images and packs have new times: every byte is read and compared
    "train": ["train", "tiny", "--set", SET],
    "predict": ["predict", "tiny", "--tta", "ten_crop", "--batch-size", "200"],
    "ensemble": ["ensemble", "--name", "size"],
    "check": ["check", "submissions/demo/size.csv"],
    "submissions": ["submissions"],
    "score": ["score"],
}
RATIO = {"train": 1.10, "predict": 1.10}  # memory at full size over that at a tenth, at most
ROW = {
    "synthetic": 800,
    "ensemble": 1500,
    "check": 1500,
    "submissions": 2000,
    "score": 2000,
}  # bytes per image more, at most
ROWS = 500  # of every other step: both tables with names and paths
SLOWER = (
    1.5  # seconds per image at full size over those at a tenth, at most: what is linear or has a start stays below 1
)


@dataclass(frozen=True)
class Cost:
    """What one command took."""

    seconds: float
    memory: float  # MiB, all its processes
    largest: float  # MiB, the largest process


def new_project(name: str) -> Path:
    """An empty project folder with the real configs and two folds, to save time."""
    project = PLACE / name
    shutil.rmtree(project, ignore_errors=True)
    shutil.copytree(ROOT / "configs", project / "configs")
    (project / "folds").mkdir()
    settings = project / "configs" / "datasets" / "demo.yaml"
    settings.write_text(settings.read_text().replace("folds: 3", "folds: 2"))
    return project


def measured(step: str, name: str) -> Cost:
    """Run a step to its end in the project of this name; it must succeed."""
    project, words = PLACE / name, list(STEPS[step])
    if step == "synthetic":
        words += ["--drivers", str(DEMO[name][0]), "--test-drivers", str(DEMO[name][1])]
    if step == "pack-copied":
        for path in [*project.glob("build/demo/data/imgs/**/*.jpg"), *project.glob("build/demo/pack/*/*.h5")]:
            os.utime(path)
    command = [sys.executable, "-m", "driverwatch", *words, "--dataset", "demo"]
    log, start = project / "log.txt", time.monotonic()
    with log.open("a") as output:
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        process = subprocess.Popen(command, cwd=project, env=environment, stdout=output, stderr=subprocess.STDOUT)
        memory, largest = watched(process)
    if process.returncode:
        raise SystemExit(f"{step} of {IMAGES[name]} images failed:\n{log.read_text()[-2000:]}")
    return Cost(round(time.monotonic() - start, 1), round(memory / 2**20, 1), round(largest / 2**20, 1))


def row(step: str, tenth: Cost, full: Cost) -> dict[str, object]:
    """A line of the table, with the limits that it breaks."""
    ratio, images = full.memory / tenth.memory, IMAGES["full"] - IMAGES["tenth"]
    slower = full.seconds / tenth.seconds * IMAGES["tenth"] / IMAGES["full"]
    more = round((full.memory - tenth.memory) * 2**20 / images)
    invalid = [f"memory ratio above {RATIO[step]:.2f}"] if ratio > RATIO.get(step, ratio) else []
    invalid += (
        [f"above {ROW.get(step, ROWS)} bytes per image"] if step not in RATIO and more > ROW.get(step, ROWS) else []
    )
    invalid += [f"time per image ratio above {SLOWER}"] if slower > SLOWER else []
    return {
        "step": step,
        "s tenth": tenth.seconds,
        "s full": full.seconds,
        "MiB tenth": tenth.memory,
        "MiB full": full.memory,
        "ratio": round(ratio, 3),
        "largest process": full.largest,
        "bytes per image": more,
        "invalid": "; ".join(invalid),
    }


def told(rows: list[dict[str, object]]) -> str:
    """The table as aligned text."""
    cells = [list(rows[0]), *([str(value) for value in line.values()] for line in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)


def main(steps: list[str]) -> int:
    """Measure `steps` (none: all of them, from empty folders) at both sizes; returns the exit status."""
    kept = PLACE / "costs.json"
    if not steps:
        for name in DEMO:
            new_project(name)
        kept.unlink(missing_ok=True)
    costs = json.loads(kept.read_text()) if kept.is_file() else {}
    for step in steps or STEPS:
        costs[step] = {name: asdict(measured(step, name)) for name in DEMO}
        kept.write_text(json.dumps(costs, indent=2) + "\n")
        print(told([row(step, *(Cost(**costs[step][name]) for name in DEMO))]), flush=True)
    rows = [row(step, *(Cost(**costs[step][name]) for name in DEMO)) for step in STEPS if step in costs]
    with (PLACE / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print(f"\n{IMAGES['tenth']} and {IMAGES['full']} images\n{told(rows)}")
    return int(any(line["invalid"] for line in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
