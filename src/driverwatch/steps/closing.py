"""What was made, how long it took, where it lies: read from the manifests that each step left."""

from contextlib import suppress
from pathlib import Path
from statistics import mean
from typing import Any

from driverwatch.artifacts import read_json
from driverwatch.errors import InputError
from driverwatch.listing import matching
from driverwatch.steps.context import Context, predict_command
from driverwatch.steps.status_places import folds as folds_of
from driverwatch.steps.status_runs import RunState, run_state
from driverwatch.terminal import say
from driverwatch.training.divergence import told
from driverwatch.training.run import Run
from driverwatch.wording import close, scored


def closing(context: Context, runs: list[Run]) -> str:
    """Seconds per step and places, as text."""
    drawn = _facts([context.data / "sample.json"])
    packs = _facts(
        sorted({context.places.pack(run.settings.input.key) / f"{k}.json" for run in runs for k in ("train", "test")})
    )
    ensembles = _facts(matching(context.places.submissions, "*.json"))
    lines = [("draw", _seconds(drawn), ""), ("pack", _seconds(packs), f"{sum(f['images'] for f in packs)} images")]
    for run in runs:
        folds = _facts(sorted(run.folder.glob("fold*/manifest.json")))
        steps = [1000 * fold["step_seconds"] for fold in folds if isinstance(fold.get("step_seconds"), int | float)]
        note = f"{len(folds)} folds" + (f", {mean(steps):.0f} ms per training step" if steps else "")
        lines.append((f"train and predict {run.name}", _seconds(folds), note))
    lines.append(("ensembles", _seconds(ensembles), f"{len(ensembles)} submissions"))
    width = max(len(name) for name, _, _ in lines)
    timed = "\n".join(f"{name:{width}} {seconds:8.1f} s  {note}" for name, seconds, note in lines if seconds)
    return f"Seconds per step\n{timed}\n\nWhere things lie\n" + "\n".join(
        f"{name:12} {path}" for name, path in _places(context)
    )


def close_run(context: Context, run: Run, count: int, seconds: float) -> None:
    """How training a run ends: `count` fits are asked for, `seconds` the command took."""
    done = sum(run.finished(number) for number in range(count))
    state = run_state(context, context.places, run.name, folds_of(context), [])
    then = after(context, state) if done == count else ["the same command without FOLD= trains the others"]
    splits = run.settings.train.splits
    fits = "folds" if splits.scored else f"models ({splits.unscored}, so without an out-of-fold score)"
    close(run.folder, f"{done} of {count} {fits} finished", seconds, score_of(state), then)
    for number in range(count):
        with suppress(InputError):  # of a fold that was not asked for, and cannot be read
            if run.finished(number) and (far := run.manifest(number).get("diverged")):
                say(told(f"{run.name} fold {number}", far))


def after(context: Context, state: RunState) -> list[str]:
    """What there is to do with a finished run: to predict, where no view set is whole; a study's runs join no ensemble."""
    if context.places.study:
        return [f"make status DATASET={context.dataset}"]
    if not state.views:
        return [predict_command(context.dataset, state.name)]
    return [f"make score DATASET={context.dataset}", f"make ensemble DATASET={context.dataset}"]


def score_of(found: RunState) -> str | None:
    """A run's out-of-fold loss over its finished folds in words, as their manifests have it; None where there is none."""
    if found.log_loss is None:
        return None
    done = sum(fit.state == "finished" for fit in found.fits)
    over = f"out of fold, {found.scored_by}, ± over {done} of {len(found.fits)} folds"
    flattered = ", chosen on the held-out drivers" if found.selected_on else ""
    return scored(found.log_loss, found.standard_error, over + flattered)


def _facts(paths: list[Path]) -> list[dict[str, Any]]:
    return [read_json(path) for path in paths if path.is_file()]


def _seconds(facts: list[dict[str, Any]]) -> float:
    return sum(seconds for fact in facts if isinstance(seconds := fact.get("seconds"), int | float))


def _places(context: Context) -> list[tuple[str, Path]]:
    return [
        ("photos", context.data),
        ("folds", context.places.folds),
        ("packs", context.places.build / "pack"),
        ("runs", context.places.runs),
        ("submissions", context.places.submissions),
    ]
