"""Jobs on a cluster: what needs no Ray, without it."""

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.source import FILES

from driverwatch.cli.options import cluster_options
from driverwatch.cluster import code, cores, joined, place
from driverwatch.cluster.home import Arrivals
from driverwatch.cluster.jobs import Begun, End, Epoch, Job, Needs, Said
from driverwatch.cluster.joined import Machine
from driverwatch.cluster.node import Asked, Work
from driverwatch.cluster.remote import Depot
from driverwatch.cluster.view import View
from driverwatch.errors import InputError
from driverwatch.settings import ModelSettings
from driverwatch.steps.train_many import _order
from driverwatch.typed_yaml import parse

JOB = Job("a fold 0", ("verb",), ("pack.h5", "sub/run.json"), ("fold0/bundle.h5", "fold0/best.h5"), "fold0")


class Direct(Depot):
    """The asking machine's files without Ray between."""

    def pieces(self, name: str, starts: list[int], count: int) -> Iterator[bytes]:
        yield from (self.piece(name, start, count) for start in starts)


@pytest.fixture
def asking(tmp_path: Path) -> Direct:
    root = tmp_path / "project"
    for name in ("pack.h5", "sub/run.json", "fold0/bundle.h5", "fold0/other"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode() * 3)
    os.utime(root / "pack.h5", ns=(7_000_000_001, 7_000_000_001))
    return Direct(str(root))


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(place.OWN, str(tmp_path / "own"))
    monkeypatch.setattr(place, "PIECE", 5)
    return tmp_path / "own"


def test_a_machine_without_the_folder_is_brought_it_once(asking: Direct, own: Path) -> None:
    here = place.prepared(JOB, str(asking.root), "token", asking)
    assert not here.shared
    assert (here.root / "pack.h5").read_bytes() == b"pack.h5" * 3
    assert (here.root / "pack.h5").stat().st_mtime_ns == 7_000_000_001, "else each fold would look at every image again"
    assert (here.root / "fold0/bundle.h5").is_file()
    assert not (here.root / "fold0/other").exists(), "only what a fold goes on from"
    served = asking.bytes_served().copy()
    (here.root / "fold0/stale").write_text("of an earlier attempt")
    assert place.prepared(JOB, str(asking.root), "token", asking).root == here.root
    assert asking.served["pack.h5"] == served["pack.h5"] == 21
    assert asking.served["fold0/bundle.h5"] == 2 * served["fold0/bundle.h5"], "the asking machine's is the true one"
    assert not (here.root / "fold0/stale").exists()
    (asking.root / "sub/run.json").write_text("another run")
    assert place.prepared(JOB, str(asking.root), "token", asking).root != here.root


def test_what_changes_on_its_way_is_refused(asking: Direct, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "piece", lambda name, start, count: b"other")
    with pytest.raises(InputError, match=r"pack\.h5: changed on its way"):
        place.prepared(JOB, str(asking.root), "token", asking)
    assert not [path for path in (own / "store").iterdir() if not path.name.startswith(".")]


def test_a_shared_folder_is_told_by_what_lies_in_it(asking: Direct, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(place.OWN, raising=False)
    secret = asking.root / place.TOKEN / "abc"
    secret.parent.mkdir(parents=True)
    secret.write_text("another project's")
    assert not place.is_shared(str(asking.root), "abc")
    secret.write_text("abc")
    assert place.prepared(JOB, str(asking.root), "abc", asking) == (asking.root, [], True)
    monkeypatch.setenv(place.OWN, "somewhere")
    assert not place.is_shared(str(asking.root), "abc"), "a machine with a folder of its own works there"


def test_files_come_home_whole_or_not_at_all(tmp_path: Path) -> None:
    home, digest = Arrivals(JOB, tmp_path), hashlib.sha256(b"one two").hexdigest()
    home.piece("fold0/bundle.h5", b"one ", None)
    assert not (tmp_path / "fold0/bundle.h5").exists()
    home.piece("fold0/bundle.h5", b"two", digest)
    assert (tmp_path / "fold0/bundle.h5").read_bytes() == b"one two"
    with pytest.raises(InputError, match="arrived damaged"):
        home.piece("fold0/bundle.h5", b"one twa", digest)
    assert (tmp_path / "fold0/bundle.h5").read_bytes() == b"one two"
    for name in ("fold1/bundle.h5", "fold0/../fold1/x", "/etc/x", "run.json"):
        with pytest.raises(InputError, match="no business"):
            home.piece(name, b"", digest)
    home.piece("fold0/sub/kept", b"one two", digest)
    home.whole(["fold0/sub/kept"])
    assert [path.name for path in sorted((tmp_path / "fold0").rglob("*"))] == ["sub", "kept"]


def test_what_is_written_first_is_never_older_than_what_goes_with_it(tmp_path: Path) -> None:
    """The bundle says of the best epoch what `best.h5` holds: it is opened first and sent last."""
    (tmp_path / "fold0").mkdir()
    work = Work(Asked(JOB, Needs(), "", "", None), place.Place(tmp_path, [], False))
    for name in ("bundle.h5", "best.h5"):
        (tmp_path / "fold0" / name).write_text(name)
    sent = [value[0] for _, value in work._news()]
    assert sent == ["fold0/best.h5", "fold0/bundle.h5"]
    assert list(work._news()) == [], "what has not changed stays"


def test_cores_are_taken_by_one_job_at_a_time(tmp_path: Path) -> None:
    mine = sorted(os.sched_getaffinity(0))
    if len(mine) < 2:
        pytest.skip("one core")
    with cores.taken(1, tmp_path) as first, cores.taken(len(mine) + 1, tmp_path) as all_of_them:
        assert [*os.sched_getaffinity(0)] == first == all_of_them
    assert sorted(os.sched_getaffinity(0)) == mine
    script = "import sys; from pathlib import Path; from driverwatch.cluster.cores import taken\n"
    script += "with taken(1, Path(sys.argv[1])) as found: print(found)"
    with cores.taken(1, tmp_path) as first:
        os.sched_setaffinity(0, mine)
        said = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
        ).stdout
    assert said.strip() != str(first)


def test_what_a_fold_takes_follows_the_machines() -> None:
    plain, gpus = Machine("a", "a", 8, 0, 2**34), Machine("b", "b", 32, 4, 2**36)
    assert joined.needs([plain, Machine("c", "c", 2, 0, 2**34)], None, None, 0) == Needs(2, 0)
    assert joined.needs([plain, gpus], None, None, 0) == Needs(8, 1)
    assert joined.needs([plain, gpus], 0.5, None, 0) == Needs(4, 0.5)
    assert joined.needs([plain, gpus], 0, 3, 2**35) == Needs(3, 0, 2**35)
    with pytest.raises(
        InputError, match=r"GPUS_PER_FOLD=8 .*: no machine of the cluster has as much; there are: a \(8 cores"
    ):
        joined.needs([plain, gpus], 8, 1, 0)


def test_other_code_and_other_packages_are_told_apart() -> None:
    mine = code.facts()
    assert code.strange(mine) is None
    assert "runs other code" in str(code.strange({**mine, "code": "0" * 64, "commit": "abc"}))
    other = {**mine, "versions": {**mine["versions"], "keras": "1.0"}}
    assert 'versions.keras: "1.0" -> ' in str(code.strange(other))


def test_options_of_a_cluster_need_one() -> None:
    assert cluster_options(None, None, None, None, 0) is None
    with pytest.raises(InputError, match=r"ADDRESS=auto CPUS_PER_FOLD=2: is for ENGINE=ray"):
        cluster_options(None, "auto", None, 2, 0)
    with pytest.raises(InputError, match=r"ENGINE=spark: expected ray"):
        cluster_options("spark", None, None, None, 0)


def test_ray_is_optional_and_imported_where_a_cluster_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    lazily, top = (re.compile(rf"^{ahead}(import|from) ray\b", re.MULTILINE) for ahead in (" +", ""))
    assert {path.parent.name for path in FILES if lazily.search(path.read_text())} == {"cluster"}
    assert not [path for path in FILES if top.search(path.read_text())]
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match="make setup EXTRAS=cluster"):
        joined.ray_module()


def test_teachers_come_before_their_students() -> None:
    def model(*teachers: str) -> ModelSettings:
        pseudo = {"train": {"pseudo": {"runs": list(teachers)}}} if teachers else {}
        content = {"backbone": "tiny", "weights": "none", "input": {"pack": "36x44", "size": "32x40"}, **pseudo}
        return parse(ModelSettings, content, "test")

    order = _order({"student": model("teacher", "elsewhere"), "teacher": model()})
    assert order.get_ready() == ("teacher",)
    order.done("teacher")
    assert order.get_ready() == ("student",)
    with pytest.raises(InputError, match="MODELS: teach each other"):
        _order({"a": model("b"), "b": model("a")})


def test_the_view_says_what_every_fold_does(capsys: pytest.CaptureFixture[str]) -> None:
    job, other = Job("a fold 0", (), (), (), epochs=4), Job("b fold 1", (), (), (), epochs=4)
    row = {"epoch": "1", "loss": "2.5", "held_out_loss": "", "seconds": "30.0"}
    with View() as view:
        view.asked([job, other])
        for event in (Begun(job, "m"), Said(job, "a fold 0, epoch 1: loss"), Said(job, "warning"), Epoch(job, row)):
            view.show(event)
        assert view.cells(job) == ["a fold 0", "m", "1/4", "2.500", "", "30", "1:30"]
        assert view.left() == 30 * 7
        view.show(End(job, None, "m", 95.4))
        view.show(End(other, "ended with status 2 on m: words", "m", 1.0))
    said = capsys.readouterr().out.splitlines()
    assert said[1:3] == ["a fold 0, epoch 1: loss", "a fold 0: warning"]
    assert said[3:] == [
        "a fold 0: finished, 95 s after it was asked for (1 of 2 finished)",
        "b fold 1: ended with status 2 on m: words (1 of 2 finished)",
    ]
