"""Kill the real commands, repeat them, and compare with what an uninterrupted run gives.

`make test-kills` runs this file: every change to the file system that a command makes is a moment to be killed at, and then
KILLS=<n> kills at random times. `test_kills.py` runs a few of each.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SET = (
    "input.pack=40x52 input.size=36x48 train.batch_size=16 train.select=best train.patience=3 predict.tta=five_crop "
    'train.stages=[{"epochs":1,"learning_rate":0.003},{"epochs":2,"freeze_until":"stage1"}]'
)
VERBS = {
    "synthetic": "synthetic --drivers 6 --test-drivers 2 --frames 2 --size 48x64 --seed 3",
    "folds": "folds",
    "pack": "pack --model tiny --set",
    "train-one": "train tiny --fold 1 --set",
    "train": "train tiny --set",
    "predict": "predict tiny --tta ten_crop --batch-size 40",
    "ensemble": "ensemble --name both",
}
VOLATILE = {
    "seconds",
    "step_seconds",
    "training_seconds",
    "training_cpu_seconds",
    "cache_seconds",
    "stamp",
    "signature",
    "checked",
    "commit",
    "cores",
    "versions",
    "python",
    "machine",
    "processor",
    "trained",  # of a submission: its runs' seconds, machines and commits
}


def command(verb: str) -> list[str]:
    """A command's command line, as make would call it."""
    words = VERBS[verb].split()
    settings = [SET] if words[-1] == "--set" else []
    return [sys.executable, "-m", "driverwatch", *words, *settings, "--dataset", "demo"]


def environment(**extra: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{ROOT / 'tests' / 'support' / 'killer'}{os.pathsep}{ROOT / 'src'}", **extra}


def new_project(folder: Path) -> Path:
    """A project folder with the real configs and two folds, to save time."""
    shutil.copytree(ROOT / "configs", folder / "configs")
    (folder / "folds").mkdir()
    settings = folder / "configs" / "datasets" / "demo.yaml"
    settings.write_text(settings.read_text().replace("folds: 3", "folds: 2"))
    return folder


def ran(project: Path, verb: str) -> str:
    """Run a command to its end; it must succeed. Returns what it said."""
    made = subprocess.run(command(verb), cwd=project, env=environment(), capture_output=True, text=True, check=False)
    if made.returncode:
        raise AssertionError(f"{verb} failed after a kill:\n{made.stdout}\n{made.stderr}")
    return made.stdout


def files(project: Path) -> set[str]:
    """Every file that commands leave, by its path in the project."""
    made = (path for folder in ("build", "folds", "submissions") for path in (project / folder).rglob("*"))
    kept = (path for path in made if path.is_file() and "tensorboard" not in path.parts)
    return {str(path.relative_to(project)) for path in kept if not path.name.endswith(".lock")}


def state(project: Path) -> dict[str, str]:
    """Checksum of every file that a command leaves, without times and places in manifests.

    Nor does it hold `execution.json`, which each command that trains writes again and which decides nothing that is made.
    """
    made = (name for name in files(project) if not name.endswith("/execution.json"))
    return {name: _checksum(project / name) for name in sorted(made)}


def _checksum(path: Path) -> str:
    content = path.read_bytes()
    if path.suffix == ".json" and content.endswith(b"}\n"):
        content = json.dumps({k: v for k, v in json.loads(content).items() if k not in VOLATILE}).encode()
    if path.name == "history.csv":
        rows = [line.split(",") for line in content.decode().splitlines()]
        kept = [i for i, column in enumerate(rows[0]) if column not in VOLATILE]
        content = "\n".join(",".join(row[i] for i in kept) for row in rows).encode()
    return hashlib.sha256(content).hexdigest()


def differing(one: dict[str, str], other: dict[str, str]) -> list[str]:
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


@dataclass(frozen=True)
class Reference:
    """A project after all commands, uninterrupted: its state after each, the folder before each, how long each took."""

    folder: Path
    states: dict[str, dict[str, str]]
    seconds: dict[str, float]

    def before(self, verb: str, place: Path) -> Path:
        """A copy of the project as it was before `command`."""
        return Path(shutil.copytree(self.folder / f"before-{verb}", place))


def reference(folder: Path) -> None:
    """Run all commands in `folder`, and keep there what `read` gives."""
    project = new_project(folder / "project")
    states, seconds = {}, {}
    for verb in VERBS:
        shutil.copytree(project, folder / f"before-{verb}")
        start = time.monotonic()
        ran(project, verb)
        seconds[verb], states[verb] = time.monotonic() - start, state(project)
    (folder / "known.json").write_text(json.dumps({"states": states, "seconds": seconds}))


def read(folder: Path) -> Reference:
    """What `reference` has left in `folder`."""
    return Reference(folder, **json.loads((folder / "known.json").read_text()))


def changes(known: Reference, verb: str, inside: str, place: Path) -> list[str]:
    """Every change to the file system that `command` makes in the process of the command `inside`, in order."""
    project, log = known.before(verb, place / "counted"), place / "log"
    extra = {"KILL_UNDER": str(project), "KILL_VERB": inside, "KILL_LOG": str(log)}
    subprocess.run(command(verb), cwd=project, env=environment(**extra), capture_output=True, check=True)
    shutil.rmtree(project)
    lines = log.read_text().splitlines()
    log.unlink()
    return lines


def killed_before_change(known: Reference, verb: str, inside: str, number: int, place: Path) -> list[str]:
    """SIGKILL `command` just before its `number`-th change; run it again; name the files that differ from the reference."""
    project = known.before(verb, place / f"{verb}-{inside}-{number}")
    extra = {"KILL_UNDER": str(project), "KILL_VERB": inside, "KILL_AT": str(number)}
    made = subprocess.run(
        command(verb), cwd=project, env=environment(**extra), capture_output=True, text=True, check=False
    )
    if made.returncode == 0:
        return ["nothing was killed"]
    ran(project, verb)
    wrong = differing(known.states[verb], state(project))
    shutil.rmtree(project)
    return wrong


def killed_at_random(known: Reference, verb: str, seed: Any, times: int, place: Path) -> tuple[int, list[str]]:
    """SIGKILL `command` up to `times` times at random moments, every other time its whole process group; then let it end."""
    chance = random.Random(f"{seed}")
    project, kills = known.before(verb, place / f"{verb}-{seed}"), 0
    for _ in range(times):
        started = subprocess.Popen(
            command(verb), cwd=project, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        try:
            started.wait(chance.uniform(0.2, 1.05 * known.seconds[verb]))
            break
        except subprocess.TimeoutExpired:
            kills += 1
            if chance.random() < 0.5:
                os.killpg(started.pid, signal.SIGKILL)
            else:
                started.kill()  # a fold's process must notice by itself
            started.wait()
    ran(project, verb)
    wrong = differing(known.states[verb], state(project))
    shutil.rmtree(project)
    return kills, wrong


def moments(made: list[str]) -> list[int]:
    """Which changes to kill before: all, or of many those that differ for a process that comes after: a file is written beside its
    place, takes its place, or goes."""
    if len(made) < 40:
        return list(range(1, len(made) + 1))
    telling = [n for n, change in enumerate(made, 1) if change.startswith(("os.rename", "os.remove", "shutil.rmtree"))]
    after = [n + 1 for n in telling if made[n - 1].startswith("os.rename")]
    images = [n for n, change in enumerate(made, 1) if change.endswith(".jpg")][::15]
    return sorted({1, *telling, *after, *images, len(made)})


def before_every_change(known: Reference, place: Path) -> tuple[int, int]:
    """Kill each command before each of its changes; returns the number of kills and of wrong outcomes."""
    done = wrong = 0
    for verb, inside in [*((verb, verb) for verb in VERBS if verb != "train-one"), ("train", "train-fold")]:
        made = changes(known, verb, inside, place)
        for number in moments(made):
            found = killed_before_change(known, verb, inside, number, place)
            done, wrong = done + 1, wrong + bool(found)
            if found:
                print(f"{inside} killed before {made[number - 1]}: differs in {found}", flush=True)
        print(
            f"{inside}: {len(moments(made))} of {len(made)} changes, {done} kills so far, {wrong} outcomes differ",
            flush=True,
        )
    return done, wrong


def at_random(known: Reference, kills: int, place: Path) -> tuple[int, int]:
    """Kill commands in turn, up to four times each round, until there were `kills`; returns rounds and wrong outcomes."""
    struck = rounds = wrong = 0
    while struck < kills:
        verb = list(VERBS)[rounds % len(VERBS)]
        more, found = killed_at_random(known, verb, rounds, 4, place)
        struck, wrong = struck + more, wrong + bool(found)
        if found:
            print(f"{verb} killed at random (round {rounds}): differs in {found}", flush=True)
        rounds += 1
        print(f"{struck} kills at random in {rounds} rounds, {wrong} outcomes differ", flush=True)
    return rounds, wrong


def main(kills: int) -> int:
    """Every change of every command once, then `kills` random kills; returns the exit status."""
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        reference(Path(name) / "reference")
        known = read(Path(name) / "reference")
        done, wrong = before_every_change(known, Path(name))
        rounds, more = at_random(known, kills, Path(name))
    print(f"{done} kills before a change, {kills} or more at random in {rounds} rounds: {wrong + more} outcomes differ")
    return int(wrong + more > 0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
