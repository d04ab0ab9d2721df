"""What a search leaves for people: its trials as CSV, the best settings as YAML, a picture, and tables on the terminal."""

import csv
import io
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from driverwatch.artifacts import provenance
from driverwatch.blend import score as scores
from driverwatch.blend.score import interval
from driverwatch.data.pack import Pack
from driverwatch.report.search import Point, picture
from driverwatch.settings import ModelSettings
from driverwatch.steps.context import Context
from driverwatch.steps.search_log import Log, Trial
from driverwatch.steps.search_space import Asked, Space
from driverwatch.terminal import say
from driverwatch.typed_yaml import parse
from driverwatch.wording import close
from driverwatch.writing import replacing, write_json, write_text

SHOWN = 5  # trials in the terminal's table
Sides = tuple[np.ndarray, np.ndarray]
"""Losses (N,) out of fold under the model's own settings, and under the best trial's."""


@dataclass(frozen=True, eq=False)
class Found:
    """A search that has its trials; the best one beside the model's own settings on the searched folds and on fresh ones."""

    asked: Asked
    space: Space
    trials: list[Trial]
    best: Trial
    pack: Pack
    searched: Sides
    fresh: Sides

    @property
    def promised(self) -> np.ndarray:
        """What the search says that each image's loss changes by (N,); below 0: better."""
        return self.searched[1] - self.searched[0]

    @property
    def kept(self) -> np.ndarray:
        """What of it is seen on folds that the search did not see (N,)."""
        return self.fresh[1] - self.fresh[0]

    @property
    def command(self) -> str:
        words = ["make search", f"MODEL={self.asked.model}", f"SPACE={self.asked.space}", f"TRIALS={len(self.trials)}"]
        return " ".join([*words, f"NAME={self.asked.name}", f"SEED={self.asked.seed}"])


def write_trials(log: Log, folder: Path) -> None:
    """`trials.csv`: a line per trial, its settings as columns; written after each one."""
    keys, text = log.space.keys, io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "state", "log_loss", "folds", "minutes", "why", *keys])
    for one in log.trials():
        loss = "" if one.latest is None else f"{one.latest:.6f}"
        told = [one.number, one.state, loss, len(one.means), f"{one.seconds / 60:.2f}", one.why]
        writer.writerow([*told, *(_word(one.values[key]) for key in keys)])
    write_text(folder / "trials.csv", text.getvalue())


def write_page(context: Context, folder: Path, found: Found, seconds: float) -> None:
    """Write `best.yaml`, `result.json`, `drivers.csv` and `search.png`, and say what came of it."""
    drivers = by_driver(found)
    facts = _facts(found, found.pack.drivers)
    write_text(folder / "best.yaml", best_yaml(context, found))
    write_text(folder / "drivers.csv", drivers.to_csv(index=False, lineterminator="\n"))
    write_json(folder / "result.json", facts | provenance())
    with replacing(folder / "search.png") as temporary:
        points = [
            Point(one.number, one.state, one.latest, one.values)
            for one in found.trials
            if one.latest is not None and one.is_over
        ]
        picture(points, float(found.searched[0].mean()), _logarithmic(found)).savefig(temporary, format="png", dpi=110)
    say(_tables(context, found, drivers, facts))
    new = f"{found.asked.model}_found"
    then = [f"cp {folder / 'best.yaml'} configs/models/{new}.yaml", f"make train MODEL={new} DATASET={context.dataset}"]
    if facts["fresh"]["difference"] >= 0:
        then = [f"keep {found.asked.model} as it is: on folds that the search did not see the best trial is not better"]
    made = "trials.csv, best.yaml, drivers.csv, result.json, search.png"
    close(folder, made, seconds, then=then)


def _logarithmic(found: Found) -> set[str]:
    return {key for key, one in found.space.asked.space.items() if one.log}


def by_driver(found: Found) -> pd.DataFrame:
    """Mean loss of each driver on fresh folds under both settings, and the difference; largest gain first."""
    groups, lines = found.pack.drivers, []
    for driver in sorted(set(groups)):
        chosen = groups == driver
        own, best = (float(side[chosen].mean()) for side in found.fresh)
        lines.append(
            {"driver": driver, "images": int(chosen.sum()), "own": own, "best": best, "difference": best - own}
        )
    return pd.DataFrame(lines).sort_values("difference", ignore_index=True)


def _facts(found: Found, drivers: np.ndarray) -> dict[str, Any]:
    """The result as plain data."""

    def sides(both: Sides, change: np.ndarray) -> dict[str, Any]:
        own, best = (float(side.mean()) for side in both)
        return {"own": own, "best": best, "difference": best - own, "interval": list(interval(change, drivers))}

    optimism = found.kept - found.promised
    return {
        "command": found.command,
        "states": dict(Counter(one.state for one in found.trials)),
        "best": found.best.number,
        "values": found.best.values,
        "searched": sides(found.searched, found.promised),
        "fresh": sides(found.fresh, found.kept),
        "optimism": {"mean": float(optimism.mean()), "interval": list(interval(optimism, drivers))},
        "minutes_of_trials": sum(one.seconds for one in found.trials) / 60,
    }


def best_yaml(context: Context, found: Found) -> str:
    """The best trial's settings as a file for `configs/models`, saying what differs from the defaults and where it is from."""
    settings = found.space.settings(found.best.values)
    content = settings.model_dump(exclude_defaults=True)
    if parse(ModelSettings, content, "best.yaml") != settings:
        content = settings.model_dump()
    own, best = (float(side.mean()) for side in found.searched)
    other, fresh = (float(side.mean()) for side in found.fresh)
    head = (
        f"# Trial {found.best.number} of `{found.command} DATASET={context.dataset}`.\n"
        f"# Log loss out of fold: {best:.4f} on the folds it was chosen on ({found.asked.model} itself {own:.4f}), {fresh:.4f} on "
        f"folds\n# that the search did not see ({other:.4f}).\n"
    )
    return head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None)


def _tables(context: Context, found: Found, drivers: pd.DataFrame, facts: dict[str, Any]) -> str:
    states = ", ".join(f"{count} {state}" for state, count in facts["states"].items())
    title = f"Search {found.asked.name}: {context.dataset}, {len(found.trials)} trials ({states})"
    ranked = sorted((one for one in found.trials if one.loss is not None), key=lambda one: (one.loss, one.number))
    lines = [
        {"trial": one.name, "log loss": one.loss, **{key: _word(one.values[key]) for key in found.space.keys}}
        for one in ranked[:SHOWN]
    ]
    pairs = [("folds searched on", facts["searched"]), ("fresh folds", facts["fresh"])]
    sides = [
        {"on": where, found.asked.model: side["own"], found.best.name: side["best"], "difference": side["difference"],
         "from": side["interval"][0], "to": side["interval"][1]} for where, side in pairs
    ]  # fmt: skip
    heading = "The model's own settings and the best trial's (95 % intervals: drivers drawn anew)"
    parts = [scores.text(pd.DataFrame(lines), title), scores.text(pd.DataFrame(sides), heading)]
    return "\n".join([*parts, scores.text(drivers, "Drivers on fresh folds"), _verdict(facts)]) + "\n"


def _verdict(facts: dict[str, Any]) -> str:
    """How optimistic the search was, in words."""
    promised, kept = facts["searched"]["difference"], facts["fresh"]["difference"]
    (low, high), (least, most) = facts["optimism"]["interval"], facts["fresh"]["interval"]
    chance = " (an interval that holds 0: perhaps nothing)" if least <= 0 <= most else ""
    return (
        f"The search promises {promised:+.4f}; on folds that it did not see {kept:+.4f} is left{chance}: it was "
        f"optimistic by "
        f"{facts['optimism']['mean']:+.4f} ({low:+.4f} to {high:+.4f}). The drivers are the same on both: new ones "
        "may take back more."
    )


def _word(value: Any) -> str:
    """A value as SET= would have it."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value)
