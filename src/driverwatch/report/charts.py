"""A Matplotlib figure as SVG for a page: text stays text in the page's font, colours are the page's, in light and in dark."""

import hashlib
import io
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from driverwatch.errors import printable
from driverwatch.io.html import PALETTE, PLOT_STYLE, Chart, Table, loss, share, table

STYLE: dict[Any, Any] = {
    **PLOT_STYLE,
    "svg.fonttype": "none",
    "svg.hashsalt": "driverwatch",  # the same chart is the same text
    **dict.fromkeys(("axes.labelsize", "axes.titlesize"), 11),
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize"), 10),
    "axes.facecolor": "none",
    "axes.grid": False,
}
NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
SIZES = 0.85, 1.6  # of its size: a chart grows with its column, and where it would be smaller scrolls in its box
KEPT = ("font-size", "font-weight", "text-anchor")  # of text; its family is the page's


def inline_svg(figure: Figure, label: str) -> Markup:
    """Draw a figure whose size is in units of 72 px, as an element for HTML; `label` is what it shows, for who cannot see it.

    Nothing of it reaches the rest of the page: Matplotlib's style sheet is dropped, and ids begin with a checksum of the chart.
    """
    drawn = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")  # the page's fonts have it, or show a box
        figure.savefig(drawn, format="svg", transparent=True, metadata=NO_METADATA)
    text = drawn.getvalue()
    root = ElementTree.fromstring(text)
    width, height = (round(float(figure.get_size_inches()[axis]) * 72) for axis in (0, 1))
    _tidy(root, f"s{hashlib.sha256(text.encode()).hexdigest()[:10]}-", set(re.findall(r'(?:="|url\()#([^")]+)', text)))
    room = "; ".join(f"{end}-width: {round(size * width)}px" for end, size in zip(("min", "max"), SIZES, strict=True))
    root.attrib = {"viewBox": root.attrib["viewBox"], "width": str(width), "height": str(height), "class": "chart"}
    root.attrib |= {"role": "img", "aria-label": label, "style": room}
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _tidy(element: ElementTree.Element, prefix: str, used: set[str]) -> None:
    """Plain names instead of XML's, ids only where one points there, the page's colours; style sheets and metadata dropped."""
    element.tag = _local(element.tag)
    for child in list(element):
        if _local(child.tag) in ("metadata", "style"):
            element.remove(child)
        else:
            _tidy(child, prefix, used)
    attributes = {_local(key): value for key, value in element.attrib.items()}
    if (own := attributes.pop("id", None)) in used:
        attributes["id"] = f"{prefix}{own}"
    element.attrib = {key: _value(element.tag, key, value, prefix) for key, value in attributes.items()}
    element.tail = None


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _value(tag: str, key: str, value: str, prefix: str) -> str:
    if key == "style":
        return _style(tag, value)
    if key == "href":
        return f"#{prefix}{value[1:]}" if value.startswith("#") else value
    if key in ("d", "transform", "x", "y"):
        return " ".join(re.sub(r"(\.\d{2})\d+", r"\1", value).split())
    return re.sub(r"url\(#", f"url(#{prefix}", value)


def _style(tag: str, text: str) -> str:
    pairs = [tuple(part.strip() for part in piece.split(":", 1)) for piece in text.split(";") if ":" in piece]
    style: dict[str, str] = dict(pairs)  # type: ignore[arg-type]
    if tag == "text":
        if "font" in style:
            style["font-size"] = next(iter(re.findall(r"[\d.]+px", style["font"])), "11px")
            style |= {"font-weight": "600"} if "bold" in style["font"] or "700" in style["font"] else {}
        style = {key: value for key, value in style.items() if key in (*KEPT, "fill", "opacity")}
        style.setdefault("fill", PALETTE["ink"])
    names = {code: f"var(--{name})" for name, code in PALETTE.items()}  # so that dark has its own
    return "; ".join(f"{key}: {names.get(value.lower(), value)}" for key, value in style.items())


WIDTH = 356  # px: what a phone has room for, so that nothing is scaled down there
LINE = 36  # px, height of a line of `dots`
LONGEST = 53  # letters of a label; its table has the whole


@dataclass(frozen=True)
class Dot:
    """A line of `dots`: a value and its interval, if it is known. `sign`: o (filled), s (square), D (hollow diamond)."""

    label: str
    value: float
    low: float = float("nan")
    high: float = float("nan")
    sign: str = "o"


COLOURS = {"o": "c0", "s": "c1", "D": "c7"}


def _label(name: object) -> str:
    """A label that SVG can hold and a chart has room for."""
    return printable(str(name), LONGEST)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width / 72, height / 72))
    return figure, figure.add_subplot()


def _inside(
    figure: Figure, left: float, bottom: float, width: float, height: float
) -> tuple[float, float, float, float]:
    """A place in px as shares of the figure."""
    wide, high = figure.get_size_inches() * 72
    return left / wide, bottom / high, width / wide, height / high


def dots(lines: Sequence[Dot], caption: str, axis: str, log: bool = False, middle: float | None = None) -> Chart:
    """A line per value: its label above, the value as a shape, its interval as a bar.

    Args:
        lines: at least one.
        axis: what is measured.
        middle: a value to be marked, such as no difference.
    """
    height = len(lines) * LINE + 52
    with mpl.rc_context(STYLE):
        figure, axes = _figure(WIDTH, height)
        axes.set_position(_inside(figure, 12, 44, WIDTH - 24, len(lines) * LINE))
        if log:
            axes.set_xscale("log")
        if middle is not None:
            axes.axvline(middle, color=PALETTE["soft"], linewidth=1, linestyle=(0, (3, 3)))
        for place, dot in enumerate(lines):
            _dot(axes, place + 0.72, dot)
            axes.text(0, place + 0.3, _label(dot.label), transform=axes.get_yaxis_transform(), va="center", fontsize=11)
        axes.set(ylim=(len(lines), 0), yticks=[], xlabel=axis)
        _room(axes, lines, log, middle)
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        drawn = inline_svg(figure, printable(caption))
    made = [[dot.label, *(loss(value) for value in (dot.value, dot.low, dot.high))] for dot in lines]
    return Chart(drawn, caption, Table(["what", axis, "low", "high"], made))


def _dot(axes: Axes, place: float, dot: Dot) -> None:
    colour = PALETTE[COLOURS[dot.sign]]
    if np.isfinite([dot.low, dot.high]).all():
        axes.plot([dot.low, dot.high], [place, place], color=colour, linewidth=2, solid_capstyle="butt", marker="|")
    face = colour if dot.sign in "os" else PALETTE["paper"]
    axes.plot([dot.value], [place], dot.sign, color=colour, markerfacecolor=face, markersize=7)


def _room(axes: Axes, lines: Sequence[Dot], log: bool, middle: float | None) -> None:
    """Limits a little beyond all values, and as many ticks as a phone has room for."""
    values = np.array([[dot.value, dot.low, dot.high] for dot in lines])
    values = np.append(values, np.nan if middle is None else middle)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if not log:
        edge = 0.05 * (high - low) or 0.05 * abs(high) or 0.1
        axes.set_xlim(low - edge, high + edge)
        axes.locator_params(axis="x", nbins=6)
        return
    axes.set_xlim(low / 1.15, high * 1.15)
    ticks = log_ticks(low / 1.15, high * 1.15)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()


def log_ticks(low: float, high: float) -> list[float]:
    """Round values from `low` to `high` (above 0) for a logarithmic axis, at least three: 1, 2, 5 and so on if they do."""
    for digits in ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7), (1, 1.2, 1.4, 1.7, 2, 2.3, 2.6, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 9)):
        values = [float(f"{digit}e{power}") for power in range(-6, 3) for digit in digits]
        if len(ticks := [value for value in values if low <= value <= high]) >= 3:
            return ticks
    return [float(f"{value:.3g}") for value in np.geomspace(low, high, 5)[1:-1]]


def curves(folds: Mapping[int, pd.DataFrame], title: str, caption: str) -> Chart:
    """Learning curves: each fold's training loss (dashed, thin) and validation loss (solid, its number at its end) by epoch.

    Args:
        folds: frames with `epoch`, `stage`, `loss`, `val_loss`; a loss may be NaN (not measured).
    """
    ends = []
    with mpl.rc_context(STYLE):
        figure, axes = _figure(WIDTH, 250)
        axes.set_position(_inside(figure, 44, 42, WIDTH - 44 - 22, 250 - 42 - 26))
        for number, history in folds.items():
            axes.plot(history["epoch"], history["loss"], color=PALETTE["c1"], linewidth=1, linestyle=(0, (4, 2)))
            axes.plot(history["epoch"], history["val_loss"], "o-", color=PALETTE["c0"], markersize=3.5)
            sound = history.dropna(subset=["val_loss"])
            ends += [(float(sound["val_loss"].iloc[-1]), float(sound["epoch"].iloc[-1]), number)] if len(sound) else []
        last = [frame.loc[frame["stage"].diff(-1).fillna(0) != 0, "epoch"] for frame in folds.values()]
        for end in np.unique(np.concatenate(last)):  # epochs after which a stage ends, in any fold
            axes.axvline(end + 0.5, color=PALETTE["line"], linewidth=1)
        axes.set(xlabel="epoch", ylabel="loss", title=_label(title))
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y")
        gap = 11 / (250 - 42 - 26) * axes.get_ylim()[1]  # a line of text
        for (_, epoch, number), place in zip(ends, apart([end[0] for end in ends], gap), strict=True):
            axes.annotate(str(number), (epoch, place), (6, 0), textcoords="offset points", va="center", fontsize=10)
        drawn = inline_svg(figure, printable(f"{title}: {caption}"))
    parts = [frame.assign(fold=number) for number, frame in folds.items()]
    made = pd.concat(parts)[["fold", "epoch", "stage", "loss", "val_loss"]]
    made.columns = ["fold", "epoch", "stage", "training loss", "validation loss"]
    return Chart(drawn, caption, table(made, {"training loss": loss, "validation loss": loss}))


def apart(places: Sequence[float], gap: float) -> list[float]:
    """The places moved up as little as keeps any two `gap` apart, in the order given."""
    moved, last = [0.0] * len(places), float("-inf")
    for index in np.argsort(places, kind="stable"):
        moved[index] = last = max(places[index], last + gap)
    return moved


def reliability(curve: pd.DataFrame, title: str, caption: str) -> Chart:
    """Accuracy over confidence, with the standard error over drivers, beside the line of perfect calibration.

    Args:
        curve: `images`, `confidence`, `right`, `error` (may be NaN), a line per bin.
    """
    with mpl.rc_context(STYLE):
        figure, axes = _figure(WIDTH, 330)
        axes.set_position(_inside(figure, 46, 44, WIDTH - 46 - 12, 330 - 44 - 26))
        axes.plot([0, 1], [0, 1], color=PALETTE["soft"], linewidth=1, linestyle=(0, (3, 3)))
        error = curve["error"].fillna(0)
        axes.errorbar(
            curve["confidence"], curve["accuracy"], error, fmt="o-", color=PALETTE["c0"], markersize=4, elinewidth=1
        )
        axes.set(xlim=(0, 1.01), ylim=(0, 1.03), xlabel="confidence in the likeliest class", ylabel="accuracy")
        axes.set_title(_label(title))
        axes.grid()
        drawn = inline_svg(figure, printable(f"{title}: {caption}"))
    shown = curve.rename(columns={"error": "± (drivers)"})
    return Chart(drawn, caption, table(shown, dict.fromkeys(("confidence", "accuracy", "± (drivers)"), share)))
