"""Tasks on a cluster: what needs no Ray, without it."""

import hashlib
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.source import FILES

from driverwatch.cli.options import cluster_options
from driverwatch.config.loading import parse
from driverwatch.config.model import ModelSettings
from driverwatch.errors import InputError
from driverwatch.remote import ray_cluster, ray_files, ray_tasks
from driverwatch.remote.ray_cluster import Options, View
from driverwatch.remote.ray_files import Home, Project, Task
from driverwatch.training.train import TrainRequest, teachers_first

RUN = "build/demo/runs/tiny"
READS = ("pack.h5", f"{RUN}/run.json")
FOLD = Task("tiny fold 0", print, (), READS, (f"{RUN}/fold0",), epochs=4, log=f"{RUN}/logs/fold0.txt")
SHARD = Task("tiny shard 1 of 2", print, (), READS, (f"{RUN}/fold0", f"{RUN}/fold1"), ".shard-")
CONTENT = b"one two"
CHECKSUM = hashlib.sha256(CONTENT).hexdigest()


class Direct:
    """The asking machine's `Home` as a task sees it, without Ray between; counts the bytes that were asked for."""

    def __init__(self, root: Path) -> None:
        self.home, self.root, self.served = Home(str(root)), root, dict[str, int]()

    def __getattr__(self, name: str) -> SimpleNamespace:
        def remote(*arguments: Any) -> Any:
            found = getattr(self.home, name)(*arguments)
            if name == "piece":
                self.served[arguments[0]] = self.served.get(arguments[0], 0) + len(found)
            return SimpleNamespace(future=lambda: SimpleNamespace(result=lambda: found))

        return SimpleNamespace(remote=remote)


@pytest.fixture
def asking(tmp_path: Path) -> Direct:
    root = tmp_path / "project"
    for name in (*READS, f"{RUN}/fold0/checkpoint.h5", f"{RUN}/fold0/.lock", f"{RUN}/fold1/checkpoint.h5"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode() * 3)
    os.utime(root / "pack.h5", ns=(7_000_000_001, 7_000_000_001))
    made = Direct(root)
    made.home.expect(FOLD)
    made.home.expect(SHARD)
    return made


@pytest.fixture
def project(asking: Direct) -> Project:
    return Project(str(asking.root), "key", "token", {}, 2)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for copies; files travel five bytes at a time."""
    monkeypatch.setenv(ray_files.NODE_FOLDER, str(tmp_path / "own"))
    monkeypatch.setattr(ray_files, "PIECE_BYTES", 5)
    return tmp_path / "own"


def test_a_machine_without_the_folder_copies_it_once(asking: Direct, project: Project, own: Path) -> None:
    here, weights = ray_files.copied(FOLD, project, asking)
    assert here == own / "key"
    assert weights is None
    assert (here / "pack.h5").read_bytes() == b"pack.h5" * 3
    assert (here / "pack.h5").stat().st_mtime_ns == 7_000_000_001, "else each fold would look at every image again"
    assert FOLD.files(here) == [f"{RUN}/fold0/checkpoint.h5"], "what a fold resumes from, and no lock"
    assert not (here / RUN / "fold1").exists()
    served = asking.served.copy()
    (here / RUN / "fold0/stale").write_text("of an earlier attempt")
    ray_files.copied(FOLD, project, asking)
    assert asking.served["pack.h5"] == served["pack.h5"] == 21
    assert asking.served[f"{RUN}/fold0/checkpoint.h5"] == 2 * served[f"{RUN}/fold0/checkpoint.h5"], (
        "the asking machine's counts"
    )
    assert not (here / RUN / "fold0/stale").exists()


def test_local_weights_are_copied_too(asking: Direct, project: Project, own: Path, tmp_path: Path) -> None:
    (tmp_path / "vgg16.h5").write_bytes(b"weights")
    _, weights = ray_files.copied(replace(FOLD, weights=str(tmp_path / "vgg16.h5")), project, asking)
    assert weights is not None
    assert (weights / "vgg16.h5").read_bytes() == b"weights"


def test_a_shared_folder_is_known_by_what_is_in_it(
    asking: Direct, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ray_files.NODE_FOLDER, raising=False)
    assert not ray_files.is_shared(project)
    with pytest.raises(InputError, match=r"does not see .*start its make node again with FOLDER="):
        ray_files.copied(FOLD, project, asking)
    token = asking.root / ray_files.TOKENS / "token"
    token.parent.mkdir(parents=True)
    token.touch()
    assert ray_files.is_shared(project)
    monkeypatch.setenv(ray_files.NODE_FOLDER, "somewhere")
    assert not ray_files.is_shared(project), "a machine with a folder of its own works there"


def flip(path: Path) -> None:
    """One bit, and the time as it was."""
    content, found = bytearray(path.read_bytes()), path.stat()
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def link(path: Path) -> None:
    other = path.with_name("other")
    path.rename(other)
    path.symlink_to(other)


@pytest.mark.parametrize("change", [flip, cut, empty, link])
def test_a_copy_is_compared_before_it_is_used_again(
    asking: Direct, project: Project, own: Path, change: Callable[[Path], None]
) -> None:
    here, _ = ray_files.copied(FOLD, project, asking)
    assert stat.S_IMODE(here.stat().st_mode) == 0o700
    change(here / "pack.h5")
    ray_files.copied(FOLD, project, asking)
    assert (here / "pack.h5").read_bytes() == b"pack.h5" * 3
    assert not (here / "pack.h5").is_symlink()
    assert asking.served["pack.h5"] == 2 * 21


def test_what_changes_on_its_way_is_refused(
    asking: Direct, project: Project, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = asking.home.describe("pack.h5")
    monkeypatch.setattr(asking.home, "describe", lambda _: (*found[:2], "0" * 64))
    with pytest.raises(InputError, match=r"pack\.h5: changed on its way"):
        ray_files.copied(FOLD, project, asking)
    assert not (own / "key" / "pack.h5").exists()


def test_results_come_home_while_a_task_works_and_whole_at_its_end(
    asking: Direct, project: Project, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, _ = ray_files.copied(FOLD, project, asking)
    monkeypatch.chdir(here)
    fold, home, received = Path(RUN) / "fold0", asking.root / RUN / "fold0", list[str]()
    receive = asking.home.receive
    monkeypatch.setattr(
        asking.home, "receive", lambda task, name, *rest: (received.append(Path(name).name), receive(task, name, *rest))
    )
    sent = {name: ray_files._stamp(Path(name)) for name in FOLD.files(here)}
    with ray_files._reported(FOLD, asking, True):
        print("epoch 1")
        for name in ("best.h5", "checkpoint.h5", "spent", "manifest.json"):
            (fold / name).write_bytes(b"epoch 1")
        ray_files.send(FOLD, asking, sent, (ray_files.MANIFEST,))
        assert received == ["best.h5", "spent", "checkpoint.h5"] or received == ["spent", "best.h5", "checkpoint.h5"]
        assert (home / "checkpoint.h5").read_bytes() == b"epoch 1"
        (fold / "spent").unlink()
        (fold / "sub").mkdir()
        (fold / "sub" / "weights.h5").write_bytes(b"trained")
    assert FOLD.files(asking.root) == [f"{RUN}/fold0/{name}" for name in
                                       ("best.h5", "checkpoint.h5", "manifest.json", "sub/weights.h5")]  # fmt: skip
    assert received[-1] == "manifest.json", "which says that the fold is finished"
    assert (home / ".lock").is_file(), "not the task's"
    assert asking.home.news() == [("tiny fold 0", "lines", ["epoch 1"])]
    assert asking.home.news() == []


def test_a_task_that_fails_says_how_far_it_came(
    asking: Direct, project: Project, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, _ = ray_files.copied(FOLD, project, asking)
    monkeypatch.chdir(here)
    with pytest.raises(InputError, match="diverged"), ray_files._reported(FOLD, asking, True):
        (Path(RUN) / "fold0" / "diverged.json").write_text("{}")
        (Path(RUN) / "fold0" / "manifest.json").write_text("{}")
        print("the loss is no number")
        raise InputError("diverged")
    assert (asking.root / RUN / "fold0" / "diverged.json").is_file()
    assert not (asking.root / RUN / "fold0" / "manifest.json").exists()
    assert asking.home.news() == [("tiny fold 0", "lines", ["the loss is no number"])]


@pytest.mark.parametrize("task", [FOLD, SHARD], ids=lambda task: task.name)
@pytest.mark.parametrize(
    "name",
    [f"/{RUN}/fold0/checkpoint.h5", f"/{RUN}/fold0/.shard-x", f"//{RUN}/fold0/.shard-x", f"/etc/{RUN}/fold0/.shard-x",
     f"elsewhere/{RUN}/fold0/checkpoint.h5", f"elsewhere/{RUN}/fold0/.shard-x", f"{RUN}/fold0/../fold2/x", f"{RUN}/fold0/..",
     f"../elsewhere/{RUN}/fold0/.shard-x", f"{RUN}/fold2/.shard-x", f"{RUN}/fold0",
     f"C:{RUN}/fold0/.shard-x", f"C:/{RUN}/fold0/.shard-x", f"C:\\{RUN}/fold0/.shard-x", f"{RUN}/fold0\\.shard-x",
     f"{RUN}/fold0/.lock", f"{RUN}/fold0/.x.partial", "", ".", "/", "~/x", "run.json"],
)  # fmt: skip
def test_names_that_are_no_result_of_a_task(tmp_path: Path, task: Task, name: str) -> None:
    root = tmp_path / "project"
    root.mkdir()
    home = Home(str(root))
    home.expect(task)
    with pytest.raises(InputError, match=r"is no result of tiny") as refused:
        home.receive(task.name, name, CONTENT, CHECKSUM)
    assert str(refused.value).isprintable()
    assert [*tmp_path.rglob("*")] == [root]


@pytest.mark.parametrize("name", [f"{RUN}/fold0/checkpoint.h5", f"{RUN}/fold0/.shard-test-centre-0.h5"])
def test_results_arrive_whole_or_not_at_all(tmp_path: Path, name: str) -> None:
    root = tmp_path / "project"
    (tmp_path / "disk").mkdir()
    root.mkdir()
    (root / "build").symlink_to(tmp_path / "disk")  # the project's own link to a larger disk
    for task in (FOLD, SHARD) if "shard" in name else (FOLD,):
        home = Home(str(root))
        home.expect(task)
        home.receive(task.name, name, CONTENT, CHECKSUM)
        with pytest.raises(InputError, match="arrived damaged"):
            home.receive(task.name, name, b"one twa", CHECKSUM)
        assert (root / name).read_bytes() == CONTENT
        assert not [*tmp_path.rglob("*.partial")]


@pytest.mark.parametrize("where", [f"{RUN}/fold0", f"{RUN}/fold0/deep"])
@pytest.mark.parametrize("name", [f"{RUN}/fold0/deep/.shard-x", f"{RUN}/fold0/deep/er/x"])
def test_links_that_lead_out_of_the_run_are_not_followed(tmp_path: Path, where: str, name: str) -> None:
    root, outside = tmp_path / "project", tmp_path / "outside"
    outside.mkdir()
    (root / where).parent.mkdir(parents=True)
    (root / where).symlink_to(outside)
    home = Home(str(root))
    home.expect(FOLD)
    with pytest.raises(InputError, match="no result"):
        home.receive(FOLD.name, name, CONTENT, CHECKSUM)
    assert not [*outside.iterdir()]


def node(name: str, cores: int, gpus: float = 0, memory: float = 2**34) -> dict[str, Any]:
    has = {"CPU": cores, "memory": memory} | ({"GPU": gpus} if gpus else {})
    return {"NodeManagerHostname": name, "NodeID": "0123456789", "Resources": has}


def test_what_a_task_takes_follows_the_machines() -> None:
    plain, gpus, small = node("a", 8), node("b", 32, 4, 2**36), node("c", 2)

    def needs(there: list[dict[str, Any]], *options: Any) -> tuple[float, ...]:
        return tuple(ray_cluster.needs_of(there, Options(None, *options)).values())

    assert needs([plain, small]) == (2, 0, 0)
    assert needs([plain, gpus]) == (8, 1, 0)
    assert needs([plain, gpus], 0.5) == (4, 0.5, 0)
    assert needs([plain, gpus], 0, 3, 2**35) == (3, 0, 2**35)
    with pytest.raises(
        InputError, match=r"GPUS_PER_FOLD=8 .*: no machine of the cluster has as much; there are: a/012345 \(8 cores"
    ):
        needs([plain, gpus], 8, 1)


def test_room_is_what_machines_hold_of_cores_gpus_and_memory() -> None:
    there = [node("a", 16, 2.0, 64e9), node("b", 4, memory=8e9)]
    asked = [{"CPU": 4}, {"CPU": 4, "GPU": 0.5}, {"CPU": 1, "GPU": 0, "memory": 16e9}, {"CPU": 32}]
    assert [ray_cluster.room(there, needs) for needs in asked] == [5, 4, 4, 0]


def test_options_of_a_cluster_need_one() -> None:
    assert cluster_options(None, None, None, None, 0) is None
    with pytest.raises(InputError, match=r"ADDRESS=auto CPUS_PER_FOLD=2: is for ENGINE=ray"):
        cluster_options(None, "auto", None, 2, 0)
    with pytest.raises(InputError, match=r"ENGINE=spark: expected ray"):
        cluster_options("spark", None, None, None, 0)


def test_ray_is_optional_and_imported_where_a_cluster_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    lazily, top = (re.compile(rf"^{ahead}(import|from) ray\b", re.MULTILINE) for ahead in (" +", ""))
    assert {path.name for path in FILES if lazily.search(path.read_text())} == {"ray_cluster.py", "ray_files.py"}
    assert not [path for path in FILES if top.search(path.read_text())]
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match="make setup EXTRAS=cluster"):
        ray_cluster.ray_module()


def test_teachers_come_before_their_students() -> None:
    def model(*teachers: str) -> ModelSettings:
        pseudo = {"train": {"pseudo": {"runs": list(teachers)}}} if teachers else {}
        content = {"backbone": "tiny", "weights": "none", "input": {"pack": "36x44", "size": "32x40"}, **pseudo}
        return parse(ModelSettings, content, "test")

    order = teachers_first({"student": model("teacher", "elsewhere"), "teacher": model()})
    assert order.get_ready() == ("teacher",)
    order.done("teacher")
    assert order.get_ready() == ("student",)
    with pytest.raises(InputError, match="MODELS: teach each other"):
        teachers_first({"a": model("b"), "b": model("a")})


def test_the_view_shows_what_every_task_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = Task("b fold 1", print, (), (), ("b/fold1",), epochs=4)
    (tmp_path / RUN / "fold0").mkdir(parents=True)
    (tmp_path / RUN / "fold0/history.csv").write_text("epoch,loss,val_loss,seconds\n1,2.5,,30.0\n")
    with View(tmp_path) as view:
        view.submitted(FOLD)
        view.submitted(other)
        view.show(
            [("tiny fold 0", "machine", "m"), ("tiny fold 0", "lines", ["tiny fold 0, epoch 1: loss", "warning"])]
        )
        assert view.cells(FOLD) == ["tiny fold 0", "m", "1/4", "2.500", "", "30", "1:30"]
        assert view.seconds_left() == 30 * 7
        view.show([("tiny fold 0", "machine", "n")])
        assert view.machines == {"tiny fold 0": ["m", "n"]}
        view.ended(FOLD, None)
        view.ended(other, "no room")
    printed = capsys.readouterr().out.splitlines()
    assert printed == [
        "tiny fold 0: starts on m",
        "tiny fold 0, epoch 1: loss",
        "tiny fold 0: warning",
        "tiny fold 0: lost on m; resumes on n from its last finished epoch",
        "tiny fold 0: finished, 0 s after it was submitted (1 of 2 finished)",
        "b fold 1: no room (1 of 2 finished)",
    ]
    log = (tmp_path / RUN / "logs/fold0.txt").read_text().splitlines()
    assert log[1:4] == ["-- starts on m", "tiny fold 0, epoch 1: loss", "warning"]


class Hall:
    """A cluster with room for three tasks, of which the last one submitted ends first."""

    def __init__(self, *_: object) -> None:
        self.tasks: list[Task] = []
        self.most = 0

    def __enter__(self) -> "Hall":
        return self

    def __exit__(self, *_: object) -> None: ...

    def room(self) -> int:
        return 3

    def submit(self, task: Task) -> None:
        self.tasks.append(task)
        self.most = max(self.most, len(self.tasks))

    def ended(self) -> Iterator[tuple[Task, str | None]]:
        while self.tasks:
            task = self.tasks.pop()
            yield task, "the loss is no number" if task.name == "trial-1 fold 0" else None


def test_trials_wait_for_a_fold_each_and_bear_what_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many trials at once as there is room for; finished folds are passed; a failed fold is thrown into its trial."""
    said, held, hall = list[str](), set[str](), Hall()

    @contextmanager
    def started(request: Any) -> Iterator[SimpleNamespace]:
        name = request.name
        if name == "trial-2":
            raise InputError("no such pack")
        held.add(name)
        run = SimpleNamespace(name=name, finished=lambda fold: name == "trial-3" and fold == 0)
        yield SimpleNamespace(run=run, found=lambda fold: said.append(f"{name} found {fold}"))
        held.remove(name)

    def fold_task(request: object, run: Any, fold: int) -> Task:
        assert run.name in held
        return Task(f"{run.name} fold {fold}", print, (), (), ())

    def trial(name: str) -> Iterator[Any]:
        try:
            for fold in range(2):
                yield SimpleNamespace(context=None, settings=None, name=name, fold=fold)
        except InputError as error:
            said.append(f"{name}: {error}")
        else:
            said.append(f"{name} complete")

    monkeypatch.setattr(ray_tasks, "started_run", started)
    monkeypatch.setattr(ray_tasks, "fold_task", fold_task)
    ray_tasks.search_on_cluster(Options(), lambda _: hall)(trial(f"trial-{n}") for n in range(6))
    failed = {"trial-1: the loss is no number", "trial-2: no such pack"}
    found = {f"trial-{n} found {fold}" for n in (0, 3, 4, 5) for fold in range(2)}
    assert set(said) == failed | found | {f"trial-{n} complete" for n in (0, 3, 4, 5)}
    assert len(said) == len(set(said))
    assert said.index("trial-3 found 0") < said.index("trial-3 found 1")
    assert hall.most == 3
    assert held == set(), "runs are let go at the end"


class Queue(Hall):
    """A cluster on which the first task submitted ends first, and one fold diverges."""

    def ended(self) -> Iterator[tuple[Task, str | None]]:
        while self.tasks:
            task = self.tasks.pop(0)
            yield task, "the loss is no number" if task.name == "lone fold 1" else None


def test_students_start_when_their_teachers_are_finished_and_one_that_fails_costs_no_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    events, hall = list[str](), Queue()

    @contextmanager
    def started(request: TrainRequest) -> Iterator[SimpleNamespace]:
        name = request.name
        if name == "late":
            raise InputError("its teacher is of other folds")
        (tmp_path / name).mkdir()
        run = SimpleNamespace(name=name, folder=tmp_path / name, finished=lambda fold: (name, fold) == ("teacher", 0))
        yield SimpleNamespace(run=run, asked=[0, 1], folds=2, found=lambda fold: events.append(f"{name} fold {fold}"))

    def fold_task(request: object, run: Any, fold: int) -> Task:
        events.append(f"{run.name} task {fold}")
        return Task(f"{run.name} fold {fold}", print, (), (), ())

    def settings(*teachers: str) -> SimpleNamespace:
        return SimpleNamespace(train=SimpleNamespace(pseudo=SimpleNamespace(runs=teachers) if teachers else None))

    monkeypatch.setattr(ray_tasks, "started_run", started)
    monkeypatch.setattr(ray_tasks, "fold_task", fold_task)
    monkeypatch.setattr(ray_tasks, "print_summary", lambda context, run, *_: events.append(f"{run.name} closed"))
    monkeypatch.setattr(ray_tasks, "diverged", lambda folder, fold: folder.name == "lone")
    monkeypatch.setattr(ray_tasks, "way_on", lambda *_: "lower the rate")
    monkeypatch.setattr(ray_tasks, "Cluster", lambda _: hall)
    wanted: Any = {
        "student": settings("teacher"),
        "late": settings("teacher"),
        "teacher": settings(),
        "lone": settings(),
    }
    with pytest.raises(InputError) as refused:
        about: dict[str, Any] = {"context": None}
        requests = [TrainRequest(name=name, settings=made, **about) for name, made in wanted.items()]
        ray_tasks.train_on_cluster(requests, Options())
    assert str(refused.value).splitlines() == [
        "2 of these did not finish:",
        "  - late: its teacher is of other folds",
        "  - lone fold 1: the loss is no number; lower the rate",
        "that fixed, the same command without FORCE=1 resumes from their last finished epochs",
    ]
    assert events.index("teacher closed") < events.index("student task 0") < events.index("student closed")
    assert "lone fold 0" in events, "the run's other fold was not given up"
    assert "lone closed" not in events
