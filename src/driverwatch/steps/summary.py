"""What a command prints at its end about trained runs: finished folds, score, seconds, what to run next."""

from contextlib import suppress
from pathlib import Path
from statistics import mean
from typing import Any

from driverwatch.artifacts import read_json
from driverwatch.data import fold_file
from driverwatch.errors import InputError
from driverwatch.listing import matching
from driverwatch.steps.context import Context, predict_command
from driverwatch.terminal import say
from driverwatch.training.divergence import told
from driverwatch.training.run import Run
from driverwatch.training.run_state import RunState, run_state
from driverwatch.wording import close, scored


def state_of(context: Context, run: Run) -> RunState:
    """The run's state by today's fold file; without a score where that cannot be read."""
    images: tuple[int, ...] = ()
    with suppress(InputError):
        images = fold_file.glance(context.places.folds, tuple(context.settings.classes)).images
    return run_state(run, len(images) or context.settings.folds, images, context.places.study)


def print_summary(context: Context, run: Run, count: int, seconds: float) -> None:
    """Print how training ended: of `count` models the finished ones, score, seconds, next commands, and diverged folds."""
    done = [number for number in range(count) if run.finished(number)]
    state, splits = state_of(context, run), run.settings.train.splits
    models = "folds" if splits.scored else f"models ({splits.unscored}, so without an out-of-fold score)"
    unfinished = ["the same command without FOLD= trains the others"]
    then = next_commands(context, state) if len(done) == count else unfinished
    close(run.folder, f"{len(done)} of {count} {models} finished", seconds, score_line(state), then)
    for number in done:
        with suppress(InputError):  # a fold that was not asked for, and cannot be read
            if diverged := run.manifest(number).get("diverged"):
                say(told(f"{run.name} fold {number}", diverged))


def next_commands(context: Context, state: RunState) -> list[str]:
    """What to do with a finished run: predict, where no view set is whole; a study's runs join no ensemble."""
    if context.places.study:
        return [f"make status DATASET={context.dataset}"]
    if not state.views:
        return [predict_command(context.dataset, state.name)]
    return [f"make score DATASET={context.dataset}", f"make ensemble DATASET={context.dataset}"]


def score_line(state: RunState) -> str | None:
    """A run's out-of-fold log loss over its finished folds in words; None where there is none."""
    if state.log_loss is None:
        return None
    over = f"out of fold, {state.scored_by}, ± over {len(state.done)} of {len(state.fits)} folds"
    optimistic = ", optimistic: epoch chosen on the validation drivers" if state.selected_on else ""
    return scored(state.log_loss, state.standard_error, over + optimistic)


def seconds_and_places(context: Context, runs: list[Run]) -> str:
    """Lines of seconds per step of the pipeline, and of where its files are."""
    synthetic = _manifests([context.data / "sample.json"])
    folders = sorted({context.places.pack(run.settings.input.key) for run in runs})
    packs = _manifests([folder / f"{kind}.json" for folder in folders for kind in ("train", "test")])
    ensembles = _manifests(matching(context.places.submissions, "*.json"))
    lines = [
        ("synthetic", _seconds(synthetic), ""),
        ("pack", _seconds(packs), f"{sum(f['images'] for f in packs)} images"),
    ]
    for run in runs:
        folds = _manifests(sorted(run.folder.glob("fold*/manifest.json")))
        steps = [1000 * fold["step_seconds"] for fold in folds if isinstance(fold.get("step_seconds"), int | float)]
        note = f"{len(folds)} folds" + (f", {mean(steps):.0f} ms per training step" if steps else "")
        lines.append((f"train and predict {run.name}", _seconds(folds), note))
    lines.append(("ensembles", _seconds(ensembles), f"{len(ensembles)} submissions"))
    width = max(len(name) for name, _, _ in lines)
    timed = [f"{name:{width}} {seconds:8.1f} s  {note}" for name, seconds, note in lines if seconds]
    places = {"images": context.data, "folds": context.places.folds, "packs": context.places.build / "pack"}
    places |= {"runs": context.places.runs, "submissions": context.places.submissions}
    found = [f"{name:12} {path}" for name, path in places.items()]
    return "\n".join(["Seconds per step", *timed, "", "Files", *found])


def _manifests(paths: list[Path]) -> list[dict[str, Any]]:
    return [read_json(path) for path in paths if path.is_file()]


def _seconds(manifests: list[dict[str, Any]]) -> float:
    return sum(seconds for each in manifests if isinstance(seconds := each.get("seconds"), int | float))
