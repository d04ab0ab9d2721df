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
from scripts.markdown import code, item
from support import trained
from support.in_process import here
from support.invalid import CASES, Case, Project
from support.once import WorkingCopy
from support.places import ROOT

TABLE = ROOT / "docs" / "reference" / "error-messages.md"
LONGEST = 400  # characters of one line that a command printed
# SET= of every case, which the cases add to
OWN = re.compile(r' with SET="input\.pack=40x52 .*? predict\.tta=five_crop ?(.*?)"(?=:)')
LISTED = re.compile(r"(expected one of \w+, \w+)(?:, \w+){2,}")  # settings files come and go; the page stays

HEAD = """\
# Error messages

What can be wrong with files and settings, and the sentence that the command prints. Search this page for a few words of your
message; the way out is at the end of the sentence. [Troubleshooting](../how-to/troubleshooting.md) goes by symptom.

Invalid input ends the command with exit status 2 and loses nothing. What is only unusual is accepted and counted. Invalid images
and table rows are listed all at once, below one sentence:

> data: 3 problems; fix, or resume without with SKIP_INVALID=1 (all are listed in build/demo/problems.txt):

The list below shows only the problems of such a message, and of a long list of names the first two.

`make docs` writes this page from `tests/support/invalid.py`. A test runs each case through the command line, on a small synthetic
data set (`demo`).
"""


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
    from driverwatch.models.pretrained import build_backbone
    from driverwatch.models.weight_files import find

    settings = parse(ModelSettings, {"backbone": backbone, "input": {"pack": "96x96", "size": "96x96"}}, "a model")
    try:
        build_backbone(settings, find(settings, Path("weights")))
    except InputError as error:
        return 2, f"driverwatch: {error}"
    return 0, ""


def shown(text: str) -> list[str]:
    """What a case said, line by line: of a list of problems the list, since its head is always the same."""
    lines = [line.strip() for line in text.strip().splitlines() if "images/s" not in line]
    lines = [line for line in lines if not re.match(r"(took|next) {2,}", line)]  # how every command ends
    refused = [i for i, line in enumerate(lines) if line.startswith("driverwatch: ")]
    lines = lines[refused[0] :] if refused else lines
    if "SKIP_INVALID=1 (all are listed" in lines[0]:
        lines = [line.removeprefix("- ") for line in lines[1:]]
    said = [OWN.sub(_asked, LISTED.sub(r"\1, ...", line.removeprefix("driverwatch: "))) for line in lines]
    return [line if len(line) <= LONGEST else f"{line[:LONGEST].rsplit(' ', 1)[0]} ..." for line in said]


def _asked(found: re.Match[str]) -> str:
    """What a case changes of the model, without what all cases change."""
    return f' with SET="{found[1]}"' if found[1] else ""


def line(case: Case, said: list[str]) -> str:
    """A case's item of the page, where it said `said`."""
    return item(f"**{case.what}**: " + "<br>".join(map(code, said)))


def page(lines: dict[Case, str]) -> str:
    text = [HEAD.rstrip("\n")]
    for kind in dict.fromkeys(case.kind for case in lines):
        text += [f"## {kind}", "\n".join(one for case, one in lines.items() if case.kind == kind)]
    return "\n\n".join(text) + "\n"


def lines_of(text: str) -> dict[str, list[str]]:
    """The items of each kind's list on a page, in order."""
    found = {}
    for part in text.split("\n## ")[1:]:
        kind, _, listed = part.strip("\n").partition("\n\n")
        found[kind] = re.split(r"\n(?=- )", listed)
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
