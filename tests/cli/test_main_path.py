"""The page that explains `make train` by eight files is true: the files are there, with these names, and import each other so."""

import ast
import re

from support.places import ROOT
from support.source import SOURCE

PAGE = (ROOT / "docs" / "dev" / "main-path.md").read_text()
TREE = re.search(r"```\n(.*?)```", PAGE, re.DOTALL)


def lines() -> list[tuple[int, str, list[str]]]:
    """Depth, module and names of each line of the tree."""
    assert TREE
    found = []
    for line in TREE[1].splitlines():
        match = re.fullmatch(r"( *)(\S+\.py) +((?:\w+, )*\w+)  +.*", line)
        assert match, line
        found.append((len(match[1]) // 2, match[2], match[3].split(", ")))
    return found


def test_eight_files_with_these_names() -> None:
    assert len(lines()) == 8
    for _, name, names in lines():
        tree = ast.parse((SOURCE / name).read_text())
        defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        assert set(names) <= defined, name


def test_each_is_imported_by_the_one_above_it() -> None:
    above: dict[int, str] = {}
    for depth, name, names in lines():
        above[depth] = name
        if depth:
            importer = ast.parse((SOURCE / above[depth - 1]).read_text())
            module = "driverwatch." + name.removesuffix(".py").replace("/", ".")
            imported = {
                found
                for node in ast.walk(importer)
                if isinstance(node, ast.ImportFrom)
                for found in [str(node.module), *(f"{node.module}.{each.name}" for each in node.names)]
            }
            assert module in imported, f"{above[depth - 1]} imports {name}"
            text = (SOURCE / above[depth - 1]).read_text()
            assert any(re.search(rf"\b{each}\b", text) for each in names)


def test_modules_that_the_page_names_are_there() -> None:
    for name in re.findall(r"`(\w+/\w+\.py)`", PAGE):
        assert (SOURCE / name).is_file(), name
