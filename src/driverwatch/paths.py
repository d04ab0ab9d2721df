"""Paths as people write them: on a command line, in the environment, in YAML. One function, so that one text is one place."""

import glob
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from driverwatch.errors import InputError

# variables that libraries and programs read as they are, and in which people write ~ where no shell expands it
IN_THE_ENVIRONMENT = (
    "DRIVERWATCH_INPUT",
    "DRIVERWATCH_NODE_FOLDER",
    "DRIVERWATCH_OUTPUT",
    "DRIVERWATCH_SCRATCH",
    "KAGGLE",
    "KAGGLE_CONFIG_DIR",
    "KERAS_HOME",
    "MPLCONFIGDIR",
    "RAY_AUTH_TOKEN_PATH",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
)


class PathError(InputError):
    """A path whose home folder is not known."""


def home(environ: Mapping[str, str] | None = None) -> Path | None:
    """The user's home folder; None where neither HOME nor the system's list of users names one, as in some containers."""
    environ = os.environ if environ is None else environ
    named = Path(environ["HOME"] or "/") if "HOME" in environ else _home_of(None)
    return None if named == _stand_in() else named


def programs_home(environ: Mapping[str, str] | None = None) -> Path:
    """Where programs look for files of this user: the home folder, or the one that `settle_environment` makes in its place."""
    return home(environ) or _stand_in()


def _stand_in() -> Path:
    return Path(tempfile.gettempdir()) / f"driverwatch-{os.getuid()}" / "home"


def user_path(text: str | os.PathLike[str], environ: Mapping[str, str] | None = None) -> Path:
    """The path that a text means: `~` and `~<user>` at its start are home folders, as in a shell, whoever reads it.

    A folder that is called `~` is written `./~`, and comes back absolute, so that asking again changes nothing. Nothing else is
    special: `$` and `*` are characters of a name.

    Raises:
        PathError: no home folder is known, or no such user.
    """
    text = os.fspath(text)
    if not text.startswith("~"):
        path = Path(text)
        return Path.cwd() / path if str(path).startswith("~") else path
    user, _, rest = text[1:].partition("/")
    folder = _home_of(user) if user else home(environ)
    if folder is None:
        why = f"no user is called {user}" if user else "no home folder is known (HOME is not set)"
        raise PathError(f"{text}: {why}; write the whole path, or ./{text} for a name that begins with ~")
    return folder / rest.lstrip("/")


def user_text(text: str) -> str:
    """As `user_path`, of a text that may also be a pattern or a command's name: left as it is where it has no `~` in front."""
    return str(user_path(text)) if text.startswith("~") else text


def user_paths(text: str) -> list[Path]:
    """What a text names that may name several: the whole of it where that is there, else each word, `*`, `?` and `[]` expanded."""
    with suppress(PathError):  # two words, of which the first names no user
        if _is_there(whole := user_path(text)):
            return [whole]
    return [path for word in text.split() for path in _matching(user_path(word))]


def _matching(path: Path) -> list[Path]:
    found = [] if _is_there(path) else sorted(glob.glob(str(path)))  # noqa: PTH207 (as a shell: no hidden files)
    return [Path(each) for each in found] or [path]


def _is_there(path: Path) -> bool:
    try:
        return bool(path.stat())
    except (OSError, ValueError):  # also a text too long for a name, or with a null character
        return False


def settle_environment() -> None:
    """Have libraries, the Kaggle client and other processes look where this process looks.

    `~` is written out in variables that hold paths, unless its home folder is not known: what needs that one says so. Without
    any home folder, HOME names an empty one below the folder of temporary files: Keras would make a folder called `~`.
    """
    for name in IN_THE_ENVIRONMENT:
        try:
            if name in os.environ:
                os.environ[name] = user_text(os.environ[name])
        except PathError:
            continue
    if "HOME" not in os.environ and _home_of(None) is None:
        _stand_in().mkdir(mode=0o700, parents=True, exist_ok=True)
        os.environ["HOME"] = str(_stand_in())


def _home_of(user: str | None) -> Path | None:
    """A user's home folder by the system's list; None: of who runs this."""
    import pwd

    try:
        entry = pwd.getpwuid(os.getuid()) if user is None else pwd.getpwnam(user)
    except (KeyError, ValueError):  # not in the list, or no name at all
        return None
    return Path(entry.pw_dir) if entry.pw_dir else None
