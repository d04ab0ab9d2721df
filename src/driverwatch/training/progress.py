"""How far a fold has come, and reading that from the bundle it goes on from."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from driverwatch.artifacts import plain_json
from driverwatch.errors import InputError
from driverwatch.models.state import load_state
from driverwatch.training.divergence import Divergence
from driverwatch.training.history import checked_rows


@dataclass
class Progress:
    """How far a fold has come; travels in the bundle beside weights and optimizer."""

    epoch: int = 0  # finished ones, over all stages
    history: list[dict[str, Any]] = field(default_factory=list)
    best: float = float("inf")
    diverged: Divergence | None = None


def is_over(history: list[dict[str, Any]], stage: int, stop: int, patience: int | None) -> bool:
    """Whether a stage has had its `stop` epochs, or `patience` of them without a better held-out loss."""
    losses = [row["held_out_loss"] for row in history if row["stage"] == stage]
    stalled = (
        len(losses) - 1 - losses.index(min(losses)) if losses and None not in losses and patience is not None else 0
    )
    return len(losses) >= stop or (patience is not None and stalled >= patience)


def resumed(bundle: Path, identity: str, number: int) -> Progress:
    """What the bundle of fold `number` says of a run with this identity.

    Raises:
        InputError: it is of another run, or not whole.
    """
    kept = load_state(bundle, {})
    if kept.get("run") != identity:
        raise InputError(f"{bundle}: is of another run than this folder's; make train FORCE=1 begins anew")
    try:
        progress = Progress(**plain_json(kept["progress"]))
        progress.history = checked_rows([{"epoch": n, **row} for n, row in enumerate(progress.history, start=1)])
        stages = [(row["stage"], row["held_out_loss"]) for row in progress.history]
        if type(progress.epoch) is not int or not isinstance(progress.best, int | float):
            raise ValueError(f"epoch {progress.epoch!r}, best {progress.best!r}")
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{bundle}: not a whole bundle ({error}); make train FORCE=1 FOLD={number}") from error
    if len(stages) != progress.epoch:
        raise InputError(f"{bundle}: not a whole bundle; make train FORCE=1 FOLD={number}")
    return progress
