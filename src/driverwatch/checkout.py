"""The checkout of its own that this package may lie in, and git asked about nothing but that."""

import os
import re
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]  # where src/driverwatch lies
PART_OF_IT = "src/driverwatch/__init__.py"  # tracked by this project's repository, and by no other
CODE = ("src", "configs", "folds", "requirements")  # a change in one of these may change a result


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` without git's variables: GIT_DIR and its like name another repository than the one git would find."""
    return {name: value for name, value in environ.items() if not name.startswith("GIT_")} | {
        "GIT_OPTIONAL_LOCKS": "0",  # looking must not write the index, which others may be writing
        "LC_ALL": "C",
    }


def git(root: Path, *arguments: str) -> str | None:
    """What git says in `root`; None where it fails or is not installed."""
    command = ["git", "-C", str(root), *arguments]
    try:
        made = subprocess.run(
            command, env=environment(os.environ), stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
    except OSError:
        return None
    return made.stdout.decode("utf-8", "surrogateescape").strip("\n") if made.returncode == 0 else None


def is_own(root: Path) -> bool:
    """Whether `root` is the top of a checkout that tracks this package: not a copy unpacked inside another project's."""
    top = git(root, "rev-parse", "--show-toplevel")
    return top is not None and Path(top).resolve() == root.resolve() and bool(git(root, "ls-files", "--", PART_OF_IT))


@cache
def commit(root: Path = ROOT) -> str | None:
    """The package's own commit, 12 hexadecimal digits, with `+` where tracked code was changed since.

    None where it lies in no checkout of its own, as an installed wheel does; a notebook that installed one sets
    DRIVERWATCH_COMMIT to the commit that the wheel was built from.
    """
    found = git(root, "rev-parse", "--short=12", "HEAD") if is_own(root) else None
    if found is None:
        return os.environ.get("DRIVERWATCH_COMMIT") or None
    return found + ("+" if git(root, "status", "--porcelain", "--untracked-files=no", "--", *CODE) else "")


def changed_since(recorded: str, root: Path = ROOT) -> bool:
    """Whether the package's source is another than at a recorded commit (with or without `+`); False where git cannot tell."""
    hexadecimal = recorded.rstrip("+")
    if not re.fullmatch("[0-9a-f]{4,64}", hexadecimal) or not is_own(root):
        return False
    return bool(git(root, "diff", "--name-only", hexadecimal, "--", "src"))
