"""What is typed after make arrives as it was typed, whatever is in it, through real make with a stand-in for Python."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from support.places import ROOT

MAKEFILE = (ROOT / "Makefile").read_text()
STANDIN = f"""#!{sys.executable}
import json, os, sys
if sys.argv[1:2] != ["-c"]:
    with open("calls.txt", "a") as file:
        file.write(json.dumps([sys.argv[1:], dict(os.environ)]) + "\\n")
"""
HOSTILE = {
    "dollar": "lr $1e-3 $$ b",
    "home": "$HOME ${HOME} $(HOME)",
    "shell function": "$(shell touch made)",
    "substitution": "`touch made` $(touch made)",
    "commands": "; touch made & touch made | touch made > made",
    "quotes": "\"q\" 'q' '' \" ' x",
    "backslashes": "a\\ b\\n \\\\ \\",
    "words": "a  b",
    "make's own": "a,b) #c %d =e :f $(error x) $(",
    "shell's own": "* ? [a] ~ {a,b} !x \t^",
    "letters": "Müller 写真",
    "option": "--help",
}
EVERYTHING = " ".join(HOSTILE.values())
TARGETS = dict(re.findall(r"^([a-z-]+):.*?##.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE))
EXPANDED = dict(re.findall(r"^(TRAINED|ON_CLUSTER|DATA_OPT|DRAWN|PARALLEL) *= ((?:.*\\\n)*.*)", MAKEFILE, re.MULTILINE))
HEADS = "\n".join(line.split("  ")[0] for line in re.findall(r"^#: (.*)", MAKEFILE, re.MULTILINE))
DOCUMENTED = set(re.findall(r"\b[A-Z][A-Z_0-9]*(?==| |$)", HEADS, re.MULTILINE))
LISTED = set(re.search(r"^VARIABLES := ((?:.*\\\n)*.*)", MAKEFILE, re.MULTILINE)[1].replace("\\\n", "").split())  # type: ignore[index]
SWITCHES = set(re.search(r"^SWITCHES := (.*)", MAKEFILE, re.MULTILINE)[1].split())  # type: ignore[index]
NO_VERB = {
    "help",
    "help-all",
    "demo",
    "setup",
    "client",
    "clean",
    "lint",
    "docs",
    "test",
    "test-slow",
    "coverage",
    "test-all",
    "test-torch",
    "test-cluster",
}
INSTALLED = {
    ".venv/.runtime-cpu": "cpu", ".venv/.dev": "dev", ".venv/.extra-cluster": "cluster", ".venv/.extra-onnx": "onnx",
    ".venv/.extra-openvino": "openvino", ".venv/.extra-litert": "litert", ".venv/.extra-tracking": "tracking",
    ".venv/.extra-backends": "backends", ".venv-kaggle/.installed": "kaggle",
    ".venv-torch/.installed": "torch",
}  # fmt: skip


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The Makefile among finished environments, whose Pythons note how they are called."""
    folder = tmp_path / "check out"
    for name in ("requirements", "scripts"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy2(ROOT / "Makefile", folder)
    for environment in (".venv", ".venv-torch", ".venv-kaggle"):
        python = folder / environment / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(STANDIN)
        python.chmod(0o755)
    for stamp, name in INSTALLED.items():
        (folder / stamp).parent.mkdir(exist_ok=True)
        shutil.copy2(folder / "requirements" / f"{name}.txt", folder / stamp)
    (folder / "folds").mkdir()
    (folder / "folds/statefarm.csv").touch()
    return folder


def make(folder: Path, *words: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    """Type `make <words>` in a shell's environment that has none of the variables."""
    kept = {key: value for key, value in os.environ.items() if key not in LISTED and not key.startswith("MAKE")}
    return subprocess.run(
        ["make", *words], cwd=folder, env=kept | environ, capture_output=True, text=True, check=False, timeout=60
    )


def calls(folder: Path) -> list[tuple[list[str], dict[str, str]]]:
    """Arguments and environment of every call of a stand-in, oldest first."""
    path = folder / "calls.txt"
    return [tuple(json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def used(target: str) -> set[str]:
    """Variables that a target's recipe hands on as text."""
    text = TARGETS[target]
    for name, value in EXPANDED.items():
        text = text.replace(f"$({name})", value)
    named = re.findall(r"\$\(call (?:option|place),[a-z-]+,([A-Z_]+)\)", text)
    return set(named) | (set(re.findall(r"\$\(([A-Z_0-9]+)\)", text)) & LISTED)


def test_every_documented_variable_is_taken_literally() -> None:
    assert DOCUMENTED == LISTED
    assert set(re.findall(r"\$\(call flag,[a-z-]+,([A-Z_]+)\)", MAKEFILE)) | {"DEBUG", "STRICT", "V"} == SWITCHES
    reached = set().union(*map(used, TARGETS))
    assert reached >= LISTED - SWITCHES - {"EXTRAS", "PYTEST_ADDOPTS", "PYTHON3", "STUDY"} - {"SHARDS"}
    assert not re.findall(r'"\$\([A-Z_]+\)"', MAKEFILE.split("VARIABLES :=")[1]), "quote it with $(call q,...)"


def expected(name: str, value: str, arguments: list[str]) -> bool:
    """Whether a value is an argument, or an option's, whole."""
    wanted = " ".join(value.split()) if name in ("MODEL", "MODELS") else value  # lists of words in `train`
    return any(each in (value, wanted) or each.partition("=")[2] in (value, wanted) for each in arguments)


def test_bytecode_is_kept_whatever_the_environment_says(checkout: Path) -> None:
    """Without it each process compiles what it imports: TensorFlow's modules take longer than a small fold's training."""
    assert make(checkout, "status", PYTHONDONTWRITEBYTECODE="1").returncode == 0
    assert "PYTHONDONTWRITEBYTECODE" not in calls(checkout)[-1][1]


@pytest.mark.parametrize("target", sorted(set(TARGETS) - NO_VERB))
def test_all_variables_of_every_target(checkout: Path, target: str) -> None:
    """All typed at once, each with everything that could mean something on the way, and its own name."""
    names = sorted(used(target) - SWITCHES - {"COMMANDS", "EXTRAS"})
    typed = {name: f"{name} {EVERYTHING}" for name in names}
    if target in ("doctor", "predict", "preview"):
        typed |= {"V": "0"}
    made = make(checkout, target, *(f"{name}={value}" for name, value in typed.items()), HOME=str(checkout))
    assert made.returncode == 0, made.stdout + made.stderr
    arguments, environ = calls(checkout)[-1]
    for name in names:
        if target == "train" and name == "MODELS":  # one of the two
            continue
        if (target, name) == ("predict", "MODEL"):  # RUN is its default
            continue
        assert expected(name, typed[name], arguments), f"{name}: {arguments}"
        assert environ[name] == typed[name]
    assert not list(checkout.rglob("made"))


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("way", ["typed", "environment"])
def test_one_by_one(checkout: Path, value: str, way: str) -> None:
    """A message, a file and a folder; places come from the environment as well."""
    typed = {"MESSAGE": value, "FILE": value, "DATA": value, "KAGGLE": value}
    words, environ = ([f"{k}={v}" for k, v in typed.items()], {}) if way == "typed" else ([], typed)
    made = make(checkout, "submit", *words, **environ)
    assert made.returncode == 0, made.stdout + made.stderr
    [(arguments, seen)] = calls(checkout)
    assert arguments == [
        "-m", "driverwatch", "submit", "--dataset=statefarm", f"--data={value}", f"--message={value}", f"--client={value}",
        "--", value,
    ]  # fmt: skip
    assert {name: seen[name] for name in typed} == typed
    assert not list(checkout.rglob("made"))


@pytest.mark.parametrize("value", [HOSTILE["dollar"], HOSTILE["shell function"], EVERYTHING])
def test_through_a_make_inside_make(checkout: Path, value: str) -> None:
    """`make demo` starts make again, which gets what was typed from MAKEFLAGS and the environment both."""
    made = make(checkout, "demo", f"MESSAGE={value}", f"WEIGHTS={value}", f"UNKNOWN={value}")
    assert made.returncode == 0, made.stdout + made.stderr
    found = calls(checkout)
    assert [each[0][2] for each in found if each[0][:2] == ["-m", "driverwatch"]][:4] == [
        "synthetic",
        "preflight",
        "folds",
        "pack",
    ]
    train = next(each for each in found if each[0][2] == "train")
    assert f"--weights={value}" in train[0]
    assert {name: train[1][name] for name in ("MESSAGE", "WEIGHTS", "UNKNOWN")} == dict.fromkeys(
        ("MESSAGE", "WEIGHTS", "UNKNOWN"), value
    )
    assert not list(checkout.rglob("made"))


@pytest.mark.parametrize("name", ["DATASET", "ACCELERATOR", "EXTRAS", "UNKNOWN"])
@pytest.mark.parametrize("value", [EVERYTHING, HOSTILE["shell function"], "a:b", "x;touch made", "../x", "%"])
def test_names_in_rules(checkout: Path, name: str, value: str) -> None:
    """Where a value names a file that make looks for, another text is none of its rules, or refused by name."""
    made = make(checkout, "pack", f"{name}={value}")
    assert not list(checkout.rglob("made"))
    if name in ("ACCELERATOR", "EXTRAS"):
        assert made.returncode == 2
        assert f"{name}={value}: expected " in made.stderr
        return
    assert made.returncode == 0, made.stdout + made.stderr
    arguments, environ = calls(checkout)[-1]
    assert environ[name] == value
    assert f"--dataset={value if name == 'DATASET' else 'statefarm'}" in arguments


def test_several_models_and_several_steps(checkout: Path) -> None:
    assert make(checkout, "train", "MODELS=a $b  `c`").returncode == 0
    packed = [each[0][-1] for each in calls(checkout) if each[0][2] == "pack"]
    assert packed == ["--model=a", "--model=$b", "--model=`c`"]
    assert calls(checkout)[-1][0][-1] == "a $b `c`"
    assert make(checkout, "test-size", "COMMANDS=pack $x 'y").returncode == 0
    assert calls(checkout)[-1][0] == ["-m", "support.fullsize", "pack", "$x", "'y"]


@pytest.mark.parametrize("place", ["my $python (3)", "~/python's"])
def test_a_python_of_any_name(checkout: Path, place: str, tmp_path: Path) -> None:
    """Also below `~`, which no shell expands between quotes."""
    python = Path(place.replace("~", str(tmp_path))) if "~" in place else checkout / place
    python.write_text(STANDIN)
    python.chmod(0o755)
    (checkout / ".venv/bin/python").unlink()
    named = place if "~" in place else f"./{place}"
    made = make(checkout, "doctor", f"PYTHON3={named}", HOME=str(tmp_path))
    assert made.returncode == 0, made.stdout + made.stderr
    assert [each[0][:2] for each in calls(checkout)] == [["-m", "scripts.doctor"]]


def test_several_lines_are_refused(checkout: Path) -> None:
    """A recipe ends at a newline, inside quotes too; a variable of the environment that no recipe uses may have some."""
    made = make(checkout, "submit", "FILE=x.csv", "MESSAGE=one\ntouch made")
    assert (made.returncode, calls(checkout)) == (2, [])
    assert "expected a variable of one line" in made.stderr
    assert make(checkout, "status", MESSAGE="one\ntwo").returncode == 0
    assert not list(checkout.rglob("made"))


def switched(checkout: Path, value: str) -> Mapping[str, bool]:
    """What each switch does when it is typed so."""
    by_target = {
        "folds": ("FORCE", "SKIP_INVALID"),
        "ablation": ("TRAIN",),
        "notebook": ("VENDOR",),
        "status": ("JSON",),
    }
    flags = {}
    for target, names in (by_target | {"bench": ("FULL", "DOCS")}).items():
        made = make(checkout, target, *(f"{name}={value}" for name in names), "MODEL=x")
        assert made.returncode == 0, made.stderr
        arguments = calls(checkout)[-1][0]
        flags |= {name: f"--{name.lower().replace('_', '-')}" in arguments for name in names}
    shown = make(checkout, "status", f"V={value}").stdout
    return flags | {"V": "driverwatch status" in shown}


@pytest.mark.parametrize("value", ["0", "no", "false", "off", "", "False", "OFF", "n"])
def test_off(checkout: Path, value: str) -> None:
    assert set(switched(checkout, value).values()) == {False}


@pytest.mark.parametrize("value", ["1", "yes", "true", "on", "True", "ON", "y"])
def test_on(checkout: Path, value: str) -> None:
    assert set(switched(checkout, value).values()) == {True}


NEITHER = ["2", "1 0", "$(shell touch made)", "-1", "%"]


@pytest.mark.parametrize(
    ("name", "value"), [*((name, "maybe") for name in sorted(SWITCHES)), *(("FORCE", value) for value in NEITHER)]
)
def test_neither(checkout: Path, name: str, value: str) -> None:
    """Before anything runs, in one sentence."""
    made = make(checkout, "status", f"{name}={value}")
    assert (made.returncode, calls(checkout)) == (2, [])
    assert f"{name}={value}: expected 1 (yes, true, on) or 0 (no, false, off)" in made.stderr
    assert made.stderr.count("\n") == 1
    assert not list(checkout.rglob("made"))


def test_help_is_a_dozen_lines_and_help_all_everything(checkout: Path) -> None:
    """Within 100 columns; every target with its variables, and every variable's meaning."""
    first, everything = (make(checkout, *words).stdout for words in ((), ("help-all",)))
    named = re.findall(r"^  (?:\w+ +| {8})([a-z-]+)  ", first, re.MULTILINE)
    assert len(first.splitlines()) == 12
    assert set(named) <= set(TARGETS)
    assert first == make(checkout, "help").stdout
    assert max(map(len, (first + everything).splitlines())) <= 100
    assert {line.split()[0] for line in everything.splitlines() if re.match(r"  [a-z]", line)} >= set(TARGETS)
    assert all(f"\n  {name}" in everything.replace(" ", "\n  ") for name in LISTED)
    train = everything.split("\n  train ")[1].split("\n  node ")[0]
    assert {"MODEL=", "SET=", "WEIGHTS=", "ENGINE=", "ADDRESS=", "SKIP_INVALID="} <= set(train.split())
    assert "FRAMES=" not in train.split()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["reprot"], "make reprot: no such target; did you mean make report?"),
        (["zzz"], "make zzz: no such target (make help-all lists them)"),
        (["a'b;`touch made`"], "make a'b;`touch made`: no such target"),
        (["report", "DATASETS=demo"], "DATASETS=: no such variable; did you mean DATASET=?"),
        (["report", "model=$(touch made)"], "model=: no such variable; did you mean MODEL=?"),
    ],
)
def test_a_misspelt_word_gets_a_suggestion(checkout: Path, words: list[str], said: str) -> None:
    made = make(checkout, *words)
    assert made.returncode == 2
    assert said in made.stderr
    assert not calls(checkout)
    assert not list(checkout.rglob("made"))


def test_what_a_target_needs_is_named_with_what_is_here(checkout: Path) -> None:
    assert "make serve needs RUN=..., the name of a trained run; statefarm has none" in make(checkout, "serve").stderr
    for place in ("build/demo/runs/tiny/run.json", "submissions/demo/first.csv"):
        (checkout / place).parent.mkdir(parents=True)
        (checkout / place).touch()
    for target in ("serve", "predict", "submit", "card"):
        assert "what is here needs DATASET=demo." in make(checkout, target).stderr
    for target, here in {"serve": "run: tiny.", "submit": ": submissions/demo/first.csv.", "card": ": first."}.items():
        assert here in make(checkout, target, "DATASET=demo").stderr
    assert len(make(checkout, "lr-find").stderr) < 140


def test_cheap_checks_come_first(checkout: Path) -> None:
    """Models, images and weights before folds and packs; a token and a submission before the client is installed."""
    (checkout / "folds/statefarm.csv").unlink()
    python = checkout / ".venv/bin/python"
    refusing = "if sys.argv[1:2] != ['-c'] and (sys.argv[3] == 'preflight' or '--dry-run' in sys.argv): sys.exit(2)\n"
    python.write_text(STANDIN + refusing)
    for target in ("train", "linear-probe", "lr-find", "search", "data-scaling"):
        (checkout / "calls.txt").unlink(missing_ok=True)
        assert make(checkout, target, "MODEL=typo", "SET=a=1", "WEIGHTS=w").returncode == 2
        [(arguments, _)] = calls(checkout)
        assert arguments[2:] == ["preflight", "--dataset=statefarm", "--set=a=1", "--weights=w", "--", "typo"]
    (checkout / ".venv-kaggle/.installed").unlink()
    (checkout / "calls.txt").unlink()
    assert make(checkout, "data", "DATA=x").returncode == 2
    [(arguments, _)] = calls(checkout)
    assert arguments[2:] == ["data", "--dataset=statefarm", "--data=x", "--dry-run"]
    (checkout / "calls.txt").unlink()
    assert make(checkout, "submit", "FILE=a.csv", "MESSAGE=m").returncode == 2
    [(arguments, _)] = calls(checkout)
    assert arguments[2:] == ["submit", "--dataset=statefarm", "--message=m", "--dry-run", "--", "a.csv"]
    assert not (checkout / ".venv-kaggle/.installed").exists()


def test_an_environment_whose_python_is_gone_is_made_again(checkout: Path) -> None:
    """As after a container made it in a mounted checkout, or after an upgrade removed its Python."""
    assert make(checkout, "client", "PYTHON3=./named").returncode == 0
    assert not calls(checkout)
    (checkout / ".venv-kaggle/bin/python").rename(checkout / "named")
    made = make(checkout, "client", "PYTHON3=./named")
    assert made.returncode == 0, made.stdout + made.stderr
    [(again, _), (installing, _)] = calls(checkout)
    assert again == ["-m", "venv", "--clear", ".venv-kaggle"]
    assert installing[0] == "scripts/install.py"


def test_a_python_that_does_not_run_is_named(checkout: Path) -> None:
    (checkout / ".venv/bin/python").unlink()
    made = make(checkout, "setup", "PYTHON3=./absent")
    assert made.returncode == 2
    said = "does not run or is older than Python 3.11; name another: make PYTHON3=python3.12 setup"
    assert f"./absent {said}" in made.stderr
