"""The one exception a user is meant to read, and the wording of such sentences."""

import difflib
import zipfile
import zlib

# all that zipfile raises on a damaged archive; the last for a method of compression that it does not know
DAMAGED_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError)


class InputError(Exception):
    """Input that the line cannot continue with.

    Its text is one sentence (or one sentence and a list): where, what was expected, what was got, the way out.
    The command line prints it without a traceback and exits with status 2.
    """


def listed(problems: list[str], first: int = 8) -> str:
    """Join problems into an indented list that names the first offenders and counts the rest."""
    shown = "".join(f"\n  - {printable(problem)}" for problem in problems[:first])
    rest = len(problems) - first
    return shown + (f"\n  - and {rest} more" if rest > 0 else "")


def printable(text: str, longest: int = 300) -> str:
    """Text that a terminal or a file can take: untrusted control characters and bytes escaped, and not too much of it."""
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
    return safe if len(safe) <= longest else f"{safe[:longest]}…"


def words(error: Exception, longest: int = 150) -> str:
    """What an exception says, in one line and not too much of it."""
    return " ".join(str(error).split())[:longest]


def counted(problems: list[str]) -> str:
    """`1 problem`, `2 problems`."""
    return f"{len(problems)} problem{'s' * (len(problems) != 1)}"


def nearest(name: str, names: list[str]) -> str:
    """`; did you mean X?`, or nothing when no name is near."""
    close = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]}?" if close else ""
