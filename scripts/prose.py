"""Vocabulary and prose of the pages: what `make lint` refuses, and the long sentences that it lists.

    PYTHONPATH=. python scripts/prose.py

refuses retired words (in every tracked file that people read), lines over 160 characters, links and anchors that lead
nowhere, a README over 900 words, and lines of code over 96 characters on pages that are written by hand. Sentences over 35
words are listed and refuse nothing.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote

from scripts.retired_words import LEGITIMATE, RETIRED

ROOT = Path(__file__).resolve().parents[1]
PLACES = (
    "src/",
    "docs/",
    "configs/",
    "benchmarks/",
    "scripts/",
    "Makefile",
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
)
WORD_TABLES = ("docs/dev/decisions/0017-words.md", "scripts/retired_words.py")  # they name the retired words
LONGEST_LINE, LONGEST_README, LONGEST_SENTENCE = 160, 900, 35  # characters, words, words
LONGEST_CODE = 96  # characters of a line of code that a rendered page shows without scrolling
GENERATED = "docs/reference/"
FENCED = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!`)!?\[[^\]]*\]\(([^)\s]+)\)|<img [^>]*src=\"([^\"]+)\"")


def tracked(root: Path = ROOT) -> list[str]:
    """Tracked files in which no retired word may stand."""
    listed = subprocess.run(["git", "-C", str(root), "ls-files"], capture_output=True, text=True, check=True)
    names = listed.stdout.splitlines()
    return [name for name in names if name.startswith(PLACES) and name not in WORD_TABLES and (root / name).is_file()]


def pages(root: Path = ROOT) -> list[Path]:
    """The Markdown pages: those at the top, then `docs/`."""
    return [*sorted(root.glob("*.md")), *sorted((root / "docs").rglob("*.md"))]


def words(text: str) -> set[str]:
    """Whole words, lower case: of names their parts too."""
    hyphenated = "|".join(word for word in RETIRED if "-" in word)
    return set(re.findall(rf"{hyphenated}|[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).lower()))


def retired_words(name: str, text: str) -> list[str]:
    """Retired words in a tracked file or its name, each with the word to use; where it is legitimate, it is none."""
    found = {word for word in words(f"{name}\n{text}") & RETIRED.keys() if name not in LEGITIMATE.get(word, {})}
    return [f"{word}: use {RETIRED[word]}" for word in sorted(found)]


def long_lines(text: str) -> list[str]:
    """Lines with more characters than fit."""
    lines = enumerate(text.splitlines(), 1)
    return [f"line {number}: {len(line)} characters" for number, line in lines if len(line) > LONGEST_LINE]


def long_code(text: str) -> list[str]:
    """Lines of code blocks with more characters than a rendered page shows."""
    lines = (line for block in FENCED.findall(text) for line in block.splitlines())
    return [f"{len(line)} characters of code: {line.strip()[:60]} ..." for line in lines if len(line) > LONGEST_CODE]


@cache
def anchors(path: Path) -> set[str]:
    """What GitHub calls the headings of a page, repeated ones with a number."""
    found: dict[str, int] = {}
    for title in re.findall(r"^#+ (.*)$", FENCED.sub("", path.read_text(encoding="utf-8")), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title)
        name = re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")
        found[name] = found.get(name, -1) + 1
    return {f"{name}-{number}" if number else name for name, count in found.items() for number in range(count + 1)}


def dead_links(path: Path, root: Path = ROOT) -> list[str]:
    """Links of a page to files and headings that are not there, or that lie outside of the repository."""
    found = []
    for link in (one or other for one, other in LINK.findall(FENCED.sub("", path.read_text(encoding="utf-8")))):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, anchor = unquote(link).partition("#")
        target = (path.parent / place).resolve() if place else path
        if not target.exists() or root not in [target, *target.parents]:
            found.append(f"{link} leads nowhere")
        elif anchor and anchor not in anchors(target):
            found.append(f"{link}: no such heading")
    return found


def long_sentences(text: str) -> list[str]:
    """Sentences of prose with more words than a reader holds; a code span is one word, tables and code are no prose."""
    prose = re.sub(r"^(\||#|>|<!--).*$", "", FENCED.sub("", text), flags=re.MULTILINE)
    prose = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", re.sub(r"`[^`]+`", "code", prose))
    found = []
    for part in re.split(r"\n\s*\n|\n(?= *(?:[-*]|\d+\.) )", prose):
        for sentence in re.split(r"(?<=[.!?])\s+", part.strip()):
            if (count := len(sentence.split())) > LONGEST_SENTENCE:
                found.append(f"{count} words: {' '.join(sentence.split()[:9])} ...")
    return found


def mistakes(root: Path = ROOT) -> Iterator[str]:
    """What is refused, each with the file it is in."""
    for name in tracked(root):
        try:
            yield from (f"{name}: {one}" for one in retired_words(name, (root / name).read_text(encoding="utf-8")))
        except UnicodeDecodeError:
            continue  # an image
    for path in pages(root):
        text, page = path.read_text(encoding="utf-8"), path.relative_to(root)
        code = [] if str(page).startswith(GENERATED) else long_code(text)
        yield from (f"{page}: {one}" for one in [*long_lines(text), *code, *dead_links(path, root)])
    count = len((root / "README.md").read_text(encoding="utf-8").split())
    if count > LONGEST_README:
        yield f"README.md: {count} words; at most {LONGEST_README}: move detail to docs/"


def main() -> int:
    found = list(mistakes())
    for path in pages():
        for one in long_sentences(path.read_text(encoding="utf-8")):
            print(f"{path.relative_to(ROOT)}: {one}")
    for one in found:
        print(f"error: {one}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
