"""The Kaggle notebook: its text and metadata, what travels along, what it finds, when it stops; and once, whole, for real."""

import ast
import json
import re
import shutil
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import rehearsal
from support.places import ROOT
from support.project import Verb

from driverwatch.config.dataset import DatasetSettings
from driverwatch.config.loading import load, parse
from driverwatch.config.model import ModelSettings
from driverwatch.data.context import Context
from driverwatch.errors import InputError
from driverwatch.io.manifests import checksum_of_file, read_json
from driverwatch.io.paths import Places
from driverwatch.remote import kaggle_notebook, kaggle_session
from driverwatch.remote.kaggle_notebook import (
    Publication,
    copy_project,
    dataset_metadata,
    kernel_metadata,
    notebook_text,
)
from driverwatch.remote.kaggle_session import Plan, Session
from driverwatch.submission import kaggle_client

SLUG = "drawn-competition"
PLAN = {"notebook": "me/driverwatch-tiny", "dataset": "demo", "model": "tiny", "run": "tiny"}
THERE = {"COMPETITION": SLUG, "FILES": "me/driverwatch-tiny-files"}
INSTALL = ["--no-index", "driverwatch==0.1.0", "simplejpeg==1.9.0"]
FEW = "input.pack=40x52 input.size=36x48 train.batch_size=16"


def plan(**changed: object) -> Plan:
    return parse(Plan, {**PLAN, **changed}, "test")


def publication(**changed: object) -> Publication:
    return parse(Publication, {"account": "me", "name": "driverwatch-tiny", **changed}, "test")


@pytest.mark.parametrize("service", ["kaggle", "colab"])
def test_every_step_is_one_sentence_and_code_that_compiles(service: str) -> None:
    made = nbformat.reads(notebook_text(plan(service=service), INSTALL, THERE), as_version=4)
    kinds = [cell.cell_type for cell in made.cells]
    assert kinds == ["markdown"] + ["markdown", "code"] * (len(kinds) // 2)
    for cell in made.cells:
        if cell.cell_type == "code":
            body = ast.parse(cell.source).body
            assert not [
                n for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef | ast.For | ast.While | ast.Try)
            ]
            assert len(cell.source.splitlines()) <= 20
    assert len({cell.id for cell in made.cells}) == len(made.cells)
    text = "".join(cell.source for cell in made.cells)
    assert ("google.colab" in text, "/kaggle/input" in text) == (service == "colab", service == "kaggle")


def test_the_same_settings_give_the_same_bytes() -> None:
    assert notebook_text(plan(), INSTALL, THERE) == notebook_text(plan(), INSTALL, THERE)
    assert notebook_text(plan(), INSTALL, THERE) != notebook_text(plan(hours=2.0), INSTALL, THERE)


@given(overrides=st.text(max_size=30), tta=st.text(max_size=30))
def test_the_first_cell_repeats_the_plan_whatever_is_in_it(overrides: str, tta: str) -> None:
    mine = plan(overrides=overrides, tta=tta)
    made = nbformat.reads(notebook_text(mine, INSTALL, THERE), as_version=4)
    names: dict[str, object] = {}
    exec(next(cell.source for cell in made.cells if cell.cell_type == "code"), names)
    assert names["PLAN"] == mine.model_dump()
    assert names["INSTALL"] == INSTALL
    assert {name: names[name] for name in THERE} == THERE


@pytest.mark.parametrize("run", ["inception_v3_robust", "tiny", "a.b-C__d", "9"])
def test_metadata_as_the_client_wants_it(run: str) -> None:
    """As `kernels_push` and `dataset_create_new` of the official client 2.2.4 check it."""
    ours = publication(name=kaggle_notebook.name_of(run), earlier=["me/before"])
    kernel, files = kernel_metadata(ours, SLUG, False), dataset_metadata(ours)
    for made in (kernel, files):
        assert 6 <= len(made["title"]) <= 50
        assert re.sub("[^a-z0-9]+", "-", made["title"].lower()) == made["id"].split("/")[1]
    assert 6 <= len(files["id"].split("/")[1]) <= 50
    assert len(files["licenses"]) == 1
    assert kernel["code_file"] == kaggle_notebook.TEMPLATE
    assert (kernel["language"], kernel["kernel_type"]) == ("python", "notebook")
    assert kernel["dataset_sources"] == [files["id"]]
    assert kernel["competition_sources"] == [SLUG]
    assert kernel["kernel_sources"] == ["me/before"]
    assert all(
        kernel[key] is value
        for key, value in {"is_private": True, "enable_gpu": True, "enable_internet": False}.items()
    )


@pytest.mark.parametrize("hours", [0.0, -1.0, 12.5, float("nan")])
def test_hours_beyond_the_session_are_refused(hours: float) -> None:
    with pytest.raises(InputError, match="hours"):
        plan(hours=hours)


@pytest.mark.parametrize(
    "changed",
    [{"account": "me/x"}, {"account": ""}, {"name": "Upper"}, {"name": "two--hyphens"}, {"name": "five5"}, {"name": "x" * 45},
     {"earlier": ["nobody"]}, {"packages": ["x; rm -rf"]}, {"packages": ["--index-url"]}],
    ids=str,
)  # fmt: skip
def test_names_that_kaggle_or_pip_would_not_take(changed: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(changed))):
        publication(**changed)


def test_settings_and_folds_travel_in_the_wheel(project: Path) -> None:
    (project / "folds" / "demo.csv").write_text("driver,fold\np1,0\n")
    (project / "folds" / "other.csv").write_text("another data set's\n")
    (project / "configs" / ".secret").write_text("x")
    copy_project(project, "demo", project / "there")
    names = {str(p.relative_to(project / "there")) for p in (project / "there").rglob("*") if p.is_file()}
    assert "folds/other.csv" not in names
    assert "configs/.secret" not in names
    assert {"folds/demo.csv", "configs/models/tiny.yaml", "configs/presets/light.yaml"} <= names
    assert all((project / "there" / name).read_bytes() == (project / name).read_bytes() for name in names)


def test_without_a_fold_file_nothing_is_copied(project: Path) -> None:
    with pytest.raises(InputError, match="make folds DATASET=demo first"):
        copy_project(project, "demo", project / "there")
    assert not (project / "there").exists()


def context(project: Path, slug: str | None = SLUG) -> Context:
    """The synthetic competition as one of Kaggle's, with a fold file and the sources of a wheel."""
    settings = load(DatasetSettings, Path("configs/datasets"), "demo")
    (project / "folds" / "demo.csv").write_text("driver,fold\np1,0\n")
    for name in kaggle_notebook.SOURCES:
        shutil.copyfile(ROOT / name, project / name)
    (project / "src").symlink_to(ROOT / "src")
    return Context("demo", settings.model_copy(update={"slug": slug}), Places("demo"), project / "data")


@pytest.fixture
def no_pip(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Record what pip is asked for; a wheel appears when one is built."""
    asked: list[tuple[str, ...]] = []

    def pip(*arguments: str) -> None:
        asked.append(arguments)
        if arguments[0] == "wheel":
            target = Path(arguments[arguments.index("--wheel-dir") + 1])
            (target / "driverwatch-0.1.0-py3-none-any.whl").write_bytes(b"wheel")

    monkeypatch.setattr(kaggle_notebook, "_pip", pip)
    return asked


def test_weights_travel_along_and_then_no_internet_is_needed(
    project: Path, no_pip: list[tuple[str, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    there, settings = context(project), load(ModelSettings, Path("configs/models"), "squeezenet")
    weights = project / "weights"
    weights.mkdir()
    (weights / "unrelated.h5").write_bytes(b"much")
    asked = {"dataset": "demo", "model": "squeezenet", "run": "mine"}
    with pytest.raises(InputError, match="ImageNet weights"):
        kaggle_notebook.make_notebook(there, settings, asked, {"account": "me"}, weights)
    assert not there.places.notebook("driverwatch-mine").exists()
    (weights / "squeezenet_v1.0_imagenet.npz").write_bytes(b"weights")
    kaggle_notebook.make_notebook(there, settings, asked, {"account": "me", "vendor": True}, weights)
    made = there.places.notebook("driverwatch-mine")
    held = {path.name for path in (made / "dataset").iterdir()}
    assert held == {
        "driverwatch-0.1.0-py3-none-any.whl",
        "dataset-metadata.json",
        "squeezenet_v1.0_imagenet.npz",
    }
    assert read_json(made / "kernel-metadata.json")["enable_internet"] is False
    assert [words[words.index("--python-version") + 1] for words in no_pip if words[0] == "download"] == [
        "3.11",
        "3.12",
        "3.13",
    ]
    assert "kernels push -p build/demo/notebook/driverwatch-mine" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("model", "vendor", "internet"), [("tiny", True, False), ("tiny", False, True), ("resnet50", True, True)]
)
def test_internet_is_on_where_something_must_be_fetched(
    project: Path, no_pip: list[tuple[str, ...]], model: str, vendor: bool, internet: bool
) -> None:
    there, settings = context(project), load(ModelSettings, Path("configs/models"), model)
    asked = {"dataset": "demo", "model": model, "run": model}
    kaggle_notebook.make_notebook(there, settings, asked, {"account": "me", "vendor": vendor}, None)
    made = read_json(there.places.notebook(f"driverwatch-{model}") / "kernel-metadata.json")
    assert made["enable_internet"] is internet


def test_weights_of_a_data_set_on_kaggle_do_not_travel(project: Path, no_pip: list[tuple[str, ...]]) -> None:
    there, settings = context(project), load(ModelSettings, Path("configs/models"), "squeezenet")
    asked = {"dataset": "demo", "model": "squeezenet", "run": "mine", "weights_from": "someone/weights"}
    kaggle_notebook.make_notebook(there, settings, asked, {"account": "me", "vendor": True}, None)
    folder = there.places.notebook("driverwatch-mine")
    assert {path.suffix for path in (folder / "dataset").iterdir()} == {".whl", ".json"}
    assert read_json(folder / "kernel-metadata.json")["enable_internet"] is True
    for name in (kaggle_notebook.TEMPLATE, kaggle_notebook.COLAB):
        assert '\\"weights_from\\": \\"someone/weights\\"' in (folder / name).read_text()


def test_the_next_version_needs_no_new_data_set(
    project: Path, no_pip: list[tuple[str, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    there, settings = context(project), load(ModelSettings, Path("configs/models"), "tiny")
    given = {"account": "me", "earlier": ["me/driverwatch-tiny"]}
    kaggle_notebook.make_notebook(there, settings, {"dataset": "demo", "model": "tiny", "run": "tiny"}, given, None)
    assert (
        read_json(there.places.notebook("driverwatch-tiny") / "kernel-metadata.json")["kernel_sources"]
        == given["earlier"]
    )
    assert "datasets create" not in capsys.readouterr().out


def test_what_cannot_go_up_is_refused_before_anything_is_written(
    project: Path, no_pip: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load(ModelSettings, Path("configs/models"), "tiny")
    asked = {"dataset": "demo", "model": "tiny", "run": "tiny"}
    monkeypatch.setattr(kaggle_client, "username", lambda: "")
    there = context(project)
    with pytest.raises(InputError, match="needs ACCOUNT="):
        kaggle_notebook.make_notebook(there, settings, asked, {}, None)
    with pytest.raises(InputError, match="names no competition"):
        kaggle_notebook.make_notebook(
            replace(there, settings=there.settings.model_copy(update={"slug": None})), settings, asked, {}, None
        )
    with pytest.raises(InputError, match="PACKAGES: no-such-package is not installed"):
        kaggle_notebook.make_notebook(there, settings, asked, {"account": "me", "packages": ["no-such-package"]}, None)
    (project / "LICENSE").unlink()
    with pytest.raises(InputError, match="lacks LICENSE; make notebook runs in the repository's root"):
        kaggle_notebook.make_notebook(there, settings, asked, {"account": "me"}, None)
    assert not list(there.places.build.glob("notebook/[!.]*"))


def test_the_account_may_come_from_the_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KAGGLE_USERNAME", raising=False)
    assert kaggle_client.username() == ""
    (tmp_path / "kaggle.json").write_text(json.dumps({"username": "fromfile", "key": "k" * 32}))
    assert kaggle_client.username() == "fromfile"
    monkeypatch.setenv("KAGGLE_USERNAME", "fromenvironment")
    assert kaggle_client.username() == "fromenvironment"


LAYOUTS = [("state-farm", "files", "earlier"), ("competitions/state-farm", "datasets/me/files", "notebooks/me/earlier")]


@pytest.fixture
def attached(project: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a session finds attached, in the older or the newer layout, to be moved into place."""
    (project / "folds" / "demo.csv").write_text("driver,fold\np1,0\n")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "driverwatch-0.1.0-py3-none-any.whl").touch()
    copy_project(project, "demo", tmp_path / "bundled")
    monkeypatch.setattr(kaggle_session, "BUNDLED", tmp_path / "bundled")
    for run in ("tiny", "other"):
        (tmp_path / "earlier" / "runs" / run).mkdir(parents=True)
        (tmp_path / "earlier" / "runs" / run / "run.json").write_text("{}")
    return tmp_path


def mounted(top: Path, layout: tuple[str, str, str]) -> tuple[str, str, str]:
    for name, place in zip(("data", "files", "earlier"), layout, strict=True):
        (top / "input" / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(top / name, top / "input" / place)
    return str(top / "input"), str(top / "working"), str(top / "temp")


@pytest.mark.parametrize("layout", LAYOUTS, ids=["older", "newer"])
def test_everything_is_found_wherever_it_is_mounted(attached: Path, layout: tuple[str, str, str]) -> None:
    made = kaggle_session.start(PLAN, mounted(attached, layout), time.monotonic())
    top = attached / "input"
    assert (made.data, made.weights) == (top / layout[0], top / layout[1])
    assert made.earlier == [top / layout[2] / "runs" / "tiny"]
    assert (made.project / "folds/demo.csv").is_file()
    (Places("demo", made.project).run("tiny")).mkdir()
    kept = attached / "working" / "runs" / "tiny"
    assert kept.is_dir()  # what the project writes to its runs is kept as output
    again = kaggle_session.start(PLAN, (str(top), str(attached / "working"), str(attached / "temp")), time.monotonic())
    assert again == replace(made, ends=again.ends)
    assert kept.is_dir()


def test_places_may_be_relative(attached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verbs run in the project, where a path as it was given leads nowhere."""
    mounted(attached, LAYOUTS[1])
    monkeypatch.chdir(attached)
    made = kaggle_session.start(PLAN, ("input", "working", "temp"), time.monotonic())
    assert (made.project, made.data) == (attached / "temp" / "driverwatch", attached / "input" / LAYOUTS[1][0])
    assert Places("demo", made.project).runs.resolve() == attached / "working" / "runs"


def test_what_is_not_attached_or_attached_twice_is_told(attached: Path) -> None:
    places = mounted(attached, LAYOUTS[1])
    shutil.copytree(attached / "data", attached / "input" / "competitions" / "again")
    with pytest.raises(
        InputError, match=r"expected one folder with driver_imgs_list\.csv(.|\n)*again, (.|\n)*state-farm"
    ):
        kaggle_session.start(PLAN, places, 0.0)
    shutil.rmtree(attached / "input" / "competitions")
    with pytest.raises(InputError, match="got nothing of the kind; fix its inputs"):
        kaggle_session.start(PLAN, places, 0.0)
    with pytest.raises(InputError, match=r"PLAN in the first cell: moddel: unknown key(.|\n)*did you mean model"):
        kaggle_session.start({**PLAN, "moddel": "x"}, places, 0.0)


KAGGLEHUB = """
from pathlib import Path
def competition_download(handle):
    return _place("competitions", handle)
def dataset_download(handle):
    return _place("datasets", handle)
def _place(kind, handle):
    found = Path({cache!r}, kind, handle)
    if not found.is_dir():
        raise ValueError(f"404 Client Error.\\nResource not found at URL: {{handle}}")
    return str(found)
"""


@pytest.fixture
def hub(attached: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a stand-in for kagglehub has, by kind and address; its names and results are those of kagglehub 1.0.3."""
    modules, cache = attached / "modules", attached / "cache"
    (modules / "google" / "colab").mkdir(parents=True)
    (modules / "google" / "colab" / "__init__.py").touch()
    (modules / "google" / "colab" / "drive.py").write_text("def mount(place):\n    assert place == '/content/drive'\n")
    (modules / "kagglehub.py").write_text(KAGGLEHUB.format(cache=str(cache)))
    for name in ("google", "google.colab", "google.colab.drive", "kagglehub"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(modules))
    shutil.copytree(attached / "data", cache / "competitions" / SLUG)
    shutil.copytree(attached / "files", cache / "datasets" / THERE["FILES"])
    (cache / "datasets" / "someone" / "weights").mkdir(parents=True)
    return cache


def test_on_colab_kagglehub_brings_what_kaggle_mounts(
    attached: Path, hub: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The notebook's own cells, but those that install and train."""
    monkeypatch.setenv("DRIVERWATCH_OUTPUT", str(attached / "drive"))
    monkeypatch.setenv("DRIVERWATCH_SCRATCH", str(attached / "temp"))
    made = nbformat.reads(notebook_text(plan(service="colab"), INSTALL, THERE), as_version=4)
    code = [cell.source for cell in made.cells if cell.cell_type == "code"]
    names: dict[str, Any] = {}
    for source in (*code[:2], next(each for each in code if "import start" in each)):
        exec(source, names)
    session = names["session"]
    assert session.data.resolve() == hub / "competitions" / SLUG
    assert session.weights.resolve() == hub / "datasets" / THERE["FILES"]
    assert Places("demo", session.project).runs.resolve() == attached / "drive" / "runs"
    wheels = next(each for each in code if "WHEELS" in each).split("PIP =")[0]
    exec(wheels, names)
    assert [path.name for path in names["WHEELS"]] == ["driverwatch-0.1.0-py3-none-any.whl"]
    monkeypatch.setattr(Session, "_python", lambda *_: 0)
    assert session.train()
    assert f"download the folder {attached / 'drive'} from Google Drive" in capsys.readouterr().out


def test_weights_may_be_a_data_set_of_kaggles(attached: Path, hub: Path) -> None:
    places = mounted(attached, LAYOUTS[1])
    made = kaggle_session.start({**PLAN, "weights_from": "someone/weights"}, places, 0.0)
    assert made.weights == hub / "datasets" / "someone" / "weights"
    with pytest.raises(InputError, match=r"KAGGLE_WEIGHTS=someone/else: kagglehub has no .* here \(404 Client Error"):
        kaggle_session.start({**PLAN, "weights_from": "someone/else"}, places, 0.0)


@pytest.fixture
def there(project: Path, tmp_path: Path) -> Session:
    """A session in a project with settings and without data, with hours ahead."""
    return Session(plan(commit="abc"), project, tmp_path, tmp_path / "data", tmp_path, [], time.monotonic() + 3600)


@pytest.mark.slow
def test_a_commands_words_are_repeated_and_its_failure_ends_the_cell(
    there: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    assert there.run("status")
    assert "demo" in capsys.readouterr().out
    with pytest.raises(InputError, match="check: ended with status 2; its own words stand above"):
        there.run("check", "nowhere.csv")
    assert "no such folder" in capsys.readouterr().out


@pytest.mark.slow
def test_a_command_past_the_sessions_hours_is_ended(there: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ended with all that it has started and that ends with it, and not taken for a failure, but where it must be whole."""
    late = replace(there, ends=time.monotonic())
    assert late.run("status") is False
    with pytest.raises(InputError, match="not done within 11 hours; give the notebook more with HOURS="):
        late.pack()
    start = time.monotonic()
    assert there._python(["-c", "import time; print('started', flush=True); time.sleep(300)"], 3.0) != 0
    assert time.monotonic() - start < 100


def test_what_is_run_knows_the_commit_of_the_wheel(
    there: Session, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ROOT / "src" / "driverwatch", tmp_path / "site-packages" / "driverwatch")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site-packages"))  # as it is installed: no checkout of its own
    said = "from driverwatch.io.manifests import provenance; print('by', provenance()['commit'])"
    assert there._python(["-c", said], 600.0) == 0
    assert "by abc" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.line
def test_two_builds_of_a_wheel_are_the_same_and_hold_all_that_the_package_reads(tmp_path: Path) -> None:
    checksums = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        kaggle_notebook.build_wheel(ROOT, "statefarm_mini", tmp_path / name)
        (wheel,) = (tmp_path / name).glob("*.whl")
        checksums.append(checksum_of_file(wheel))
    assert checksums[0] == checksums[1]
    package = ROOT / "src" / "driverwatch"
    files = {
        p.relative_to(ROOT / "src").as_posix()
        for p in package.rglob("*")
        if p.is_file() and "__pycache__" not in p.parts
    }
    held = set(zipfile.ZipFile(wheel).namelist())
    assert files <= held
    bundled = {name.removeprefix("driverwatch/project/") for name in held if name.startswith("driverwatch/project/")}
    assert {"folds/statefarm_mini.csv", "configs/models/tiny.yaml", "configs/presets/light.yaml"} <= bundled
    assert "folds/demo.csv" not in bundled


@pytest.mark.line
@pytest.mark.slow
def test_a_run_goes_to_kaggle_stops_resumes_and_comes_home(
    verb: Verb, project: Path, data: Path, tmp_path: Path
) -> None:
    """Executed in kernels of their own, version after version with twice the hours, until one finishes what others began."""
    settings = project / "configs" / "datasets" / "demo.yaml"
    settings.write_text(settings.read_text().replace("folds: 3", "folds: 2") + f"slug: {SLUG}\n")
    for name in (*kaggle_notebook.SOURCES, "src"):
        (project / name).symlink_to(ROOT / name)
    here = ["--dataset", "demo", "--data", str(data)]

    def ran(*arguments: str) -> str:
        made = verb(*arguments, *here)
        assert made.returncode == 0, made.stderr
        return made.stdout

    ran("folds")
    ran("pack", "--model", "tiny", "--set", FEW)
    ran("train", "tiny", "--set", f"{FEW} train.epochs=1", "--run", "local")
    asked = [
        "notebook",
        "tiny",
        "--set",
        f"{FEW} train.epochs=30",
        "--run",
        "away",
        "--tta",
        "shifts",
        "--account",
        "me",
    ]
    seconds, versions = 20.0, list[rehearsal.Machine]()
    said, stopped = "", list[str]()
    while "away: finished. At home" not in said:
        assert seconds < 3600, said
        earlier = {f"driverwatch-away-{number}": made.output for number, made in enumerate(versions)}
        ran(
            *asked,
            "--hours",
            str(seconds / 3600),
            "--packages",
            "",
            "--resume-from",
            " ".join(f"me/{name}" for name in earlier),
        )
        folder = project / "build" / "demo" / "notebook" / "driverwatch-away"
        place = tmp_path / f"session{seconds:g}"
        place.mkdir()
        there = rehearsal.machine(place, data, folder / "dataset", earlier, SLUG)
        said, fine = rehearsal.execute(folder / kaggle_notebook.TEMPLATE, there)
        assert fine or "not done within" in said, said  # the hours may be over before anything is trained
        if fine and (there.output / "runs" / "away" / "run.json").is_file():
            versions.append(there)
            stopped += [said] if "the next version resumes" in said else []
        seconds *= 2
    assert stopped, "every version finished: there was nothing to resume from"
    assert re.search(r"away fold \d: (after epoch \d+|finished), imported", said)
    last = versions[-1]
    assert {path.name for path in last.output.iterdir()} == {"runs"}
    assert not list(last.output.rglob("train.h5"))  # no packs
    assert "driverwatch" in {path.name for path in last.installed.iterdir()}

    assert "2 of 2 folds finished" in ran("import-runs", str(last.output))
    made = read_json(project / "build/demo/runs/away/fold0/manifest.json")
    assert made["settings"]["train"]["epochs"] == 30
    lines = (project / "build/demo/runs/away/fold0/history.csv").read_text().splitlines()
    assert len(lines) == 31
    ran("ensemble", "--name", "both")
    both = (project / "submissions/demo/both.json").read_text()
    assert '"local"' in both
    assert '"away"' in both
    assert (project / "build/demo/runs/away/fold1/test-shifts.h5").is_file()
