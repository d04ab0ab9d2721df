"""HTML pages that need nothing beside them: styles, scripts and pictures are inside, and nothing is fetched."""

import base64
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
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
        raise ValueError(f"{name}: would end the element that it lies in; write </ as <\\/")
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
