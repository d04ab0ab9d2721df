"""A room imports only from rooms below it; Keras and TensorFlow stay where they belong."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "driverwatch"
FLOORS = [
    {"errors"},
    {"terminal", "metrics", "backbones"},
    {"artifacts", "hdf5", "writing", "yaml_files"},
    {"typed_yaml"},
    {"setting_types"},
    {"train_settings"},
    {"ensemble_settings"},
    {"settings"},
    {"dataset_settings", "recipe_settings"},
    {"vision", "models"},
    {"data"},
    {"inference"},
    {"training"},
    {"blend", "kaggle"},
    {"steps"},
    {"cli", "doctor"},
    {"__main__", "__init__"},
]
KERAS = {"models", "training", "inference"}
FILES = sorted(SOURCE.rglob("*.py"))


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
        if name.startswith("driverwatch."):
            theirs = name.split(".")[1]
            assert theirs == mine or floor(theirs) < floor(mine), f"{mine} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_keras_and_tensorflow_stay_in_their_rooms(path: Path) -> None:
    mine = room(path.relative_to(SOURCE).parts)
    for name, top in imports(path):
        package = name.split(".")[0]
        assert package != "keras" or mine in KERAS
        assert package != "tensorflow" or (mine in KERAS and not top), "TensorFlow only lazily"


def test_pytorch_is_optional_and_imported_in_one_place() -> None:
    found = [(path.name, top) for path in FILES for name, top in imports(path) if name.split(".")[0] == "torch"]
    assert found == [("checkpoint.py", False)]


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("__init__.py")), ids=lambda p: p.parent.name)
def test_packages_re_export_nothing(path: Path) -> None:
    assert [type(node) for node in ast.parse(path.read_text()).body] == [ast.Expr]
