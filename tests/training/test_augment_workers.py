"""Augmentation in processes: the same images as in threads, one sentence when a process dies, nobody left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.packs import COUNT, pack_of
from support.training import ROWS, changed, run_of

from driverwatch.data.augment import AugmentedInputs, Augmenter
from driverwatch.data.pack import Pack
from driverwatch.errors import InputError
from driverwatch.training.augment_workers import WORTH, Loader, TrainingSource, WorkerPool

TEST = 9
BATCHES = [np.array([3, 0, 17]), np.array([COUNT + 2, 5, COUNT]), np.array([COUNT + 8]), np.arange(20)]


def shown_of(packs: dict[str, Pack], folder: Path, **augment: Any) -> TrainingSource:
    run = changed(run_of(folder), augment={"hflip": "keep_labels", **augment})
    return TrainingSource((packs["train"], packs["test"]), run.settings, run.preset, ROWS.training)


@contextmanager
def worker_pool_of(shown: TrainingSource, count: int = 2) -> Iterator[WorkerPool]:
    worker_pool = WorkerPool(shown, shown.stamps(), count)
    try:
        yield worker_pool
    finally:
        worker_pool.close()
        assert not any(member.is_alive() for member, _ in worker_pool.members)


def pids(worker_pool: WorkerPool) -> list[int]:
    return [member.pid for member, _ in worker_pool.members if member.pid]


@pytest.mark.parametrize(
    "augment",
    [pytest.param({}, marks=pytest.mark.slow), {"mix": "mixup", "mix_prob": 0.9}],
    ids=["alone", "mixed"],  # a tenth of the images are alone in either
)
def test_the_images_are_those_of_threads(packs: dict[str, Pack], tmp_path: Path, augment: dict[str, Any]) -> None:
    shown = shown_of(packs, tmp_path, **augment)
    with worker_pool_of(shown) as worker_pool, ThreadPoolExecutor(5) as threads:
        for epoch in (0, 3, 1):
            here, there = shown.inputs(epoch), worker_pool.inputs(epoch)
            for rows, made in zip(BATCHES * 3, threads.map(there, BATCHES * 3), strict=True):
                for ours, theirs in zip(here(rows), made, strict=True):
                    assert ours.dtype == theirs.dtype
                    assert np.array_equal(ours, theirs)
        assert not np.array_equal(worker_pool.inputs(0)(BATCHES[0])[0], worker_pool.inputs(1)(BATCHES[0])[0])


def test_what_goes_wrong_in_a_process_is_told_and_the_next_rows_are_made(
    packs: dict[str, Pack], tmp_path: Path
) -> None:
    with worker_pool_of(shown_of(packs, tmp_path), 1) as worker_pool:
        with pytest.raises(InputError, match=r"augmentation failed in a process of its own: IndexError"):
            worker_pool.inputs(0)(np.array([COUNT + TEST]))
        assert len(worker_pool.inputs(0)(BATCHES[0])[0]) == 3


def test_a_process_that_dies_is_told_to_everybody_who_asks(packs: dict[str, Pack], tmp_path: Path) -> None:
    with worker_pool_of(shown_of(packs, tmp_path)) as worker_pool:
        made = worker_pool.inputs(0)
        for pid in pids(worker_pool):
            os.kill(pid, signal.SIGKILL)
        for _ in range(5):
            with pytest.raises(InputError, match=r"has ended, killed perhaps .*train\.loader=threads"):
                made(BATCHES[0])


def test_a_pack_that_was_made_again_meanwhile_is_refused(packs: dict[str, Pack], tmp_path: Path) -> None:
    shown = shown_of({**packs, "train": pack_of(tmp_path, COUNT, "train")}, tmp_path)
    noted = shown.stamps()
    pack_of(tmp_path, COUNT, "train")
    worker_pool = WorkerPool(shown, noted, 1)
    try:
        with pytest.raises(InputError, match="was packed again meanwhile"):
            worker_pool.inputs(0)(BATCHES[0])
    finally:
        worker_pool.close()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


BEGIN = """
if __name__ == "__main__":
    import signal, time
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    import numpy as np
    from driverwatch.data.pack import ImageBlock, Pack
    from driverwatch.config.model import ModelSettings
    from driverwatch.training.augment_workers import TrainingSource, WorkerPool
    from driverwatch.config.loading import parse

    none = np.array([])
    block = ImageBlock({path!r}, {offset}, {shape})
    pack = Pack(block, none, none, none, (0.0,) * 3, (1.0,) * 3, "", "")
    content = {{"backbone": "tiny", "weights": "none", "input": {{"pack": "36x44", "size": "32x40"}}}}
    shown = TrainingSource((pack,), parse(ModelSettings, content, "test"), [], np.arange(3))
    pool = WorkerPool(shown, shown.stamps(), 2)
    for _ in range(2):
        pool.inputs(0)(np.arange(3))
    print(*(member.pid for member, _ in pool.members), flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT], ids=lambda sign: sign.name)
def test_processes_end_with_whoever_started_them(tmp_path: Path, sign: signal.Signals) -> None:
    program = tmp_path / "program.py"
    block = pack_of(tmp_path, COUNT, "train").images
    program.write_text(BEGIN.format(path=block.path, offset=block.offset, shape=block.shape))
    started = subprocess.Popen(
        [sys.executable, program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert started.stdout is not None
    members = [int(word) for word in started.stdout.readline().split()]
    assert len(members) == 2
    assert all(map(is_alive, members))
    if sign is signal.SIGINT:
        os.killpg(started.pid, sign)  # as a terminal does
    else:
        started.send_signal(sign)
    said = started.communicate(timeout=60)[1]
    end = time.monotonic() + 30
    while any(map(is_alive, members)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(is_alive, members))
    assert said.count("Traceback") == (sign is signal.SIGINT), said  # the program's own, and none of its processes'


@pytest.mark.parametrize(
    ("loader", "images", "workers", "uses_processes"),
    [
        ("auto", WORTH, 2, True),
        ("auto", WORTH - 1, 2, False),
        ("auto", WORTH, 1, False),
        ("threads", WORTH, 2, False),
        ("processes", 1, 1, True),
    ],
)
def test_processes_are_started_where_there_is_enough_to_do(
    packs: dict[str, Pack], tmp_path: Path, loader: str, images: int, workers: int, uses_processes: bool
) -> None:
    run = run_of(tmp_path, loader=loader, workers=workers)
    with Loader(TrainingSource((packs["train"],), run.settings, run.preset, ROWS.training), images) as made:
        assert made.uses_processes == uses_processes
        assert made.threads == (2 * workers if uses_processes else workers)
        assert made.worker_pool is None
        made.inputs(0)
        assert (made.worker_pool is not None) == uses_processes


@pytest.mark.parametrize("regions", [["whole"], ["whole", "head"]])
def test_centre_views_need_no_draw_and_are_the_augmenters(tmp_path: Path, regions: list[str]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, len(regions) * 36, 44, 3), np.uint8)
    run = changed(run_of(tmp_path), input={"crop": "centre", "regions": regions}, augment={"preset": None})
    inputs, rows = AugmentedInputs(images, run.settings, [], 2), np.array([5, 0, 6])
    found, flipped = inputs(rows)
    assert inputs.is_plain == (len(regions) == 1)
    assert not AugmentedInputs(images, run.settings, run.preset, 2).is_plain
    one = Augmenter([], run.settings.augment, run.settings.input)
    assert np.array_equal(found, np.stack([one(images[row], (0, 2, row))[0] for row in rows]))
    assert not flipped.any()
