"""Files in folders of users: links to folders are followed, and what tools leave behind is passed over, by one rule.

Notebooks, desktops, file servers and archives put folders and files of their own beside everybody's photos and settings.
"""

import os
import re
from collections.abc import Container, Iterator
from pathlib import Path

# Whatever begins with a dot (.ipynb_checkpoints, .DS_Store, ._x.jpg, .Trash-1000, .git), and what file servers (Synology,
# QNAP), Windows, macOS, its archives, office programs and file systems call their own
OF_TOOLS = re.compile(
    r"\..*|@(eadir|tmp|recycle|recently-snapshot|sharebin|appstore)|#(recycle|snapshot)|synofile_thumb_.*|"
    r"\$recycle\.bin|recycler|system volume information|found\.\d{3}|(eh)?thumbs\.db|desktop\.ini|~\$.*|"
    r"__macosx|icon\r|network trash folder|temporary items|lost\+found|__pycache__",
    re.IGNORECASE | re.DOTALL,
)


def is_of_tools(name: str) -> bool:
    """Whether a file or folder of this name is a tool's own, nobody's photo or settings."""
    return OF_TOOLS.fullmatch(name) is not None


def walk(root: Path, keep: Container[str] = ()) -> Iterator[Path]:
    """Every file, and every folder, below `root`, in no order; links to folders are entered, unless they lead in a circle.

    Args:
        keep: names of folders that are entered whatever the rule says of them, such as classes.

    Raises:
        OSError: a folder that cannot be read. One that is not there holds nothing.
    """
    if root.exists():
        yield from _walk(root, keep, frozenset(_identity(folder) for folder in root.resolve().parents))


def _identity(folder: Path) -> tuple[int, int]:
    """What tells a folder, by whatever path it is reached."""
    found = folder.stat()
    return found.st_dev, found.st_ino


def _walk(folder: Path, keep: Container[str], above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    try:
        mine, entries = _identity(folder), list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    if mine in above:
        return
    for entry in entries:
        is_folder = Path(entry.path).is_dir() if entry.is_symlink() else entry.is_dir()
        if is_of_tools(entry.name) and not (is_folder and entry.name in keep):
            continue
        yield Path(entry.path)
        if is_folder:
            yield from _walk(Path(entry.path), keep, above | {mine})


def matching(folder: Path, pattern: str) -> list[Path]:
    """`folder.glob(pattern)`, sorted, without what lies in folders of tools or is theirs."""
    found = sorted(folder.glob(pattern))
    return [path for path in found if not any(map(is_of_tools, path.relative_to(folder).parts))]


def is_empty(folder: Path) -> bool:
    """Whether nothing but what tools left lies in a folder."""
    return all(is_of_tools(path.name) for path in folder.iterdir())
