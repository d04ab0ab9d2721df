"""`docs/reference/error-messages.md`: every case of `invalid.py` and what is said of it.

    PYTHONPATH=src:tests python -m support.invalid_page

runs every case and writes the page (`make docs`); `test_invalid_input.py` holds each case against its own line.
"""

import contextlib
import re
import sys
import tempfile
from pathlib import Path

from driverwatch.errors import InputError
from support import trained
from support.in_process import here
from support.invalid import CASES, Case, Project
from support.once import WorkingCopy
from support.places import ROOT

TABLE = ROOT / "docs" / "reference" / "error-messages.md"
LISTED = re.compile(r"(expected one of \w+, \w+)(?:, \w+){2,}")  # settings files come and go; the page stays


def said(case: Case) -> tuple[int, str]:
    """Run a case's command in the working directory; its exit status and all that it said."""
    if case.verb[0] == "weights":
        return weights_said(case.verb[1])
    dataset = [] if "--dataset" in case.verb else ["--dataset", "demo"]
    data = [] if case.verb[0] == "predict" else ["--data", "data"]
    made = here(*case.verb, *dataset, *data)
    return made.returncode, made.stdout + made.stderr


def weights_said(backbone: str) -> tuple[int, str]:
    """What a fold would say of the weights in `weights/`, without what comes before it."""
    from driverwatch.config.loading import parse
    from driverwatch.config.model import ModelSettings
    from driverwatch.models.pretrained import build_backbone, find

    settings = parse(ModelSettings, {"backbone": backbone, "input": {"pack": "96x96", "size": "96x96"}}, "a model")
    try:
        build_backbone(settings, find(settings, Path("weights")))
    except InputError as error:
        return 2, f"driverwatch: {error}"
    return 0, ""


def shown(text: str) -> str:
    """What a case said, as one line of a table: of a list of problems the list, since its head is always the same."""
    lines = [line.strip() for line in text.strip().splitlines() if "images/s" not in line]
    lines = [line for line in lines if not re.match(r"(took|next) {2,}", line)]  # how every command ends
    refused = [i for i, line in enumerate(lines) if line.startswith("driverwatch: ")]
    lines = lines[refused[0] :] if refused else lines
    if "SKIP_INVALID=1 (all are listed" in lines[0]:
        lines = [line.removeprefix("- ") for line in lines[1:]]
    said = "<br>".join(line.removeprefix("driverwatch: ").replace("<", "&lt;") for line in lines)
    return LISTED.sub(r"\1, ...", said).replace("|", "\\|")


def line(case: Case, said: str) -> str:
    """A case's line of the page, where it said `said`."""
    return f"| {case.what} | {said} |"


def page(lines: dict[Case, str]) -> str:
    text = [
        "# What can be wrong, and what is said",
        "",
        "Written by `make docs` from `tests/support/invalid.py`, each case run through the command line. What is broken ends",
        "the step with exit status 2 and loses nothing; `SKIP_INVALID=1` resumes without invalid images and table rows, and",
        "records them. What is only unusual is taken, and counted. Broken images and rows are listed all at once, below one",
        "sentence:",
        "",
        "> data: 3 problems; fix, or resume without with SKIP_INVALID=1 (all are listed in build/demo/problems.txt):",
        "",
        "Of these the table shows the list alone; of long lists of names, the first two.",
    ]
    for kind in dict.fromkeys(case.kind for case in lines):
        text += ["", f"## {kind}", "", "| what | said |", "|---|---|"]
        text += [one for case, one in lines.items() if case.kind == kind]
    return "\n".join(text) + "\n"


def lines_of(text: str) -> dict[str, list[str]]:
    """The lines of each kind's table on a page, in order."""
    found = {}
    for part in text.split("\n## ")[1:]:
        kind, *lines = part.rstrip("\n").split("\n")
        found[kind] = [line for line in lines if line.startswith("| ")][1:]
    return found


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="broken-") as name:
        trained.make(Path(name) / "finished")
        copy, lines = WorkingCopy(Path(name) / "finished", Path(name) / "project"), {}
        for case in CASES:
            copy.put_back()
            with contextlib.chdir(copy.place):
                case.act(Project(copy.place))
                lines[case] = line(case, shown(said(case)[1]))
    TABLE.write_text(page(lines))


if __name__ == "__main__":
    sys.exit(main())
