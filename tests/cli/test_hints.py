"""What refusals and closing lines suggest to type: every command in the source is one that make takes, with its data set."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.in_process import here
from support.places import ROOT
from support.project import Verb

from driverwatch.cli.main import HINT, app, as_typed, commands_of_datasets, variable_of, with_dataset
from scripts.make_help import MAKEFILE, TARGETS, VARIABLES, variables_of

TAKE_A_DATASET = {name for name, (needs, _, recipe) in TARGETS.items() if "DATASET" in variables_of(needs + recipe)}


def texts(path: Path) -> Iterator[str]:
    """The strings of a module but its docstrings, what is put into them as `x`."""
    tree = ast.parse(path.read_text())
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            yield node.value


def suggested() -> dict[tuple[str, str], Path]:
    """Target and variables of every command that the package's strings name, and one module that does."""
    found = {}
    for path in sorted((ROOT / "src").rglob("*.py")):
        for text in texts(path):
            for hint in HINT.finditer(text):
                if hint["target"] in TARGETS:
                    found[hint["target"], hint["variables"]] = path
    return found


@pytest.fixture(scope="module")
def found() -> dict[tuple[str, str], Path]:
    return suggested()


def test_they_are_found(found: dict[tuple[str, str], Path]) -> None:
    assert len(found) > 50
    assert ("folds", " FORCE=1") in found


def test_a_suggested_command_has_variables_that_its_target_takes(found: dict[tuple[str, str], Path]) -> None:
    for (target, variables), path in found.items():
        needs, _, recipe = TARGETS[target]
        names = set(re.findall(r" ([A-Z_]+)=", variables))
        assert names <= set(variables_of(needs + recipe)) | {"DEBUG"}, f"make {target}{variables} in {path}"


def test_a_command_to_be_copied_names_what_its_target_needs() -> None:
    """One with a variable, or that a sentence says to run; `x` behind a target stands for variables that are filled in."""
    needed = {name: set(re.findall(r"need-([A-Z_]+)", needs)) for name, (needs, *_) in TARGETS.items()}
    needed |= {"predict": {"RUN"}, "preview": {"RUN"}, "pack": {"SIZE"}}
    checked = 0
    for path in sorted((ROOT / "src").rglob("*.py")):
        for text in texts(path):
            for hint in HINT.finditer(text):
                names, rest = set(re.findall(r" ([A-Z_]+)=", hint["variables"])), text[hint.end() :]
                if hint["target"] not in TARGETS or not (names or text[: hint.start()].endswith("run ")):
                    continue
                checked += 1
                lacking = needed[hint["target"]] - names - ({"SIZE"} if "MODEL" in names else set())
                assert not lacking or rest.startswith((" x", "x")), f"{hint[0]} lacks {lacking} in {path}"
    assert checked > 50


def test_make_takes_every_suggested_command(found: dict[tuple[str, str], Path]) -> None:
    """As it is printed, what is left to the reader filled in: none is refused before a recipe starts."""
    words = {"MODEL": "tiny", "MODELS": "tiny", "FILE": "x.csv", "WEIGHTS": "w", "MESSAGE": "m", "IMAGE": "i.jpg"}
    words |= {"RUN": "tiny", "EMBEDDINGS": "tiny", "NAME": "n", "SOURCE": "s", "RUNS_FROM": "f"}
    for target, variables in found:
        needed = set(re.findall(r"need-([A-Z_]+)", TARGETS[target][0])) - set(re.findall(r" ([A-Z_]+)=", variables))
        needed |= {"RUN"} if target in ("predict", "preview") and "RUN=" not in variables else set()
        lacking = "".join(f" {name}={words[name]}" for name in sorted(needed))
        typed = re.sub(r"[<>]|\.\.\.", "x", f"make -n {target}{variables}{lacking}").replace("EXTRAS=x", "EXTRAS=onnx")
        made = subprocess.run(typed, shell=True, cwd=ROOT, capture_output=True, text=True, check=False)
        assert made.returncode == 0, f"{typed}: {made.stderr}"


@pytest.mark.parametrize(
    ("sentence", "completed"),
    [
        ("no pack; run make pack SIZE=180x240 first", "no pack; run make pack SIZE=180x240 DATASET=demo first"),
        ("run make pack again", "run make pack DATASET=demo again"),
        ("run make train MODEL=... first", "run make train MODEL=... DATASET=demo first"),
        ('make tta TTA="a b" RUN=x; or not', 'make tta TTA="a b" RUN=x DATASET=demo; or not'),
        ("make train MODEL=<its model> RUN=x.", "make train MODEL=<its model> RUN=x DATASET=demo."),
        ("make score DATASET=other, make pack.", "make score DATASET=other, make pack DATASET=demo."),
        ("make backbones lists them; make sure", "make backbones lists them; make sure"),
        ("make the folder, make data-scaling", "make the folder, make data-scaling DATASET=demo"),
    ],
)
def test_hints_name_the_data_set(sentence: str, completed: str) -> None:
    assert with_dataset(sentence, "demo", TAKE_A_DATASET) == completed
    assert with_dataset(sentence, None, TAKE_A_DATASET) == sentence


def test_commands_of_data_sets_are_makes() -> None:
    import typer

    known = commands_of_datasets(typer.main.get_command(app))
    assert known - {"preflight"} == TAKE_A_DATASET - {"demo", "bench", "profile", "doctor"}


def test_options_are_called_as_they_were_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    for option, variable in re.findall(r"\$\(call (?:option|place|flag),([a-z-]+),([A-Z_]+)\)", MAKEFILE):
        assert variable_of(f"--{option}") == variable
        assert variable in VARIABLES
    monkeypatch.setenv("MAKELEVEL", "1")
    assert as_typed("Invalid value for '--n-cams': no") == "Invalid value for N_CAMS=: no"
    monkeypatch.delenv("MAKELEVEL")
    assert as_typed("Invalid value for '--n-cams': no") == "Invalid value for '--n-cams': no"


@pytest.mark.parametrize("given", [["--set", "train.epochs=3", "--set", "train.seed=1"], ["--fold=1", "--fold", "2"]])
def test_an_option_that_is_given_twice_is_refused(given: list[str]) -> None:
    """Of two values click would take the last and say nothing."""
    made = here("train", "tiny", *given)
    assert made.returncode == 2
    assert (
        made.stderr
        == f"driverwatch: train: {given[0].partition('=')[0]} is given twice; put both values into one, in quotes\n"
    )


def test_a_sentence_that_begins_with_a_variable_names_one_that_make_takes() -> None:
    named = {
        found[1]: path
        for path in sorted((ROOT / "src").rglob("*.py"))
        for text in texts(path)
        if (found := re.match(r"([A-Z][A-Z_]+)(=|: )", text)) and found[1] not in ("KERAS_BACKEND", "VIRTUAL_DEVICES")
    }
    assert {"EMBEDDINGS", "MODELS", "N_DRIVERS"} <= set(named)
    assert not set(named) - set(VARIABLES), {name: named[name] for name in set(named) - set(VARIABLES)}


WITHOUT_DATASET = [
    ["preflight", "inception_v3"], ["score"], ["ensemble"], ["review"], ["blends"], ["knn"], ["leakage"], ["folds"],
    ["pack", "--size", "40x52"], ["trace", "img_1.jpg"], ["card", "demo"], ["label-issues", "demo"], ["check", "demo.csv"],
    ["submit", "demo.csv", "--message", "first"], ["predict", "tiny"], ["serve", "tiny"], ["tta", "tiny"],
]  # fmt: skip


@pytest.mark.parametrize("words", WITHOUT_DATASET, ids=lambda words: words[0])
def test_right_after_the_demo_every_command_names_the_data_set_that_is_here(
    verb: Verb, project: Path, words: list[str]
) -> None:
    run = project / "build/demo/runs/tiny/run.json"
    run.parent.mkdir(parents=True)
    run.write_text("{}")
    made = verb(*words)
    assert made.returncode == 2
    assert made.stderr.rstrip().endswith("add DATASET=demo")
    assert words[-1] == "tiny" or "the competition is not downloaded (make data downloads it" in made.stderr
