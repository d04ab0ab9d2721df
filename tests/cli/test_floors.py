"""A room imports only from rooms below it, a module only from modules before it; Keras and TensorFlow stay where they belong."""

import ast
from functools import cache
from pathlib import Path

import pytest
from support.places import ROOT
from support.source import FILES, SOURCE

# from the ground up; inside a room, a module imports only from those named before it
ROOMS: dict[str, list[str]] = {
    "errors": [],
    "metrics": [],
    "io": ["console", "prefetch", "html", "paths", "manifests", "csv_tables", "hdf5", "atomic"],
    "config": [
        "types",
        "backbones",
        "loading",
        "dataset",
        "ensemble",
        "training",
        "model",
        "experiments",
    ],
    "data": [
        "regions",
        "synthetic_driver",
        "jpeg",
        "images",
        "tta",
        "synthetic",
        "competition",
        "folds",
        "pack",
        "mix",
        "augment",
        "splits",
        "context",
        "pack_writer",
        "near_duplicates",
        "prepare",
    ],
    "models": [
        "alexnet",
        "tiny",
        "devices",
        "build_backbone",
        "backend",
        "convert_torch",
        "squeezenet",
        "googlenet",
        "efficientnet_lite",
        "weight_files",
        "pretrained",
        "classifier",
        "freezing",
        "split_network",
        "describe",
    ],
    "run": [],
    "inference": [
        "overlay",
        "engine",
        "class_activation",
        "exported_model",
        "predictions",
        "feature_cache",
        "predict",
        "predict_run",
        "classify",
        "export",
    ],
    "training": [
        "checkpoint",
        "linear_probe",
        "data_loader",
        "augment_workers",
        "fold_runner",
        "optimizer",
        "epoch",
        "label_issues",
        "pseudo_labels",
        "run_summary",
        "tracking",
        "cached_stages",
        "fold",
        "precision",
        "train",
        "lr_finder",
    ],
    "ensemble": [
        "transform",
        "prediction_interval",
        "embedding_index",
        "blending",
        "knn_smoothing",
        "class_balance",
        "calibration",
        "members",
        "embeddings",
        "post_processing",
        "teacher_ensemble",
    ],
    "submission": ["kaggle_client", "download", "build", "submit", "card"],
    "experiments": [
        "experiment",
        "search_trials",
        "leakage",
        "confident_learning",
        "search",
        "compare",
        "ablations",
        "refit",
        "freezing_study",
        "data_scaling",
        "pseudo_label_rounds",
    ],
    "remote": ["ray_files", "kaggle_session", "ray_cluster", "kaggle_notebook", "import_runs", "ray_tasks"],
    "report": [
        "charts",
        "review_measures",
        "collect_runs",
        "score_runs",
        "example_images",
        "review_page",
        "serve",
        "status",
        "trace_image",
        "contact_sheets",
        "report_data",
        "report_page",
    ],
    "cli": ["options", "pipeline", "analysis", "tools", "main"],
}
KERAS = {"models", "training", "inference"}
TOOLS = [path for folder in ("benchmarks", "scripts") for path in sorted((ROOT / folder).rglob("*.py"))]


@cache
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


MODULES = [path for path in FILES if path.name not in ("__init__.py", "__main__.py")]
ORDER = [f"driverwatch.{room}{'.' if name else ''}{name}" for room, names in ROOMS.items() for name in names or [""]]
LONGEST = 400  # lines of a module
SHORTEST = 40  # lines of a module that one other alone imports


def room(parts: tuple[str, ...]) -> str:
    return parts[0].removesuffix(".py")


@cache
def needs(path: Path) -> set[str]:
    """The package's modules that a module imports anywhere, also lazily."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            full = [f"{node.module}.{each.name}" for each in node.names]
            found |= {each if each in ORDER else node.module for each in full}
        elif isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
    return {name for name in found if name.startswith("driverwatch.")}


def test_every_module_has_its_place() -> None:
    assert sorted(ORDER) == sorted(module(path) for path in MODULES)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_go_down(path: Path) -> None:
    before = ORDER[: ORDER.index(module(path))]
    assert not needs(path) - set(before)
    tools = {name.split(".")[0] for name, _ in imports(path)} & {"benchmarks", "scripts", "tests"}
    assert not tools, "the package imports a tool of the repository"


def test_modules_are_deep_and_can_be_found_by_name() -> None:
    lines = {module(path): len(path.read_text().splitlines()) for path in MODULES}
    assert not [name for name, count in lines.items() if count > LONGEST]
    importers = {name: [path for path in MODULES if name in needs(path)] for name in lines}
    assert not [n for n, count in lines.items() if count < SHORTEST and len(importers[n]) == 1]
    names = [path.name for path in MODULES]
    assert not {name for name in names if names.count(name) > 1}, "two files of one name"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_keras_and_tensorflow_stay_in_their_rooms(path: Path) -> None:
    mine = room(path.relative_to(SOURCE).parts)
    for name, top in imports(path):
        package = name.split(".")[0]
        assert package != "keras" or mine in KERAS
        assert package != "tensorflow" or (mine in KERAS and not top), "TensorFlow only lazily"


OWN_PROCESSES = {"benchmarks.keras_baselines", "benchmarks.torch_baseline"}  # started as programs


@pytest.mark.parametrize("path", TOOLS, ids=lambda p: str(p.relative_to(ROOT)))
def test_tools_import_keras_and_tensorflow_when_a_row_asks_for_them(path: Path) -> None:
    assert not {name for name, _ in imports(path)} & OWN_PROCESSES
    if f"{path.parent.name}.{path.stem}" in OWN_PROCESSES:
        return
    assert not [name for name, top in imports(path) if top and name.split(".")[0] in {"keras", "tensorflow", "torch"}]


def test_pytorch_is_optional_and_imported_in_one_place() -> None:
    found = [(path.name, top) for path in FILES for name, top in imports(path) if name.split(".")[0] == "torch"]
    assert found == [("convert_torch.py", False)]


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("__init__.py")), ids=lambda p: p.parent.name)
def test_packages_re_export_nothing(path: Path) -> None:
    assert [type(node) for node in ast.parse(path.read_text()).body] == [ast.Expr]


def module(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT / "tests"))
)
def test_no_test_module_is_imported(path: Path) -> None:
    """What several need is in `tests/support` or is a fixture of `conftest.py`."""
    packages = [name.split(".")[0] for name, _ in imports(path)]
    assert not [name for name in packages if name == "conftest" or name.startswith("test_")]
