"""The local page's application: what it answers, what it refuses and in which words; without a network, in milliseconds."""

import io
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image
from support.invalid import jpeg_claiming, png_claiming
from support.serving import CLASSES, SHARES, animated, image, stand_in
from werkzeug.datastructures import FileStorage, MultiDict
from werkzeug.test import encode_multipart

from driverwatch.data.images import LARGEST_FILE
from driverwatch.inference.overlay import encoded
from driverwatch.report.serve import Answer, Answers, BusyError, ImageError, Subject, app_of


def turned() -> bytes:
    """A JPEG that its EXIF data turns by a quarter."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return image(exif=exif)


@pytest.fixture
def client() -> FlaskClient:
    return app_of(Subject("tiny, mean of 2 fold models", "synthetic images", CLASSES), stand_in).test_client()


def ask(client: FlaskClient, content: bytes, name: str = "a.jpg", **fields: str) -> tuple[int, dict[str, Any]]:
    """Post an image; encoded here, because Flask's client would put a large one into a temporary file."""
    form = {"image": FileStorage(io.BytesIO(content), name), **fields}
    boundary, body = encode_multipart(form)
    sent = client.post("/classify", data=body, content_type=f"multipart/form-data; boundary={boundary}")
    assert sent.mimetype == "application/json"
    return sent.status_code, json.loads(sent.data)


def test_the_page_names_who_answers_and_holds_what_it_needs(client: FlaskClient) -> None:
    sent = client.get("/")
    page = sent.text
    assert sent.status_code == 200
    assert "tiny, mean of 2 fold models, trained on “synthetic images”" in page
    assert "safe driving; texting &lt;right&gt;; c2; radio." in page
    assert "fit for no decision about a person" in page
    assert "http" not in page.replace("http-equiv", "")  # nothing is fetched from elsewhere
    preset = sent.headers["Content-Security-Policy"]
    assert "default-src 'none'" in preset
    assert "frame-ancestors 'none'" in preset
    assert sent.headers["Cache-Control"] == "no-store"


def test_an_answer_has_all_classes_the_likeliest_first(client: FlaskClient) -> None:
    status, said = ask(client, image())
    assert status == 200
    assert [row["id"] for row in said["classes"]] == ["c1", "c2", "c0", "c3"]
    assert [row["name"] for row in said["classes"]] == ["texting <right>", "c2", "safe driving", "radio"]
    assert [row["probability"] for row in said["classes"]] == sorted(SHARES, reverse=True)
    assert (said["shown"], said["method"], said["traits"]) == ("c1", "class activation", [])
    assert said["picture"].startswith("data:image/jpeg;base64,")
    status, said = ask(client, image(), **{"class": "c3"})
    assert (status, said["shown"], said["classes"][0]["id"]) == (200, "c3", "c1")


@pytest.mark.parametrize(
    ("content", "name", "traits"),
    [
        (image("PNG"), "a.png", []),
        (image("PNG"), "a.jpg", ["PNG under another name"]),
        (image(mode="CMYK"), "a.JPEG", ["CMYK"]),
        (image(mode="L"), "a.jpg", ["greyscale"]),
        (image("PNG", "RGBA"), "a.png", ["transparency dropped"]),
        (turned(), "a.jpg", ["turned upright by its EXIF orientation"]),
        (image(), "../../etc/passwd", ["JPEG under another name"]),
        (image(), "ünï\ud7ff ode.jpg", []),
    ],
)
def test_what_is_unusual_is_taken_and_named(client: FlaskClient, content: bytes, name: str, traits: list[str]) -> None:
    status, said = ask(client, content, name)
    assert (status, said["traits"]) == (200, traits)


def test_a_turned_image_is_shown_upright(client: FlaskClient) -> None:
    import base64

    _, said = ask(client, turned())
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(said["picture"].split(",")[1]), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (64, 48, 3)


WHOLE = image()
REFUSED = [
    (b"", "a.jpg", "This image cannot be used: empty file. Expected a whole JPEG, PNG, WebP or AVIF."),
    (
        b"hello",
        "a.txt",
        "This image is of no known kind (5 bytes). Expected a whole JPEG, PNG, WebP or AVIF.",
    ),
    (animated(), "a.gif", "This image is a GIF"),
    (animated(), "a.jpg", "This image is a GIF"),
    (b"\0\0\0\x18ftypheic" + bytes(40), "a.jpg", "This image is a HEIC (save it as JPEG first)"),
    (b"<svg onload='x'>", "a.svg", "This image is an HTML or XML page"),
    (WHOLE[:-100], "a.jpg", "This image cannot be used: damaged or cut short"),
    (image("PNG")[:-20], "a.png", "This image cannot be used: damaged"),
    (image("PNG", size=(1, 1)), "a.png", "This image is 1x1 px; expected at least 16 on each side."),
    (png_claiming(60_000, 60_000), "a.png", "This image claims 60000x60000 px; at most 50 million px are decoded."),
    (jpeg_claiming(image(), 65_000, 65_000), "a.jpg", "This image claims 65000x65000 px"),
]


@pytest.mark.parametrize(("content", "name", "said"), REFUSED, ids=[said[:40] for *_, said in REFUSED])
def test_what_is_no_image_is_one_sentence(client: FlaskClient, content: bytes, name: str, said: str) -> None:
    status, answer = ask(client, content, name)
    assert status == 422
    assert said in answer["problem"]


def test_too_large_is_refused_before_it_is_read(client: FlaskClient) -> None:
    limit = "This is too much; one image of at most 64 MB is read."
    assert ask(client, bytes(100 * 2**20)) == (413, {"problem": limit})
    assert ask(client, bytes(LARGEST_FILE + 1)) == (413, {"problem": limit})
    status, said = ask(client, image() + bytes(LARGEST_FILE - len(image())))
    assert (status, len(said)) == (200, 6)  # the largest that is read; a JPEG ends where it says so


def test_other_questions_are_one_sentence(client: FlaskClient) -> None:
    def said(**sent: Any) -> tuple[int, str]:
        answer = client.post("/classify", **sent)
        return answer.status_code, answer.get_json()["problem"]

    one = (io.BytesIO(image()), "a.jpg")
    assert said() == (400, "Expected one image, as a file in the field image; got none.")
    assert said(data={"picture": one}) == (400, "Expected one image, as a file in the field image; got 1 in picture.")
    assert said(data={"image": "text"})[0] == 400
    assert said(data=image(), content_type="image/jpeg")[0] == 400
    two = MultiDict([("image", (io.BytesIO(image()), name)) for name in ("a.jpg", "b.jpg")])
    assert said(data=two) == (400, "Expected one image, as a file in the field image; got 2 in image.")
    many = MultiDict([("image", (io.BytesIO(b""), f"{i}.jpg")) for i in range(50)])
    assert said(data=many)[0] == 413
    status, sentence = said(data={"image": (io.BytesIO(image()), "a.jpg"), "class": "C1"})
    assert (status, sentence) == (400, "There is no class C1; expected one of c0, c1, c2, c3.")
    assert said(data={"image": (io.BytesIO(image()), "a.jpg"), "label": "c1"})[1].startswith(
        "Expected the fields image"
    )
    assert client.get("/classify").status_code == 405
    assert client.get("/classify.json").get_json()["problem"]
    assert client.get("/../Makefile").status_code == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "127.0.0.1:8000"}, 200),
        ({"Host": "localhost:9000", "Origin": "http://localhost:9000"}, 200),
        ({"Host": "evil.example"}, 400),
        ({"Host": "127.0.0.1.evil.example:8000"}, 400),
        ({"Host": "192.168.1.7:8000"}, 400),
        ({"Host": "localhost:8000", "Origin": "http://evil.example"}, 403),
        ({"Host": "localhost:8000", "Origin": "null"}, 403),
        ({"Host": "localhost:8000", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Host": "localhost:8000", "Origin": "http://localhost:8000", "Sec-Fetch-Site": "same-origin"}, 200),
    ],
)
def test_other_names_and_other_sites_are_refused(client: FlaskClient, headers: dict[str, str], status: int) -> None:
    """Under a foreign name it is a page of somebody who made that name mean 127.0.0.1 (DNS rebinding)."""
    sent = client.post("/classify", data={"image": (io.BytesIO(image()), "a.jpg")}, headers=headers)
    assert sent.status_code == status
    assert ("problem" in sent.get_json()) == (status != 200)
    page = client.get("/", headers={"Host": headers["Host"]})
    assert page.status_code == (400 if status == 400 else 200)
    assert "<html" not in page.text or status != 400


def test_no_upload_touches_the_disk(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a temporary file")

    for name in ("TemporaryFile", "SpooledTemporaryFile"):
        monkeypatch.setattr(f"werkzeug.formparser.{name}", refuse, raising=False)
        monkeypatch.setattr(f"tempfile.{name}", refuse)
    noise = np.random.default_rng(0).integers(0, 256, (900, 900, 3), np.uint8)
    large = encoded(noise, ".png")
    assert len(large) > 2_000_000
    assert ask(client, large, "a.png")[0] == 200


def test_a_defect_is_reported_without_its_inside(caplog: pytest.LogCaptureFixture) -> None:
    def invalid(*_: Any) -> Answer:
        raise RuntimeError("secret place /home/me")

    client = app_of(Subject("t", "d", CLASSES), invalid).test_client()
    status, said = ask(client, image())
    assert status == 500
    assert said["problem"] == "Something went wrong here; the terminal that runs make serve says what."
    assert "secret place" in caplog.text


def test_questions_take_turns_and_do_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    inside, most, go = [0], [0], threading.Event()

    def slow(self: Answers, content: bytes, suffix: str, label: int | None) -> Answer:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        assert go.wait(20)
        inside[0] -= 1
        return stand_in(content, suffix, label)

    monkeypatch.setattr(Answers, "_answer", slow)
    answers = Answers(None, lambda _: None, patience=0.05)  # type: ignore[arg-type, return-value]
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(answers, image(), ".jpg", None)
        while not inside[0]:
            pass
        with pytest.raises(BusyError):
            answers(image(), ".jpg", None)
        client = app_of(Subject("t", "d", CLASSES), answers).test_client()
        assert ask(client, image()) == (503, {"problem": "Other images are being looked at; try again in a minute."})
        go.set()
        assert first.result().label == 1
    answers.patience = 20
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: answers(image(), ".jpg", None).label, range(24)))
    assert found == [1] * 24
    assert most == [1]


def test_a_refused_image_lets_the_next_one_in() -> None:
    answers = Answers(None, lambda _: None, patience=0.05)  # type: ignore[arg-type, return-value]
    for _ in range(3):
        with pytest.raises(ImageError, match="empty file"):
            answers(b"", ".jpg", None)
