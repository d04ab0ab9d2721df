"""What a cluster is asked to do, and what it tells of it. Knows no training: a job is a verb, what it reads and what it makes."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Job:
    """A verb of the command line as a task. Paths are relative to the project's folder, whose like is found or made there."""

    name: str  # before everything that is said of it, as the verb itself says it: `vgg16 fold 2`
    words: tuple[str, ...]  # verb and options; `--leash` is added, a pipe that closes when nobody waits for it any more
    reads: tuple[str, ...]  # all files that it reads; where no folder is shared they are brought once to each machine
    brings: tuple[str, ...]  # patterns of what comes home while it works, each file whole; the first one last of all
    whole: str | None = (
        None  # folder that comes home whole at the end, its manifest last; now there is all to go on from
    )
    beside: tuple[tuple[str, str], ...] = ()  # options that name the folder of a file, and the file, wherever it lies
    caches: tuple[str, ...] = ()  # folders that jobs of one machine share
    history: str | None = None  # CSV that gets a line per epoch
    epochs: int = 0  # that it plans in all
    log: str = ""  # file that gets all that it says


@dataclass(frozen=True)
class Needs:
    """What a job takes of a machine for itself. `cores` decide the number of threads, and so may decide last bits."""

    cores: int = 1
    gpus: float = 0.0  # a fraction: several share one
    memory: int = 0  # bytes that are kept free for it; nothing holds it to them


class Epoch(NamedTuple):
    """A finished epoch: its line of `history.csv`, of text."""

    job: Job
    row: dict[str, str]


class Said(NamedTuple):
    """A line that a job printed."""

    job: Job
    text: str


class Begun(NamedTuple):
    """A job has a machine."""

    job: Job
    machine: str


@dataclass(frozen=True)
class End:
    """How a job ended: well, unless there is an `error`, a sentence."""

    job: Job
    error: str | None
    machine: str
    seconds: float  # from the asking, waiting included
    lost: list[str] = field(default_factory=list)  # machines that were lost under it


Event = Epoch | Said | Begun | End
Telling = tuple[str, Any]  # what travels: a kind, and plain data
