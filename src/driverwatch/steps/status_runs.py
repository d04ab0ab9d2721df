"""How far every run and fold is, and whether it is still of today's folds, packs and settings; read without Keras."""

from dataclasses import dataclass, field, replace
from typing import Literal

from driverwatch import checkout
from driverwatch.artifacts import Places
from driverwatch.errors import InputError
from driverwatch.inference.paths import prediction_path
from driverwatch.metrics import over_folds
from driverwatch.setting_types import VIEW_SETS
from driverwatch.settings import ModelSettings
from driverwatch.steps.context import CONFIGS, Context
from driverwatch.steps.status_places import Folds, PackState
from driverwatch.training import run as runs
from driverwatch.training.progress import is_over, resumed
from driverwatch.training.run import Run
from driverwatch.typed_yaml import load
from driverwatch.vision.policies import plain
from driverwatch.vision.views import best_of
from driverwatch.writing import writer_of

Stage = Literal["not begun", "training", "trained", "finished", "broken"]


@dataclass(frozen=True)
class FitState:
    """One fold (or fit) of a run: `epoch` of `epochs` are behind it; `trained` means that predictions are still to come."""

    number: int
    state: Stage
    epoch: int
    epochs: int
    writer: str | None = None  # process that is at it now
    views: list[str] = field(default_factory=list)  # predicted
    log_loss: dict[str, float] = field(default_factory=dict)  # held out, by view set
    weights: str | None = None  # digest
    commit: str | None = None
    seconds: float = 0.0
    when: float = 0.0  # of the manifest
    problem: str | None = None


@dataclass(frozen=True)
class RunState:
    """A run and its fits; `log_loss` over the fits that are finished, `stale`: why it cannot go on or does not count today."""

    name: str
    study: str | None
    backbone: str | None = None
    fits: list[FitState] = field(default_factory=list)
    views: list[str] = field(default_factory=list)  # that every finished fit has predicted
    log_loss: float | None = None
    standard_error: float | None = None  # over folds
    scored_by: str | None = None  # view set
    unscored: str | None = None  # why there is no such loss
    selected_on: bool = False
    writer: str | None = None
    stale: list[str] = field(default_factory=list)
    differs: list[str] = field(default_factory=list)  # from the settings file of its name
    older_code: list[str] = field(default_factory=list)  # commits of its folds that src/ was changed since
    problem: str | None = None

    @property
    def finished(self) -> bool:
        return bool(self.fits) and all(fit.state == "finished" for fit in self.fits)

    @property
    def problems(self) -> list[str]:
        """What of it, or of its fits, cannot be read or is not there."""
        return [problem for problem in (self.problem, *(fit.problem for fit in self.fits)) if problem]

    @property
    def label(self) -> str:
        return self.name if self.study is None else f"{self.study}/{self.name}"


def all_runs(context: Context, folds: Folds, packs: list[PackState]) -> list[RunState]:
    """Every run of a data set, those of studies last."""
    places = [replace(context.places, study=None)]
    studies = context.places.build / "studies"
    places += [replace(context.places, study=path.name) for path in sorted(studies.glob("[!.]*")) if path.is_dir()]
    found = [
        run_state(context, place, folder.name, folds, packs)
        for place in places
        for folder in sorted(place.runs.glob("[!.]*"))
        if folder.is_dir()
    ]
    made_at = {fit.commit for run in found for fit in run.fits if fit.commit}
    changed = {commit for commit in made_at if checkout.changed_since(commit)}
    return [replace(run, older_code=sorted({f.commit for f in run.fits if f.commit in changed})) for run in found]


def run_state(context: Context, places: Places, name: str, folds: Folds, packs: list[PackState]) -> RunState:
    """One run; a file that cannot be read is its `problem`."""
    try:
        run = runs.load(places.run(name))
        count = run.settings.train.splits.fits(len(folds.images) or context.settings.folds)
        fits = [fit_state(run, number) for number in range(count)]
    except InputError as error:
        return RunState(name, places.study, problem=str(error))
    made = RunState(
        name,
        places.study,
        run.settings.backbone,
        fits,
        unscored=None if run.settings.train.splits.scored else run.settings.train.splits.unscored,
        selected_on=run.looks_at_held_out,
        writer=writer_of(run.folder),
        stale=reasons(run, folds, packs, context),
        differs=drifted(run) if places.study is None else [],
    )
    done = [fit for fit in fits if fit.state == "finished"]
    views = [views for views in VIEW_SETS if done and all(views in fit.views for fit in done)]
    return _scored(replace(made, views=list(views)), run, folds)


def fit_state(run: Run, number: int) -> FitState:
    """How far a fit is: by its manifest, else by the bundle that it goes on from."""
    folder, settings = run.fold(number), run.settings.train
    epochs = sum(settings.planned)
    state = FitState(number, "not begun", 0, epochs, writer_of(folder))
    try:
        if run.finished(number):
            return _finished(run, state)
        if (folder / "bundle.h5").is_file():
            progress = resumed(folder / "bundle.h5", run.identity, number)
            over = [is_over(progress.history, i, stop, settings.patience) for i, stop in enumerate(settings.planned)]
            return replace(state, state="trained" if all(over) else "training", epoch=progress.epoch)
    except InputError as error:
        return replace(state, state="broken", problem=f"fold {number}: {error}")
    return replace(state, state="training") if state.writer else state


def _finished(run: Run, state: FitState) -> FitState:
    folder, made = run.fold(state.number), run.manifest(state.number)
    kinds = ("test",) if run.settings.train.splits.kind == "all" else ("test", "held_out")
    there = [v for v in VIEW_SETS if all(prediction_path(folder, kind, v).is_file() for kind in kinds)]
    losses = made.get("log_loss")
    problem = (
        None if (folder / "weights.h5").is_file() else "its weights.h5 is gone; make train FORCE=1 FOLD= trains it anew"
    )
    return replace(
        state,
        state="finished",
        epoch=state.epochs,
        views=list(there),
        log_loss=losses if isinstance(losses, dict) else {},
        weights=str(made["weights"]),
        commit=made.get("commit"),
        seconds=float(made.get("seconds") or 0),
        when=(folder / "manifest.json").stat().st_mtime,
        problem=problem and f"fold {state.number}: {problem}",
    )


def _scored(state: RunState, run: Run, folds: Folds) -> RunState:
    """With the loss over its finished folds' held-out images, under the view set that an ensemble would take, or the widest."""
    done = [fit for fit in state.fits if fit.state == "finished"]
    known = [views for views in VIEW_SETS if done and all(views in fit.log_loss for fit in done)]
    if state.unscored or not known or len(folds.images) != len(state.fits):
        return state
    views = best_of(known, run.settings.honest_views)
    loss, error = over_folds([fit.log_loss[views] for fit in done], [folds.images[fit.number] for fit in done])
    return replace(state, log_loss=loss, standard_error=error if error == error else None, scored_by=views)


def reasons(run: Run, folds: Folds, packs: list[PackState], context: Context) -> list[str]:
    """Why a run is not of today's data any more: what `make train` and `make ensemble` would refuse it for."""
    size, said = run.settings.input.key, []
    if folds.digest is not None and run.folds != folds.digest:
        said.append(f"begun on other folds than {folds.file} has today")
    there = next((pack for pack in packs if pack.size == size), None)
    if there is None:
        said.append(f"its pack {size} is not there; make pack SIZE={size}")
    elif there.problem is None and run.packs != there.digests:
        said.append(f"begun on another pack {size} than today's")
    if run.classes != tuple(context.settings.classes):
        said.append("begun with other classes than the data set's YAML has today")
    return said


def drifted(run: Run) -> list[str]:
    """Where the settings file of the run's name differs from what it was begun with (by an edit, or by SET=)."""
    folder = CONFIGS / "models"
    if not (folder / f"{run.name}.yaml").is_file():
        return []
    try:
        settings = load(ModelSettings, folder, run.name)
        policy = plain(CONFIGS / "policies", settings.augment.policy)[1]
    except InputError as error:
        return [str(error)]
    return runs.changed(run, settings) + (["the policy's transforms"] if policy != run.policy else [])
