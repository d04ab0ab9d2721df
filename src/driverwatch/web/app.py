"""The page's application: one page, one question. Bound to this machine, yet careful: any web site one visits can try its port."""

import base64
import hashlib
import io
import re
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import IO, Any, NamedTuple
from urllib.parse import urlsplit

import flask
import numpy as np
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge, SecurityError

from driverwatch.data.photos import LARGEST_FILE
from driverwatch.errors import printable
from driverwatch.io.html import data_uri, render
from driverwatch.web.answers import Answer, BusyError, PhotoError

HOSTS = ["127.0.0.1", "localhost"]  # what the page may be called: under another name it is somebody's DNS rebinding
AROUND = 64 * 2**10  # bytes of a form around its photo
PARTS = 4  # of a form: one photo and one class, and some patience

Answering = Callable[[bytes, str, int | None], Answer]


class Subject(NamedTuple):
    """Who answers, and about what."""

    title: str
    dataset: str
    classes: dict[str, str]  # id: name, in output order


class _InMemory(flask.Request):
    """Uploads are kept in memory: Werkzeug would put what is larger than 500 kB into a temporary file."""

    def _get_file_stream(
        self,
        total_content_length: int | None,
        content_type: str | None,
        filename: str | None = None,
        content_length: int | None = None,
    ) -> IO[bytes]:
        return io.BytesIO()


def app_of(subject: Subject, answering: Answering) -> flask.Flask:
    """The application: `GET /` is the page, `POST /classify` (fields `photo` and perhaps `class`) an answer as JSON."""
    page = render("serve.html", title=subject.title, dataset=subject.dataset, largest=LARGEST_FILE, **_shown(subject))
    app = flask.Flask(__name__, static_folder=None)
    app.request_class = _InMemory
    app.config.update(TRUSTED_HOSTS=HOSTS, MAX_CONTENT_LENGTH=LARGEST_FILE + AROUND, MAX_FORM_PARTS=PARTS)
    policy = _policy(page)
    app.before_request(_refuse_other_sites)
    app.after_request(lambda response: _guarded(response, policy))
    app.register_error_handler(HTTPException, _problem)
    app.register_error_handler(PhotoError, lambda error: _said(f"This photo {_sentence(error)}", 422))
    app.register_error_handler(
        BusyError, lambda _: _said("Other photos are being looked at; try again in a minute.", 503)
    )

    @app.get("/")
    def index() -> str:
        return page

    @app.post("/classify")
    def classify() -> Any:
        name, content = _photo()
        answer = answering(content, PurePosixPath(name).suffix, _label(subject.classes))
        return _told(answer, subject.classes)

    return app


def _shown(subject: Subject) -> dict[str, Any]:
    return {"names": [name or key for key, name in subject.classes.items()]}


def _told(answer: Answer, classes: dict[str, str]) -> dict[str, Any]:
    """An answer as plain data: classes with the likeliest first, the picture as a data URI."""
    keys = list(classes)
    rows = [
        {"id": keys[i], "name": classes[keys[i]] or keys[i], "probability": float(answer.probabilities[i])}
        for i in np.argsort(-answer.probabilities, kind="stable")
    ]
    return {
        "classes": rows,
        "shown": keys[answer.label],
        "picture": data_uri(answer.picture, "image/jpeg"),
        "method": answer.method,
        "traits": list(answer.traits),
    }


def _photo() -> tuple[str, bytes]:
    """The one file of the request: its name and content."""
    fields = flask.request.files
    got = ", ".join(f"{len(fields.getlist(name))} in {printable(name, 40)}" for name in fields) or "none"
    if list(fields) != ["photo"] or len(fields.getlist("photo")) != 1:
        flask.abort(400, f"Expected one photo, as a file in the field photo; got {got}.")
    file = fields["photo"]
    content = file.read()
    if len(content) > LARGEST_FILE:
        raise RequestEntityTooLarge
    return file.filename or "", content


def _label(classes: dict[str, str]) -> int | None:
    """The place of the class whose heat map is wanted."""
    if unknown := [name for name in flask.request.form if name != "class"]:
        flask.abort(400, f"Expected the fields photo and class; got {printable(unknown[0], 40)}.")
    wanted = flask.request.form.get("class")
    if wanted is not None and wanted not in classes:
        flask.abort(400, f"There is no class {printable(wanted, 40)}; expected one of {', '.join(classes)}.")
    return None if wanted is None else list(classes).index(wanted)


def _sentence(error: Exception) -> str:
    text = str(error)
    verb = "" if re.match(r"(is|has|claims) ", text) else "cannot be used: "
    return f"{verb}{text}. Expected a whole JPEG or PNG."


def _refuse_other_sites() -> None:
    """Refuse questions that another site's page sends: it could not read the answer, but keep this machine busy."""
    origin, fetched = flask.request.headers.get("Origin"), flask.request.headers.get("Sec-Fetch-Site", "none")
    own = origin is None or urlsplit(origin).netloc == flask.request.host
    if flask.request.method == "POST" and not (own and fetched in ("none", "same-origin")):
        flask.abort(403, "This page answers its own visitors alone, not other sites.")


def _problem(error: HTTPException) -> Any:
    sentence = error.description or error.name
    if isinstance(error, SecurityError):
        sentence = f"This page is called {' or '.join(HOSTS)}; under another name it does not answer."
    elif isinstance(error, RequestEntityTooLarge):
        sentence = f"This is too much; one photo of at most {LARGEST_FILE // 2**20} MB is read."
    elif error.code == 500:
        sentence = "Something went wrong here; the terminal that runs make serve says what."
    return _said(sentence, error.code or 500)


def _said(sentence: str, status: int) -> Any:
    return {"problem": sentence}, status


def _policy(page: str) -> str:
    """What the page may do: its own style and script, its own questions, no other site's anything."""
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _guarded(response: flask.Response, policy: str) -> flask.Response:
    response.headers.update(
        {
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cache-Control": "no-store",
        }
    )
    return response
