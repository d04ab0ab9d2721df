"""What a search leaves: its trials as CSV, the best settings as YAML, plots, and the tables that the terminal shows."""

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from driverwatch.config.loading import parse
from driverwatch.config.model import ModelSettings
from driverwatch.data.context import Context
from driverwatch.ensemble.scoring import interval, text
from driverwatch.experiments.search_space import SearchRequest, Space
from driverwatch.io.atomic import replacing, write_json, write_text
from driverwatch.io.console import close, say
from driverwatch.io.manifests import provenance

SHOWN = 5  # trials in the terminal's table


@dataclass(frozen=True, eq=False)
class SearchResult:
    """A finished search, and each training image's loss, (N,), under the model's own settings and the best trial's."""

    request: SearchRequest
    space: Space
    study: Any
    best: Any  # the trial
    drivers: np.ndarray  # (N,), of the training images
    searched: list[np.ndarray]  # own, best: on the folds that trials were compared on
    fresh: list[np.ndarray]  # own, best: on folds that the search did not see

    def facts(self) -> dict[str, Any]:
        """The result as plain data: mean losses, differences (below 0: better), and 95 % intervals over drivers."""
        (own, best), (own_fresh, best_fresh) = self.searched, self.fresh
        asked, trials = self.request, len(self.study.get_trials(deepcopy=False))
        return {
            "command": f"make search MODEL={asked.model} SPACE={asked.space} TRIALS={trials} NAME={asked.name} SEED={asked.seed}",
            "best": self.best.number,
            "values": self.space.values(self.best.params),
            "searched": self._side(own, best),
            "fresh": self._side(own_fresh, best_fresh),
            "optimism": self._difference((best_fresh - own_fresh) - (best - own)),
        }

    def _side(self, own: np.ndarray, best: np.ndarray) -> dict[str, float]:
        return {"own": float(own.mean()), "best": float(best.mean()), **self._difference(best - own)}

    def _difference(self, losses: np.ndarray) -> dict[str, float]:
        low, high = interval(losses, self.drivers)
        return {"difference": float(losses.mean()), "low": low, "high": high}

    def by_driver(self) -> pd.DataFrame:
        """Mean loss of each driver on fresh folds under both settings, and the difference; largest gain first."""
        own, best = self.fresh
        images = pd.DataFrame({"driver": self.drivers, "images": 1, "own": own, "best": best})
        made = images.groupby("driver", as_index=False).agg({"images": "sum", "own": "mean", "best": "mean"})
        return made.assign(difference=made["best"] - made["own"]).sort_values("difference", ignore_index=True)

    def yaml(self, dataset: str, facts: dict[str, Any]) -> str:
        """The best trial's settings for `configs/models`, over no recipe, and in comments `facts` on where they are from."""
        settings = self.space.settings(facts["values"])
        content = settings.model_dump(exclude_defaults=True)
        if parse(ModelSettings, content, "best.yaml") != settings:
            content = settings.model_dump()
        searched, fresh = (f"{facts[on]['best']:.4f} against {facts[on]['own']:.4f}" for on in ("searched", "fresh"))
        head = (
            f"# Trial {self.best.number} of `{facts['command']} DATASET={dataset}`.\n"
            f"# OOF log loss against that of {self.request.model} itself: {searched} on the folds searched on,\n"
            f"# {fresh} on fresh folds.\n"
        )
        content = {"base": "none", **content}  # what was searched, whatever the recommended recipe becomes
        return head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None)


def trial_table(study: Any) -> pd.DataFrame:
    """A line per trial: number, state, OOF log loss, mean losses up to each fold, why it ended early, settings."""
    facts = ("number", "state", "value", "duration", "intermediate_values", "user_attrs", "params")
    table = study.trials_dataframe(attrs=facts).rename(columns={"value": "log_loss"})
    choices = [name for name in table if name.startswith("params_") and not pd.api.types.is_numeric_dtype(table[name])]
    table = table.fillna(dict.fromkeys(choices, "null"))
    return table.rename(columns=lambda name: re.sub("^(user_attrs|params)_", "", name))


def write_report(context: Context, folder: Path, result: SearchResult, seconds: float) -> None:
    """Write `best.yaml`, `result.json`, `drivers.csv` and the plots, and say what came of the search."""
    facts, drivers = result.facts(), result.by_driver()
    write_text(folder / "best.yaml", result.yaml(context.dataset, facts))
    write_text(folder / "drivers.csv", drivers.to_csv(index=False, lineterminator="\n"))
    write_json(folder / "result.json", facts | provenance())
    _plot(folder, result.study, facts["searched"]["own"])
    table, model = trial_table(result.study), result.request.model
    first = table[table["state"] == "COMPLETE"].sort_values("log_loss").head(SHOWN)
    shown = {
        key: [f"{value:.4g}" if isinstance(value, float) else value for value in first[key]]
        for key in result.space.keys
    }
    first = first[["number", "log_loss"]].assign(**shown)
    sides = pd.DataFrame([{"on": on, **facts[on]} for on in ("searched", "fresh")])
    states = ", ".join(f"{count} {state}" for state, count in table["state"].str.lower().value_counts().items())
    say(text(first, f"Search {result.request.name}: {context.dataset}, {len(table)} trials ({states})"))
    say(text(sides, f"OOF log loss of {model} and of trial {facts['best']} (95 % intervals: bootstrap over drivers)"))
    say(f"{text(drivers, 'Drivers on fresh folds')}\n{_verdict(facts)}\n")
    then = [f"cp {folder / 'best.yaml'} configs/models/{model}_found.yaml"]
    then += [f"make train MODEL={model}_found DATASET={context.dataset}"]
    if facts["fresh"]["difference"] >= 0:
        then = [f"make train MODEL={model} DATASET={context.dataset}   # keep {model} as it is"]
    close(folder, "trials.csv, best.yaml, drivers.csv, result.json, history.png, slices.png", seconds, then=then)


def _plot(folder: Path, study: Any, own: float) -> None:
    """Losses of complete trials in their order, and against each setting; dashed: the model's own settings."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot
    from optuna.visualization import matplotlib as plots

    for name, plot in (("history", plots.plot_optimization_history), ("slices", plots.plot_slice)):
        with mpl.rc_context(), warnings.catch_warnings(), replacing(folder / f"{name}.png") as temporary:
            warnings.simplefilter("ignore")  # plots are experimental in Optuna, and a single trial has no range
            for axes in np.atleast_1d(np.asarray(plot(study, target_name="OOF log loss"), object)):
                axes.axhline(own, color="black", linestyle="--", linewidth=1)
            pyplot.savefig(temporary, format="png", dpi=110)
            pyplot.close()


def _verdict(facts: dict[str, Any]) -> str:
    """How much of the gain survives, in a sentence."""
    searched, fresh, optimism = facts["searched"], facts["fresh"], facts["optimism"]
    if searched["difference"] >= 0:
        found = f"{searched['difference']:+.4f}, on fresh folds {fresh['difference']:+.4f}"
        return f"No trial was better than the settings as they are: the best has {found}."
    chance = " (the interval holds 0: perhaps nothing)" if fresh["low"] <= 0 <= fresh["high"] else ""
    return (
        f"The search promises {searched['difference']:+.4f}; on fresh folds {fresh['difference']:+.4f} survives{chance}: it was "
        f"optimistic by {optimism['difference']:+.4f} ({optimism['low']:+.4f} to {optimism['high']:+.4f}). The drivers are the "
        "same on both: new drivers may take back more."
    )
