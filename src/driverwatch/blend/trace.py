"""What each step of a chain makes of one image: the same rules as a submission's, looked at one by one."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from driverwatch.blend.chain import Rows, Rule, applied
from driverwatch.ensemble_settings import BLEND_NAMES, CALIBRATION_NAMES, ChainSettings
from driverwatch.errors import InputError
from driverwatch.typed_yaml import parse


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


def settings_of(facts: dict[str, Any], where: str) -> ChainSettings:
    """The settings that a chain was fitted by, from what its submission's JSON says of its steps.

    What they left open (neighbours, weights, rounds) is left open here too.

    Raises:
        InputError: steps of another kind than this version writes.
    """
    steps, content = facts.get("steps"), dict[str, Any]()
    if not isinstance(steps, dict) or "clip" not in facts:
        raise InputError(f"{where}: expected a chain with steps and a clip; make ensemble writes it again")
    for name, fitted in steps.items():
        kind = name.removesuffix(" before")
        if kind in BLEND_NAMES:
            content["blend"] = kind
        elif kind in CALIBRATION_NAMES:
            content["calibrate"] = kind
        elif kind == "balance":
            content["balance"] = fitted["features"]
        elif kind in ("neighbours", "clusters"):
            before = content.get("neighbours", {}).get("before_balance", kind != name)
            near = {"features": fitted["features"], "method": fitted["method"]}
            content["neighbours"] = near | ({"before_balance": True} if before else {})
        elif kind != "clip":
            raise InputError(f"{where}: no step is called {name}; make ensemble writes it again")
    content["clip"] = "fitted" if "clip" in steps else facts["clip"]
    return parse(ChainSettings, content, where)
