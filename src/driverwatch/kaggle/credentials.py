"""Where the client's tokens lie: to say which one was refused, and to keep every one out of what is shown or written.

Places and order as in the official client 2.2.4 (`authenticate`) and kagglesdk 0.1.37 (`get_access_token_from_env`);
versions before 1.8 know kaggle.json and its two variables alone.
"""

from __future__ import annotations  # the doctor reads this, on older Pythons too

import base64
import json
import os
from collections.abc import Mapping
from pathlib import Path

HOW = (
    "make one at https://www.kaggle.com/settings (API, Generate New Token), and either put it into the variable "
    "KAGGLE_API_TOKEN or save it as {folder}/access_token (older kaggle.json files, or KAGGLE_USERNAME and KAGGLE_KEY, "
    "do as well)"
)
SECRETS = ("username", "key", "token", "access_token", "refresh_token", "proxy")
SHORTEST = 6  # shorter values are no tokens, and hiding them would hide half of every line


def folder(environ: Mapping[str, str], home: Path) -> Path:
    """The folder that kaggle.json lies in; the newer files lie in ~/.kaggle alone."""
    if named := environ.get("KAGGLE_CONFIG_DIR"):
        return Path(named)
    usual = home / ".kaggle"
    return usual if usual.exists() else Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "kaggle"


def token_files(home: Path) -> list[Path]:
    """Where a token may lie alone in a file."""
    return [home / ".kaggle" / name for name in ("access_token", "access_token.txt")]


def json_files(environ: Mapping[str, str], home: Path) -> list[Path]:
    """Where a token may lie in a JSON file, the older kind first."""
    return list(dict.fromkeys([folder(environ, home) / "kaggle.json", home / ".kaggle" / "credentials.json"]))


def how_to() -> str:
    return HOW.format(folder=Path.home() / ".kaggle")


def places() -> list[str]:
    """Where a token is, the one that the client takes first at the front; none of them may be valid."""
    found = ["KAGGLE_API_TOKEN"] if os.environ.get("KAGGLE_API_TOKEN") else []
    found += [str(path) for path in token_files(Path.home()) if _text(path)]
    if os.environ.get("KAGGLE_KEY"):
        found.append("KAGGLE_KEY")
    found += [
        str(path) for path in json_files(os.environ, Path.home()) if _secrets_in(path).keys() & {"key", "refresh_token"}
    ]
    return found


def username() -> str:
    """Whose token it is, where the environment or a JSON file says so; empty where only a token is there."""
    known = [_secrets_in(path).get("username", "") for path in json_files(os.environ, Path.home())]
    return next((name for name in [os.environ.get("KAGGLE_USERNAME", ""), *known] if name), "")


def secrets() -> list[str]:
    """Every value that must not be shown, longest first, also as the client's debug output spells it (Basic user:key)."""
    named = os.environ.get("KAGGLE_API_TOKEN", "")
    keys = {"KAGGLE_KEY": os.environ.get("KAGGLE_KEY", "")}
    users = {os.environ.get("KAGGLE_USERNAME", "")}
    values = {named, *map(_text, token_files(Path.home())), _text(Path(named))}  # it may name a file
    for path in json_files(os.environ, Path.home()):
        content = _secrets_in(path)
        keys |= {f"{path} {name}": value for name, value in content.items() if name != "username"}
        users.add(content.get("username", ""))
    values |= set(keys.values())
    values |= {base64.b64encode(f"{user}:{key}".encode()).decode() for user in users for key in keys.values() if key}
    return sorted((value for value in values if len(value) >= SHORTEST), key=len, reverse=True)


def redacted(text: str, hidden: list[str]) -> str:
    """`text` with every secret replaced by `***`."""
    for value in hidden:
        text = text.replace(value, "***")
    return text


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""


def _secrets_in(path: Path) -> dict[str, str]:
    """The secrets of a JSON file that may hold settings too, and whose they are."""
    try:
        content = json.loads(_text(path))
    except ValueError:
        return {}
    if not isinstance(content, dict):
        return {}
    return {name: value for name, value in content.items() if name in SECRETS and isinstance(value, str) and value}
