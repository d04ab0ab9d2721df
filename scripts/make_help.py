"""What `make` and `make help-all` print, and what a misspelt target or variable may mean: read off the Makefile.

Runs before anything is installed, under any Python 3.
"""

from __future__ import annotations

import difflib
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

COLUMNS = 100
FIRST = {  # by group: the targets that `make` names, a line each
    "start": {
        "demo": "the whole pipeline on synthetic images: no download, no GPU, minutes",
        "status": "what is here, what is stale, and the next command",
    },
    "data": {"data": "download the competition (needs a Kaggle token)"},
    "train": {
        "train": "train every fold of MODEL=<name>, and predict (make backbones lists networks)",
        "score": "out-of-fold log loss of what is trained",
    },
    "look": {
        "report": "one page of all results",
        "review": "one page to look through images by loss",
        "serve": "a local page that answers for an image, by RUN=<name>",
    },
    "submit": {
        "ensemble": "blend runs into a submission",
        "submit": 'upload FILE=<csv> with MESSAGE="one line", and note its score',
    },
}
MAKEFILE = (Path(__file__).resolve().parent.parent / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
TARGETS = {  # name: prerequisites, what it does, recipe
    name: (needs, what, recipe)
    for name, needs, what, recipe in re.findall(r"^([a-z-]+):(.*?)## (.*)\n((?:\t.*\n)*)", MAKEFILE, re.MULTILINE)
}
DEFINED = dict(re.findall(r"^([A-Z][A-Z_0-9]*)\s*[:?]?= *(.*)", MAKEFILE, re.MULTILINE))
VARIABLES = DEFINED["VARIABLES"].split()
MEANINGS = [  # a variable as it is typed, and what it is; a line that begins with blanks goes on with the one before
    tuple(re.split(r"  +", line, maxsplit=1))
    for line in re.findall(r"^#: (.*)", re.sub(r"\n#:   +", " ", MAKEFILE), re.MULTILINE)
]
EVERYWHERE = {"V", "DEBUG", "PYTHON3", "ACCELERATOR"}
READ_BY = {"PYTEST": ["PYTEST_ADDOPTS", "STRICT"]}  # by the program that a definition runs, from its environment
USED = re.compile(r"need-([A-Z_0-9]+)|\$\(call (?:option|place|flag),[a-z-]+,([A-Z_0-9]+)\)|\$\(([A-Z_0-9]+)\)")


def variables_of(text: str) -> list[str]:
    """Names of the user's variables in a piece of the Makefile, those of the definitions that it names included."""
    found: list[str] = []
    for name in (next(filter(None, each)) for each in USED.findall(text)):
        inner = [name] if name in VARIABLES else variables_of(DEFINED.get(name, "")) + READ_BY.get(name, [])
        found += [each for each in inner if each not in found]
    return found


def variables_of_target(target: str) -> list[str]:
    """Names of the user's variables that a target takes, sorted, without those that every target takes."""
    needs, _, recipe = TARGETS[target]
    return sorted({*variables_of(needs + recipe)} - EVERYWHERE)


def entry(name: str, what: str, width: int = 16) -> list[str]:
    """Lines of a name and what it is, within `COLUMNS`."""
    return textwrap.wrap(what, COLUMNS, initial_indent=f"  {name:{width - 3}} ", subsequent_indent=" " * width,
                         break_long_words=False, break_on_hyphens=False)  # fmt: skip


def short() -> Iterator[str]:
    """A dozen lines: targets in groups, and where the rest is."""
    yield "make <target> [VARIABLE=value ...]; DATASET=demo means the demo's data, not the competition's"
    for group, targets in FIRST.items():
        for place, (name, what) in enumerate(targets.items()):
            yield f"  {'' if place else group:8}{name:10}{what}"
    yield "make help-all lists every target and its variables; make doctor says what this machine lacks"


def everything() -> Iterator[str]:
    """Every target with its variables, and what the variables mean."""
    yield f"make <target> [VARIABLE=value ...]; every target takes {', '.join(sorted(EVERYWHERE))}\n"
    for name, (_, what, _) in TARGETS.items():
        lines, names = entry(name, what), " ".join(f"{each}=" for each in variables_of_target(name))
        yield from lines if len(name) < 14 else [f"  {name}", *entry("", what)]
        yield from entry("", names) if names else []
    yield "\nvariables: text is taken as typed; ~ is the home folder; switches are 1 or 0\n"
    for head, *what in MEANINGS:
        yield from [f"  {head}", *entry("", what[0], 27)] if len(head) > 23 else entry(head, what[0], 27)


def unknown(target: str) -> str:
    """Why a target is refused, and which one may be meant."""
    near = difflib.get_close_matches(target, TARGETS, n=1)
    return (
        f"make {target}: no such target{f'; did you mean make {near[0]}?' if near else ''} (make help-all lists them)"
    )


def misspelt(names: list[str]) -> str:
    """What is meant by variables that are nearly one of the user's; empty where none is."""
    meant = {name: difflib.get_close_matches(name.upper(), VARIABLES, n=1, cutoff=0.75) for name in names}
    said = [f"{name}=: no such variable; did you mean {near[0]}=?" for name, near in meant.items() if near]
    return " ".join(said)


if __name__ == "__main__":
    asked, *words = sys.argv[1:]
    if asked == "unknown":
        sys.exit(unknown(words[0]))
    if asked == "variables":
        print(misspelt([word for word in words if word not in DEFINED]))
    else:
        print("\n".join(short() if asked == "help" else everything()))
