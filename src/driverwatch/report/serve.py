"""`make serve`: a page on this machine that answers an image with probabilities and a class activation map over it."""

import base64
import hashlib
import io
import logging
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import IO, Any, NamedTuple
from urllib.parse import urlsplit

import flask
import numpy as np
from PIL import Image, ImageOps
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge, SecurityError
from werkzeug.serving import WSGIRequestHandler, make_server

from driverwatch.data.context import Context
from driverwatch.data.images import LARGEST, LARGEST_FILE, examine_content, resized
from driverwatch.data.regions import split
from driverwatch.data.tta import Preprocessed, centre_view
from driverwatch.errors import InputError, printable
from driverwatch.inference.overlay import encoded, overlay_regions
from driverwatch.inference.predict_run import Asked, FoldModels, Recogniser, fold_models, recogniser
from driverwatch.io.console import say
from driverwatch.io.html import data_uri, render
from driverwatch.report.example_images import Camera, Example, find_camera, find_examples

LONGEST = 1280  # px of the picture's longer side: no page shows more, and a camera's 50 million px would travel back
PATIENCE = 120.0  # seconds: a class activation map by occlusion takes five fold models a minute on two cores


class ImageError(Exception):
    """An image that cannot be answered for: what is wrong with it, without its name."""


class BusyError(Exception):
    """Others' images took longer than `PATIENCE`."""


@dataclass(frozen=True)
class Answer:
    """What is said of one image."""

    probabilities: np.ndarray  # float64 (C,)
    label: int  # the class of the class activation map
    picture: bytes  # JPEG: the class activation map over the upright image
    method: str  # how the map was made
    traits: tuple[str, ...]  # who answers for a labelled image, and what is unusual of it
    remarks: tuple[str, ...] = ()  # what tells it from the camera's images


class Answers:
    """Answers with networks that stay loaded, one image at a time: networks and decoded images both want memory and cores."""

    def __init__(
        self,
        networks: Any,
        see: Callable[[np.ndarray], Preprocessed],
        patience: float = PATIENCE,
        recognise: Recogniser = lambda _: Asked(),
        remarks: Callable[[np.ndarray], tuple[str, ...]] = lambda image: (),
    ) -> None:
        """Keep what answers.

        Args:
            networks: `inference.class_activation.Networks`.
            see: cuts from an upright image what they take.
            recognise: says which of them answer for it.
            remarks: what tells an image from those of the camera.
        """
        self.networks, self.see, self.patience = networks, see, patience
        self.recognise, self.remarks = recognise, remarks
        self.lock = threading.Lock()

    def __call__(self, content: bytes, suffix: str, label: int | None) -> Answer:
        """Answer for a file's bytes; `suffix` is how its name ends, `label` the class activation map's class (None: the likeliest).

        Raises:
            ImageError: not a whole JPEG, PNG, WebP or AVIF, too small, too large.
            BusyError: others' images took too long.
        """
        if not self.lock.acquire(timeout=self.patience):
            raise BusyError
        try:
            return self._answer(content, suffix, label)
        finally:
            self.lock.release()

    def _answer(self, content: bytes, suffix: str, label: int | None) -> Answer:
        content, suffix, converted = as_png(content, suffix)
        image = examine_content(content, suffix, None)
        if image.pixels is None:
            raise ImageError(image.problem)
        from driverwatch.inference.class_activation import class_activation_map, probabilities

        seen, asked = self.see(image.pixels), self.recognise(image.pixels)
        row = probabilities(self.networks, seen.pixels[None], [asked.places])[0]
        shown = int(row.argmax()) if label is None else label
        heat, method = class_activation_map(self.networks, seen.pixels, shown, asked.places)
        picture = overlay_regions(_bounded(image.pixels), split(heat[None], len(seen.boxes)), seen.boxes)
        traits = (*asked.said, *converted, *image.traits)
        return Answer(row, shown, encoded(picture, ".jpg"), method, traits, self.remarks(image.pixels))


def as_png(content: bytes, suffix: str) -> tuple[bytes, str, tuple[str, ...]]:
    """A WebP or AVIF file, as browsers save images, as a PNG's bytes and suffix, and that it was one; others as they are.

    Raises:
        ImageError: damaged, too large.
    """
    webp, avif = content[:4] == b"RIFF" and content[8:12] == b"WEBP", content[4:12] in (b"ftypavif", b"ftypavis")
    if not (webp or avif):
        return content, suffix, ()
    kind, made = "WebP" if webp else "AVIF", io.BytesIO()
    try:
        with Image.open(io.BytesIO(content), formats=[kind.upper()]) as image:
            if image.width * image.height > LARGEST:
                raise ImageError(
                    f"claims {image.width}x{image.height} px; at most {LARGEST // 10**6} million are decoded"
                )
            ImageOps.exif_transpose(image).convert("RGB").save(made, "PNG", compress_level=1)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(f"is a damaged {kind} ({printable(str(error), 80)})") from error
    return made.getvalue(), ".png", (f"{kind}, read by a second decoder",)


def _bounded(image: np.ndarray) -> np.ndarray:
    """An image whose longer side has at most `LONGEST` px."""
    scale = min(1.0, LONGEST / max(image.shape[:2]))
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    return resized(np.ascontiguousarray(image), (height, width))


HOSTS = ["127.0.0.1", "localhost"]  # what the page may be called: under another name it is somebody's DNS rebinding
AROUND = 64 * 2**10  # bytes of a form around its image
PARTS = 4  # of a form: one image and one class, and some patience
HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
           "Cross-Origin-Resource-Policy": "same-origin", "Cache-Control": "no-store"}  # fmt: skip

Answering = Callable[[bytes, str, int | None], Answer]


class Subject(NamedTuple):
    """Who answers, and about what."""

    title: str
    dataset: str
    classes: dict[str, str]  # id: name, in output order
    examples: tuple[Example, ...] = ()


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
    """The application: `GET /` is the page, `POST /classify` (fields `image` and perhaps `class`) an answer as JSON."""
    names = [name or key for key, name in subject.classes.items()]
    shown = [(each, subject.classes.get(each.truth) or each.truth) for each in subject.examples]
    facts = {"title": subject.title, "dataset": subject.dataset, "largest": LARGEST_FILE}
    page = render("serve.html", names=names, examples=shown, **facts)
    app = flask.Flask(__name__, static_folder=None)
    app.request_class = _InMemory
    app.config.update(TRUSTED_HOSTS=HOSTS, MAX_CONTENT_LENGTH=LARGEST_FILE + AROUND, MAX_FORM_PARTS=PARTS)
    preset = _preset(page)
    app.before_request(_refuse_other_sites)
    app.after_request(lambda response: _guarded(response, preset))
    app.register_error_handler(HTTPException, _problem)
    app.register_error_handler(ImageError, lambda error: ({"problem": f"This image {_sentence(error)}"}, 422))
    busy = {"problem": "Other images are being looked at; try again in a minute."}
    app.register_error_handler(BusyError, lambda _: (busy, 503))

    @app.get("/")
    def index() -> str:
        return page

    @app.get("/example/<int:number>")
    def example(number: int) -> Any:
        if number >= len(subject.examples):
            flask.abort(404, f"There are {len(subject.examples)} examples.")
        return flask.send_file(subject.examples[number].path.absolute())

    @app.post("/classify")
    def classify() -> Any:
        name, content = _image()
        answer = answering(content, PurePosixPath(name).suffix, _label(subject.classes))
        return _as_json(answer, subject.classes)

    return app


def _as_json(answer: Answer, classes: dict[str, str]) -> dict[str, Any]:
    """An answer as plain data: classes with the likeliest first, the picture as a data URI."""
    keys, values = list(classes), answer.probabilities.tolist()
    pairs = [(keys[i], values[i]) for i in np.argsort(-answer.probabilities, kind="stable")]
    rows = [{"id": key, "name": classes[key] or key, "probability": value} for key, value in pairs]
    picture = data_uri(answer.picture, "image/jpeg")
    found = {"classes": rows, "shown": keys[answer.label], "picture": picture}
    return {**found, "method": answer.method, "traits": list(answer.traits), "remarks": list(answer.remarks)}


def _image() -> tuple[str, bytes]:
    """The one file of the request: its name and content."""
    fields = flask.request.files
    got = ", ".join(f"{len(fields.getlist(name))} in {printable(name, 40)}" for name in fields) or "none"
    if list(fields) != ["image"] or len(fields.getlist("image")) != 1:
        flask.abort(400, f"Expected one image, as a file in the field image; got {got}.")
    file = fields["image"]
    content = file.read()
    if len(content) > LARGEST_FILE:
        raise RequestEntityTooLarge
    return file.filename or "", content


def _label(classes: dict[str, str]) -> int | None:
    """The place of the class whose class activation map is wanted."""
    if unknown := [name for name in flask.request.form if name != "class"]:
        flask.abort(400, f"Expected the fields image and class; got {printable(unknown[0], 40)}.")
    wanted = flask.request.form.get("class")
    if wanted is not None and wanted not in classes:
        flask.abort(400, f"There is no class {printable(wanted, 40)}; expected one of {', '.join(classes)}.")
    return None if wanted is None else list(classes).index(wanted)


def _sentence(error: Exception) -> str:
    """What is wrong with an image, by what this page reads: packs and `make classify` take JPEG and PNG alone."""
    other = "neither JPEG nor PNG but "
    text = str(error).replace(f"{other}something else", "of no known kind").replace(other, "")
    command = "" if re.match(r"(is|has|claims) ", text) else "cannot be used: "
    return f"{command}{text}. Expected a whole JPEG, PNG, WebP or AVIF."


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
        sentence = f"This is too much; one image of at most {LARGEST_FILE // 2**20} MB is read."
    elif error.code == 500:
        sentence = "Something went wrong here; the terminal that runs make serve says what."
    return {"problem": sentence}, error.code or 500


def _preset(page: str) -> str:
    """What the page may do: its own style and script, its own questions, no other site's anything."""
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    checksum = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{checksum}'; img-src data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _guarded(response: flask.Response, preset: str) -> flask.Response:
    response.headers["Content-Security-Policy"] = preset
    response.headers.update(HEADERS)
    return response


HOST = "127.0.0.1"  # this machine alone


class Handler(WSGIRequestHandler):
    """Says nothing of requests that went well, and gives up on a visitor who says nothing."""

    timeout = 60  # seconds

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        if str(code) >= "500":
            super().log_request(code, size)


def serve(context: Context, name: str, fold: int | None, port: int) -> None:
    """Serve the page of a run (`fold`: of one fold model) until Ctrl-C; port 0 takes any that is free.

    Raises:
        InputError: nothing finished, a port that is taken.
    """
    models = fold_models(context, name, fold)
    with _listening(port) as listening:
        port, examples = listening.getsockname()[1], tuple(find_examples(context, models))
        subject = Subject(models.title, context.settings.title, models.classes, examples)
        app = app_of(subject, _answers(context, models, find_camera(context, models)))
        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # its banner, and a line a request
        server = make_server(HOST, port, app, threaded=True, request_handler=Handler, fd=listening.fileno())
        say(f"{models.title}: http://{HOST}:{port} answers on this machine alone; Ctrl-C ends it")
        server.serve_forever()  # returns at Ctrl-C
    say("ended; nothing was kept")


def _listening(port: int) -> socket.socket:
    """A socket of our own: Werkzeug ends the process where a port is taken."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
        listening.listen()
    except OSError as error:
        listening.close()
        raise InputError(f"PORT={port}: cannot be used ({error.strerror}); choose another, or 0 for any") from error
    return listening


def _answers(context: Context, models: FoldModels, camera: Camera | None) -> Answers:
    from driverwatch.models import backend

    backend.start()
    from driverwatch.inference.class_activation import resident

    run = models.run
    networks = resident(run.settings, len(models.classes), models.mean, models.files)
    see = partial(centre_view, field=run.settings.input, boxes=models.boxes)
    remarks = camera.remarks if camera else lambda image: ()
    return Answers(networks, see, recognise=recogniser(context, models), remarks=remarks)
