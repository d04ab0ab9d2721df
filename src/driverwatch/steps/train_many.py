"""Several runs by one command, teachers before their students: in turn on this machine (`remote/ray_tasks.py`: on a cluster)."""

from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from driverwatch.errors import InputError
from driverwatch.settings import ModelSettings
from driverwatch.steps.context import Context
from driverwatch.steps.train import train

Wanted = dict[str, ModelSettings]  # by run


def train_in_turn(context: Context, wanted: Wanted, weights: Path | None, fold: int | None, force: bool) -> None:
    """Train runs one after the other here, those that teach others first. Raises as `train`."""
    order = teachers_first(wanted)
    while order.is_active():
        for name in order.get_ready():
            train(context, wanted[name], name, weights, fold, force)
            order.done(name)


def teachers_first(wanted: Wanted) -> "TopologicalSorter[str]":
    """Runs, each after those among them that teach it.

    Raises:
        InputError: runs that teach each other.
    """
    teachers = {name: made.train.pseudo.runs if made.train.pseudo else [] for name, made in wanted.items()}
    order = TopologicalSorter({name: [one for one in asked if one in wanted] for name, asked in teachers.items()})
    try:
        order.prepare()
    except CycleError as error:
        raise InputError(f"MODELS: teach each other: {', '.join(error.args[1])}; train.pseudo.runs") from error
    return order
