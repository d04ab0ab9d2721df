"""What each step of a chain makes of one image: the same rules as a submission's, looked at one by one."""

from collections.abc import Mapping

import numpy as np

from driverwatch.blend.chain import Rows, Rule, applied
from driverwatch.errors import InputError


def traced(rules: Mapping[str, Rule], rows: Rows, name: str) -> dict[str, np.ndarray]:
    """One image's row after each rule, float64 (C,), by the rule's name; where there are several members their mean.

    All of the rows go through, since a rule may look at an image's neighbours or at its driver's other images. Raises as
    `place_of`.
    """
    place, found = place_of(name, rows), dict[str, np.ndarray]()
    for step, rule in rules.items():
        rows = applied([rule], rows)
        found[step] = rows.members[:, place].mean(axis=0)
    return found


def place_of(name: str, rows: Rows) -> int:
    """The row number of an image.

    Raises:
        InputError: it is not among the rows.
    """
    places = np.flatnonzero(rows.names == name)
    if not len(places):
        raise InputError(f"{name}: is not among the {len(rows.names)} images that the chain was given")
    return int(places[0])


def averaged(traces: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The mean of several models' traces, step by step: rules are applied to each fold's rows, and their results averaged."""
    return {step: np.mean([trace[step] for trace in traces], axis=0) for step in traces[0]}
