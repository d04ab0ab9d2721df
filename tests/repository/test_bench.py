"""Measuring measures what it says: sides in turn, ratios by repetition, nothing dropped. Nothing here must be fast."""

import csv
import gc
import io
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.places import ROOT

from benchmarks import (
    baselines,
    cache,
    crops,
    end_to_end,
    engine,
    growth,
    imports,
    knn,
    leakage,
    load,
    pack,
    precision,
    result,
    suite,
    train,
    workload,
)
from benchmarks.result import Baseline, Result, beside, once
from benchmarks.scratch_project import Cost, Project, environment
from benchmarks.timing import Side, Spread, Timing, interleaved, over_rounds, speed
from benchmarks.workload import Bench, Request, last_stage
from driverwatch.config.backbones import BACKBONES
from driverwatch.config.dataset import DatasetSettings
from driverwatch.config.loading import parse
from driverwatch.config.model import ModelSettings
from driverwatch.config.training import Stage
from driverwatch.data.context import Context
from driverwatch.data.images import examine
from driverwatch.data.tta import cut_all
from driverwatch.errors import InputError
from driverwatch.io.paths import Places

TINY = {
    "backbone": "tiny", "weights": "none", "input": {"pack": "40x52", "size": "32x40"},
    "augment": {"preset": "light", "hflip": "swap_left_right"}, "train": {"batch_size": 4}, "predict": {"batch_size": 20},
}  # fmt: skip


class Time:
    """Two clocks that stand still unless somebody works."""

    def __init__(self) -> None:
        self.now, self.spent, self.calls = 100.0, 7.0, list[str]()

    def works(self, name: str, seconds: float, cpu: float = 0.0) -> Any:
        def run() -> None:
            self.calls.append(name)
            self.now, self.spent = self.now + seconds, self.spent + cpu

        return run

    @property
    def clocks(self) -> tuple[Callable[[], float], Callable[[], float]]:
        return lambda: self.now, lambda: self.spent


def test_sides_take_turns_and_only_their_own_time_counts() -> None:
    time = Time()
    sides = {"a": Side(time.works("a", 2, 3), time.works("before a", 50, 50)), "b": Side(time.works("b", 5, 1))}
    found = interleaved(sides, 3, *time.clocks, warm_up=2)
    assert time.calls == ["before a", "a", "b"] * 5
    assert found == {"a": Timing((2, 2, 2), (3, 3, 3)), "b": Timing((5, 5, 5), (1, 1, 1))}


@pytest.mark.parametrize("repeat", [2, 1, 0, -1])
def test_a_median_of_fewer_than_three_is_refused(repeat: int) -> None:
    with pytest.raises(InputError, match=f"REPEAT={repeat}: expected 3"):
        interleaved({}, repeat)
    with pytest.raises(InputError, match=f"REPEAT={repeat}: expected 3"):
        Request(100, repeat)


def test_garbage_is_left_lying_while_a_side_runs_and_collected_afterwards() -> None:
    seen = []
    interleaved({"a": Side(lambda: seen.append(gc.isenabled()), lambda: seen.append(gc.isenabled()))}, 3)
    assert seen == [True, False] * 4

    def fails() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        interleaved({"a": Side(fails)}, 3)
    assert gc.isenabled()


@given(
    st.lists(st.tuples(st.floats(0.01, 100), st.floats(0.01, 100)), min_size=3, max_size=9),
    st.data(),
)
def test_what_slows_both_sides_of_a_round_does_not_change_the_ratio(
    pairs: list[tuple[float, float]], data: Any
) -> None:
    slower = data.draw(st.lists(st.floats(0.5, 50), min_size=len(pairs), max_size=len(pairs)))
    ours, theirs = zip(*pairs, strict=True)
    plain = speed(Timing(ours, ours), Timing(theirs, theirs))
    drifted = [tuple(s * f for s, f in zip(side, slower, strict=True)) for side in (ours, theirs)]
    assert speed(*(Timing(side, side) for side in drifted)) == pytest.approx(plain)
    assert plain.low <= plain.median <= plain.high


def test_the_figure_is_the_median_of_ratios_of_the_same_round() -> None:
    found = speed(Timing((1, 10, 100), ()), Timing((2, 5, 300), ()))
    assert found == Spread(2.0, 0.5, 3.0)


@pytest.mark.parametrize(
    ("better", "target", "value", "met"),
    [("higher", 0.9, 0.9, True), ("higher", 0.9, 0.89, False), ("lower", 2.5, 2.5, True), ("lower", 2.5, 2.51, False),
     ("lower", None, 1.0, None), ("lower", 0, 0.0, True), ("lower", 0, 1.0, False)],
)  # fmt: skip
def test_targets(better: Any, target: float | None, value: float, met: bool | None) -> None:
    assert Result("a", "b", better, target, once(value)).met is met
    assert Result("a", "b", better, target, skipped="nothing to measure").met is None


def line(row: str, against: str, value: float = 0.5) -> Result:
    baseline = Baseline("theirs", against, 0.9)
    timed = {"ours": Timing((1.0, 1.0, 1.0), (0.0,) * 3), "theirs": Timing((value, value, value), (0.0,) * 3)}
    return beside(row, [baseline], timed, {"images": 3})[0]


def test_a_row_measured_again_replaces_its_lines_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    asked = {"benchmarks": "", "images": 10, "full": 0}
    result.keep(path, [line("pack", "x"), line("pack", "y"), line("load", "x")], asked, (0.1, 1.2))
    entries = result.keep(path, [line("pack", "z", 2.0)], asked | {"images": 20}, (0.3, 1.4))
    assert [entry["key"] for entry in entries] == ["load: x", "pack: z"]
    kept = json.loads(path.read_text())["lines"]
    assert kept == json.loads(json.dumps(entries))
    assert [(e["made"]["asked"]["images"], e["made"]["load_average"]) for e in kept] == [
        (10, [0.1, 1.2]),
        (20, [0.3, 1.4]),
    ]
    assert kept[1]["timings"]["theirs"]["seconds"] == [2.0, 2.0, 2.0]
    assert {"commit", "versions", "cores"} <= kept[1]["made"].keys()


def test_the_command_beside_the_table_can_be_typed(tmp_path: Path) -> None:
    asked = {"benchmarks": "pack load", "dataset": "demo", "images": 10, "full": False}
    entries = result.keep(tmp_path / "b.json", [line("pack", "x")], asked, (0.1, 1.2))
    page = tmp_path / "page.md"
    page.write_text(f"{result.BEGIN}{result.END}")
    result.document(page, entries)
    (kept,) = csv.DictReader(io.StringIO(page.with_suffix(".csv").read_text()))
    command = kept["command"]
    assert shlex.split(command) == ["make", "bench", "BENCHMARKS=pack load", "DATASET=demo", "IMAGES=10"]


def test_what_is_not_met_or_not_measured_is_in_the_table(tmp_path: Path) -> None:
    skipped = Result("cache", "plain fit", "lower", 0, skipped="nothing is cached")
    entries = result.keep(tmp_path / "b.json", [line("pack", "x"), line("load", "x", 2.0), skipped], {}, (0, 0))
    rows = result.table(entries).splitlines()
    assert "NOT MET" in rows[1] and "0.500" in rows[1] and "at least 0.9" in rows[1]
    assert " met " in rows[2] and "NOT" not in rows[2]
    assert "not measured" in rows[3] and "nothing is cached" in rows[3]


def test_the_table_goes_between_the_markers_and_nothing_else_changes(tmp_path: Path) -> None:
    page, entries = tmp_path / "page.md", result.keep(tmp_path / "b.json", [line("pack", "x | y")], {}, (0, 0))
    page.write_text(f"before\n{result.BEGIN}\nold\n{result.END}\nafter\n")
    result.document(page, entries)
    text = page.read_text()
    assert (
        text.startswith(f"before\n{result.BEGIN}\n") and text.endswith(f"{result.END}\nafter\n") and "old" not in text
    )
    assert "| pack | x / y | 0.500 |" in text
    (kept,) = csv.DictReader(io.StringIO(page.with_suffix(".csv").read_text()))
    assert (kept["row"], kept["against"], kept["figure"]) == ("pack", "x | y", "0.500")
    assert kept["command"] == "make bench " and kept["commit"] and "cores" in kept["machine"]
    result.document(page, entries)
    assert page.read_text() == text


def test_a_page_keeps_rows_that_were_measured_elsewhere(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{result.BEGIN}{result.END}")
    first = result.keep(tmp_path / "a.json", [line("pack", "x"), line("load", "x")], {}, (0, 0))
    result.document(page, first)
    result.document(page, result.keep(tmp_path / "b.json", [line("pack", "z", 2.0)], {}, (0, 0)))
    kept = list(csv.DictReader(io.StringIO(page.with_suffix(".csv").read_text())))
    assert [(each["row"], each["against"], each["figure"]) for each in kept] == [
        ("load", "x", "0.500"), ("pack", "z", "2.000"),
    ]  # fmt: skip
    assert "| load | x | 0.500 |" in page.read_text() and "| pack | x |" not in page.read_text()


@pytest.mark.parametrize("text", [None, "nothing", result.BEGIN, f"{result.END} {result.BEGIN}"])
def test_a_page_without_both_markers_is_refused_and_left(tmp_path: Path, text: str | None) -> None:
    page = tmp_path / "page.md"
    if text is not None:
        page.write_text(text)
    with pytest.raises(InputError, match="expected a page with"):
        result.document(page, [])
    assert (page.read_text() if page.exists() else None) == text


def test_a_busy_machine_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert result.busy_warning(0.5) is None
    assert "load 3.1 on 2 cores" in str(result.busy_warning(3.1))


def test_rows_are_chosen_by_name_in_one_order() -> None:
    assert suite.chosen([]) == list(suite.ROWS)
    assert suite.chosen(["train", "growth", "pack", "pack"]) == ["pack", "train", "growth"]
    with pytest.raises(InputError, match=r"BENCHMARKS=lod: expected some of .*did you mean load"):
        suite.chosen(["pack", "lod"])


def test_every_row_and_every_baseline_is_explained() -> None:
    text = (ROOT / "docs" / "dev" / "benchmarks.md").read_text()
    assert text.count(result.BEGIN) == text.count(result.END) == 1
    for row in (*suite.ROWS, *suite.BY_NAME, "profile"):
        assert f"\n### {row}" in text, row
    for baseline in (*load.AUGMENTED, load.ON_HOST, *load.COPIES.values()):
        assert baseline.against in text
    assert all(what in text for what in end_to_end.BASELINES.values())


def test_seconds_and_log_losses_of_both_sides_end_to_end() -> None:
    timed = {"ours": Timing((10.0,) * 3, (4.0,) * 3), "cached": Timing((25.0,) * 3, (8.0,) * 3)}
    losses = {"ours": [0.5, 0.5, 0.5], "cached": [0.7, 0.4, 0.6]}
    speed_up, above = end_to_end._results("Keras", "cached", timed, losses, {"images": 3})
    assert speed_up.figure == Spread(2.5, 2.5, 2.5) and speed_up.met
    assert above.figure == pytest.approx(Spread(-0.1, -0.2, 0.1)) and above.met
    assert speed_up.facts["cpu_ratio"]["median"] == 2
    entry = {**speed_up.entry, "made": {}}
    assert "log loss of ours 0.5000; log loss of theirs 0.6000" in result.cells(entry)[-1]


def test_a_network_that_pytorch_cannot_follow_is_said() -> None:
    assert end_to_end.skipped_sides({"Conv2D"}).get("torch", "is not installed").endswith(("installed", "backends"))
    pytest.importorskip("torch", reason="make setup EXTRAS=backends")
    assert end_to_end.skipped_sides({"Conv2D"}) == {}
    assert "SeparableConv2D" in end_to_end.skipped_sides({"Conv2D", "SeparableConv2D"})["torch"]


def test_what_the_loader_costs_beyond_the_preset() -> None:
    ours, constant, spent = (14.0, 26.0, 14.0), (10.0, 20.0, 10.0), (6.0, 8.0, 6.0)
    timed = {"ours": Timing(ours, ()), "constant": Timing(constant, ()), "preset": Timing((9.0,) * 3, spent)}
    assert train.overhead(timed, 2) == pytest.approx(Spread(0.1, 0.1, 0.1))
    assert train.overhead(timed, None) == pytest.approx(Spread(0.4, 0.3, 0.4))


@given(st.floats(0.0, 1.0))
def test_the_rule_of_thumb_is_the_one_that_is_stated(backbone: float) -> None:
    tail = 1 - backbone
    assert cache.rule_of_thumb(backbone) == pytest.approx(
        40 * (backbone + 3 * tail) / (cache.DRAWS * backbone + 120 * tail)
    )


@given(st.floats(0.01, 0.99), st.floats(0.1, 100))
def test_the_bound_is_the_rule_of_thumb_where_that_holds(backbone: float, seconds: float) -> None:
    """Epochs see four fifths of the images, a draw sees all of them."""
    tail = 1 - backbone
    plain, fill, learnt = (share * seconds for share in (0.8 * (backbone + 3 * tail), backbone, 0.8 * 3 * tail))
    assert cache.speed_up(plain, fill, learnt) == pytest.approx(cache.rule_of_thumb(backbone))


def test_shares_of_a_forward_pass_count_the_same_images() -> None:
    timed = {"frozen": Timing((5.0,) * 3, ()), "tail forward": Timing((4.0,) * 3, ())}
    assert cache.frozen_share(timed) == pytest.approx(0.5)  # five fifths of the images beside four


@pytest.mark.parametrize("backbone", sorted(BACKBONES))
def test_three_depths_of_every_backbone(backbone: str) -> None:
    found = cache.depths(backbone)
    assert found[-1] == "head" and len(set(found)) == len(found)
    ends = [BACKBONES[backbone].freeze_points.index(depth) for depth in found[:-1]]
    assert ends == sorted(ends) and (len(ends) == 2 or len(BACKBONES[backbone].freeze_points) < 3)


@given(st.floats(0.1, 3), st.floats(0.01, 10))
def test_exponents(power: float, factor: float) -> None:
    sizes = (100, 1_000, 10_000)
    assert growth.exponent(sizes, [factor * size**power for size in sizes]) == pytest.approx(power)


def test_heavy_packages_are_read_off_pythons_own_list() -> None:
    listing = (
        "import time: self [us] | cumulative | imported package\nimport time:       100 |        200 |   pandas.core.api\n"
        "import time:         1 |          1 | pandas_flavour\nimport time:        10 |         20 |         keras\n"
        "a line of the program: import tensorflow\n"
    )
    assert imports.heavy_in(listing) == {"pandas", "keras"}


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    assert imports.imported(tmp_path, ["--help"]) == set()


@pytest.mark.parametrize("images", [400, 1_000, 10_000, 102_150])
def test_a_project_draws_about_as_many_images_as_it_is_named_for(images: int) -> None:
    words = Project(Path(), images).words("synthetic")
    drivers, tests = (int(words[words.index(option) + 1]) for option in ("--drivers", "--test-drivers"))
    assert drivers >= 2 and tests >= 1
    assert abs((drivers + tests) * 100 - images) <= 100


def test_memory_is_compared_by_its_peaks() -> None:
    made = growth.memory_result("pack", 1_000, 10_000, 100.0, 109.0)
    assert made.met and made.figure == Spread(1.09, 1.09, 1.09)
    assert made.facts["bytes_per_image"] == pytest.approx(9 * 2**20 / 9_000)
    assert growth.memory_result("pack", 1_000, 10_000, 100.0, 111.0).met is False


def test_neighbours_are_looked_for_among_clips() -> None:
    rows = knn.clips(knn.CLIP * 2 + 5)
    assert rows.shape == (245, knn.WIDTH) and rows.dtype == np.float32
    found, _ = knn.nearest_neighbours(rows, np.zeros(len(rows), np.int64), 3)
    assert np.array_equal(found // knn.CLIP, np.repeat(np.arange(len(rows))[:, None] // knn.CLIP, 3, axis=1))
    knn.product(rows)
    assert knn.memory_of(len(rows)) > rows.nbytes


def test_the_process_whose_memory_is_measured_imports_little() -> None:
    code = "import sys, benchmarks.knn; print(*{'albumentations', 'keras', 'pandas', 'tensorflow'} & set(sys.modules))"
    made = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert made.stdout == "\n"


@pytest.mark.slow
def test_neighbours_beside_the_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knn, "COUNT", 300)
    monkeypatch.setattr(knn, "FULL_COUNT", 310)
    for full, rows in ((False, 300), (True, 310)):
        product, memory = knn.results(SimpleNamespace(asked=Request(1, 3, full)))  # type: ignore[arg-type]
        assert product.facts["rows"] == rows and product.target == 2.5 and len(product.timings["ours"].seconds) == 3
        assert memory.target == (2.0 if full else None)  # of so few it would say nothing


@pytest.mark.slow
def test_leakage_counts_cpu_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, labels, drivers = leakage.frames(520)
    assert pixels.shape == (520, 2304) and pixels.dtype == np.float32 and 0 <= pixels.min() < pixels.max() <= 1
    assert set(zip(drivers.tolist(), labels.tolist(), strict=True)) == {(d, c) for d in range(26) for c in range(10)}
    monkeypatch.setattr(leakage, "COUNT", 520)
    monkeypatch.setattr(leakage, "FULL_COUNT", 530)
    for full, count in ((False, 520), (True, 530)):
        (made,) = leakage.results(SimpleNamespace(asked=Request(1, 3, full)))  # type: ignore[arg-type]
        assert made.facts["images"] == count and made.target == (30.0 if full else None)
        assert made.figure is not None and made.figure.median in made.timings["ours"].cpu


def told(monkeypatch: pytest.MonkeyPatch, seconds: float, memory: float) -> list[tuple[int, str]]:
    """Let projects' commands take so many seconds an image and MiB an image beside 100, and note which were run."""
    ran: list[tuple[int, str]] = []

    def run(project: Project, step: str) -> Cost:
        ran.append((project.images, step))
        return Cost(seconds * project.images, 100 + memory * project.images)

    monkeypatch.setattr(Project, "run", run)
    monkeypatch.setattr(Project, "start", lambda project: ran.append((project.images, "start")))
    return ran


def test_memory_at_both_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = told(monkeypatch, 0, 0.001)
    found = growth.memory_results(SimpleNamespace(asked=Request(1, 3, True), place=tmp_path))  # type: ignore[arg-type]
    steps = ["start", "synthetic", "folds", "pack", "train", "predict"]
    assert ran == [(images, step) for images in (10_000, 102_150) for step in steps]
    assert [made.entry["key"] for made in found] == [f"memory: {step} of fewer images" for step in steps[3:]]
    assert all(
        made.figure and made.figure.median == pytest.approx(202.15 / 110) and made.met is False for made in found
    )


def test_growth_of_every_command_and_its_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = told(monkeypatch, 0.01, 0)
    monkeypatch.setattr(knn, "memory_of", lambda images: 2**29)
    bench = SimpleNamespace(
        asked=Request(1, 3), place=tmp_path, context=SimpleNamespace(places=Places("demo", tmp_path))
    )
    found = growth.results(bench)  # type: ignore[arg-type]
    assert [made.against for made in found] == ["pack", "train", "predict", "ensemble", "knn"]
    assert found[0].figure is not None and found[0].figure.median == pytest.approx(1)
    assert found[0].facts["exponent_of_memory"] == 0 and found[0].facts["images"] == list(growth.SIZES)
    assert {images for images, _ in ran} == set(growth.SIZES)
    assert (tmp_path / "build" / "demo" / "growth.png").read_bytes().startswith(b"\x89PNG")
    shown = result.cells(found[0].entry)
    assert all(f"{images:,}: " in shown[-1] for images in growth.SIZES) and "MiB" in shown[-1]


def test_imports_of_each_command_in_a_project_that_is_trained_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "imported", lambda folder, words: {"pandas"} if words[0] == "pack" else set())
    monkeypatch.setattr(imports, "_timed", lambda folder, words: (1.0, 0.5))
    ran = told(monkeypatch, 0, 0)
    found = imports.results(SimpleNamespace(asked=Request(1, 3), place=tmp_path))  # type: ignore[arg-type]
    assert [step for _, step in ran] == ["start", "synthetic", "folds", "pack", "train"]
    assert [(made.against, made.met) for made in found] == [
        ("--help", True), ("make status", True), ("make train again, its pack", False), ("make train again, its train", True),
    ]  # fmt: skip
    assert found[2].facts["imported"] == ["pandas"]


def test_parts_of_a_step_and_what_remains() -> None:
    def taken(seconds: float) -> Timing:
        return Timing((seconds,) * 3, (0.0,) * 3)

    seconds = {"whole step": 10.0, "reading": 0.5, "augmentation": 1.5, "transfer": 0.2, "forward": 2.0,
               "forward and backward": 6.0, "update": 1.0}  # fmt: skip
    found = {part["part"]: part for part in train.shares({name: taken(s) for name, s in seconds.items()}, 4)}
    assert list(found) == [
        "whole step",
        "reading",
        "augmentation",
        "transfer",
        "forward",
        "backward",
        "update",
        "remainder",
    ]
    assert found["whole step"]["milliseconds"]["median"] == 2500
    assert found["backward"]["share"]["median"] == pytest.approx(0.4)
    assert found["remainder"]["milliseconds"]["median"] == pytest.approx(1000 * 0.8 / 4)
    assert sum(part["share"]["median"] for part in found.values()) == pytest.approx(2)  # the whole, and its parts
    assert "8.0%" in train.profile_table(list(found.values())).splitlines()[-1]


@pytest.fixture
def bench(data: Path, demo_settings: DatasetSettings, project: Path) -> Bench:
    """On forty of the synthetic images, not on larger ones drawn for measuring."""
    context = Context("demo", demo_settings.model_copy(update={"test_labels": None}), Places("demo"), data)
    return Bench(context, "tiny", parse(ModelSettings, TINY, "test"), Request(40, 3))


def test_images_are_spread_over_the_table(bench: Bench) -> None:
    whole = Bench(bench.context, "tiny", bench.settings, Request(10_000, 3)).table
    assert (len(bench.table), len(whole)) == (40, 120)
    places = [whole.names.index(name) for name in bench.table.names]
    assert places[0] == 0 and places[-1] == 119 and set(np.diff(places)) <= {2, 3, 4}


def test_rows_for_networks_are_whole_batches_of_different_images(bench: Bench) -> None:
    rows = bench.few(8)
    assert len(rows) == 16 and len(set(rows)) == 16 and rows.max() < 40
    with pytest.raises(InputError, match="IMAGES=40: 40 images are fewer than two batches of tiny"):
        bench.few(21)


def test_a_part_of_the_images_is_packed_in_the_tables_order(bench: Bench) -> None:
    rows = np.array([31, 4, 17])
    made = bench.packed(rows)
    assert list(made.names) == [bench.table.names[row] for row in sorted(rows)]
    assert np.array_equal(made.pixels, bench.pack.pixels[sorted(rows)])


def test_images_as_large_as_real_ones_are_drawn_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workload, "IMAGE_SIZE", "48x64")
    settings = bench.context.settings.model_copy(update={"test_labels": "test_labels.csv"})
    context = Context("demo", settings, bench.context.places, Path("nowhere"))
    drawn = Bench(context, "tiny", bench.settings, Request(25, 3))
    assert len(drawn.table) == 25 and drawn.data.is_relative_to(bench.context.places.build)
    made = drawn.data.stat().st_mtime_ns
    assert Bench(context, "tiny", bench.settings, Request(25, 3)).data.stat().st_mtime_ns == made


def test_models_that_no_baseline_can_follow_and_no_images_are_refused(bench: Bench) -> None:
    field = bench.settings.input.model_copy(update={"regions": ["whole", "head"]})
    with pytest.raises(InputError, match="several regions"):
        Bench(bench.context, "tiny", bench.settings.model_copy(update={"input": field}), Request(10, 3))
    with pytest.raises(InputError, match="IMAGES=0: expected 1 or more"):
        Request(0, 3)


def test_both_sides_of_packing_make_the_same_pixels(bench: Bench) -> None:
    made, *parts = pack.results(bench)
    assert [part.target for part in parts] == [None] * len(pack.PARTS)
    assert all(part.figure is not None and part.figure.low > -1 for part in parts)
    assert made.row == "pack" and made.facts["images"] == 40
    assert {side: len(timing.seconds) for side, timing in made.timings.items()} == {"ours": 3, "theirs": 3}
    for path in bench.paths[:5]:
        assert np.array_equal(pack.decoded(path, bench.size), examine(path, bench.size).pixels)


def test_packing_beside_other_pixels_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    real = pack.decoded
    monkeypatch.setattr(pack, "decoded", lambda path, size: real(path, size)[:, ::-1])
    with pytest.raises(InputError, match="do not give the same pixels"):
        pack.results(bench)


def test_the_guides_ten_crops_are_ours_in_the_same_order() -> None:
    image = np.random.default_rng(0).integers(0, 256, (12, 17, 3), np.uint8)
    assert np.array_equal(baselines.ten_crops(image, (8, 9)), cut_all(image[None], "ten_crop", (8, 9))[:, 0])


def test_the_guides_generator_gives_every_image_once_and_begins_again(bench: Bench) -> None:
    batches: Iterator[Any] = baselines.classic_batches(bench, [])
    once = [next(batches) for _ in range(10)]
    assert np.array_equal(np.concatenate([labels for _, labels in once]).argmax(axis=1), bench.pack.labels)
    assert once[0][0].shape == (4, 32, 40, 3) and once[0][0].dtype == np.float32
    assert np.array_equal(next(batches)[1], once[0][1])


def test_an_odd_number_of_images_ends_in_a_smaller_batch(bench: Bench) -> None:
    odd = Bench(bench.context, "tiny", bench.settings, Request(7, 3))
    batches = baselines.classic_batches(odd, [])
    assert [len(next(batches)[0]) for _ in range(3)] == [4, 3, 4]


def test_the_copying_baseline_copies_as_many_bytes_as_the_centre_view_has(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []

    class Counted:
        shape = bench.pack.pixels.shape

        def __len__(self) -> int:
            return len(bench.pack.pixels)

        def __getitem__(self, key: Any) -> Any:
            part = bench.pack.pixels[key]
            return SimpleNamespace(copy=lambda: taken.append(part.copy()))

    load.copied(SimpleNamespace(pack=SimpleNamespace(pixels=Counted()), batch=4, input_size=(32, 40)))  # type: ignore[arg-type]
    assert sum(part.nbytes for part in taken) == 40 * 32 * 40 * 3
    top, left = (40 - 32) // 2, (52 - 40) // 2
    first = bench.pack.pixels[:4, top : top + 32, left : left + 40]
    assert sum(np.array_equal(part, first) for part in taken) == 1  # whichever thread was first
    assert over_rounds(lambda value: value, (1.0, 2.0, 3.0)) == Spread(2.0, 1.0, 3.0)


@pytest.mark.keras
@pytest.mark.slow
class TestNetworks:
    """Every row that runs a network, at a size at which nothing is worth reading off."""

    def test_loading(self, bench: Bench) -> None:
        found = load.results(bench)
        beside = (*load.AUGMENTED, load.ON_HOST, *load.COPIES.values())
        assert [made.against for made in found] == [baseline.against for baseline in beside]
        for made in found:
            assert made.figure is not None and made.figure.low > 0
            assert all(len(timing.seconds) == 3 for timing in made.timings.values()) and len(made.timings) == 2

    def test_ten_crops_of_both_sides_say_the_same(self, bench: Bench) -> None:
        plain, classical, batches, folds = crops.results(bench)
        assert batches.figure is not None
        assert batches.facts["best"] in batches.timings
        assert plain.facts["apart"] < 1e-5 and plain.facts["images"] % plain.facts["images_at_once"] == 0
        assert classical.timings.keys() == {"ours", "classic"}
        assert folds.figure is None and "freezes nothing" in str(folds.skipped)
        stage = Stage(freeze_until="stage2")
        frozen = bench.settings.model_copy(
            update={"train": bench.settings.train.model_copy(update={"stages": [stage]})}
        )
        *_, folds = crops.results(Bench(bench.context, "tiny", frozen, bench.asked))
        assert folds.figure is not None and folds.figure.low > 0
        assert 0 < folds.facts["frozen_layers"] < folds.facts["layers"]

    def test_ten_crops_of_both_engines_say_the_same(self, bench: Bench) -> None:
        pytest.importorskip("openvino", reason="make setup EXTRAS=openvino")
        found = engine.results(bench)
        assert [made.against for made in found] == [against for against, _ in engine.AGAINST.values()]
        assert all(made.figure is not None and made.figure.low > 0 for made in found)
        assert found[0].facts["engine"].startswith("openvino ")
        assert max(found[0].facts["apart"][side] for side in ("plain", "keras")) < 1e-5

    def test_a_step_in_the_chosen_precision(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(precision, "NETWORKS", {"tiny": 1.0})
        (made,) = precision.results(bench)
        assert made.figure is not None and made.figure.low > 0
        assert made.facts["chosen"] in ("float32", "mixed_bfloat16")

    def test_training(self, bench: Bench) -> None:
        (made,) = train.results(bench)
        assert made.better == "lower" and made.facts["images"] == 4 * made.facts["steps"]
        assert made.timings.keys() == {"ours", "constant", "preset"}
        assert all(spent > 0 for spent in made.timings["preset"].cpu)

    @pytest.mark.parametrize(
        ("full", "depth", "cut"), [(False, "stage2", "stage2_relu"), (True, "head", "pooled features")]
    )
    def test_caching(self, bench: Bench, full: bool, depth: str, cut: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cache, "STEPS", 4)
        monkeypatch.setattr(cache, "depths", lambda backbone: [depth])
        (made,) = cache.results(Bench(bench.context, "tiny", bench.settings, Request(40, 3, full)))
        assert made.facts["cut"] == cut
        assert ({"plain", "cached"} if full else {"plain", "fill", "tail"}) < made.timings.keys()
        assert 0 < made.facts["backbone_share_of_forward"] < 1

    def test_profile(self, bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
        train.profile(bench)
        made = json.loads((bench.context.places.build / "profile-tiny.json").read_text())
        parts = {part["part"]: part["milliseconds"]["median"] for part in made["parts"]}
        assert {"reading", "augmentation", "transfer", "forward", "backward", "update", "remainder"} < parts.keys()
        assert made["backend"] == "tensorflow" and "remainder" in capsys.readouterr().out
        assert all(parts[name] > 0 for name in ("reading", "augmentation", "transfer", "forward", "update"))

    def test_the_devices_work_as_one_part_for_other_backends(self, bench: Bench) -> None:
        epoch = last_stage(bench, bench.few(4))
        before = epoch.network.top.kernel.numpy()
        (part,) = train.together(epoch).values()
        part()
        assert int(epoch.network.optimizer.iterations.numpy()) == len(epoch.batches())
        assert not np.array_equal(before, epoch.network.top.kernel.numpy())
