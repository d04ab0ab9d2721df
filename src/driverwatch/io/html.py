"""Pages from templates: HTML that needs nothing beside it, with styles, scripts and pictures inside, and Markdown."""

import base64
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup

TEMPLATES = files("driverwatch.io") / "templates"
# colours of light paper by their names in the style sheet; those of data are c0, c1 and so on
PALETTE = dict(re.findall(r"--(\w+): (#\w{6});", (TEMPLATES / "style.css").read_text("utf-8").partition("@media")[0]))
DATA_COLOURS = [code for name, code in PALETTE.items() if re.fullmatch(r"c\d", name)]
# Matplotlib's settings for every plot, of a page or a PNG
PLOT_STYLE: dict[Any, Any] = {
    "font.size": 11,
    "text.parse_math": False,  # a name with two $ is a name
    "text.color": PALETTE["ink"],
    **dict.fromkeys(("axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), PALETTE["soft"]),
    "axes.prop_cycle": f"cycler(color={DATA_COLOURS})",
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    **dict.fromkeys(("axes.grid", "axes.axisbelow"), True),
    **dict.fromkeys(("axes.linewidth", "grid.linewidth"), 0.8),
    "grid.color": PALETTE["line"],
    "lines.linewidth": 1.5,
}


@cache
def _environment() -> jinja2.Environment:
    """Jinja over this package's templates: values are escaped in HTML, and a name that is not given is an error."""
    loader, escaped = jinja2.PackageLoader("driverwatch.io", "templates"), jinja2.select_autoescape(["html"])
    blocks: Any = {"trim_blocks": True, "lstrip_blocks": True}
    made = jinja2.Environment(loader=loader, autoescape=escaped, undefined=jinja2.StrictUndefined, **blocks)
    made.globals["inline"], made.filters["paragraph"] = inline, paragraph
    return made


def paragraph(text: str) -> str:
    """The text in lines of at most 158 characters."""
    return textwrap.fill(text.strip(), 158, break_long_words=False, break_on_hyphens=False)


def render(template: str, **values: Any) -> str:
    """A page by the name of its template; HTML extends `base.html`, Markdown ends with one line break."""
    made = _environment().get_template(template).render(**values)
    return made if template.endswith(".html") else f"{made.strip()}\n"


def inline(name: str) -> Markup:
    """A style sheet or script of this package, to be put inside a page.

    Raises:
        ValueError: its text would end the element that it is put into.
    """
    text = (TEMPLATES / name).read_text("utf-8")
    if "</" in text.replace("<\\/", ""):
        raise ValueError(f"{name}: would end the element that it is in; write </ as <\\/")
    return Markup(text)


def data_uri(content: bytes, media_type: str) -> str:
    """A file's bytes as an address for `src`; `media_type`: such as image/png."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def jpeg_uri(image: Any, widest: int, quality: int) -> str:
    """An image, uint8 RGB (H, W, 3), as a data URI of a JPEG, shrunk to at most `widest` px; `quality`: 1..100."""
    import cv2

    height, width = image.shape[:2]
    if width > widest:
        image = cv2.resize(image, (widest, max(1, round(height * widest / width))), interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return data_uri(encoded.tobytes(), "image/jpeg")


EMPTY = "\N{EN DASH}"  # for what is not known
Form = Callable[[Any], str]
Link = Callable[[str, str], str]  # address or title of a cell, by its line and column


@dataclass(frozen=True)
class Table:
    """Cells as text. `words`: indices of the columns that hold sentences; `best`: index of the row that stands out."""

    head: list[str]
    rows: list[list[str]]
    words: frozenset[int] = frozenset()
    best: int | None = None


@dataclass(frozen=True)
class Chart:
    """An SVG, what it shows in words, and the numbers that it was drawn from."""

    svg: Markup
    caption: str
    data: Table


class HeatCell(NamedTuple):
    """A shaded cell: its text, its shade in 0..1 (NaN: not known), what it says in full, its address (empty: none)."""

    text: str
    shade: float
    title: str
    link: str


@dataclass(frozen=True)
class HeatTable:
    """A table whose cells are shaded. `axes`: what the lines and the columns are; `rows`: a line's name and its cells."""

    caption: str
    axes: tuple[str, str]
    head: list[str]
    rows: list[tuple[str, list[HeatCell]]]


@dataclass(frozen=True)
class Missing:
    """What is not there, why, and the command that makes it (empty: none does)."""

    sentence: str
    command: str = ""


def known(form: str | Form) -> Form:
    """A form for values, as text or as a function, with a dash for None and NaN."""
    apply = form.format if isinstance(form, str) else form
    return lambda value: EMPTY if value is None or value != value else apply(value)


plain: Form = known(str)
loss: Form = known("{:.4f}")
short_loss: Form = known("{:.2f}")
share: Form = known("{:.1%}")


def interval(low: float, high: float, form: str = "{:.3f}") -> str:
    """`0.123 to 0.456`, or a dash where either is not known."""
    return EMPTY if low != low or high != high else f"{form.format(low)} to {form.format(high)}"


def table(
    frame: pd.DataFrame, forms: Mapping[str, Form | str], words: Iterable[str] = (), best: int | None = None
) -> Table:
    """A frame as a table: each column by its form (none: as it is). `words`: columns of sentences."""
    columns = []
    for name, column in frame.items():  # two classes may be called alike
        form = forms.get(str(name), plain)
        columns.append(list(map(known(form) if isinstance(form, str) else form, column)))
    wordy = frozenset(number for number, name in enumerate(frame.columns) if name in words)
    return Table([str(name) for name in frame.columns], [list(row) for row in zip(*columns, strict=True)], wordy, best)


def heat_table(
    frame: pd.DataFrame,
    caption: str,
    axes: tuple[str, str],
    form: Form,
    title: Link,
    link: Link | None = None,
    names: Mapping[str, str] | None = None,
    top: float = 0.0,
) -> HeatTable:
    """Values shaded from 0 (none) to the largest (full); those that are not known (NaN) are unshaded.

    Args:
        axes: what the lines are and what the columns are; an empty one is not written.
        title: what a cell says in full, by its line and column.
        link: addresses of cells above 0.
        names: what lines and columns are called on the page, by their labels; None: by their labels.
        top: the value shaded fully, if that is more than the largest.
    """
    values, called = frame.to_numpy(np.float64), names or {}
    full = max([top, *values[np.isfinite(values)]]) or 1.0
    columns, rows = list(map(str, frame.columns)), []
    for label, line in zip(map(str, frame.index), values.tolist(), strict=True):
        cells = []
        for column, value in zip(columns, line, strict=True):
            address = link(label, column) if link and value > 0 else ""
            cells.append(HeatCell(form(value), value / full, title(label, column), address))
        rows.append((called.get(label) or label, cells))
    return HeatTable(caption, axes, [called.get(name) or name for name in columns], rows)


def without_unknown(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns in which anything is known."""
    return frame.loc[:, (frame.notna() & (frame != EMPTY)).any()]
