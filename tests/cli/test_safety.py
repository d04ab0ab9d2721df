"""Untrusted files are data: nothing in them can run, load or reach outside."""

import ast
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest

from driverwatch.config.loading import read_yaml
from driverwatch.data.augment import load_preset
from driverwatch.errors import InputError

SOURCE = Path(__file__).resolve().parents[2] / "src" / "driverwatch"
FORBIDDEN_IMPORTS = {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal", "kaggle", "tarfile", "telnetlib"}
FORBIDDEN_CALLS = {"eval", "exec", "__import__", "model_from_json", "from_config", "extractall"}
FORBIDDEN_OF_OS = {"system", "popen", "execv", "spawnv", "startfile"}


def calls(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    """Every call by the last part of its name."""
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [(getattr(node.func, "attr", getattr(node.func, "id", "")), node) for node in found]


def unsafe(text: str) -> list[str]:
    """What in a source file could run or load what a stranger's file says."""
    tree, found = ast.parse(text), []
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found += [f"imports {name}" for name in names if name.split(".")[0] in FORBIDDEN_IMPORTS]
    for name, call in calls(tree):
        keywords = {keyword.arg: getattr(keyword.value, "value", None) for keyword in call.keywords}
        owner = getattr(getattr(call.func, "value", None), "id", "")
        if name in FORBIDDEN_CALLS or (owner == "os" and name in FORBIDDEN_OF_OS):
            found.append(f"calls {name}")
        if name == "load_model" and keywords.get("safe_mode") is not True:
            found.append("calls load_model without saying that it is safe")
        if keywords.get("shell"):
            found.append("starts a shell")
        if (owner, name) == ("np", "load") and keywords.get("allow_pickle") is not False:
            found.append("np.load that may unpickle")
        if owner == "yaml" and name in ("load", "unsafe_load", "full_load") and "_Loader" not in ast.unparse(call):
            found.append("yaml.load with another loader")
    return found


# an unpickler that makes ordered dicts and tensors alone, after the file's checksum: tests/models/test_efficientnet_lite.py
ADMITTED = {"models/weight_files.py": ["imports pickle"]}


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_nothing_here_can_run_an_untrusted_file(path: Path) -> None:
    assert unsafe(path.read_text()) == ADMITTED.get(str(path.relative_to(SOURCE)), [])


def test_the_search_finds_what_it_looks_for() -> None:
    bad = [
        "import pickle",
        "eval('1')",
        "yaml.load(x)",
        "np.load(x)",
        "run('x', shell=True)",
        "keras.models.load_model(x)",
    ]
    bad += ["z.extractall()", "os.system(x)"]
    assert [len(unsafe(line)) for line in bad] == [1] * 8


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: !!python/object/apply:os.system ['touch here']", "could not determine a constructor"),
        ("a: &x [1, 1]\nb: [*x, *x]", "aliases"),
        ("[" * 5000, "expected YAML"),
        ("a: " + "9" * 5000, "expected YAML"),
        ("#" * 2**21, "more than settings can need"),
    ],
)
def test_yaml_is_plain_data(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(InputError, match=said):
        read_yaml(tmp_path / "a.yaml")
    assert not Path("here").exists()


@pytest.mark.parametrize(
    ("preset", "said"),
    [
        ("- Lambda: {image: os.system}", "nothing that loads or runs"),
        ("- TextImage: {font_path: /etc/passwd}", "nothing that loads or runs"),
        ("- FDA: {}", "does not take an image alone"),
        ("- Compose: {transforms: []}", "is no albumentations transform"),
    ],
)
def test_presets_name_transforms_and_nothing_else(tmp_path: Path, preset: str, said: str) -> None:
    (tmp_path / "p.yaml").write_text(preset)
    with pytest.raises(InputError, match=said):
        load_preset(tmp_path, "p")


class Bomb:
    def __reduce__(self) -> tuple:
        return Path("exploded").touch, ()


@pytest.mark.keras
@pytest.mark.parametrize(
    "name",
    [
        "squeezenet_v1.0_imagenet.npz",
        "mobilenet_v2_imagenet_notop.weights.h5",
        "vgg16.h5",
    ],
)
@pytest.mark.parametrize("kind", ["pickle", "pickle in an array", "not a file of that kind"])
def test_weights_never_unpickle(tmp_path: Path, name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from driverwatch.config.loading import parse
    from driverwatch.config.model import ModelSettings
    from driverwatch.models.pretrained import build_backbone

    monkeypatch.chdir(tmp_path)
    if kind == "pickle":
        Path(name).write_bytes(pickle.dumps(Bomb()))
    elif kind == "pickle in an array":
        np.savez("x.npz", bomb=np.array([Bomb()], dtype=object))
        Path("x.npz").rename(name)
    else:
        Path(name).write_bytes(b"PK\3\4" + bytes(500))
    backbone = {"s": "squeezenet", "m": "mobilenet_v2", "v": "vgg16"}[name[0]]
    settings = parse(ModelSettings, {"backbone": backbone, "input": {"pack": "64x64", "size": "64x64"}}, "test")
    with pytest.raises(InputError, match="expected weights of"):
        build_backbone(settings, Path(name))
    assert not Path("exploded").exists()


@pytest.mark.keras
def test_weights_come_from_their_own_file(tmp_path: Path) -> None:
    """An HDF5 file can point into other files of this machine; such a link is not followed."""
    from driverwatch.models.backend import load_state, write_state

    secret, stranger = tmp_path / "secret.h5", tmp_path / "weights.h5"
    write_state(secret, {"model": [np.ones(3)]}, {})
    with h5py.File(stranger, "w") as file:
        file["model"] = h5py.ExternalLink(str(secret), "/model")
    with pytest.raises(InputError, match="points into another file"):
        load_state(stranger, {"model": [np.zeros(3)]})
