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

from driverwatch.paths import PathError, home, programs_home, user_path

HOW = "make one at https://www.kaggle.com/settings (API, Generate New Token), and {kept}"
VARIABLE = "put it into the variable KAGGLE_API_TOKEN"
FILE = (
    f"either {VARIABLE} or save it as {{folder}}/access_token (older kaggle.json files, or KAGGLE_USERNAME and KAGGLE_KEY, "
    "do as well)"
)
SECRETS = ("username", "key", "token", "access_token", "refresh_token", "proxy")
SHORTEST = 6  # shorter values are no tokens, and hiding them would hide half of every line


def folder(environ: Mapping[str, str], home: Path) -> Path:
    """The folder that kaggle.json lies in; the newer files lie in ~/.kaggle alone."""
    if named := environ.get("KAGGLE_CONFIG_DIR"):
        return user_path(named, environ)
    usual = home / ".kaggle"
    if usual.exists():
        return usual
    return user_path(environ.get("XDG_CONFIG_HOME") or home / ".config", environ) / "kaggle"


def token_files(home: Path) -> list[Path]:
    """Where a token may lie alone in a file."""
    return [home / ".kaggle" / name for name in ("access_token", "access_token.txt")]


def json_files(environ: Mapping[str, str], home: Path) -> list[Path]:
    """Where a token may lie in a JSON file, the older kind first."""
    return list(dict.fromkeys([folder(environ, home) / "kaggle.json", home / ".kaggle" / "credentials.json"]))


def how_to() -> str:
    """Where a token comes from, and where it goes; into a variable where there is no home folder."""
    known = home()
    return HOW.format(kept=VARIABLE if known is None else FILE.format(folder=known / ".kaggle"))


def places() -> list[str]:
    """Where a token is, the one that the client takes first at the front; none of them may be valid."""
    found = ["KAGGLE_API_TOKEN"] if os.environ.get("KAGGLE_API_TOKEN") else []
    found += [str(path) for path in token_files(programs_home()) if token_in(path)]
    if os.environ.get("KAGGLE_KEY"):
        found.append("KAGGLE_KEY")
    return found + [str(path) for path in _json_files() if secrets_in(path).keys() & {"key", "refresh_token"}]


def username() -> str:
    """Whose token it is, where the environment or a JSON file says so; empty where only a token is there."""
    known = [secrets_in(path).get("username", "") for path in _json_files()]
    return next((name for name in [os.environ.get("KAGGLE_USERNAME", ""), *known] if name), "")


def secrets() -> list[str]:
    """Every value that must not be shown, longest first, also as the client's debug output spells it (Basic user:key)."""
    named = os.environ.get("KAGGLE_API_TOKEN", "")
    keys = {"KAGGLE_KEY": os.environ.get("KAGGLE_KEY", "")}
    users = {os.environ.get("KAGGLE_USERNAME", "")}
    values = {named, *map(token_in, token_files(programs_home())), token_in(_named_file(named))}
    for path in _json_files():
        content = secrets_in(path)
        keys |= {f"{path} {name}": value for name, value in content.items() if name != "username"}
        users.add(content.get("username", ""))
    values |= set(keys.values())
    values |= {base64.b64encode(f"{user}:{key}".encode()).decode() for user in users for key in keys.values() if key}
    return sorted((value for value in values if len(value) >= SHORTEST), key=len, reverse=True)


def for_client() -> dict[str, str]:
    """Variables for the client's process: what lies in files that begin with a byte-order mark, which it takes for a part of it.

    Windows' editors and PowerShell write such files. Where the client takes a token before it comes to such a file, it has none.
    """
    if named := os.environ.get("KAGGLE_API_TOKEN", ""):
        held = token_in(_named_file(named))
        return {"KAGGLE_API_TOKEN": held} if held and (named.startswith("~") or _marked(_named_file(named))) else {}
    for path in token_files(programs_home()):
        if token_in(path):
            return {"KAGGLE_API_TOKEN": token_in(path)} if _marked(path) else {}
    path = folder(os.environ, programs_home()) / "kaggle.json"
    found = secrets_in(path)
    if os.environ.keys() & {"KAGGLE_USERNAME", "KAGGLE_KEY"} or not _marked(path):
        return {}
    return {f"KAGGLE_{name.upper()}": found[name] for name in ("username", "key") if name in found}


def redacted(text: str, hidden: list[str]) -> str:
    """`text` with every secret replaced by `***`."""
    for value in hidden:
        text = text.replace(value, "***")
    return text


def token_in(path: Path) -> str:
    """The token that lies alone in a file; empty where none does."""
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
    return {name: value for name, value in content.items() if name in SECRETS and _is_text(value)}


def _named_file(named: str) -> Path:
    """The file that KAGGLE_API_TOKEN names where it names one; a token is not quoted by an error about its path."""
    try:
        return user_path(named)
    except PathError:
        return Path(named)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _json_files() -> list[Path]:
    return json_files(os.environ, programs_home())


def _text(content: bytes) -> str:
    """UTF-8, or UTF-16 and UTF-32 where a byte-order mark says so; the mark is no part of it."""
    return content.decode(json.detect_encoding(content))


def _marked(path: Path) -> bool:
    """Whether the client, which reads plain UTF-8, cannot make out a file."""
    try:
        return json.detect_encoding(path.read_bytes()) != "utf-8"
    except OSError:
        return False
