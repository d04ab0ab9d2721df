"""Augmentation in processes of their own: in threads, Python's interpreter lock leaves most cores but one or two waiting.

A process is handed once what decides every epoch's images, maps the packs itself, and answers rows with pixels through a
pipe. The images are those that threads would make, bit for bit. Imports no Keras, and so do the processes.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from queue import SimpleQueue
from threading import current_thread, main_thread
from typing import Any

import numpy as np

from driverwatch.config.model import ModelSettings
from driverwatch.data.augment import AugmentedInputs, Inputs, Joined, epoch_mixing
from driverwatch.data.pack import Pack, stamp
from driverwatch.errors import InputError

WORTH = 5_000  # images under a preset, of all epochs: below that, starting processes (a second each) costs more than it saves


@dataclass(frozen=True)
class TrainingSource:
    """All that decides what training shows of a pack, or of two whose rows are numbered on; handed to processes whole."""

    packs: tuple[Pack, ...]
    settings: ModelSettings
    preset: list[dict[str, dict[str, Any]]]
    training: np.ndarray  # the fold's rows of the first pack, which are mixed with one another

    def inputs(self, epoch: int) -> Inputs:
        """Inputs of an epoch, counted from 0."""
        mixing = epoch_mixing(self.settings, self.packs[0], self.training, epoch)
        first = AugmentedInputs(self.packs[0].pixels, self.settings, self.preset, epoch, mixing)
        if len(self.packs) == 1:
            return first
        count = self.packs[0].images.shape[0]
        return Joined(
            first, AugmentedInputs(self.packs[1].pixels, self.settings, self.preset, epoch, first=count), count
        )

    def opened(self, stamps: list[str]) -> "TrainingSource":
        """The same in another process, where packs of these `stamps` are mapped."""
        if self.stamps() != stamps:
            raise InputError(f"{self.packs[0].images.path}: was packed again meanwhile; the same command resumes")
        for pack in self.packs:
            pack.pixels  # noqa: B018 mapped now, and kept
        return self

    def stamps(self) -> list[str]:
        return [str(stamp(Path(pack.images.path))) for pack in self.packs]

    def to_send(self) -> "TrainingSource":
        """The same without columns that decide nothing here: of a large pack they would weigh on every process."""
        no_names = self.packs[0].names[:0]
        mixed = self.settings.augment.mix != "none"
        bare = [replace(pack, names=no_names) for pack in self.packs]
        return replace(self, packs=tuple(bare if mixed else [replace(pack, drivers=no_names) for pack in bare]))


class WorkerPool:
    """Processes that augment. Every one is asked by one thread at a time, and ends with the process that started it."""

    def __init__(self, shown: TrainingSource, stamps: list[str], count: int) -> None:
        """Start `count` processes, which begin to work as soon as they stand, on packs that have these `stamps`."""
        self.free: SimpleQueue[Connection] = SimpleQueue()
        context = get_context("spawn")  # a fork would copy a process that holds TensorFlow's threads and locks
        self.members: list[tuple[SpawnProcess, Connection]] = []
        with _ignoring_ctrl_c():
            for _ in range(count):
                ours, theirs = context.Pipe()
                member = context.Process(target=_work, args=(theirs, shown.to_send(), stamps), daemon=True)
                member.start()
                theirs.close()  # or its end would go unnoticed
                self.members.append((member, ours))
                self.free.put(ours)

    def close(self) -> None:
        """End every process, whatever it is doing: it has nothing to lose."""
        for member, pipe in self.members:
            member.kill()
            member.join()
            pipe.close()

    def inputs(self, epoch: int) -> Inputs:
        """Inputs of an epoch, made by whichever process is free."""
        return partial(self._made, epoch)

    def _made(self, epoch: int, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pipe = self.free.get()
        try:
            pipe.send((epoch, indices))
            made = pipe.recv()
            if isinstance(made, str):
                raise InputError(f"augmentation failed in a process of its own: {made}")
            shape, flipped = made
            images = np.empty(shape, np.uint8)
            _receive_bytes(pipe, images)
        except (EOFError, OSError) as error:
            raise InputError(
                "a process that augments images has ended, killed perhaps for want of memory; lower train.workers, or augment in "
                f'threads: SET="train.loader=threads" ({type(error).__name__})'
            ) from error
        finally:
            self.free.put(pipe)  # also of one that ended: the next caller gets the same error, and nobody waits
        return images, flipped


class Loader:
    """An epoch's inputs, made by threads of this process or by a worker pool; a context that ends the pool."""

    def __init__(self, shown: TrainingSource, images: int) -> None:
        """Take note of what is shown, of packs as they are now, and of how many `images` there will be to make."""
        train = shown.settings.train
        self.shown, self.stamps = shown, shown.stamps()
        self.worker_pool: WorkerPool | None = None
        self.count = train.workers or os.cpu_count() or 1
        pays = bool(shown.preset) and images >= WORTH and self.count > 1
        self.uses_processes = train.loader == "processes" or (train.loader == "auto" and pays)

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *_: object) -> None:
        if self.worker_pool is not None:
            self.worker_pool.close()

    @property
    def threads(self) -> int:
        """How many threads should ask: with a worker pool, one to wait for each process and one that has its next rows."""
        return 2 * self.count if self.uses_processes else self.count

    def inputs(self, epoch: int) -> Inputs:
        """Inputs of an epoch, counted from 0; the pool is started when it is first needed."""
        if not self.uses_processes:
            return self.shown.inputs(epoch)
        self.worker_pool = self.worker_pool or WorkerPool(self.shown, self.stamps, self.count)
        return self.worker_pool.inputs(epoch)


@contextmanager
def _ignoring_ctrl_c() -> Iterator[None]:
    """Processes started meanwhile never hear Ctrl-C, which reaches the whole group: who started them ends them."""
    if current_thread() is not main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _work(pipe: Connection, shown: TrainingSource, stamps: list[str]) -> None:
    """Answer (epoch, rows) with ((shape, flipped), pixels), or with what went wrong, until nobody asks any more."""
    known: dict[int, Inputs] = {}
    with suppress(EOFError, OSError):
        while True:
            epoch, rows = pipe.recv()
            try:
                if epoch not in known:
                    known = {epoch: shown.opened(stamps).inputs(epoch)}
                images, flipped = known[epoch](rows)
            except Exception as error:  # raised in the thread that asked
                pipe.send(f"{type(error).__name__}: {error}")
                continue
            pipe.send((images.shape, flipped))
            _send_bytes(pipe, images)


def _send_bytes(pipe: Connection, images: np.ndarray) -> None:
    """Write an array's bytes into a pipe, without a header."""
    left = memoryview(np.ascontiguousarray(images).reshape(-1).data)
    while left:
        left = left[os.write(pipe.fileno(), left) :]


def _receive_bytes(pipe: Connection, images: np.ndarray) -> None:
    """Read bytes that `_send_bytes` wrote straight into an array: `recv_bytes_into` allocates as much again and copies twice.

    Raises `EOFError`: the other end is gone.
    """
    left = memoryview(images.reshape(-1).data)
    while left:
        read = os.readv(pipe.fileno(), [left])
        if read == 0:
            raise EOFError
        left = left[read:]
