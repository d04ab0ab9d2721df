"""Every command of the README and of docs/: it is one that the Makefile knows, and something runs it; so are links and CI."""

import csv
import io
import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
import yaml
from support.commands import APART, ROOT, TESTED, Command, commands_of, pages, parsed

from driverwatch.data.synthetic import SyntheticOptions, plan
from driverwatch.errors import InputError
from driverwatch.io.paths import is_on
from driverwatch.models.describe import print_layers
from scripts import make_help, make_reference, prose

MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE)
VARIABLES = set(re.findall(r"\b[A-Z][A-Z0-9_]+\b(?==| )", "\n".join(re.findall(r"^#: (.*)", MAKEFILE, re.MULTILINE))))
FOUND = sorted({command for page in pages() for command in commands_of(page)})
TYPED = sorted({(one.targets, one.variables): one for one in FOUND if one.variables}.values())  # each once
PAGE = ROOT / "docs" / "reference" / "make-targets.md"
RAN_BY = ROOT / "docs" / "dev" / "doc-commands.csv"
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
PLAIN = {"help", "help-all", "demo", "test", "lint", "clean"}  # what is no command


def in_workflow() -> list[str]:
    """The lines that the workflow's steps run."""
    jobs = yaml.safe_load(WORKFLOW.read_text())["jobs"]
    return [line for job in jobs.values() for step in job["steps"] for line in step.get("run", "").splitlines()]


CI = [parsed(line.split("||")[0], "ci.yml") for line in in_workflow()]
DEMO = re.findall(r"^\t\$\(DEMO\) ([a-z]+)", MAKEFILE, re.MULTILINE)


@cache
def recipe(targets: tuple[str, ...], variables: tuple[tuple[str, str], ...]) -> tuple[int, str]:
    """What make would run: its exit status and the lines."""
    words = [f"{key}={value.replace('<', '').replace('>', '')}" for key, value in variables]
    asked = ["make", "--dry-run", "--no-print-directory", *targets, *words]
    made = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False, env=clean(), timeout=120)
    return made.returncode, made.stdout + made.stderr


def clean() -> dict[str, str]:
    """The environment without what a make around this one, or a user, has set of its own."""
    return {key: value for key, value in os.environ.items() if key not in VARIABLES and not key.startswith("MAKE")}


def test_pages_hold_commands() -> None:
    assert len(FOUND) > 100
    assert {"README.md", "docs/tutorials/first-run.md", "docs/explain/post-processing.md"} <= {
        command.page for command in FOUND
    }
    assert any(len(command.variables) == 5 for command in FOUND), "indented and continued lines are found"


@pytest.mark.parametrize("command", FOUND, ids=lambda one: f"{one.page}: {one.text}")
def test_a_command_is_one_that_the_makefile_knows(command: Command) -> None:
    assert len(command.targets) == 1
    assert command.targets[0] in TARGETS
    assert {key for key, _ in command.variables} <= VARIABLES


@pytest.mark.parametrize("command", TYPED, ids=lambda one: one.text)
def test_make_takes_it_and_every_variable_changes_what_runs(command: Command) -> None:
    if not all(value for _, value in command.variables):  # `EMBEDDINGS=` stands for whatever one names
        return
    status, said = recipe(command.targets, command.variables)
    assert status == 0, said
    for key, value in command.variables:
        others = tuple(pair for pair in command.variables if pair[0] != key)
        without, other = recipe(command.targets, others), recipe(command.targets, (*others, (key, f"{value}x")))
        assert (status, said) != without or said != other[1], f"{key} changes nothing"


def test_files_that_commands_name_are_there() -> None:
    for command in FOUND:
        named = dict(command.variables)
        for key, folder in (("MODEL", "models"), ("DATASET", "datasets")):
            value = named.get(key, "tiny" if key == "MODEL" else "demo")
            table = (ROOT / "src/driverwatch/config/backbones.csv").read_text()
            known = (ROOT / "configs" / folder / f"{value}.yaml").is_file() or f"\n{value}," in table
            own = f"configs/{folder}/{value}.yaml" in (ROOT / command.page).read_text()  # the page writes it
            assert known or own or value.startswith("<"), command


@pytest.mark.parametrize("target", sorted({one for command in FOUND for one in command.targets} - PLAIN))
def test_something_runs_every_target(target: str) -> None:
    ran = [*DEMO, *(one for command in CI for one in command.targets)]
    assert target in ran or target in TESTED or target in APART, f"say in tests/commands.py what runs make {target}"


@pytest.mark.parametrize(("target", "test"), TESTED.items(), ids=str)
def test_the_named_test_is_there_and_runs_the_command(target: str, test: str) -> None:
    file, *_, name = test.split("::")
    text = (ROOT / "tests" / file).read_text()
    assert f"def {name}(" in text
    assert target in TARGETS
    body = text.split(f"def {name}(")[1]
    assert f'"{target}"' in text or f"make {target}" in text or target.replace("-", "_") in body.lower()


def test_ci_runs_what_the_makefile_knows() -> None:
    found = yaml.safe_load(WORKFLOW.read_text())
    assert found["permissions"] == {"contents": "read"}
    job = found["jobs"]["line"]
    classifiers = (ROOT / "pyproject.toml").read_text()
    assert f'requires-python = ">={min(job["strategy"]["matrix"]["python"])}"' in classifiers
    used = [step["uses"] for step in job["steps"] if "uses" in step]
    assert used
    assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", one) for one in used), "actions are pinned by commit"
    assert job["timeout-minutes"] <= 360
    assert {"lint", "test", "demo"} <= {target for command in CI for target in command.targets}
    for command in CI:
        assert len(command.targets) == 1
        assert command.targets[0] in TARGETS
        assert {key for key, _ in command.variables} <= VARIABLES
        assert recipe(command.targets, command.variables)[0] == 0


def test_images_that_pages_and_ci_name_are_the_demos() -> None:
    """Real names have more digits."""
    drawn = {shot.name: "test" if shot.test else "train" for shot in plan(SyntheticOptions())}
    for path in (WORKFLOW, *pages()):
        for part, name in re.findall(r"(?:demo/data/imgs/(train|test)/)?(img_\d{1,4}\.jpg)", path.read_text()):
            assert drawn.get(name, "none") in ((part,) if part else ("train", "test")), f"{path}: {name}"


def ran_by(command: Command) -> str:
    """What the page says of one command."""
    target = command.targets[0]
    typed = (command.targets, command.variables)
    by = ["CI, as typed"] * (typed in {(one.targets, one.variables) for one in CI})
    by += ["`make demo`"] * (target in DEMO and not by)
    if target in TESTED:
        by.append(f"`tests/{TESTED[target]}`")
    if target in APART and "CI, as typed" not in by:
        by.append(f"not as typed: {APART[target]}")
    return "; ".join(by) or "by hand"


def commands_table() -> str:
    """As CSV: each command of the pages, the pages that it stands on, and by what it is run."""
    by_text: dict[str, list[Command]] = {}
    for command in FOUND:
        by_text.setdefault(command.text, []).append(command)
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(("command", "pages", "run_by"))
    for command, places in sorted(by_text.items()):
        lines.writerow((command, " ".join(dict.fromkeys(one.page for one in places)), ran_by(places[0])))
    return text.getvalue()


@pytest.mark.parametrize(
    ("path", "made"),
    [(PAGE, make_reference.make_page()), (RAN_BY, commands_table())],
    ids=lambda one: one.name if isinstance(one, Path) else "",
)
def test_pages_of_commands_are_todays(path: Path, made: str) -> None:
    """`make docs` writes them; twice, where the examples of one page changed the other."""
    if is_on("WRITE_DOCS"):
        path.write_text(made)
    assert path.read_text() == made, "run make docs"


def test_the_reference_has_every_target_and_only_variables_that_are_documented() -> None:
    listed = [target for entries in make_reference.GROUPS.values() for target in entries]
    assert sorted(listed) == sorted(TARGETS)
    used = {target: set(make_help.variables_of_target(target)) for target in listed}
    assert set().union(*used.values()) <= VARIABLES
    assert used["score"] == {"DATASET", "DATA", "MODELS", "DETAILS"}
    assert {"MODEL", "MODELS", "SET", "ENGINE", "ADDRESS"} <= used["train"], "what a recipe expands counts"
    assert used["demo"] == set(), "what a recipe sets is none"


@pytest.mark.parametrize("path", prose.pages(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path: Path) -> None:
    assert prose.dead_links(path) == []


def test_every_page_is_in_the_index() -> None:
    docs = ROOT / "docs"
    index = (docs / "README.md").read_text()
    pages = {path.relative_to(docs).as_posix() for path in docs.rglob("*.md") if path.parent.name != "decisions"}
    assert {page for page in pages if f"]({page})" not in index} == {"README.md"}


TYPED_HERE = (
    "make synthetic DATASET=demo DRIVERS=6 TEST_DRIVERS=2 FRAMES=2 SIZE=48x64",
    "make folds DATASET=demo FORCE=1",
    "make pack DATASET=demo SIZE=36x48",
    "make leakage DATASET=demo",
    "make backbones MODEL=resnet101",
    "make trace IMAGE=img_1.jpg DATASET=demo",
)


@pytest.mark.line
@pytest.mark.slow
def test_commands_run_as_they_are_typed(tmp_path: Path) -> None:
    """Through make and a shell, in a project of their own around this checkout's environment."""
    if not (ROOT / ".venv" / ".runtime-cpu").exists():
        pytest.skip("no .venv that make setup has built")
    for name in ("src", "scripts", ".venv"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name in ("configs", "requirements"):
        shutil.copytree(ROOT / name, tmp_path / name, copy_function=shutil.copy2)
    shutil.copy2(ROOT / "Makefile", tmp_path)
    for folder in ("folds", "submissions"):
        (tmp_path / folder).mkdir()
    said = {}
    for line in TYPED_HERE:
        made = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False, env=clean())
        assert made.returncode == 0, f"{line}: {made.stdout}{made.stderr}"
        said[line.split()[1]] = made.stdout
    assert "nearest neighbour    drivers" in said["leakage"]
    assert "not yet: " in said["trace"]
    assert re.search(r"uint8 \(36, 48, 3\)", said["trace"])
    assert "resnet101" in said["backbones"]


@pytest.mark.keras
def test_layers_of_models(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`make layers`: what each stage freezes, and where a backbone may be cut."""
    print_layers("mobilenet_v2", "train.stages.1.freeze_until=10")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    rows = {int(words[0]): words[1:] for words in lines if words[:1] and words[0].isdigit()}
    assert len(rows) == 154
    stages = {number: re.findall("frozen|learns", " ".join(words)) for number, words in rows.items()}
    assert all(said in ([], ["frozen", "frozen"]) for number, said in stages.items() if number <= 10)
    assert all(said in ([], ["frozen", "learns"]) for number, said in stages.items() if number > 10)
    assert sum(bool(said) for said in stages.values()) > 50
    legal = {words[0] for words in rows.values() if words[-1] == "cut"}
    assert "block_13_expand_relu" in legal
    assert "block_2_project" not in legal, "the shortcut of its block goes around it"
    print_layers("tiny", "")
    assert "frozen" not in capsys.readouterr().out.split("freeze_until")[0]
    with pytest.raises(InputError, match="freeze_until: mixed99"):
        print_layers("mobilenet_v2", "train.stages.1.freeze_until=mixed99")
