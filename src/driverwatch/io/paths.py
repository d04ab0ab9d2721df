"""Paths: those that users type, those of a data set's artefacts, and walks that pass over what tools leave behind.

Notebooks, desktops, file servers and archives put folders and files of their own beside everybody's images and settings.
"""

import glob
import os
import re
import tempfile
from collections.abc import Container, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from driverwatch.errors import InputError

# Whatever begins with a dot (.ipynb_checkpoints, .DS_Store, ._x.jpg, .Trash-1000, .git), and what file servers (Synology,
# QNAP), Windows, macOS, its archives, office programs and file systems call their own
OF_TOOLS = re.compile(
    r"\..*|@(eadir|tmp|recycle|recently-snapshot|sharebin|appstore)|#(recycle|snapshot)|synofile_thumb_.*|"
    r"\$recycle\.bin|recycler|system volume information|found\.\d{3}|(eh)?thumbs\.db|desktop\.ini|~\$.*|"
    r"__macosx|icon\r|network trash folder|temporary items|lost\+found|__pycache__",
    re.IGNORECASE | re.DOTALL,
)


def is_of_tools(name: str) -> bool:
    """Whether a file or folder of this name is a tool's own, and so no image or settings."""
    return OF_TOOLS.fullmatch(name) is not None


def walk(root: Path, keep: Container[str] = ()) -> Iterator[Path]:
    """Every file, and every folder, below `root`, in no order; links to folders are entered, unless they lead in a circle.

    Args:
        keep: names of folders that are entered whatever the rule says of them, such as classes.

    Raises:
        OSError: a folder that cannot be read. One that is not there holds nothing.
    """
    if root.exists():
        yield from _walk(root, keep, frozenset(root.resolve().parents))


def _walk(folder: Path, keep: Container[str], above: frozenset[Path]) -> Iterator[Path]:
    mine = folder.resolve()
    if mine in above:
        return
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        is_folder = Path(entry.path).is_dir() if entry.is_symlink() else entry.is_dir()
        if is_of_tools(entry.name) and not (is_folder and entry.name in keep):
            continue
        yield Path(entry.path)
        if is_folder:
            yield from _walk(Path(entry.path), keep, above | {mine})


def matching(folder: Path, pattern: str) -> list[Path]:
    """`folder.glob(pattern)`, sorted, without what is in folders of tools or is theirs."""
    found = sorted(folder.glob(pattern))
    return [path for path in found if not any(map(is_of_tools, path.relative_to(folder).parts))]


def is_empty(folder: Path) -> bool:
    """Whether nothing but what tools left is in a folder."""
    return all(is_of_tools(path.name) for path in folder.iterdir())


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
    """The path that a text means: `~` and `~<user>` at its start are home folders, as in a shell.

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
    paths = []
    for path in map(user_path, text.split()):
        found = [] if _is_there(path) else sorted(glob.glob(str(path)))  # noqa: PTH207 (as a shell: no hidden files)
        paths += [Path(each) for each in found] or [path]
    return paths


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


ON = ("1", "yes", "true", "on", "y")
OFF = ("", "0", "no", "false", "off", "n")


def is_on(name: str) -> bool:
    """Whether a variable of the environment switches something on; one that is not there, or empty, does not.

    Raises:
        InputError: it says neither.
    """
    value = os.environ.get(name, "").strip().lower()
    if value in ON or value in OFF:
        return value in ON
    raise InputError(f"{name}={os.environ[name]}: expected 1 (yes, true, on) or 0 (no, false, off)")


@dataclass(frozen=True)
class Places:
    """Every path of one dataset, relative to the repository's root."""

    dataset: str
    root: Path = Path()
    study: str | None = None  # whose runs these are; they take no part in ensembles

    @property
    def build(self) -> Path:
        return self.root / "build" / self.dataset

    @property
    def folds(self) -> Path:
        return self.root / "folds" / f"{self.dataset}.csv"

    @property
    def groups(self) -> Path:
        """Which look-alikes each training image belongs to, where the table names no driver."""
        return self.root / "folds" / f"{self.dataset}_groups.csv"

    @property
    def runs(self) -> Path:
        return self.build / "runs" if self.study is None else self.build / "studies" / plain_name(self.study, "NAME")

    @property
    def blends(self) -> Path:
        """What each blend and calibration scores."""
        return self.build / "blends.json"

    def calibration(self, name: str) -> Path:
        """A reliability curve."""
        return self.build / "calibration" / f"{name}.png"

    def pseudo_labels(self, name: str) -> Path:
        """What teachers make of images without labels, for students."""
        return self.build / "pseudo_labels" / plain_name(name, "NAME")

    @property
    def feature_caches(self) -> Path:
        """What frozen layers made of the packed images, for any run."""
        return self.build / "backbone"

    @property
    def knn(self) -> Path:
        return self.build / "knn.json"

    @property
    def embeddings(self) -> Path:
        """What pretrained networks see on every image: where neighbours are looked for."""
        return self.build / "embeddings"

    @property
    def submissions(self) -> Path:
        return self.root / "submissions" / self.dataset

    def result(self, name: str) -> Path:
        """What an experiment found, for the repository; its page lies beside it."""
        return self.root / "experiments" / "results" / self.dataset / f"{plain_name(name, 'NAME')}.json"

    @property
    def label_issues(self) -> Path:
        """The committed list of images whose label is doubted; its record and page lie beside it."""
        return self.result("label_issues").with_suffix(".csv")

    def pack(self, size: str) -> Path:
        return self.build / "pack" / size

    def preview(self, name: str) -> Path:
        return self.build / "preview" / f"{plain_name(name, 'RUN')}.png"

    def page(self, name: str) -> Path:
        """A page for people (`report/`)."""
        return self.build / "report" / f"{plain_name(name, 'NAME')}.html"

    def export(self, name: str) -> Path:
        """A run as one file for others."""
        return self.build / "export" / f"{plain_name(name, 'RUN')}.keras"

    def search(self, name: str) -> Path:
        """What a search keeps and found; its runs are a study's."""
        return self.build / "searches" / plain_name(name, "NAME")

    def range_test(self, name: str) -> Path:
        """A learning-rate range test, beside its picture."""
        return self.build / "lr_find" / f"{plain_name(name, 'MODEL')}.csv"

    def notebook(self, name: str) -> Path:
        """What goes up to train elsewhere: a notebook and its data set."""
        return self.build / "notebook" / plain_name(name, "NAME")

    def run(self, run: str) -> Path:
        return self.runs / plain_name(run, "RUN")

    def submission(self, name: str) -> Path:
        return self.submissions / f"{plain_name(name, 'NAME')}.csv"

    def out_of_fold(self, name: str) -> Path:
        """What a submission's pipeline makes of the labelled images, each fold's by others."""
        return self.submissions / "out_of_fold" / f"{plain_name(name, 'NAME')}.csv.gz"

    def card(self, name: str) -> Path:
        """The folder of a submission's model card and of the files that Kaggle asks winners for."""
        return self.submissions / "cards" / plain_name(name, "NAME")


def plain_name(name: str, variable: str) -> str:
    """Return a name that can only ever be one file or folder name; refuse anything else."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        expected = "letters, digits, '.', '_' and '-', beginning with a letter or digit"
        raise InputError(f"{variable}={name}: expected {expected}")
    return name
