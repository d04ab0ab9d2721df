"""HTML pages that need nothing beside them: styles, scripts and pictures are inside, and nothing is fetched."""

import base64
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup

TEMPLATES = files("driverwatch.io") / "templates"


@cache
def _environment() -> jinja2.Environment:
    """Jinja over this package's templates: values are escaped, and a name that is not given is an error."""
    loader = jinja2.PackageLoader("driverwatch.io", "templates")
    made = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.globals["inline"] = inline
    return made


def render(template: str, **values: Any) -> str:
    """A page by the name of its template, which extends `base.html`."""
    return _environment().get_template(template).render(**values)


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
Link = Callable[[str, str], str]  # address of a cell, by its line and column


@dataclass(frozen=True)
class Table:
    """Cells as text. `words`: indices of the columns that hold sentences; `best`: index of the row that stands out.

    `links`: addresses of cells, by (row, column).
    """

    head: list[str]
    rows: list[list[str]]
    words: frozenset[int] = frozenset()
    best: int | None = None
    links: Mapping[tuple[int, int], str] = field(default_factory=dict)


@dataclass(frozen=True)
class Chart:
    """An SVG, what it shows in words, and the numbers that it was drawn from."""

    svg: Markup
    caption: str
    data: Table


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
    chosen = {name: forms.get(str(name), plain) for name in frame.columns}
    columns = [
        [(known(form) if isinstance(form, str) else form)(v) for v in frame[name]] for name, form in chosen.items()
    ]
    wordy = frozenset(number for number, name in enumerate(frame.columns) if name in words)
    return Table([str(name) for name in frame.columns], [list(row) for row in zip(*columns, strict=True)], wordy, best)


def matrix(frame: pd.DataFrame, corner: str, form: Form, link: Link | None = None) -> Table:
    """A frame's values by one form, its index as the first column, headed by `corner`; values above 0 may have links."""
    rows = [[str(name), *map(form, line)] for name, line in zip(frame.index, frame.to_numpy().tolist(), strict=True)]
    links = {}
    for (row, column), value in np.ndenumerate(frame.to_numpy()):
        if link and value > 0:
            links[row, column + 1] = link(str(frame.index[row]), str(frame.columns[column]))
    return Table([corner, *map(str, frame.columns)], rows, links=links)


def without_unknown(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns in which anything is known."""
    return frame.loc[:, (frame.notna() & (frame != EMPTY)).any()]
