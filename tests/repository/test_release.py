"""One version: of the package, the changelog and the citation, and of the tag where there is one."""

import re
import subprocess
import tomllib

import pytest
import yaml
from support.places import ROOT

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_the_changelog_begins_with_the_version_and_its_date() -> None:
    titles = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    released = [title for title in titles if title != "Unreleased"]
    found = re.fullmatch(r"(\d+\.\d+\.\d+) - (\d{4}-\d{2}-\d{2})", released[0])
    assert found and found[1] == VERSION
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (cited["version"], cited["date-released"], cited["license"]) == (VERSION, found[2], "MIT")
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()


def test_where_there_are_tags_one_is_of_the_version() -> None:
    tags = subprocess.run(["git", "-C", str(ROOT), "tag", "--list", "v*"], capture_output=True, text=True, check=True)
    assert f"v{VERSION}" in (tags.stdout.split() or [f"v{VERSION}"])


@pytest.mark.parametrize("kind", ["Added", "Changed", "Fixed"])
def test_a_release_says_what_was_done_in_lines_of_one(kind: str) -> None:
    _, _, text = (ROOT / "CHANGELOG.md").read_text().partition(f"## {VERSION}")
    assert f"### {kind}\n" in text
    for line in text.split(f"### {kind}\n", 1)[1].split("\n#")[0].strip().splitlines():
        assert line.startswith("- ") and len(line) <= 160, line
