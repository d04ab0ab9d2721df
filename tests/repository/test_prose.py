"""The check of vocabulary and prose in `make lint` finds what it is for, and nothing else."""

import subprocess
from pathlib import Path

import pytest

from scripts import prose


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with two clean pages."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "page.md").write_text("# A page\n\n## How it works\n\nShort. [Back](../README.md#top-of-it)\n")
    (tmp_path / "README.md").write_text(
        "# Top of it\n\n[How](docs/page.md#how-it-works), [out](https://example.org/x)\n"
    )
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    return tmp_path


def found(root: Path) -> list[str]:
    subprocess.run(["git", "-C", str(root), "add", "-A"], check=True)
    prose.anchors.cache_clear()
    return list(prose.mistakes(root))


def test_clean_pages_pass(root: Path) -> None:
    assert found(root) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("The trunk learns.", "docs/page.md: trunk: use backbone"),
        ("x" * 161, "docs/page.md: line 1: 161 characters"),
        ("[x](other.md)", "docs/page.md: other.md leads nowhere"),
        ("[x](../README.md#bottom)", "docs/page.md: ../README.md#bottom: no such heading"),
        ("[x](../../outside.md)", "docs/page.md: ../../outside.md leads nowhere"),
        ('<img src="images/none.png" alt="x">', "docs/page.md: images/none.png leads nowhere"),
    ],
)
def test_each_mistake_is_found(root: Path, text: str, said: str) -> None:
    (root / "docs" / "page.md").write_text(f"{text}\n\n## How it works\n")
    assert found(root) == [said]


def test_a_readme_of_too_many_words_is_refused(root: Path) -> None:
    (root / "README.md").write_text("# Top of it\n" + "word " * 3 + "\n" + "word \n" * 895)
    assert found(root) == ["README.md: 902 words; at most 900: move detail to docs/"]


def test_code_is_neither_link_nor_sentence(root: Path) -> None:
    (root / "docs" / "page.md").write_text(f"## How it works\n\n```\n[x](none.md) {'word ' * 9}\n```\n`[x](none.md)`\n")
    assert found(root) == []
    assert prose.long_sentences("```\n" + "word\n" * 40 + "```\n") == []


def test_code_must_fit_a_rendered_page_unless_the_page_is_generated(root: Path) -> None:
    text = f"## How it works\n\n```sh\n{'x' * 96}\n{'y' * 97}\n```\n"
    (root / "docs" / "page.md").write_text(text)
    (root / "docs" / "reference").mkdir()
    (root / "docs" / "reference" / "made.md").write_text(text)
    assert found(root) == [f"docs/page.md: 97 characters of code: {'y' * 60} ..."]


def test_long_sentences_are_listed() -> None:
    text = f"Short one. {'word ' * 36}end. Next.\n\n- {'item ' * 20}\n- {'item ' * 20}\n"
    assert prose.long_sentences(text) == ["37 words: word word word word word word word word word ..."]
    assert prose.long_sentences("`" + "code " * 40 + "`") == []


def test_headings_that_repeat_have_numbered_anchors(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A\n\n## `runs.<name>`\n\n## `runs.<name>`\n\n## [A link](x.md) here\n")
    assert prose.anchors(page) == {"a", "runsname", "runsname-1", "a-link-here"}
