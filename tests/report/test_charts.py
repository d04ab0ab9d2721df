"""Charts: where a mark stands is what its number says, and an SVG keeps to itself."""

import re
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image
from support.places import ROOT
from support.source import FILES

from driverwatch.ensemble import calibration
from driverwatch.experiments import data_scaling, search_trials
from driverwatch.io.html import DATA_COLOURS, EMPTY, PALETTE, Chart, heat_table, loss
from driverwatch.report import charts
from driverwatch.report.charts import Dot, apart
from driverwatch.report.report_page import MAX_LINES, worst

LOSSES = st.floats(0.01, 10, allow_nan=False)
LABELS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), min_size=1, max_size=80)


def marks(chart: Chart) -> list[tuple[str, float, float]]:
    """Every marker of a chart: its shape's id, x and y."""
    root = ElementTree.fromstring(chart.svg)
    return [(use.attrib["href"], float(use.attrib["x"]), float(use.attrib["y"])) for use in root.iter("use")]


def of_shapes(chart: Chart, count: int) -> list[list[tuple[float, float]]]:
    """Places of the marks of each shape that is there `count` times at least."""
    shapes: dict[str, list[tuple[float, float]]] = {}
    for shape, x, y in marks(chart):
        shapes.setdefault(shape, []).append((x, y))
    return [places for places in shapes.values() if len(places) >= count]


@settings(max_examples=8)
@given(st.lists(LOSSES, min_size=3, max_size=9, unique_by=lambda value: round(value, 2)), st.booleans())
def test_dots_stand_where_their_values_are(values: list[float], log: bool) -> None:
    chart = charts.dots([Dot(f"line {number}", value, sign="s") for number, value in enumerate(values)], "x", "y", log)
    assert [row[1] for row in chart.data.rows] == [f"{value:.4f}" for value in values]
    assert [row[2:] for row in chart.data.rows] == [[EMPTY, EMPTY]] * len(values)
    expected = np.log(values) if log else np.array(values)
    fits = []
    for places in of_shapes(chart, len(values)):
        across = np.array([x for x, _ in places])[: len(values)]
        slope, start = np.polyfit(expected, across, 1)
        fits.append(np.abs(slope * expected + start - across).max())
    assert min(fits) < 0.1  # px


@settings(max_examples=6)
@given(st.lists(st.tuples(LOSSES, LOSSES), min_size=2, max_size=6))
def test_curves_stand_where_their_losses_are(losses: list[tuple[float, float]]) -> None:
    frame = pd.DataFrame(losses, columns=["loss", "val_loss"])
    frame.insert(0, "epoch", np.arange(1, len(losses) + 1))
    frame.insert(1, "stage", 0)
    chart = charts.curves({3: frame}, "run", "caption")
    assert [row[3:] for row in chart.data.rows] == [[f"{a:.4f}", f"{b:.4f}"] for a, b in losses]
    validation, fits = frame["val_loss"].to_numpy(), []
    for places in of_shapes(chart, len(losses)):
        down = np.array([y for _, y in places])[: len(losses)]
        if np.ptp(validation) > 1e-3:
            slope, start = np.polyfit(validation, down, 1)
            fits.append(np.abs(slope * validation + start - down).max())
    assert not fits or min(fits) < 0.1
    assert ">3</text>" in chart.svg  # the fold's number


def test_a_loss_that_was_not_measured_is_a_gap_and_a_dash() -> None:
    frame = pd.DataFrame({"epoch": [1, 2], "stage": [0, 1], "loss": [1.0, 0.5], "val_loss": [np.nan, np.nan]})
    chart = charts.curves({0: frame}, "run", "caption")
    assert [row[4] for row in chart.data.rows] == [EMPTY, EMPTY]
    assert ">0</text>" not in chart.svg.replace(">0.0</text>", "")


def test_cells_are_the_stronger_the_larger_their_value() -> None:
    frame = pd.DataFrame([[0.5, 1.0, 2.0], [0.0, np.nan, 1.5]], index=["a", "b"], columns=list("xyz"))
    made = heat_table(frame, "caption", ("driver", ""), loss, "{}{}".format, "#{}{}".format, {"a": "Anna", "y": ""})
    assert made.head == ["x", "y", "z"]
    assert [name for name, _ in made.rows] == ["Anna", "b"]
    cells = [cell for _, line in made.rows for cell in line]
    assert [cell.shade for cell in cells] == pytest.approx([0.25, 0.5, 1, 0, np.nan, 0.75], nan_ok=True)
    assert [cell.text for cell in cells] == ["0.5000", "1.0000", "2.0000", "0.0000", EMPTY, "1.5000"]
    assert [cell.title for cell in cells] == ["ax", "ay", "az", "bx", "by", "bz"]
    assert [cell.link for cell in cells] == ["#ax", "#ay", "#az", "", "", "#bz"]


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_cells_that_are_all_alike_are_drawn(value: float) -> None:
    made = heat_table(pd.DataFrame([[value]], index=["a"], columns=["x"]), "c", ("", ""), loss, "{}{}".format)
    assert not made.rows[0][1][0].shade > 0


@settings(max_examples=10)
@given(LABELS)
@example("one")
@example("$x$ <b>\x01 \u07fd")
def test_any_label_can_be_drawn(one: str) -> None:
    """Markup, mathematics, control characters, letters that no font here has: a label is text, and the chart a whole element."""
    chart = charts.dots([Dot(one, 1.0)], one, "loss", middle=0.0)
    root = ElementTree.fromstring(chart.svg)
    assert {element.tag for element in root.iter()} <= {"svg", "g", "path", "text", "defs", "use", "clipPath", "rect"}
    assert chart.data.rows[0][0] == one


def test_an_svg_keeps_to_itself() -> None:
    curve = pd.DataFrame({"images": [5, 5], "confidence": [0.5, 0.9], "accuracy": [0.4, 0.8], "error": [0.1, np.nan]})
    svg = charts.reliability(curve, "title", "caption").svg
    root = ElementTree.fromstring(svg)
    assert not [element for element in root.iter() if element.tag in ("style", "metadata", "script")]
    ids = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
    assert len(ids) == len(set(ids))
    assert all(name.startswith("s") and len(name) > 12 for name in ids)
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', svg))
    assert used <= set(ids)
    assert not re.findall(
        r"#[0-9a-f]{6}\b", re.sub(r'(id|href)="[^"]*"', "", svg).replace("url(#", "(")
    )  # colours are the page's
    assert "font-family" not in svg
    assert root.attrib["role"] == "img"
    assert svg == charts.reliability(curve, "title", "caption").svg  # the same chart, the same text


@given(st.lists(st.floats(-100, 100, allow_nan=False), max_size=12), st.floats(0, 10))
def test_labels_are_kept_apart_in_their_order(places: list[float], gap: float) -> None:
    moved = apart(places, gap)
    assert len(moved) == len(places)
    assert all(after >= before for before, after in zip(places, moved, strict=True))
    ordered = sorted(moved)
    assert all(b - a >= gap - 1e-9 for a, b in pairwise(ordered))
    assert [moved[i] for i in np.argsort(places, kind="stable")] == ordered


def test_of_thousands_of_groups_the_worst_are_shown() -> None:
    values = np.random.default_rng(0).permutation(3 * MAX_LINES).astype(float)
    frame = pd.DataFrame({"one": values, "two": 0.0}, index=[f"g{i:03d}" for i in range(len(values))])
    chosen, said = worst(frame, "one")
    assert chosen["one"].tolist() == sorted(values, reverse=True)[:MAX_LINES]
    assert str(3 * MAX_LINES) in said
    assert worst(chosen, "two")[1] == ""
    assert worst(chosen, "two")[0].equals(chosen)


@pytest.mark.parametrize(
    ("low", "high"), [(1.02, 2.65), (0.07, 2.65), (0.3, 0.36), (0.21, 0.5), (1e-5, 9.0), (0.4, 0.404)]
)
def test_a_logarithmic_axis_has_marks_that_can_be_read(low: float, high: float) -> None:
    ticks = charts.log_ticks(low, high)
    assert 3 <= len(ticks) <= 18
    assert ticks == sorted(set(ticks))
    assert low <= ticks[0] <= ticks[-1] <= high


def test_colours_are_the_style_sheets() -> None:
    """One palette for pages, plots and sheets: no module names a colour of its own."""
    tools = [path for folder in ("benchmarks", "scripts") for path in sorted((ROOT / folder).rglob("*.py"))]
    assert not [path for path in FILES + tools if re.search(r'"(#[0-9a-fA-F]{6}|tab:\w+)"', path.read_text())]
    assert PALETTE["ink"] != PALETTE["paper"]
    assert len(set(PALETTE.values())) == len(PALETTE)
    assert len(DATA_COLOURS) == 8


def test_plots_of_experiments_have_the_same_colours(tmp_path: Path) -> None:
    rows = [
        data_scaling.ScalingPoint.model_construct(drivers=n, log_loss=2 / n, interval=(1.9 / n, 2.2 / n))
        for n in (2, 4, 8)
    ]
    law = data_scaling.PowerLaw(2.0, 1.0, (0.9, 1.1), np.array([[1.9, 2.0, 2.1], [0.9, 1.0, 1.1]]))
    [axes] = data_scaling.plot(rows, law).axes
    colours = [line.get_color() for line in axes.lines] + [each.get_facecolor()[0] for each in axes.collections[:1]]
    assert {to_hex(colour) for colour in colours} <= set(PALETTE.values())
    curve = pd.DataFrame({"images": [5, 5], "confidence": [0.5, 0.9], "accuracy": [0.4, 0.8], "error": [0.1, 0.1]})
    calibration.draw({"a": curve, "b": curve}, "title", tmp_path / "plot.png")
    drawn = np.asarray(Image.open(tmp_path / "plot.png").convert("RGB"))
    seen = {to_hex(pixel) for pixel in np.unique(drawn.reshape(-1, 3), axis=0) / 255}
    assert {PALETTE["c1"], PALETTE["soft"], PALETTE["line"]} <= seen


def test_optunas_plots_are_given_the_same_colours() -> None:
    axes = Figure().add_subplot()
    axes.scatter([0, 1], [0, 1], color="red", label="loss")
    axes.plot([0, 1], [0, 1], color="green", label="best")
    axes.legend()
    search_trials._recolour(axes, by_trial=False)
    assert to_hex(axes.collections[0].get_facecolor()[0]) == PALETTE["c0"]
    assert [line.get_color() for line in axes.get_legend().get_lines()] == [PALETTE["c1"]]
