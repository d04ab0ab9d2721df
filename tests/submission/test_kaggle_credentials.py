"""One reader of token files: the doctor, the client's process and redaction know the same token, however the file begins."""

import base64
import codecs
import json
import sys
from pathlib import Path

import pytest

from driverwatch.errors import InputError
from driverwatch.submission import kaggle_client as credentials
from driverwatch.submission.kaggle_client import Client
from scripts.doctor.machine import Surroundings
from scripts.doctor.project import kaggle_token

KEY = "fedcba9876543210"
WHOLE = json.dumps({"username": "someone", "key": KEY})
MARKED = {
    "utf-8": codecs.BOM_UTF8 + WHOLE.encode(),
    "utf-16, little": codecs.BOM_UTF16_LE + WHOLE.encode("utf-16-le"),  # PowerShell's >
    "utf-16, big": codecs.BOM_UTF16_BE + WHOLE.encode("utf-16-be"),
    "utf-32": codecs.BOM_UTF32_LE + WHOLE.encode("utf-32-le"),
}
PLAIN_CLIENT = f"""#!{sys.executable}
import json, os, pathlib
token = os.environ.get("KAGGLE_API_TOKEN", "")
if pathlib.Path(token).is_file():
    token = pathlib.Path(token).read_text().strip()
kept = pathlib.Path.home() / ".kaggle"
if not token and (kept / "access_token").is_file():
    token = (kept / "access_token").read_text().strip()
user, key = os.environ.get("KAGGLE_USERNAME"), os.environ.get("KAGGLE_KEY")
if not token and not (user and key):
    try:
        user, key = (json.loads((kept / "kaggle.json").read_text(encoding="utf-8"))[name] for name in ("username", "key"))
    except ValueError:
        raise SystemExit("401 - Unauthorized")
print(f"fileName,date,description,status,publicScore,privateScore\\nx.csv,now,{{token or user + ':' + key}},complete,1,1")
"""


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a user's token files, and no token in the environment."""
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".kaggle").mkdir()
    return tmp_path / ".kaggle"


@pytest.fixture
def client(tmp_path: Path) -> Client:
    """A client that reads its files as the official one does: plain UTF-8, a mark is a part of the text."""
    path = tmp_path / "client"
    path.write_text(PLAIN_CLIENT)
    path.chmod(0o755)
    return Client(str(path), "slug")


def written(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o600)


def seen(client: Client, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the client's process signs in with: redaction is off for once."""
    with monkeypatch.context() as patched:
        patched.setattr(credentials, "secrets", list)
        return client.submissions()[0].message


@pytest.mark.parametrize("content", [WHOLE.encode(), *MARKED.values()], ids=["plain", *MARKED])
def test_kaggle_json(kept: Path, client: Client, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    written(kept / "kaggle.json", content)
    assert kaggle_token(Surroundings()).mark == "ok"
    assert credentials.username() == "someone"
    assert list(credentials.found()) == [str(kept / "kaggle.json")]
    assert {KEY, base64.b64encode(f"someone:{KEY}".encode()).decode()} <= set(credentials.secrets())
    assert seen(client, monkeypatch) == f"someone:{KEY}"
    assert client.submissions()[0].message == "someone:***"


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8], ids=["plain", "marked"])
@pytest.mark.parametrize("place", ["access_token", "named", "named by ~"])
def test_a_token_alone_in_a_file(
    kept: Path, client: Client, mark: bytes, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = kept / ("access_token" if place == "access_token" else "mine")
    written(path, mark + b"KGAT_0123456789\n")
    if place != "access_token":
        monkeypatch.setenv("KAGGLE_API_TOKEN", str(path) if place == "named" else "~/.kaggle/mine")
    assert kaggle_token(Surroundings()).mark == "ok"
    assert "KGAT_0123456789" in credentials.secrets()
    assert seen(client, monkeypatch) == "KGAT_0123456789"


def test_what_comes_first_stays_first(kept: Path, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A marked file takes nothing from what the client asks before it."""
    written(kept / "kaggle.json", MARKED["utf-8"])
    monkeypatch.setenv("KAGGLE_USERNAME", "other")
    monkeypatch.setenv("KAGGLE_KEY", "0123456789abcdef")
    assert seen(client, monkeypatch) == "other:0123456789abcdef"
    written(kept / "access_token", b"KGAT_0123456789")
    assert seen(client, monkeypatch) == "KGAT_0123456789"
    monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_9876543210")
    assert seen(client, monkeypatch) == "KGAT_9876543210"
    monkeypatch.setenv("KAGGLE_API_TOKEN", "~KGAT_9876543210")  # no user: it must not be quoted by an error about one
    assert "~KGAT_9876543210" in credentials.secrets()


@pytest.mark.parametrize(
    "content", [codecs.BOM_UTF8, codecs.BOM_UTF8 + b"[]", codecs.BOM_UTF8 + WHOLE[:-3].encode(), b"\xff\xfe\0", b"\xff"]
)
def test_marked_and_still_no_token(kept: Path, client: Client, content: bytes) -> None:
    written(kept / "kaggle.json", content)
    finding = kaggle_token(Surroundings())
    assert (finding.mark, "not a JSON object with username and key" in finding.found) == ("problem", True)
    assert credentials.secrets() == []
    with pytest.raises(InputError, match="slug: "):
        client.submissions()
