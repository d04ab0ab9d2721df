"""`~` means the home folder wherever a path can be written, and a folder that is called `~` is never made by mistake."""

import os
import pwd
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from support.places import ROOT
from support.project import Verb
from typer.models import ParameterInfo

from driverwatch.cli.main import app
from driverwatch.config.dataset import DatasetSettings
from driverwatch.data import prepare
from driverwatch.data.context import open_context
from driverwatch.errors import InputError
from driverwatch.io import paths
from driverwatch.io.paths import home, settle_environment, user_path, user_paths, user_text
from driverwatch.remote.ray_cluster import key_file
from driverwatch.submission import kaggle_client as credentials
from scripts.doctor import project as doctor
from scripts.doctor.machine import Surroundings

ME = pwd.getpwuid(os.getuid()).pw_name


@pytest.fixture
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder, and another folder to be in."""
    folder = tmp_path / "home"
    folder.mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As a container that runs under a number that is not registered."""

    def unregistered(_: object) -> None:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unregistered)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def test_what_a_text_means(at_home: Path) -> None:
    assert user_path("~") == at_home
    assert user_path("~/x/y") == at_home / "x/y"
    assert user_path("~//x") == at_home / "x"
    assert user_path(Path("~/x")) == at_home / "x"
    assert user_path(f"~{ME}/x") == Path(pwd.getpwnam(ME).pw_dir) / "x"
    for plain in ("x", "x/~", "a~", "/x/~/y", "$HOME/x", "*", " ~", ""):
        assert user_path(plain) == Path(plain)
    assert user_path("~/x", {"HOME": "/other"}) == Path("/other/x")
    assert user_path("~/x", {"HOME": ""}) == Path("/x")  # as Python's own expanduser


def test_a_folder_that_is_called_tilde(at_home: Path) -> None:
    """`./~` is it, and stays it however often it is asked."""
    literal = user_path("./~/x")
    assert literal == Path.cwd() / "~/x"
    assert user_path(str(literal)) == user_path(literal) == literal
    assert user_path("./~absent.jpg") == Path.cwd() / "~absent.jpg"
    assert user_text("./~/maps/{image}.png") == "./~/maps/{image}.png"
    assert user_text("~/maps/{image}.png") == f"{at_home}/maps/{{image}}.png"
    assert user_text("kaggle") == "kaggle"
    assert user_text("./kaggle") == "./kaggle"  # not a name to look for on the PATH


def test_whoever_is_not_known_is_one_sentence(at_home: Path, homeless: None) -> None:
    with pytest.raises(InputError, match=r"^~no-such-user/x: no user is called no-such-user; .*\./~no-such-user/x"):
        user_path("~no-such-user/x")
    with pytest.raises(InputError, match=r"^~/x: no home folder is known \(HOME is not set\); write the whole path"):
        user_path("~/x")
    assert user_path("/x") == Path("/x")


def test_several_in_one_text(at_home: Path) -> None:
    for name in ("a.jpg", "b.jpg", ".c.jpg", "my image.jpg"):
        (at_home / name).touch()
    assert user_paths("~/my image.jpg") == [at_home / "my image.jpg"]
    assert user_paths("~/a.jpg x.jpg") == [at_home / "a.jpg", Path("x.jpg")]
    assert user_paths("~/?.jpg ~/no*") == [at_home / "a.jpg", at_home / "b.jpg", at_home / "no*"]
    assert user_paths("a" * 5000) == [Path("a" * 5000)]
    with pytest.raises(InputError, match="no user is called no-such-user"):
        user_paths("~no-such-user/a.jpg b.jpg")


TEXTS = {"client", "cam"}  # paths that may be something else: a command's name, a pattern
NAMES = {"image", "kaggle_weights"}  # a name in a table, or a path of which the last part is; a name on Kaggle
SEVERAL = {"images"}  # of `classify`


def parameters() -> Iterator[tuple[str, str, Any, Any]]:
    """Every command's every parameter: command, name, annotated type, and its typer option."""
    for part in (group.typer_instance for group in app.registered_groups):
        for command in part.registered_commands if part else []:
            assert command.callback is not None
            for name, hint in get_type_hints(command.callback, include_extras=True).items():
                option = next(
                    (each for each in getattr(hint, "__metadata__", ()) if isinstance(each, ParameterInfo)), None
                )
                if name != "return":
                    yield command.name or command.callback.__name__, name, hint, option


def is_path(hint: Any, option: Any) -> bool:
    """Whether a parameter is one by its type, or by what is said of it."""
    said = str(getattr(option, "help", ""))
    named = any(word in said for word in ("folder", "file", "path", "client", "images, ", "download"))
    return "Path" in str(hint).split("typer.")[0] or named


def test_every_path_option_goes_through_it() -> None:
    """A path option that is added without `**PATH` is found here, by its type or by its help."""
    found = {(verb, name): option for verb, name, hint, option in parameters() if is_path(hint, option)}
    known = {("folds", "data"), ("train", "weights"), ("node", "folder"), ("export", "file"), ("import_runs", "source")}
    known |= {("check", "file"), ("submit", "client"), ("classify", "cam"), ("classify", "images")}
    assert known <= set(found)
    for (verb, name), option in found.items():
        if name not in NAMES | SEVERAL:
            parser = user_text if name in TEXTS else user_path
            assert getattr(option, "parser", None) is parser, f"{verb} {name}: give it **PATH (cli/options.py)"


@pytest.mark.parametrize("where", ["option", "yaml"])
def test_tables_and_images_come_from_one_copy(
    project: Path, data: Path, verb: Verb, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a folder called `~` with another copy is here: pandas expands `~` by itself, nothing else does."""
    monkeypatch.setenv("HOME", str(data.parent))
    other = project / "~" / "data"
    other.mkdir(parents=True)
    (other / "driver_imgs_list.csv").write_text("subject,classname,img\np1,c0,x.jpg\n")
    text = (project / "configs/datasets/demo.yaml").read_text()
    if where == "yaml":
        (project / "configs/datasets/demo.yaml").write_text(text.replace("data: build/demo/data", "data: ~/data"))
    more = ["--data", "~/data"] if where == "option" else []
    made = verb("folds", "--dataset", "demo", *more)
    assert made.returncode == 0, made.stderr
    assert "6 drivers" in made.stdout
    here = verb("folds", "--dataset", "demo", "--data", "./~/data")
    assert here.returncode == 2
    assert "~/data" in here.stderr


def test_what_yaml_and_the_environment_name(
    at_home: Path, project: Path, monkeypatch: pytest.MonkeyPatch, demo_settings: DatasetSettings
) -> None:
    (project / "configs/datasets/mine.yaml").write_text(
        (project / "configs/datasets/demo.yaml").read_text().replace("data: build/demo/data", "data: ~/images")
    )
    assert open_context("mine", None).data == at_home / "images"
    listed = demo_settings.model_copy(update={"subset": "~/list.csv"})
    with pytest.raises(InputError, match=f"^{at_home}/list.csv: no such file"):
        prepare._wanted(listed)
    for name in paths.IN_THE_ENVIRONMENT:
        monkeypatch.setenv(name, "~/x")
    assert credentials.folder(os.environ, at_home) == at_home / "x"
    settle_environment()
    assert {os.environ[name] for name in paths.IN_THE_ENVIRONMENT} == {str(at_home / "x")}
    monkeypatch.setenv("KERAS_HOME", "~no-such-user/x")
    settle_environment()  # what needs it says so
    assert os.environ["KERAS_HOME"] == "~no-such-user/x"


def test_the_doctor_looks_where_the_line_does(at_home: Path, project: Path) -> None:
    environ = {"HOME": str(at_home), "PATH": os.environ["PATH"]}
    s = Surroundings(root=project, dataset="demo", data="~/images", weights="~/weights", environ=environ)
    assert doctor.data_folder(s) == at_home / "images"
    assert "WEIGHTS=~/weights is no folder" in doctor.weights(s).found
    (at_home / "weights").mkdir()
    assert "holds no weight file" in doctor.weights(s).found
    lost = Surroundings(root=project, data="~no-such-user/x", environ=environ)
    found = doctor.CHECKS["data set"](lost)
    assert (found.mark, "no user is called no-such-user" in found.found) == ("problem", True)


def test_nothing_else_expands_or_asks_for_home() -> None:
    """Neither `expanduser` nor `Path.home` is called anywhere but in a notebook's first cell, which has no package yet."""
    for path in sorted((ROOT / "src/driverwatch").rglob("*.py")):
        text = path.read_text()
        assert "Path.home" not in text, path
        assert "expanduser" not in text or path.name == "notebook.py", path


def test_without_a_home_folder(homeless: None, tmp_path: Path) -> None:
    """Programs get an empty one, privately; people get a sentence when they write ~."""
    assert home() is None
    settle_environment()
    made = Path(os.environ["HOME"])
    assert made.is_dir()
    assert made.is_relative_to(tmp_path)
    assert made.stat().st_mode & 0o777 == 0o700
    assert home() is None, "it is no user's home"
    assert home({"HOME": str(made)}) is None, "nor in the processes that are started"
    with pytest.raises(InputError, match="no home folder is known"):
        user_path("~/x")
    assert key_file() == made / ".ray/auth_token"
    assert credentials.found() == {}
    assert credentials.username() == ""
    assert credentials.secrets() == []
    assert "KAGGLE_API_TOKEN" in credentials.how_to()
    assert "access_token" not in credentials.how_to(), "there is no folder to save it in"


HOMELESS = """import pwd
def unregistered(_):
    raise KeyError("getpwuid(): uid not found")
pwd.getpwuid = unregistered
"""


@pytest.mark.slow
def test_commands_without_a_home_folder(project: Path, data: Path, tmp_path: Path) -> None:
    """Whole processes: what libraries do with a missing home is seen in the folder that they run in."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(HOMELESS)
    environ = {key: value for key, value in os.environ.items() if key != "HOME" and not key.startswith("KAGGLE")}
    environ |= {
        "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{tmp_path / 'site'}{os.pathsep}{ROOT}",
        "TMPDIR": str(tmp_path),
    }

    def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", *map(str, words)]
        return subprocess.run(command, cwd=project, env=environ, capture_output=True, text=True, check=False)

    made = run("driverwatch", "folds", "--dataset", "demo", "--data", data)
    assert made.returncode == 0, made.stderr
    refused = run("driverwatch", "folds", "--dataset", "demo", "--data", "~/x")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "~/x: no home folder is known" in refused.stderr
    for verb in (["data"], ["submit", "x.csv", "--message", "x"]):
        refused = run("driverwatch", *verb, "--dataset", "statefarm", "--data", tmp_path / "none")
        assert refused.returncode == 2
        assert "defect" not in refused.stderr
    (project / ".venv").symlink_to(sys.prefix)
    looked = run("scripts.doctor", "--dataset", "demo", "--data", data, "--only", "Kaggle token", "weights")
    assert "failed itself" not in looked.stdout + looked.stderr
    assert "KAGGLE_API_TOKEN" in looked.stdout
    layers = run("driverwatch", "layers", "tiny")  # starts Keras
    assert layers.returncode == 0, layers.stderr
    assert not (project / "~").exists()
