"""A Ray cluster as the asking process sees it: joined or started, its machines, a view of its tasks; this machine lent to one."""

import csv
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, redirect_stderr, suppress
from importlib import import_module
from io import StringIO
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple, Self

from driverwatch.errors import InputError
from driverwatch.io.atomic import machine, write_text
from driverwatch.io.console import clock, live, say
from driverwatch.io.manifests import checksum_of, provenance
from driverwatch.io.paths import programs_home
from driverwatch.remote.ray_files import NODE_FOLDER, TOKENS, Home, Project, Task, machine_name, run_task

PACKAGE = Path(__file__).resolve().parent.parent
RETRIES = 3  # Ray runs a task again this often where its machine or process is lost
POLL_SECONDS = 0.2  # that one look for news waits
STORE_BYTES = 512 << 20  # of Ray's object store: pieces of files pass through it
START_ATTEMPTS = 3  # Ray gives itself half a minute to start, which a busy machine may exceed
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",  # else anybody who reaches a port can run code
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TQDM_PATCH_PRINT": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_task_oom_retries": str(RETRIES),  # else for ever
}
PASSED_ON = (  # variables of the asking process that tasks get too
    "HDF5_USE_FILE_LOCKING", "KERAS_BACKEND", "NO_ALBUMENTATIONS_UPDATE", "OMP_NUM_THREADS", "TF_CPP_MIN_LOG_LEVEL",
    "TF_NUM_INTEROP_THREADS", "TF_NUM_INTRAOP_THREADS", "VIRTUAL_DEVICES",
)  # fmt: skip


class Options(NamedTuple):
    """Which cluster, and what a task takes of a machine; None: by what the machines have."""

    address: str | None = None
    gpus: float | None = None
    cores: int | None = None
    memory_bytes: int = 0


Node = dict[str, Any]  # as Ray describes a machine
Needs = dict[str, float]  # what a task takes of a machine for itself, by Ray's names of resources


def ray_module() -> Any:
    """Ray, kept from sending statistics and from talking. Raises `InputError` if it is not installed."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise InputError(
            f"ENGINE=ray: Ray is not installed ({error}); make setup EXTRAS=cluster installs it, and without ENGINE= "
            "everything runs on this machine"
        ) from error
    return ray


def _listen_inside() -> None:
    """Let Ray listen at 127.0.0.1 and nowhere else where that is asked: by itself it takes the machine's outer address instead."""
    from ray._private import services  # pinned in requirements/cluster.txt; there is no public way

    services.resolve_ip_for_localhost = lambda host: host


def _read_key_again() -> None:
    """Have Ray look at the environment's key: it remembers one from its import, or from another cluster."""
    raylet = import_module("ray._raylet")
    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()


def join(address: str | None) -> Any:
    """Ray, connected to the cluster at `address` (`auto`: this machine's), or to a new one of this machine alone.

    Raises:
        InputError: no cluster there.
    """
    ray = ray_module()
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    passed |= {"DRIVERWATCH_COMMIT": provenance()["commit"] or "", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
    asked: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": "ERROR"}
    asked["runtime_env"] = {"py_modules": [str(PACKAGE)], "env_vars": passed}
    if address is None:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # for this process and those it starts
        asked |= {"address": "local", "include_dashboard": False, "object_store_memory": STORE_BYTES}
    _read_key_again()
    if address is None or address.startswith("127.0.0.1:"):
        _listen_inside()
        asked["_node_ip_address"] = "127.0.0.1"
    for attempt in reversed(range(1 if address else START_ATTEMPTS)):
        try:
            with redirect_stderr(StringIO()):
                ray.init(**asked)
            break
        except Exception as error:  # Ray's own, several kinds of them, and bare ones
            ray.shutdown()
            if not attempt:
                words, way_out = " ".join(str(error).split())[:200], "run again when it has less to do"
                if address:
                    way_out = "make node on this machine starts its part of one"
                raise InputError(
                    f"ADDRESS={address or ''}: no Ray cluster could be joined or started ({words}); {way_out}"
                ) from error
    return ray


def machines(ray: Any) -> list[Node]:
    """The cluster's machines that are alive."""
    return [node for node in ray.nodes() if node["Alive"]]


def describe(node: Node) -> str:
    """A machine's name, and what it has."""
    has, name = node["Resources"], machine_name(node["NodeManagerHostname"], node["NodeID"])
    return f"{name} ({has.get('CPU', 0):g} cores, {has.get('GPU', 0):g} GPUs, {has.get('memory', 0) / 2**30:.0f} GB)"


def room(there: list[Node], needs: Needs) -> int:
    """How many tasks the machines can do at once."""
    needed = {name: need for name, need in needs.items() if need}
    return sum(min(int(node["Resources"].get(name, 0) // need) for name, need in needed.items()) for node in there)


def needs_of(there: list[Node], options: Options) -> Needs:
    """What was asked for; else one GPU and its share of cores, or without GPUs all cores of the smallest machine.

    Raises:
        InputError: no machine has as much.
    """
    have = [node["Resources"] for node in there]
    gpus = float(any(has.get("GPU", 0) >= 1 for has in have)) if options.gpus is None else options.gpus
    able = [has for has in have if not gpus or has.get("GPU", 0) >= gpus]
    shares = [has.get("CPU", 0) * (gpus / has["GPU"] if gpus else 1) for has in able]
    cores = options.cores or max(1, int(min(shares, default=1)))
    needs = {"CPU": cores, "GPU": gpus, "memory": options.memory_bytes}
    refuse_too_much(there, needs)
    return needs


def refuse_too_much(there: list[Node], needs: Needs) -> None:
    """Raise `InputError` if no machine could do a task."""
    if not room(there, needs):
        raise InputError(
            f"CPUS_PER_FOLD={needs['CPU']:g} GPUS_PER_FOLD={needs['GPU']:g} MEMORY_PER_FOLD={needs['memory'] / 2**30:g}: no "
            f"machine of the cluster has as much; there are: {', '.join(map(describe, there)) or 'none'}; start one by make "
            "node, and the same command resumes"
        )


COLUMNS = ("", "machine", "epoch", "loss", "val loss", "s/epoch", "left")


class View(ExitStack):
    """A context that shows what tasks do, and keeps their logs. Whatever ends it leaves a clean terminal."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root
        self.tasks: dict[str, Task] = {}
        self.submission: dict[str, float] = {}  # seconds, by task
        self.machines: dict[str, list[str]] = {}  # names, by task that runs; the last one has it now
        self.finished = 0
        self.start = time.monotonic()

    def __enter__(self) -> Self:
        self.enter_context(live(self, refresh_per_second=2, transient=True))
        return self

    def submitted(self, task: Task) -> None:
        """Count a task, and begin its part of the log."""
        self.tasks[task.name], self.submission[task.name] = task, time.monotonic()
        self.log(task, [f"-- submitted, {time.strftime('%Y-%m-%d %H:%M:%S')}"])

    def show(self, news: Sequence[tuple[str, str, Any]]) -> None:
        """Print and log news of tasks (`Home.news`)."""
        for name, kind, value in news:
            if kind == "machine":
                known, text = self.machines.setdefault(name, []), f"starts on {value}"
                if known:
                    text = f"lost on {known[-1]}; resumes on {value} from its last finished epoch"
                known.append(value)
                self._note(self.tasks[name], text)
                continue
            self.log(self.tasks[name], value)
            for line in value:
                say(line if line.startswith(name.split()[0]) else f"{name}: {line}")

    def ended(self, task: Task, error: str | None) -> None:
        """Print how a task ended: well, unless there is an `error`."""
        seconds = time.monotonic() - self.submission[task.name]
        self.finished += error is None
        self.machines.pop(task.name, None)
        text = error or f"finished, {seconds:.0f} s after it was submitted"
        self._note(task, text, f" ({self.finished} of {len(self.tasks)} finished)")

    def _note(self, task: Task, text: str, more: str = "") -> None:
        self.log(task, [f"-- {text}"])
        say(f"{task.name}: {text}{more}")

    def log(self, task: Task, lines: list[str]) -> None:
        """Append lines to a task's log."""
        if task.log:
            path = self.root / task.log
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in lines)

    def epochs(self, task: Task) -> list[dict[str, str]]:
        """A task's finished epochs: lines of its history.csv, as text."""
        try:
            with (self.root / task.folders[0] / "history.csv").open(newline="", encoding="utf-8") as file:
                return list(csv.DictReader(file)) if task.epochs else []
        except FileNotFoundError:
            return []

    def seconds_left(self) -> float:
        """Seconds to the end of all planned epochs, at the mean pace of those seen; 0 where none was."""
        seen = {name: self.epochs(task) for name, task in self.tasks.items()}
        paces = [float(rows[-1]["seconds"]) for rows in seen.values() if rows]
        if not paces or not self.machines:
            return 0.0
        planned = sum(task.epochs for task in self.tasks.values())
        return mean(paces) * (planned - sum(map(len, seen.values()))) / len(self.machines)

    def cells(self, task: Task) -> list[str]:
        """The table's line of a task that runs."""
        rows = self.epochs(task)
        last = rows[-1] if rows else {}
        numbers = [f"{float(value):.3f}" if (value := last.get(key)) else "" for key in ("loss", "val_loss")]
        pace = float(last.get("seconds") or 0)
        times = [f"{pace:.0f}", clock(pace * (task.epochs - len(rows)))] if rows else ["", ""]
        epoch = f"{len(rows)}/{task.epochs}" if task.epochs else ""
        return [task.name, self.machines[task.name][-1], epoch, *numbers, *times]

    def __rich__(self) -> Any:
        from rich.console import Group
        from rich.table import Table

        shown = Table(*COLUMNS, box=None, pad_edge=False)
        for name in list(self.machines):
            shown.add_row(*self.cells(self.tasks[name]))
        waiting = len(self.tasks) - self.finished - len(self.machines)
        text = f"{self.finished} of {len(self.tasks)} finished, {len(self.machines)} running, {waiting} waiting"
        left = f", about {clock(left)} left" if (left := self.seconds_left()) else ""
        return Group(shown, f"{text}; {clock(time.monotonic() - self.start)} so far{left}")


class Cluster:
    """A context in which tasks run: `submit` some, iterate over those that `ended`, submit more meanwhile.

    However it ends, tasks that still run are ended with it; results that came back stay.
    """

    def __init__(self, options: Options, root: Path = Path()) -> None:
        self.options, self.root = options, root.resolve()
        self.running: dict[Any, Task] = {}  # by Ray's reference

    def __enter__(self) -> "Cluster":
        self.ray = join(self.options.address)
        self.view = View(self.root)
        try:
            self._prepare()
        except BaseException:
            self.ray.shutdown()
            raise
        self.view.__enter__()
        return self

    def _prepare(self) -> None:
        there = machines(self.ray)
        self.needs = needs_of(there, self.options)
        self.token = self.root / TOKENS / secrets.token_hex(16)
        write_text(self.token, "")
        key, cores = checksum_of([machine(), str(self.root)])[:16], int(self.needs["CPU"])
        self.project = Project(str(self.root), key, self.token.name, provenance()["versions"], cores)
        beside = {"ray.io/node-id": self.ray.get_runtime_context().get_node_id()}
        home = self.ray.remote(num_cpus=0, label_selector=beside, max_concurrency=8)(Home)
        self.home = home.remote(str(self.root))
        self.run = self.ray.remote(max_calls=1, max_retries=RETRIES)(run_task)  # a process each: memory is freed
        each = f"{cores} core{'s' * (cores != 1)}" + (f" and {gpus:g} GPU" if (gpus := self.needs["GPU"]) else "")
        say(f"cluster of {len(there)} machine{'s' * (len(there) != 1)}: {', '.join(map(describe, there))}; {each} each")

    def __exit__(self, *ended: object) -> None:
        self.view.close()
        with suppress(Exception):  # what is wrong with Ray is said by what raised first
            for reference in self.running:
                self.ray.cancel(reference, force=True)
        self.ray.shutdown()
        self.token.unlink(missing_ok=True)

    def submit(self, task: Task) -> None:
        """Have a task done as soon as a machine has room; Ray runs it again where a machine is lost, and it resumes."""
        self.ray.get(self.home.expect.remote(task))
        self.view.submitted(task)
        cores, gpus, memory = self.needs["CPU"], self.needs["GPU"], self.needs["memory"]
        run = self.run.options(name=task.name, num_cpus=cores, num_gpus=gpus, memory=memory or None)
        self.running[run.remote(task, self.project, self.home)] = task

    def room(self) -> int:
        """How many tasks the machines that are alive can do at once; at least 1."""
        return max(1, room(machines(self.ray), self.needs))

    def ended(self) -> Iterator[tuple[Task, str | None]]:
        """Each task as it ends, with a sentence where it failed, until none is left.

        Raises:
            InputError: no machine is left that could do what is left.
        """
        while self.running:
            ready, _ = self.ray.wait(list(self.running), num_returns=1, timeout=POLL_SECONDS)
            self.view.show(self.ray.get(self.home.news.remote()))
            for reference in ready:
                task = self.running.pop(reference)
                error = self._error(reference, task)
                self.view.ended(task, error)
                yield task, error
            if not ready:
                refuse_too_much(machines(self.ray), self.needs)

    def _error(self, reference: Any, task: Task) -> str | None:
        try:
            self.ray.get(reference)
            return None
        except self.ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, InputError):
                return str(error.cause)
            self.view.log(task, str(error).splitlines())  # the traceback: a defect
            return f"unexpected {type(error.cause).__name__} ({' '.join(str(error.cause).split())[:200]})"
        except self.ray.exceptions.RayError as error:
            lost = ", ".join(self.view.machines.get(task.name, ["its machine"]))
            return f"was lost on {lost} ({type(error).__name__}); the same command resumes"


def key_file() -> Path:
    """Where Ray keeps the cluster's key."""
    return programs_home() / ".ray" / "auth_token"


def start_node(address: str | None, ip: str | None, port: int, cpus: int | None, folder: Path | None) -> None:
    """Lend this machine to a cluster until Ctrl-C: as the first of a new one, or as one more of that at `address`.

    Args:
        folder: for copies of the asking machine's files; None: its own folder where that is shared, else a temporary one.

    Raises:
        InputError: Ray is not installed, there is no key, or the address has no port.
    """
    if address is not None and not address.rpartition(":")[2].isdigit():
        raise InputError(
            f"ADDRESS={address}: expected <first machine>:{port}; without ADDRESS= this machine is the first"
        )
    ray_module()
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        os.environ[NODE_FOLDER] = str(folder.resolve())
    _have_key(address is None)
    if ip == "127.0.0.1":
        _listen_inside()
    where = ["--address", address] if address else ["--head", "--port", str(port), "--include-dashboard", "false"]
    given = {"--node-ip-address": ip, "--num-cpus": cpus, "--object-store-memory": STORE_BYTES}
    more = [word for option, value in given.items() if value is not None for word in (option, str(value))]
    from ray.scripts.scripts import cli

    cli(["start", *where, *more, "--disable-usage-stats", "--block"], prog_name="ray")


def _have_key(first: bool) -> None:
    """The first machine makes the cluster's key if it has none; others must have been given it (else `InputError`)."""
    named = any(f"RAY_AUTH_TOKEN{end}" in os.environ for end in ("", "_PATH"))
    key = key_file()
    if named or key.is_file() or os.environ["RAY_AUTH_MODE"] != "token":
        return
    if not first:
        raise InputError(f"{key}: no such file; copy it from the cluster's first machine, whose make node made it")
    generate = [sys.executable, "-m", "ray.scripts.scripts", "get-auth-token", "--generate"]
    subprocess.run(generate, check=True, capture_output=True)
    say(f"{key}: the cluster's key, made now; copy it to the same place on its other machines")
