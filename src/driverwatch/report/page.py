"""HTML pages that need nothing beside them: style and pictures lie inside, nothing is fetched."""

import base64
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup


@cache
def _templates() -> jinja2.Environment:
    """Templates of this package; what is put into them is escaped, and a name that is not given is an error."""
    loader = jinja2.PackageLoader("driverwatch.report", "templates")
    made = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    made.globals["inline"] = inline
    return made


def render(template: str, **values: Any) -> str:
    """A page by the name of its template, which extends `base.html`."""
    return _templates().get_template(template).render(**values)


def inline(name: str) -> Markup:
    """A style sheet or script of this package as it is, to lie inside of a page."""
    text = (files("driverwatch.report") / "templates" / name).read_text("utf-8")
    if "</" in text.replace("<\\/", ""):
        raise ValueError(f"{name}: would end the element that it lies in; write </ as <\\/")
    return Markup(text)


def picture(content: bytes, kind: str) -> str:
    """A data URI, for `src`; `kind` is the media type, such as image/png."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
