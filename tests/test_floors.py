"""A room imports only from rooms below it; Keras and TensorFlow stay where they belong."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from support.places import ROOT
from support.source import FILES, SOURCE

FLOORS = [
    {"errors", "io", "layout", "listing", "streams"},
    {"terminal", "metrics", "backbones", "checkout", "ownership", "paths", "switches"},
    {"artifacts", "hdf5", "wording", "writing", "yaml_files"},
    {"typed_yaml"},
    {"setting_types"},
    {"train_settings"},
    {"ensemble_settings"},
    {"settings"},
    {"dataset_settings", "recipe_settings", "search_settings"},
    {"vision", "models"},
    {"data"},
    {"inference"},
    {"training"},
    {"blend", "kaggle", "cluster"},
    {"web"},
    {"steps"},
    {"ensemble"},
    {"experiments"},
    {"report"},
    {"remote"},
    {"bench"},
    {"cli", "doctor"},
    {"__main__", "__init__"},
]
PLOTS = {f"driverwatch.report.{name}" for name in ("curve", "lr_find", "search")}  # until they move to their commands
PENDING = {("submission", "driverwatch.data.context")}  # what every command begins with has no room below these yet
KERAS = {"models", "training", "inference"}
TOOLS = [path for folder in ("benchmarks", "scripts") for path in sorted((ROOT / folder).rglob("*.py"))]


def imports(path: Path) -> list[tuple[str, bool]]:
    """Every imported module, and whether it is imported at the top level of the file."""
    tree = ast.parse(path.read_text())
    found = []
    for node in ast.walk(tree):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [node.module or ""]
        found += [(name, node in tree.body) for name in names]
    return found


def room(parts: tuple[str, ...]) -> str:
    return parts[0].removesuffix(".py")


def floor(name: str) -> int:
    return next(i for i, rooms in enumerate(FLOORS) if name in rooms)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_go_down(path: Path) -> None:
    mine = room(path.relative_to(SOURCE).parts)
    for name, _ in imports(path):
        if name.startswith("driverwatch.") and name not in PLOTS:
            theirs = name.split(".")[1]
            assert theirs == mine or floor(theirs) < floor(mine), f"{mine} imports {name}"
        assert name.split(".")[0] not in {"benchmarks", "scripts", "tests"}, f"{mine} imports a tool of the repository"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_keras_and_tensorflow_stay_in_their_rooms(path: Path) -> None:
    mine = room(path.relative_to(SOURCE).parts)
    for name, top in imports(path):
        package = name.split(".")[0]
        assert package != "keras" or mine in KERAS
        assert package != "tensorflow" or (mine in KERAS and not top), "TensorFlow only lazily"


@pytest.mark.parametrize("path", TOOLS, ids=lambda p: str(p.relative_to(ROOT)))
def test_tools_import_keras_and_tensorflow_when_a_row_asks_for_them(path: Path) -> None:
    assert not [name for name, top in imports(path) if top and name.split(".")[0] in {"keras", "tensorflow", "torch"}]


def test_pytorch_is_optional_and_imported_in_one_place() -> None:
    found = [(path.name, top) for path in FILES for name, top in imports(path) if name.split(".")[0] == "torch"]
    assert found == [("checkpoint.py", False)]


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("__init__.py")), ids=lambda p: p.parent.name)
def test_packages_re_export_nothing(path: Path) -> None:
    assert [type(node) for node in ast.parse(path.read_text()).body] == [ast.Expr]


def test_no_two_modules_import_each_other() -> None:
    """Not even lazily, and not by way of others (`graphlib` raises on a cycle and names it)."""
    modules = {module(path): path for path in FILES}
    needs = {name: set[str]() for name in modules}
    for name, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                full = (f"{node.module}.{each.name}" for each in node.names)
                needs[name] |= {each if each in modules else str(node.module) for each in full}
            elif isinstance(node, ast.Import):
                needs[name] |= {each.name for each in node.names}
    assert any("driverwatch.errors" in found for found in needs.values())
    TopologicalSorter({name: found - {name} for name, found in needs.items()}).prepare()


def module(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT / "tests"))
)
def test_no_test_module_is_imported(path: Path) -> None:
    """What several need lies in `tests/support` or is a fixture of `conftest.py`."""
    packages = [name.split(".")[0] for name, _ in imports(path)]
    assert not [name for name in packages if name == "conftest" or name.startswith("test_")]
