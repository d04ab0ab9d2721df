"""What a page is built of: sections of sentences, cards, tables, charts with their data, pictures, and what is missing."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pandas as pd
from markupsafe import Markup

EMPTY = "\N{EN DASH}"


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    words: str


@dataclass(frozen=True)
class Missing:
    """What is not there, why, and the command that makes it (empty: none does)."""

    kind: ClassVar[str] = "missing"
    sentence: str
    command: str = ""


@dataclass(frozen=True)
class Card:
    """One figure that a reader looks for first."""

    title: str
    value: str
    note: str


@dataclass(frozen=True)
class Cards:
    kind: ClassVar[str] = "cards"
    cards: list[Card]


@dataclass(frozen=True)
class Table:
    """Cells as text. `words`: numbers of the columns that hold sentences; `best`: the row that stands out, if any.

    `links`: where a cell leads, by the numbers of its row and column.
    """

    kind: ClassVar[str] = "table"
    head: list[str]
    rows: list[list[str]]
    words: frozenset[int] = frozenset()
    best: int | None = None
    links: Mapping[tuple[int, int], str] = field(default_factory=dict)


@dataclass(frozen=True)
class Chart:
    """An SVG, what it shows in words, and the numbers that it was drawn from."""

    kind: ClassVar[str] = "chart"
    svg: Markup
    caption: str
    data: Table


@dataclass(frozen=True)
class Picture:
    """A picture as a data URI, or as an SVG that holds one."""

    kind: ClassVar[str] = "picture"
    caption: str
    alt: str
    source: str = ""
    svg: Markup | None = None


@dataclass(frozen=True)
class Folded:
    """Blocks that are seen when they are asked for."""

    kind: ClassVar[str] = "folded"
    title: str
    blocks: "list[Block]"


@dataclass(frozen=True)
class Grid:
    """Blocks beside each other where there is room."""

    kind: ClassVar[str] = "grid"
    blocks: "list[Block]"


@dataclass(frozen=True)
class Group:
    """Blocks below each other, as one of a grid."""

    kind: ClassVar[str] = "group"
    blocks: "list[Block]"


Block = Text | Missing | Cards | Table | Chart | Picture | Folded | Grid | Group


@dataclass(frozen=True)
class Section:
    """A heading with a place in the page's contents."""

    key: str  # the anchor
    title: str
    short: str  # in the contents
    blocks: list[Block] = field(default_factory=list)


Form = Callable[[Any], str]


def known(form: Form) -> Form:
    """The form, with a dash for what is not known (None, NaN)."""
    return lambda value: EMPTY if value is None or value != value else form(value)


plain: Form = known(str)
loss: Form = known("{:.4f}".format)
short_loss: Form = known("{:.2f}".format)
signed: Form = known("{:+.3f}".format)
share: Form = known("{:.1%}".format)
minutes: Form = known("{:.1f}".format)


def labelled(frame: pd.DataFrame, corner: str, form: Form, links: pd.DataFrame | None = None) -> Table:
    """A frame's values by one form, its index as the first column, whatever lines and columns are called.

    Args:
        links: where each value leads, of the frame's shape; empty: nowhere.
    """
    rows = [[str(name), *map(form, line)] for name, line in zip(frame.index, frame.to_numpy().tolist(), strict=True)]
    lead = [] if links is None else links.to_numpy().tolist()
    leads = {(line, place): to for line, row in enumerate(lead) for place, to in enumerate(row, start=1) if to}
    return Table([corner, *map(str, frame.columns)], rows, links=leads)


def told(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns in which anything is known."""
    return frame[
        [
            name
            for name in frame.columns
            if not all(value is None or value != value or value == EMPTY for value in frame[name])
        ]
    ]


def interval(low: float, high: float, form: str = "{:.3f}") -> str:
    """`0.123 to 0.456`, or a dash where either is not known."""
    return EMPTY if low != low or high != high else f"{form.format(low)} to {form.format(high)}"


def table(frame: pd.DataFrame, forms: Mapping[str, Form], words: Iterable[str] = (), best: int | None = None) -> Table:
    """A frame as a table: each column by its form (none: as it is). `words`: columns of sentences."""
    columns = [[forms.get(str(name), plain)(value) for value in frame[name]] for name in frame.columns]
    wordy = frozenset(number for number, name in enumerate(frame.columns) if name in words)
    return Table([str(name) for name in frame.columns], [list(row) for row in zip(*columns, strict=True)], wordy, best)
