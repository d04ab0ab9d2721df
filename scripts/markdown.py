"""Markdown that the generated pages are made of: no line is longer than 160 characters."""

import textwrap
from collections.abc import Sequence

WIDTH = 158  # characters


def paragraph(text: str, indent: str = "") -> str:
    """The text in lines of at most `WIDTH`; words longer than that stay whole."""
    return textwrap.fill(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def item(text: str) -> str:
    """The text as one item of a list."""
    return paragraph(f"- {text}", "  ")


def code(text: str) -> str:
    """The text as a code span, whatever backticks are in it."""
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with a column for each cell of `head`."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
