"""Training that diverged: told from training that is merely hard, and what to do about it. Imports no Keras."""

import math
from typing import Any

FAR = 2.0  # times the loss of a uniform guess: no network that learns has as much over a whole epoch and stays there
LEARNS = 0.95  # times it: below, a loss that was far is behind us

Divergence = dict[str, Any]
"""`epoch` (from 1) in which the loss went away, its `loss` and that of a `uniform` guess, weighed alike, and a `way_out`."""


def judged(before: Divergence | None, epoch: int, loss: float, uniform: float, way_out: str) -> Divergence | None:
    """What one more epoch's training loss makes of a fold: diverged since some epoch, or None.

    A first epoch that is far because a head is still random is forgiven as soon as a later one beats a uniform guess.

    Args:
        before: what the epochs before made of it.
        loss: mean of the epoch, without penalties on weights.
        uniform: loss of a uniform guess under the epoch's sample weights and auxiliary classifiers.
    """
    if loss < LEARNS * uniform:
        return None
    if before is not None or loss <= FAR * uniform:
        return before
    return {"epoch": epoch, "loss": loss, "uniform": uniform, "way_out": way_out}


def uniform_loss(classes: int, weight: float, auxiliary: float) -> float:
    """Loss, in nats, of a guess that gives each of `classes` the same: `weight` (mean of samples) x ln C, once more per auxiliary.

    Args:
        auxiliary: sum of the weights of auxiliary classifiers' losses.
    """
    return weight * math.log(classes) * (1 + auxiliary)


def way_out(run: str, stage: int, own_rate: float | None, rate: float) -> str:
    """How to train again at a tenth of the rate: what `SET=` changes where it stands, and a name that is free.

    Args:
        own_rate: the stage's `learning_rate`, if it has one of its own beside `train`'s.
    """
    key = "train.learning_rate" if own_rate is None else f"train.stages.{stage}.learning_rate"
    return f'lower the learning rate, for example by the same command with SET="{key}={rate / 10:.4g}" RUN={run}-lower'


def told(name: str, made: Divergence) -> str:
    """One sentence of a finished fold that diverged without an overflow."""
    return (
        f"{name}: training diverged in epoch {made['epoch']} (loss {made['loss']:.4g}; a uniform guess has "
        f"{made['uniform']:.4g}), and has learned nothing since; {made['way_out']}"
    )
