"""A cluster of two nodes on this machine (`make test-cluster`), one killed under a fold; and one of this machine alone."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
from support import kills
from support.loopback import ROOT, Loopback, loopback

from driverwatch.errors import InputError
from driverwatch.remote.ray_cluster import Cluster, Options

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(find_spec("ray") is None, reason="make setup EXTRAS=cluster installs Ray"),
]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    """The head, and one to be killed; each with a folder of its own. Their code trains nothing: the asking machine's travels."""
    folder = tmp_path_factory.mktemp("nodes")
    other = Path(shutil.copytree(ROOT / "src", folder / "src"))
    (other / "driverwatch" / "training" / "train.py").write_text("raise RuntimeError('the code of another commit')\n")
    with loopback(folder) as made:
        made.start(folder / "own0", 2, other)
        made.start(folder / "own1", 2, other)
        yield made


def test_no_machine_has_enough(nodes: Loopback, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", nodes.key)
    with pytest.raises(InputError, match=r"CPUS_PER_FOLD=3 .*no machine of the cluster has as much"):
        Cluster(Options(nodes.address, cores=3), project).__enter__()
    assert not (project / "build").exists()


def started(nodes: Loopback, project: Path, *more: str) -> "subprocess.Popen[str]":
    words = [*kills.command("train"), "--engine", "ray", "--address", nodes.address, "--cpus", "2", *more]
    env = kills.environment(RAY_AUTH_TOKEN=nodes.key)
    return subprocess.Popen(
        words,
        cwd=project,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=partial(
            signal.signal, signal.SIGINT, signal.SIG_DFL
        ),  # tests under nohup would pass their deafness on
    )


def heard(process: "subprocess.Popen[str]", words: str, said: list[str]) -> str:
    """The first line that has this pattern."""
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)
        if re.search(words, line):
            return line
    raise AssertionError("".join(said))


def folds_at_work(folder: Path) -> list[int]:
    """Processes that work in a copy of the project."""
    found = psutil.process_iter(["cwd"])
    return [one.pid for one in found if str(one.info["cwd"]).startswith((f"{folder}/own0/", f"{folder}/own1/"))]


def test_interrupted_and_a_machine_lost_it_ends_as_a_local_run(
    known: kills.Reference, nodes: Loopback, tmp_path: Path
) -> None:
    project, said = known.before("train-one", tmp_path / "project"), []
    first = started(nodes, project)
    heard(first, "epoch 1 ", said)
    assert folds_at_work(nodes.folder)
    os.killpg(first.pid, signal.SIGINT)
    rest = first.communicate(timeout=60)[0]
    assert first.returncode == 130, [*said, rest]
    assert "interrupted; the same command resumes" in rest
    end = time.monotonic() + 20
    while folds_at_work(nodes.folder):
        assert time.monotonic() < end, "folds outlive who asked for them"
        time.sleep(0.2)

    asking = started(nodes, project)
    names = [heard(asking, "starts on", said).split() for _ in range(2)]
    assert len({line[-1] for line in names}) == 2, "one each"
    mine = {line[-1]: " ".join(line[:3]) for line in names}
    victim = next(machine for machine in mine if machine != head_of(said, nodes))
    # an epoch is behind it, and what is ahead begins with seconds of compiling: it cannot end before the kill
    heard(asking, f"{mine[victim].rstrip(':')}(: resumes after epoch|, epoch 1 )", said)
    nodes.kill(1)
    said.append(asking.communicate(timeout=300)[0])
    assert asking.returncode == 0, "".join(said)
    after = said[-1]
    assert f"lost on {victim}" in after
    assert "resumes after epoch " in after
    made = {name: checksum for name, checksum in kills.state(project).items() if "/logs/" not in name}
    assert kills.differing(known.states["train"], made) == []
    log = project / "build/demo/runs/tiny/logs" / f"{mine[victim].split()[1]}{mine[victim].split()[2]}".rstrip(":")
    assert f"lost on {victim}" in log.with_suffix(".txt").read_text()


def head_of(said: list[str], nodes: Loopback) -> str:
    """The name of the machine that is not killed: that of the head's node."""
    tree = psutil.Process(nodes.nodes[0].pid).children(recursive=True)
    words = [word for one in tree for word in one.cmdline() if word.startswith(("--node_id=", "--node-id="))]
    node = words[0].partition("=")[2][:6]
    return next(line.split()[-1] for line in said if "starts on" in line and node in line)


def test_predictions_in_parts_are_those_of_one_process(known: kills.Reference, tmp_path: Path) -> None:
    """On a cluster of this machine alone, which sees the project's folder."""
    project = known.before("predict", tmp_path / "project")
    words = [*kills.command("predict"), "--engine", "ray", "--shards", "2", "--cpus", str(os.cpu_count())]
    made = subprocess.run(words, cwd=project, env=kills.environment(), capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    assert "2 shards predicted" in made.stdout
    assert "shard 1 of 2: finished" in made.stdout
    after = made.stdout.split("put together here")[1]
    assert "ten_crop of" not in after, "the parts left nothing to predict"
    state = {name: checksum for name, checksum in kills.state(project).items() if "/logs/" not in name}
    assert kills.differing(known.states["predict"], state) == []
