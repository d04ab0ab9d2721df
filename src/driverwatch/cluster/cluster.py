"""Jobs on a cluster, seen from the process that asks: asked for, listened to, asked for again where a machine was lost."""

import pickle
import secrets
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from driverwatch.artifacts import provenance
from driverwatch.cluster import code, joined
from driverwatch.cluster.home import Arrivals
from driverwatch.cluster.jobs import Begun, End, Epoch, Event, Job, Needs, Said
from driverwatch.cluster.node import Asked
from driverwatch.cluster.place import TOKEN
from driverwatch.errors import InputError
from driverwatch.terminal import say
from driverwatch.writing import write_text

LOSSES = 3  # machines that may be lost under a job before it is given up
LONELY = 60.0  # seconds without any machine that could do a job before that is the end
LOOK = 0.2  # seconds that are waited for news at once


@dataclass(frozen=True)
class Options:
    """Which cluster, and what a job takes of a machine; None: by what the machines have."""

    address: str | None = None
    gpus: float | None = None
    cores: int | None = None
    memory: int = 0  # bytes


@dataclass
class Running:
    """A job that was asked for and has not ended."""

    job: Job
    arrivals: Arrivals
    stream: Any = None
    asked: float = field(default_factory=time.monotonic)
    machine: dict[str, str] = field(default_factory=lambda: {"node": "", "name": "nowhere yet"})
    lost: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)  # the last that it said


class Cluster:
    """A context in which jobs are done: `submit` some, listen to `events` or `ends`, submit more meanwhile.

    However it ends, what still runs is ended with it; what came home stays.
    """

    def __init__(self, options: Options, root: Path) -> None:
        self.options, self.root = options, root.resolve()
        self.running: list[Running] = []
        self.refused: dict[str, str] = {}  # nodes, and why
        self.alone = self.looked = 0.0
        self.wanted = Needs()

    def __enter__(self) -> "Cluster":
        self.ray = joined.join(self.options.address)
        try:
            self._furnish()
        except BaseException:
            self.ray.shutdown()
            raise
        return self

    def _furnish(self) -> None:
        from driverwatch.cluster import remote

        there = joined.machines(self.ray)
        self.wanted = joined.needs(there, self.options.gpus, self.options.cores, self.options.memory)
        self.token = secrets.token_hex(16)
        write_text(self.root / TOKEN / self.token, self.token)
        self.ray.cloudpickle.register_pickle_by_value(remote)
        here = self.ray.get_runtime_context().get_node_id()
        beside = {"ray.io/node-id": here}
        depot = self.ray.remote(num_cpus=0, label_selector=beside)(remote.Depot)
        self.depot = depot.remote(str(self.root))
        self.work = self.ray.remote(max_retries=0, _generator_backpressure_num_objects=8)(remote.work)
        count = f"{len(there)} machine{'s' * (len(there) != 1)}"
        say(f"cluster of {count}: {', '.join(map(str, there))}; {self._each()} each")

    def _each(self) -> str:
        cores = f"{self.wanted.cores} core{'s' * (self.wanted.cores != 1)}"
        return cores + (f" and {self.wanted.gpus:g} GPU" if self.wanted.gpus else "")

    def __exit__(self, kind: type[BaseException] | None, *ended: object) -> None:
        if kind is None and (brought := sum(self.brought().values())):
            say(f"{brought / 1e6:.1f} MB were brought to machines that do not share this folder")
        for one in self.running:
            self.ray.cancel(one.stream, force=True)
        self.running = []
        self.ray.shutdown()
        (self.root / TOKEN / self.token).unlink(missing_ok=True)

    def submit(self, job: Job) -> None:
        """Have a job done as soon as a machine has room."""
        one = Running(job, Arrivals(job, self.root))
        self._ask(one)
        self.running.append(one)

    def cancel(self, job: Job) -> None:
        """End a job that nobody wants any more; no `End` is told of it. What came home stays."""
        for one in [one for one in self.running if one.job == job]:
            self.ray.cancel(one.stream, force=True)
            self.running.remove(one)

    def brought(self) -> dict[str, int]:
        """Bytes of each file that went to machines without it."""
        return self.ray.get(self.depot.bytes_served.remote())

    def ends(self, jobs: Iterable[Job] = ()) -> Iterator[End]:
        """Submit jobs, and yield every end as it comes."""
        for job in jobs:
            self.submit(job)
        for event in self.events():
            if isinstance(event, End):
                yield event

    def events(self) -> Iterator[Event]:
        """What happens, as it happens, until nothing is left to do.

        Raises:
            InputError: no machine is left that could do what is left.
        """
        while self.running:
            streams = [one.stream for one in self.running]
            self.ray.wait(streams, num_returns=1, timeout=LOOK)
            ready = set(self.ray.wait(streams, num_returns=len(streams), timeout=0)[0])
            for one in [one for one in self.running if one.stream in ready]:
                if one in self.running and (event := self._next(one)):  # else it was cancelled just now
                    yield event
            if not ready:
                self._refuse_loneliness()

    def _ask(self, one: Running) -> None:
        """Hand a job to Ray, which finds it a machine: one whose code is not another."""
        asked = Asked(one.job, self.wanted, str(self.root), self.token, provenance()["commit"])
        chosen: dict[str, Any] = {"num_cpus": self.wanted.cores, "num_gpus": self.wanted.gpus}
        chosen["memory"] = self.wanted.memory or None
        if self.refused:
            chosen["label_selector"] = {"ray.io/node-id": f"!in({','.join(self.refused)})"}
        one.arrivals = Arrivals(one.job, self.root)
        one.stream = self.work.options(**chosen).remote(pickle.dumps(asked), code.facts(), self.depot)
        self._log(one, f"-- asked for, {time.strftime('%Y-%m-%d %H:%M:%S')}")

    def _next(self, one: Running) -> Event | None:
        """One telling of a job's, put into effect."""
        try:
            kind, value = self.ray.get(next(one.stream))
        except StopIteration:
            return self._lost(one, "its process ended without a word")
        except self.ray.exceptions.RayError as error:
            return self._lost(one, type(error).__name__)
        act = getattr(self, f"_on_{kind}")
        event: Event | None = act(one, value)
        return event

    def _on_machine(self, one: Running, machine: dict[str, str]) -> None:
        one.machine = machine

    def _on_place(self, one: Running, facts: dict[str, Any]) -> Begun:
        self._log(
            one, f"-- on {one.machine['name']}, {'in the shared folder' if facts['shared'] else 'on its own disk'}"
        )
        return Begun(one.job, one.machine["name"])

    def _on_line(self, one: Running, text: str) -> Said:
        one.words = [*one.words[-4:], text]
        self._log(one, text)
        return Said(one.job, text)

    def _on_epoch(self, one: Running, row: dict[str, str]) -> Epoch:
        return Epoch(one.job, row)

    def _on_piece(self, one: Running, piece: tuple[str, bytes, str | None]) -> None:
        one.arrivals.piece(*piece)

    def _on_whole(self, one: Running, names: list[str]) -> None:
        one.arrivals.whole(names)

    def _on_refused(self, one: Running, sentence: str) -> None:
        """Another machine must do it, and all that comes."""
        node, name = one.machine["node"], one.machine["name"]
        if node not in self.refused:
            say(f"{name}: {sentence}; it gets no work")
        self.refused[node] = f"{name} {sentence}"
        self._again(one)

    def _on_ended(self, one: Running, status: int) -> Event | None:
        if status < 0:  # by a signal: want of memory, or a machine that is being shut down
            return self._lost(one, f"its process was ended by signal {-status}")
        said = one.words[-1] if one.words else "it said nothing"
        return self._end(one, None if status == 0 else f"ended with status {status} on {one.machine['name']}: {said}")

    def _lost(self, one: Running, why: str) -> Event | None:
        """A machine or its process is gone: another goes on from what came home, unless that has happened too often."""
        one.lost.append(one.machine["name"])
        self._log(one, f"-- lost on {one.machine['name']}: {why}")
        if len(one.lost) > LOSSES:
            return self._end(one, f"was lost on {', '.join(one.lost)} ({why}); the same command goes on")
        say(f"{one.job.name}: lost on {one.machine['name']} ({why}); goes on elsewhere from its last finished epoch")
        self._again(one)
        return None

    def _again(self, one: Running) -> None:
        self._refuse_refusal()
        self._ask(one)

    def _end(self, one: Running, error: str | None) -> End:
        self.running.remove(one)
        return End(one.job, error, one.machine["name"], time.monotonic() - one.asked, one.lost)

    def _refuse_refusal(self) -> None:
        """Nobody who could may do it: say why, at once."""
        able = [machine.node for machine in joined.machines(self.ray) if machine.holds(self.wanted)]
        if able and all(node in self.refused for node in able):
            raise InputError("no machine of the cluster can be used: " + "; ".join(self.refused.values()))

    def _refuse_loneliness(self) -> None:
        """Wait a while for machines to come back, not for ever."""
        if time.monotonic() < self.looked + LONELY / 20:
            return
        self.looked = time.monotonic()
        there = [machine for machine in joined.machines(self.ray) if machine.node not in self.refused]
        if any(machine.holds(self.wanted) for machine in there):
            self.alone = 0.0
            return
        self.alone = self.alone or time.monotonic()
        if time.monotonic() - self.alone > LONELY:
            raise InputError(f"{joined.too_much(self.wanted, there)}; start one by make node, the same command goes on")

    def _log(self, one: Running, text: str) -> None:
        if one.job.log:
            path = self.root / one.job.log
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(text + "\n")
