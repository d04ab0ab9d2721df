"""A Matplotlib figure as SVG for a page: text stays text in the page's font, colours are the page's, in light and in dark."""

import hashlib
import io
import re
import warnings
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup
from matplotlib.figure import Figure

# what charts draw in (style.css and report.css in light): in the page each is the variable, so that dark has its own
PALETTE = {
    "ink": "#16191d",
    "soft": "#555e68",
    "line": "#d9dde2",
    "paper": "#ffffff",
    "heat": "#0072b3",
    "c0": "#0072b2",
    "c1": "#d55e00",
    "c2": "#009e73",
    "c3": "#cc79a7",
    "c4": "#e69f00",
    "c7": "#7a7a7a",
}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "driverwatch",  # the same chart is the same text
    "font.size": 11,
    "text.parse_math": False,  # a name with two $ is a name
    "axes.labelsize": 11,
    "axes.titlesize": 11,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "text.color": PALETTE["ink"],
    "axes.labelcolor": PALETTE["soft"],
    "axes.edgecolor": PALETTE["soft"],
    "xtick.color": PALETTE["soft"],
    "ytick.color": PALETTE["soft"],
    "axes.facecolor": "none",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": PALETTE["line"],
    "lines.linewidth": 1.5,
}
NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
SMALLEST = 0.85  # of its size: a chart that would be shown smaller scrolls in its box instead
KEPT = ("font-size", "font-weight", "text-anchor")  # of text; its family is the page's


def inline_svg(figure: Figure, label: str) -> Markup:
    """Draw a figure whose size is in units of 72 px, as an element for HTML; `label` is what it shows, for who cannot see it.

    Nothing of it reaches the rest of the page: Matplotlib's style sheet is dropped, and ids begin with a digest of the chart.
    """
    drawn = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")  # the page's fonts have it, or show a box
        figure.savefig(drawn, format="svg", transparent=True, metadata=NO_METADATA)
    text = drawn.getvalue()
    root = ElementTree.fromstring(text)
    width, height = (round(float(figure.get_size_inches()[axis]) * 72) for axis in (0, 1))
    _tidy(root, f"s{hashlib.sha256(text.encode()).hexdigest()[:10]}-", set(re.findall(r'(?:="|url\()#([^")]+)', text)))
    root.attrib = {"viewBox": root.attrib["viewBox"], "width": str(width), "height": str(height), "class": "chart"}
    root.attrib |= {"role": "img", "aria-label": label, "style": f"min-width: {round(SMALLEST * width)}px"}
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
    if element.tag == "a":
        attributes["tabindex"] = "-1"  # the keyboard takes the links of the chart's table: a chart has a hundred
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
    names = {code: f"var(--{name})" for name, code in PALETTE.items()}
    return "; ".join(f"{key}: {names.get(value.lower(), value)}" for key, value in style.items())
