"""Where Kaggle's tokens are: to say which one was refused, to hand the first to the client, and to print none.

Places and order are those of the official client 2.2.4 (`authenticate`) and kagglesdk 0.1.37 (`get_access_token_from_env`).
A module of its own because the doctor reads it before anything is installed.
"""

from __future__ import annotations  # under older Pythons too

import base64
import json
import os
from collections.abc import Mapping
from pathlib import Path

from driverwatch.paths import PathError, home, programs_home, user_path

HOW = "make one at https://www.kaggle.com/settings (API, Generate New Token), and {kept}"
VARIABLE = "put it into the variable KAGGLE_API_TOKEN"
FILE = (
    f"either {VARIABLE} or save it as {{folder}}/access_token (older kaggle.json files, or KAGGLE_USERNAME and KAGGLE_KEY, "
    "do as well)"
)
PAIR = ("KAGGLE_USERNAME", "KAGGLE_KEY")
SECRETS = ("username", "key", "token", "access_token", "refresh_token", "proxy")
SHORTEST = 6  # characters; shorter values are no tokens, and hiding them would hide half of every line


def folder(environ: Mapping[str, str], home: Path) -> Path:
    """The folder that kaggle.json is in; the newer files are in ~/.kaggle only."""
    if named := environ.get("KAGGLE_CONFIG_DIR"):
        return user_path(named, environ)
    usual = home / ".kaggle"
    if usual.exists():
        return usual
    return user_path(environ.get("XDG_CONFIG_HOME") or home / ".config", environ) / "kaggle"


def token_files(home: Path) -> list[Path]:
    """Files that a token may be in, with nothing else."""
    return [home / ".kaggle" / name for name in ("access_token", "access_token.txt")]


def json_files(environ: Mapping[str, str], home: Path) -> list[Path]:
    """JSON files that a token may be in, the older kind first."""
    return list(dict.fromkeys([folder(environ, home) / "kaggle.json", home / ".kaggle" / "credentials.json"]))


def token_in(path: Path) -> str:
    """The token that is alone in a file; empty where there is none."""
    try:
        return _text(path.read_bytes()).strip()
    except (OSError, ValueError):
        return ""


def secrets_in(path: Path) -> dict[str, str]:
    """The secrets of a JSON file that may hold settings too, and whose they are; empty where it is none."""
    try:
        content = json.loads(_text(path.read_bytes()))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {k: v for k, v in content.items() if k in SECRETS and isinstance(v, str) and v.strip()}


def how_to() -> str:
    """Where a token comes from, and where it goes; into a variable where there is no home folder."""
    known = home()
    return HOW.format(kept=VARIABLE if known is None else FILE.format(folder=known / ".kaggle"))


def found() -> dict[str, dict[str, str]]:
    """Places that hold a token, in the client's order, each with the token as variables of the client; none may be valid.

    A token of `kaggle auth login` has no variables: the client itself renews it in its file.
    """
    tokens, pair = {}, {name: os.environ[name] for name in PAIR if os.environ.get(name)}
    if named := os.environ.get("KAGGLE_API_TOKEN"):
        tokens["KAGGLE_API_TOKEN"] = {"KAGGLE_API_TOKEN": token_in(_named_file(named)) or named}
    tokens |= {
        str(path): {"KAGGLE_API_TOKEN": token_in(path)} for path in token_files(programs_home()) if token_in(path)
    }
    if "KAGGLE_KEY" in pair:
        tokens["KAGGLE_KEY"] = pair
    for path in _json_files():
        content = secrets_in(path)
        if "key" in content:
            tokens[str(path)] = {f"KAGGLE_{k.upper()}": content[k] for k in ("username", "key") if k in content} | pair
        elif "refresh_token" in content:
            tokens[str(path)] = {}
    return tokens


def for_client() -> dict[str, str]:
    """The first token as variables for the client's process, which itself cannot read files that start with a byte-order mark.

    Editors on Windows and PowerShell write such files.
    """
    return next(iter(found().values()), {})


def username() -> str:
    """Whose token it is, where the environment or a JSON file says so; empty where there is only a token."""
    known = [secrets_in(path).get("username", "") for path in _json_files()]
    return next((name for name in [os.environ.get("KAGGLE_USERNAME", ""), *known] if name), "")


def secrets() -> list[str]:
    """Every value that must not be printed, longest first, also as the client's debug output spells it (Basic user:key)."""
    named, content = os.environ.get("KAGGLE_API_TOKEN", ""), [secrets_in(path) for path in _json_files()]
    users = {os.environ.get("KAGGLE_USERNAME", ""), *(each.pop("username", "") for each in content)}
    keys = {os.environ.get("KAGGLE_KEY", ""), *(value for each in content for value in each.values())}
    tokens = {named, *map(token_in, [_named_file(named), *token_files(programs_home())])}
    basic = {base64.b64encode(f"{user}:{key}".encode()).decode() for user in users for key in keys if key}
    return sorted((value for value in tokens | keys | basic if len(value) >= SHORTEST), key=len, reverse=True)


def redacted(text: str, hidden: list[str]) -> str:
    """`text` with every secret replaced by `***`."""
    for value in hidden:
        text = text.replace(value, "***")
    return text


def _named_file(named: str) -> Path:
    """The file that KAGGLE_API_TOKEN names where it names one; a token is not quoted by an error about its path."""
    try:
        return user_path(named)
    except PathError:
        return Path(named)


def _json_files() -> list[Path]:
    return json_files(os.environ, programs_home())


def _text(content: bytes) -> str:
    """UTF-8, or UTF-16 and UTF-32 where a byte-order mark says so; the mark is no part of it."""
    return content.decode(json.detect_encoding(content))
