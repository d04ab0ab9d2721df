"""What comes from another machine, or lies on this one, is not trusted by its name."""

import hashlib
import os
import stat
from pathlib import Path

import pytest

from driverwatch.cluster import place
from driverwatch.cluster.home import Arrivals
from driverwatch.cluster.jobs import Job
from driverwatch.cluster.remote import Depot
from driverwatch.errors import InputError

RUN = "build/drawn/runs/tiny"
JOB = Job("a fold 0", ("verb",), ("pack.h5",), (f"{RUN}/fold0/bundle.h5", f"{RUN}/fold0/.shard-*"), f"{RUN}/fold0")
PARTS = Job("a part", ("verb",), (), (f"{RUN}/fold0/.shard-*", f"{RUN}/fold1/.shard-*"))
CONTENT = b"one two"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Direct(Depot):
    """The asking machine's files without Ray between."""

    def pieces(self, name, starts, count):  # type: ignore[no-untyped-def]
        yield from (self.piece(name, start, count) for start in starts)


@pytest.mark.parametrize("job", [JOB, PARTS])
@pytest.mark.parametrize(
    "name",
    [f"/{RUN}/fold0/bundle.h5", f"/{RUN}/fold0/.shard-x", f"//{RUN}/fold0/.shard-x", f"/etc/{RUN}/fold0/.shard-x",
     f"elsewhere/{RUN}/fold0/bundle.h5", f"elsewhere/{RUN}/fold0/.shard-x", f"{RUN}/fold0/../fold2/x", f"{RUN}/fold0/..",
     f"../project/{RUN}/fold0/.shard-x", f"{RUN}/fold2/.shard-x", f"{RUN}/fold0", f"{RUN}/fold0/.shard-x\0", f"{RUN}/fold0/\n",
     f"C:{RUN}/fold0/.shard-x", f"C:/{RUN}/fold0/.shard-x", f"C:\\{RUN}/fold0/.shard-x", f"{RUN}/fold0\\.shard-x",
     f"{RUN}/fold0/.lock", f"{RUN}/fold0/.x.partial", "", ".", "/", "~/x", "run.json", 7, None, b"x", "\ud800"],
)  # fmt: skip
def test_names_that_a_job_has_no_business_with(tmp_path: Path, job: Job, name: object) -> None:
    root = tmp_path / "project"
    root.mkdir()
    home = Arrivals(job, root)
    with pytest.raises(InputError, match=r"no business with it") as refused:
        home.piece(name, CONTENT, DIGEST)  # type: ignore[arg-type]
    assert str(refused.value).isprintable()
    assert [*tmp_path.rglob("*")] == [root]


@pytest.mark.parametrize("name", [f"{RUN}/fold0/bundle.h5", f"{RUN}/fold0/.shard-test-centre-0.h5"])
def test_what_a_job_brings_comes(tmp_path: Path, name: str) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "build").symlink_to(tmp_path / "disk")  # the project's own link to a larger disk
    for job in (JOB, PARTS) if "shard" in name else (JOB,):
        Arrivals(job, tmp_path / "project").piece(name, CONTENT, DIGEST)
        assert (tmp_path / "project" / name).read_bytes() == CONTENT
        assert not [*tmp_path.rglob("*.partial")]


@pytest.mark.parametrize("link", [f"{RUN}/fold0", f"{RUN}/fold0/deep"])
@pytest.mark.parametrize("name", [f"{RUN}/fold0/deep/.shard-x", f"{RUN}/fold0/deep/er/x"])
def test_links_that_lead_out_of_the_jobs_folder_are_not_followed(tmp_path: Path, link: str, name: str) -> None:
    root, outside = tmp_path / "project", tmp_path / "outside"
    outside.mkdir()
    (root / link).parent.mkdir(parents=True)
    (root / link).symlink_to(outside)
    with pytest.raises(InputError, match="no business"):
        Arrivals(JOB, root).piece(name, CONTENT, DIGEST)
    assert not [*outside.iterdir()]


@pytest.fixture
def asking(tmp_path: Path) -> Direct:
    root = tmp_path / "project"
    (root / RUN / "fold0").mkdir(parents=True)
    (root / "pack.h5").write_bytes(b"images" * 100)
    (root / RUN / "fold0" / "bundle.h5").write_bytes(b"begun")
    return Direct(str(root))


@pytest.fixture(params=["named", "default"])
def own(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this machine keeps things: in the folder that was named, or in the default one."""
    if request.param == "named":
        monkeypatch.setenv(place.OWN, str(tmp_path / "own"))
        return tmp_path / "own"
    monkeypatch.delenv(place.OWN, raising=False)
    monkeypatch.setattr(place.tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
    return tmp_path / "tmp" / f"driverwatch-{os.getuid()}"


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
def test_a_stored_copy_is_compared_before_it_is_used_again(asking: Direct, own: Path, change: object) -> None:
    here = place.prepared(JOB, str(asking.root), "token", asking)
    digest = hashlib.sha256((asking.root / "pack.h5").read_bytes()).hexdigest()
    stored, served = own / "store" / digest, asking.served["pack.h5"]
    place.prepared(JOB, str(asking.root), "token", asking)
    assert asking.served["pack.h5"] == served, "what is right is not brought twice"
    change(stored)  # type: ignore[operator]
    assert place.prepared(JOB, str(asking.root), "token", asking).root == here.root
    for path in (stored, here.root / "pack.h5"):
        assert path.read_bytes() == b"images" * 100 and not path.is_symlink()
    assert asking.served["pack.h5"] == 2 * served


def test_folders_are_this_users_alone(asking: Direct, own: Path) -> None:
    own.mkdir(parents=True)
    (own / "store").mkdir(mode=0o777)
    here = place.prepared(JOB, str(asking.root), "token", asking)
    for folder in (own / "store", here.root):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_anothers_folders_are_refused(
    asking: Direct, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.prepared(JOB, str(asking.root), "token", asking)
    (own / "store").rename(tmp_path / "planted")
    (own / "store").symlink_to(tmp_path / "planted")
    with pytest.raises(InputError, match="this user's own"):
        place.prepared(JOB, str(asking.root), "token", asking)
    (own / "store").unlink()
    mine = os.getuid()
    monkeypatch.setattr(place, "base", lambda: own)
    monkeypatch.setattr(place.os, "getuid", lambda: mine + 1)
    with pytest.raises(InputError, match="this user's own"):
        place.prepared(JOB, str(asking.root), "token", asking)


@pytest.mark.parametrize("name", ["/pack.h5", "../pack.h5", "a/../../pack.h5", "C:/pack.h5", "pack.h5\0"])
def test_names_that_lead_elsewhere_are_not_brought(asking: Direct, own: Path, name: str) -> None:
    described = [(name, 600, 0, "0" * 64)]
    asking.described = lambda names: described  # type: ignore[method-assign,assignment]
    with pytest.raises(InputError, match="below the project's folder"):
        place.prepared(JOB, str(asking.root), "token", asking)


@pytest.mark.parametrize("digest", ["../../x", "", "0" * 63, "/etc/passwd"])
def test_a_digest_is_a_digest(asking: Direct, own: Path, digest: str) -> None:
    asking.described = lambda names: [("pack.h5", 600, 0, digest)]  # type: ignore[method-assign]
    with pytest.raises(InputError, match="SHA-256"):
        place.prepared(JOB, str(asking.root), "token", asking)
