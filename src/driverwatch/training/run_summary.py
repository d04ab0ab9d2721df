"""How far a run and each of its folds are, by the files that training leaves; nothing is verified, and no Keras imported."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from driverwatch.config.types import TTA_SETS
from driverwatch.data import folds as fold_file
from driverwatch.data.context import Context, predict_command
from driverwatch.data.tta import best_of
from driverwatch.errors import InputError
from driverwatch.inference.predictions import prediction_path
from driverwatch.io.atomic import writer_of
from driverwatch.io.console import close, say, scored
from driverwatch.metrics import over_folds
from driverwatch.run import Run
from driverwatch.training.checkpoint import is_over, resumed, told

Stage = Literal["not started", "training", "trained", "finished", "invalid"]


@dataclass(frozen=True)
class FoldState:
    """A fold of a run: `epoch` of `epochs` are done; `trained`: its predictions are still to come."""

    number: int
    state: Stage
    epoch: int
    epochs: int
    writer: str | None = None  # process that trains it now
    tta: list[str] = field(default_factory=list)  # predicted
    log_loss: dict[str, float] = field(default_factory=dict)  # on the validation drivers, by TTA set
    weights: str | None = None  # SHA-256
    commit: str | None = None
    seconds: float = 0.0
    when: float = 0.0  # modification time of the manifest, seconds since 1970
    problem: str | None = None


@dataclass(frozen=True)
class RunState:
    """A run and its folds; `log_loss` is over the folds that are finished; `stale`: why the run does not count today."""

    name: str
    study: str | None = None
    backbone: str | None = None
    folds: list[FoldState] = field(default_factory=list)
    tta: list[str] = field(default_factory=list)  # that every finished fold has predicted
    log_loss: float | None = None
    standard_error: float | None = None  # over folds
    scored_by: str | None = None  # TTA set
    unscored: str | None = None  # why there is no out-of-fold loss
    chosen_on_validation: bool = False  # optimistic: its epoch was chosen on the validation drivers
    writer: str | None = None
    stale: list[str] = field(default_factory=list)
    differs: list[str] = field(default_factory=list)  # from the settings file of its name
    older_code: list[str] = field(default_factory=list)  # commits of its folds that src/ was changed since
    problem: str | None = None

    @property
    def done(self) -> list[FoldState]:
        """The finished folds."""
        return [fold for fold in self.folds if fold.state == "finished"]

    @property
    def finished(self) -> bool:
        return bool(self.folds) and len(self.done) == len(self.folds)

    @property
    def problems(self) -> list[str]:
        """What of the run or of its folds cannot be read or is not there."""
        return [problem for problem in (self.problem, *(fold.problem for fold in self.folds)) if problem]

    @property
    def label(self) -> str:
        return self.name if self.study is None else f"{self.study}/{self.name}"


def run_state(run: Run, folds: int, images: Sequence[int], study: str | None = None) -> RunState:
    """A run's state, without what a comparison with today's data set would add.

    Raises `InputError`: a fold's files cannot be listed.

    Args:
        folds: how many the data set has.
        images: how many images each fold holds out, by which its losses are weighted; empty: not known.
    """
    splits = run.settings.train.splits
    states = [fold_state(run, number) for number in range(splits.models(folds))]
    done = [fold for fold in states if fold.state == "finished"]
    state = RunState(
        run.name,
        study,
        run.settings.backbone,
        states,
        [tta for tta in TTA_SETS if done and all(tta in fold.tta for fold in done)],
        unscored=None if splits.scored else splits.unscored,
        chosen_on_validation=run.uses_validation,
        writer=writer_of(run.folder),
    )
    known = [tta for tta in TTA_SETS if done and all(tta in fold.log_loss for fold in done)]
    if state.unscored or not known or len(images) != len(states):
        return state
    tta = best_of(known, run.settings.default_tta)  # the set that an ensemble would take
    loss, error = over_folds([fold.log_loss[tta] for fold in done], [images[fold.number] for fold in done])
    return replace(state, log_loss=loss, standard_error=error if error == error else None, scored_by=tta)


def fold_state(run: Run, number: int) -> FoldState:
    """A fold's state by its manifest, else by the checkpoint from which it resumes."""
    folder, settings = run.fold(number), run.settings.train
    state = FoldState(number, "not started", 0, sum(settings.planned), writer_of(folder))
    try:
        if run.finished(number):
            return _finished(run, state)
        if (folder / "checkpoint.h5").is_file():
            progress = resumed(folder / "checkpoint.h5", run.identity, number)
            over = [is_over(progress.history, i, stop, settings.patience) for i, stop in enumerate(settings.planned)]
            return replace(state, state="trained" if all(over) else "training", epoch=progress.epoch)
    except InputError as error:
        return replace(state, state="invalid", problem=f"fold {number}: {error}")
    return replace(state, state="training") if state.writer else state


def _finished(run: Run, state: FoldState) -> FoldState:
    folder, manifest = run.fold(state.number), run.manifest(state.number)
    kinds = ("test",) if run.settings.train.splits.kind == "all" else ("test", "validation")
    losses: Any = manifest.get("log_loss")
    again = f"add FORCE=1 FOLD={state.number} to the command that trained it"
    problem = f"fold {state.number}: its weights.h5 is gone; {again}"
    return replace(
        state,
        state="finished",
        epoch=state.epochs,
        tta=[v for v in TTA_SETS if all(prediction_path(folder, kind, v).is_file() for kind in kinds)],
        log_loss=losses if isinstance(losses, dict) else {},
        weights=str(manifest["weights"]),
        commit=manifest.get("commit"),
        seconds=float(manifest.get("seconds") or 0),
        when=(folder / "manifest.json").stat().st_mtime,
        problem=None if (folder / "weights.h5").is_file() else problem,
    )


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
    """What to do with a finished run: predict, where no TTA set is whole; a study's runs join no ensemble."""
    if context.places.study:
        return [f"make status DATASET={context.dataset}"]
    if not state.tta:
        return [predict_command(context.dataset, state.name)]
    return [f"make score DATASET={context.dataset}", f"make ensemble DATASET={context.dataset}"]


def score_line(state: RunState) -> str | None:
    """A run's out-of-fold log loss over its finished folds in words; None where there is none."""
    if state.log_loss is None:
        return None
    over = f"out of fold, {state.scored_by}, ± over {len(state.done)} of {len(state.folds)} folds"
    optimistic = ", optimistic: epoch chosen on the validation drivers" if state.chosen_on_validation else ""
    return scored(state.log_loss, state.standard_error, over + optimistic)
