"""Trials of a search: the space of settings that they vary, and what they leave: a table, the best settings, plots, a verdict."""

import json
import math
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from driverwatch.config.experiments import Dimension, SearchSettings
from driverwatch.config.loading import parse, put
from driverwatch.config.model import ModelSettings
from driverwatch.data.context import Context
from driverwatch.errors import InputError
from driverwatch.experiments.experiment import table_text
from driverwatch.io.atomic import replacing, write_json, write_text
from driverwatch.io.console import close, say, tell
from driverwatch.io.html import PALETTE
from driverwatch.io.manifests import provenance
from driverwatch.metrics import interval

_OPTIMISTIC = "chooses the epoch on the validation drivers, which would make the search optimistic twice"
FIXED = {
    "predict": "decides no weights",
    "train.workers": "decides no result",
    "train.loader": "decides no result",
    "train.seed": "is luck, which fresh folds would take back",
    "train.splits": "is what trials are compared on",
    "train.pseudo": "has teachers that know the fold file's folds alone",
    "train.select": _OPTIMISTIC,
    "train.patience": _OPTIMISTIC,
}
"""Settings that no search varies, and the reason."""


@dataclass(frozen=True)
class SearchRequest:
    """What `make search` is asked for beside the model's settings."""

    model: str
    space: str  # names configs/searches/<space>.yaml
    name: str  # of the search
    trials: int  # in all, those of earlier commands included
    seed: int
    weights: Path | None = None
    force: bool = False
    skip: int | None = None  # number of a running trial to give up


def load_optuna() -> Any:
    """The package, an extra that is imported nowhere else. Raises `InputError`: it is not installed."""
    try:
        import optuna
    except ImportError as error:
        raise InputError("make search needs the package optuna; make setup EXTRAS=cluster installs it") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


class Space:
    """The settings that a search varies, by dotted key; every value of each was parsed with the model's other settings."""

    def __init__(self, own: ModelSettings, asked: SearchSettings, where: str) -> None:
        """Check the space `asked` (of the file `where`) against the model's own settings.

        Raises `InputError`: a setting that may not be varied or does not exist, or a value that it does not take.
        """
        self.own, self.asked, self.where = own, asked, where
        self.keys = list(asked.space)
        _refuse_unscored(own)
        for key in self.keys:
            if reason := next((FIXED[fixed] for fixed in FIXED if f"{key}.".startswith(f"{fixed}.")), None):
                raise InputError(f"{where}: space.{key}: {reason}; leave it out")
        for _ in self.variants():
            pass  # each is parsed
        self.whole = {
            key for key, one in asked.space.items() if one.choices is None and self._takes_no_fraction(key, one)
        }

    def variants(self) -> Iterator[tuple[str, ModelSettings]]:
        """The model's own settings, then each choice and each end of a range alone in them; with a name for sentences."""
        yield "the model's own settings", self.own
        for key, dimension in self.asked.space.items():
            for value in dimension.tried:
                yield f"space.{key}={json.dumps(value)}", self.settings({key: value})

    def settings(self, values: dict[str, Any]) -> ModelSettings:
        """The model's settings with these values by dotted key. Raises `InputError` where they do not fit together."""
        content, where = self.own.model_dump(), f"{self.where}: space"
        for key, value in values.items():
            put(content, key, value, f"{where}.{key}", ModelSettings)
        return parse(ModelSettings, content, where)

    def distributions(self) -> dict[str, Any]:
        """Optuna's distribution of each key."""
        kinds, found = load_optuna().distributions, dict[str, Any]()
        for key, one in self.asked.space.items():
            if one.choices is not None:
                found[key] = kinds.CategoricalDistribution(one.coded)
            elif key in self.whole:
                found[key] = kinds.IntDistribution(one.low, one.high, log=one.log, step=int(one.step or 1))
            else:
                found[key] = kinds.FloatDistribution(one.low, one.high, log=one.log, step=one.step)
        return found

    def values(self, params: dict[str, Any]) -> dict[str, Any]:
        """Settings by dotted key from a trial's parameters in Optuna; the inverse of `distributions`."""
        found = {}
        for key in self.keys:
            dimension = self.asked.space[key]
            if dimension.choices is not None:
                found[key] = dimension.choices[dimension.coded.index(params[key])]
            else:  # 12 digits: steps of 0.1 add up to 0.30000000000000004
                found[key] = int(params[key]) if key in self.whole else float(f"{params[key]:.12g}")
        return found

    def _takes_no_fraction(self, key: str, dimension: Dimension) -> bool:
        """Whether the setting takes whole numbers alone, found by trying a number between `low` and `high` that is none."""
        try:
            self.settings({key: math.nextafter(dimension.low or 0, math.inf)})
        except InputError:
            if dimension.step is not None and dimension.step != int(dimension.step):
                raise InputError(
                    f"{self.where}: space.{key}: takes whole numbers, so step must be one, got {dimension.step:g}"
                ) from None
            return True
        return False


def _refuse_unscored(own: ModelSettings) -> None:
    """Refuse a model whose trials could not be compared, or scored on fresh folds."""
    train = own.train
    if not train.splits.scored:
        raise InputError("train.splits: a search compares out-of-fold scores; it must be folds")
    if train.pseudo is not None:
        raise InputError(
            f"train.pseudo: {FIXED['train.pseudo']}, so no winner could be scored on fresh ones; leave it out"
        )
    if train.uses_validation:
        raise InputError(f'train.select: best (or patience) {_OPTIMISTIC}; SET="train.select=last train.patience=null"')


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
    say(table_text(first, f"Search {result.request.name}: {context.dataset}, {len(table)} trials ({states})"))
    say(
        table_text(
            sides, f"OOF log loss of {model} and of trial {facts['best']} (95 % intervals: bootstrap over drivers)"
        )
    )
    say(table_text(drivers, "Drivers on fresh folds"))
    tell(search_verdict(facts))
    then = [f"cp {folder / 'best.yaml'} configs/models/{model}_found.yaml"]
    then += [f"make train MODEL={model}_found DATASET={context.dataset}"]
    if max(facts[side]["difference"] for side in ("searched", "fresh")) >= 0:
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
                _recolour(axes, by_trial=name == "slices")
                axes.axhline(own, color=PALETTE["ink"], linestyle="--", linewidth=1)
            pyplot.savefig(temporary, format="png", dpi=110)
            pyplot.close()


def _recolour(axes: Any, by_trial: bool) -> None:
    """Give Optuna's plot the colours of the others; `by_trial`: its dots have one each."""
    axes.set_facecolor(PALETTE["paper"])
    axes.grid(color=PALETTE["line"])
    for line in axes.lines:
        line.set_color(PALETTE["c1"])
    for dots in axes.collections:
        dots.set_cmap("viridis") if by_trial else dots.set_color(PALETTE["c0"])
    if axes.get_legend():
        axes.legend(bbox_to_anchor=(1.05, 1), loc="upper left", frameon=False)  # where Optuna has it


def search_verdict(facts: dict[str, Any]) -> str:
    """How much of the gain survives, in a sentence."""
    searched, fresh, optimism = facts["searched"], facts["fresh"], facts["optimism"]
    if searched["difference"] >= 0:
        found = f"{searched['difference']:+.4f}, on fresh folds {fresh['difference']:+.4f}"
        return f"No trial was better than the settings as they are: the best has {found}."
    chance = " (the interval holds 0: perhaps nothing)" if fresh["low"] <= 0 <= fresh["high"] else ""
    kept = f"{fresh['difference']:+.4f} survives{chance}" if fresh["difference"] < 0 else "nothing survives"
    return (
        f"The search promises {searched['difference']:+.4f}; on fresh folds {kept}: it was "
        f"optimistic by {optimism['difference']:+.4f} ({optimism['low']:+.4f} to {optimism['high']:+.4f}). The drivers are the "
        "same on both: new drivers may take back more."
    )
