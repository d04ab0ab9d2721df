"""The Kaggle token: found or not, whole or not, private or not. No part of it is ever printed."""

from __future__ import annotations

import stat
from pathlib import Path

from driverwatch.doctor.finding import Finding, Surroundings, note, ok, problem
from driverwatch.paths import home, user_text
from driverwatch.submission.kaggle_credentials import VARIABLE, folder, json_files, secrets_in, token_files, token_in

PAIR = ("KAGGLE_USERNAME", "KAGGLE_KEY")
HOW = "Only make data and make submit need one: create it under Settings, API on kaggle.com, {kept}"
FILE = "save it as ~/.kaggle/kaggle.json (or ~/.kaggle/access_token) and chmod 600 the file"


def token(s: Surroundings) -> Finding:
    """A token in the environment comes first, then the files, in the order in which the client looks."""
    if s.environ.get("KAGGLE_API_TOKEN", "").strip():
        return ok("KAGGLE_API_TOKEN is set")
    given = [name for name in PAIR if s.environ.get(name, "").strip()]
    if len(given) == 2:
        return ok("KAGGLE_USERNAME and KAGGLE_KEY are set")
    if given:
        other = next(name for name in PAIR if name not in given)
        return problem(f"{given[0]} is set without {other}", "Set both, or neither and keep the token in a file")
    for path in (*token_files(s.home), *json_files(s.environ, s.home)):
        if path.exists():
            return _file(path, _shown(path, s))
    if home(s.environ) is None:
        return note("none in the environment, and no home folder for a file", HOW.format(kept=VARIABLE))
    return note(f"none in the environment nor in {_shown(folder(s.environ, s.home), s)}", HOW.format(kept=FILE))


def _shown(path: Path, s: Surroundings) -> str:
    """A path as the documentation writes it."""
    configured = user_text(s.environ.get("KAGGLE_CONFIG_DIR", ""))
    for place, name in ((configured, "$KAGGLE_CONFIG_DIR"), (str(s.home), "~")):
        if place and Path(place) in (path, *path.parents):
            return str(Path(name) / path.relative_to(place))
    return str(path)


def _file(path: Path, shown: str) -> Finding:
    """What is wrong with a token file, by its shown name; errors are named by kind, since their text may quote the file."""
    again = "Create a new token under Settings, API on kaggle.com and save its file there"
    try:
        path.read_bytes()
    except OSError as error:
        return problem(f"{shown} cannot be read ({error.strerror})", "Make it a file of your own: chmod 600")
    if path.name == "kaggle.json" and not secrets_in(path).keys() >= {"username", "key"}:
        return problem(f"{shown} is not a JSON object with username and key", again)
    if not token_in(path):
        return problem(f"{shown} is empty or no text", again)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        return note(f"{shown}, which others on this machine may read", f'Make it private: chmod 600 "{shown}"')
    return ok(shown)
