"""`make status`: what a data set has, how far it is, what is stale and why, and the next command; as text or as JSON."""

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from driverwatch.data.competition import present
from driverwatch.data.context import Context, going_on, other_datasets, predict_command
from driverwatch.errors import printable
from driverwatch.io.console import duration, say, table
from driverwatch.io.hdf5 import UNREADABLE, attributes
from driverwatch.io.paths import matching
from driverwatch.report.collect_runs import (
    FoldsState,
    PackState,
    SubmissionState,
    collect_folds,
    collect_packs,
    collect_pseudo_labels,
    collect_runs,
    collect_submissions,
    megabytes,
)
from driverwatch.training.run_summary import FoldState, RunState

MAX_SUBMISSIONS = 12  # in the table; the others are counted
MAX_FOLDS = 6  # that are shown one by one; of more, the unfinished ones are
MAX_NAMES = 4  # beside a reason
PIPE_COLUMNS = 10_000  # where no terminal limits a line
NOT_IN_JSON = {"manifest", "public", "private"}
COLOURS = {"stale": "yellow", "differs": "yellow", "invalid": "red", "missing": "red"}
Columns = dict[str, bool]  # name: whether its cells stand at the right
RUN_COLUMNS: Columns = {"run": False, "folds": False, "log loss": True, "± (folds)": True, "tta": False, "took": True,
                        "code": False}  # fmt: skip
MADE_COLUMNS: Columns = {"log loss": True, "state": False, "uploaded": False, "of": False}
Reasons = list[tuple[str, str]]  # kind of `COLOURS`, sentence


@dataclass(frozen=True)
class ImagesState:
    """Image files below the data folder, whatever the tables say of them."""

    folder: str
    training: int
    test: int
    problem: str | None = None


@dataclass(frozen=True)
class CacheState:
    """A file or folder of things that any command can make again."""

    name: str
    files: int
    megabytes: float
    stale: list[str] = field(default_factory=list)
    problem: str | None = None


@dataclass(frozen=True)
class Status:
    """All that `make status` prints; `invalid` are problems of files that have no line of their own."""

    dataset: str
    images: ImagesState
    folds: FoldsState
    packs: list[PackState]
    runs: list[RunState]
    submissions: list[SubmissionState]
    pseudo_labels: list[SubmissionState]
    features: list[CacheState]
    feature_caches: CacheState
    free_gigabytes: float
    invalid: list[str]
    next: str | None
    others: list[str]  # data sets that have runs here, too

    def as_json(self) -> str:
        made = asdict(self, dict_factory=lambda pairs: {key: value for key, value in pairs if key not in NOT_IN_JSON})
        return json.dumps(made, indent=2, ensure_ascii=False)


def print_status(context: Context, as_json: bool) -> None:
    """Print what there is; nothing is written, and no invalid file ends it."""
    found = status(context)
    if as_json:
        say(found.as_json())
        return
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = PIPE_COLUMNS
    with console.capture() as captured:
        render(found, console)
    say("\n".join(line.rstrip() for line in captured.get().splitlines()))


def status(context: Context) -> Status:
    """Look at everything once."""
    folds = collect_folds(context)
    packs = collect_packs(context, folds)
    runs = collect_runs(context, folds, packs)
    own = {run.name: run for run in runs if run.study is None}
    made, problem = collect_submissions(context, folds, own)
    images, build = _images(context), context.places.build.absolute()
    caches = list(context.places.feature_caches.glob("*/*.h5"))  # outputs of frozen layers, for any run
    disk = next(path for path in [build, *build.parents] if path.exists())
    return Status(
        context.dataset,
        images,
        folds,
        packs,
        runs,
        made,
        collect_pseudo_labels(context, folds, own),
        _embeddings(context, packs),
        CacheState(str(context.places.feature_caches), len(caches), megabytes(caches)),
        round(shutil.disk_usage(disk).free / 1e9, 1),
        [problem] if problem else [],
        next_command(context, images, folds, runs, made),
        other_datasets(context.places),
    )


def next_command(
    context: Context, images: ImagesState, folds: FoldsState, runs: list[RunState], submissions: list[SubmissionState]
) -> str | None:
    """The command that makes the first missing thing on the way to a submission; None: nothing is missing."""
    dataset = f"DATASET={context.dataset}"
    if folds.checksum is None:
        target = "folds" if images.problem is None else "synthetic" if context.settings.test_labels else "data"
        return f"make {target} {dataset}"
    own = [run for run in runs if run.study is None and not run.problems]
    if not own:
        return f"make train {dataset} MODEL=mobilenet_v2"
    fresh = [run for run in own if not run.stale]
    for run in fresh:
        if not run.finished and run.writer is None:
            return f"make train {dataset} {going_on(run.name)}"
    ready = [run for run in fresh if run.finished]
    for run in ready:
        if not run.tta:
            return predict_command(context.dataset, run.name)
    return _next_submission(context, dataset, bool(ready), submissions)


def _next_submission(context: Context, dataset: str, ready: bool, submissions: list[SubmissionState]) -> str | None:
    sound = [made for made in submissions if made.problem is None and not made.stale and not made.diagnostic]
    if not sound:
        return f"make ensemble {dataset}" if ready else None
    if context.settings.slug and not any(made.uploads for made in submissions):
        scored = [made for made in sound if made.log_loss is not None]
        best = min(scored or sound, key=lambda made: made.log_loss or 0.0)
        return f'make submit {dataset} FILE={context.places.submission(best.name)} MESSAGE="..."'
    return None if context.places.page("index").is_file() else f"make report {dataset}"


def _images(context: Context) -> ImagesState:
    """Count image files: those below the folder of the test images' template are test images."""
    settings, folder = context.settings, str(context.data)
    if not context.data.is_dir():
        target = "synthetic" if settings.test_labels else "data"
        problem = f"not here; DATA=<folder> says where it is, make {target} DATASET={context.dataset} makes it"
        return ImagesState(folder, 0, 0, problem)
    root = settings.test_images.split("{")[0]
    paths = list(present(settings, context.data))
    test = sum(path.startswith(root) for path in paths)
    training, wanted = len(paths) - test, settings.expected
    if wanted is None or (training, test) == (wanted.train, wanted.test):
        return ImagesState(folder, training, test)
    return ImagesState(folder, training, test, f"expected {wanted.train:,} training and {wanted.test:,} test images")


def _embeddings(context: Context, packs: list[PackState]) -> list[CacheState]:
    """Files of embeddings, and whether the packs that they were computed from are still there."""
    known, found = {checksum for pack in packs for checksum in pack.checksums.values()}, []
    for path in matching(context.places.embeddings, "*.h5"):
        stale, problem = [], None
        try:
            origin = json.loads(attributes(path)["origin"])
            if not {origin["train_pack"], origin["test_pack"]} <= known:
                again = f"make knn DATASET={context.dataset} EMBEDDINGS=... computes it again"
                stale = [f"computed from packs that are gone; {again}"]
        except UNREADABLE as error:
            problem = f"{path}: not a whole file of features ({error}); remove it"
        found.append(CacheState(path.name, 1, megabytes([path]), stale, problem))
    return found


def render(found: Status, console: Console) -> None:
    """Print everything, a blank line between parts, within the console's width."""
    for part in _parts(found, console):
        console.print(part)
    if found.next:
        console.print()
        console.print(Text.assemble(("next", "bold"), f"  {found.next}"), soft_wrap=True)  # one line, to be copied


def _parts(found: Status, console: Console) -> Iterator[RenderableType]:
    yield Text(f"{found.dataset}: {found.free_gigabytes:,.1f} GB free", "bold")
    yield _facts(_places(found))
    yield ""
    yield from _runs(found.runs, console)
    yield from _made("submission", found.submissions, console)
    yield from _made("pseudo-labels", found.pseudo_labels, console)
    yield from _reasons([("invalid", problem, "") for problem in found.invalid])
    if found.others and not found.runs:
        where = f"runs of {', '.join(found.others)} are here: make status DATASET={found.others[0]}"
        yield ""
        yield _facts([("elsewhere", where, [])])


def _places(found: Status) -> Iterator[tuple[str, str, Reasons]]:
    """Name, words and problems of each thing that is there before training."""
    images, folds = found.images, found.folds
    missing = [("missing", images.problem)] if images.problem else []
    yield "images", f"{images.training:,} training, {images.test:,} test in {images.folder}", missing
    held = f"{len(folds.images)} folds, {folds.drivers} drivers, {sum(folds.images):,} images, checksum "
    held += (folds.checksum or "")[:12]
    problem = [("stale" if folds.checksum else "missing", folds.problem)] if folds.problem else []
    yield "folds", f"{held}, {folds.file}" if folds.checksum else "none", problem
    for pack in found.packs:
        left_out = f", {pack.left_out} invalid images left out" if pack.left_out else ""
        yield "pack", f"{pack.size}, {pack.images:,} images{left_out}, {pack.megabytes:,.1f} MB", _why(pack)
    for kept in found.features:
        yield "embeddings", f"{kept.name}, {kept.megabytes:,.1f} MB", _why(kept)
    if caches := found.feature_caches.files:
        words = f"{caches} cached outputs of frozen layers, {found.feature_caches.megabytes:,.1f} MB, {found.feature_caches.name}"
        yield "cache", words, []


def _why(state: PackState | CacheState | SubmissionState) -> Reasons:
    return [*(("stale", reason) for reason in state.stale), *([("invalid", state.problem)] if state.problem else [])]


def _facts(facts: Iterable[tuple[str, str, Reasons]]) -> Table:
    """A line per fact; below it its problems."""
    grid = Table.grid("", "", padding=(0, 2))
    grid.columns[0].style, grid.columns[1].overflow = "bold", "fold"
    for name, words, reasons in facts:
        grid.add_row(name, words)
        for kind, reason in reasons:
            grid.add_row("", _reason(kind, reason))
    return grid


def _reason(kind: str, reason: str, of: str = "") -> RenderableType:
    text = printable(" ".join(reason.split()), 2000)
    return Text.assemble((kind, COLOURS[kind]), f": {text}", f" ({of})" if of else "", overflow="fold")


def _reasons(reasons: Iterable[tuple[str, str, str]]) -> Iterator[RenderableType]:
    """Kind, sentence and name: each sentence once, with the names that it holds for."""
    names: dict[tuple[str, str], list[str]] = {}
    for kind, reason, name in reasons:
        names.setdefault((kind, reason), []).append(name)
    for (kind, reason), of in names.items():
        more = f" and {len(of) - MAX_NAMES} more" if len(of) > MAX_NAMES else ""
        yield Padding(_reason(kind, reason, ", ".join(filter(None, of[:MAX_NAMES])) + more), (0, 0, 0, 2))


def _table(columns: Columns, rows: Sequence[Sequence[str]], keep: int, console: Console) -> tuple[Text, list[str]]:
    """A table without the last columns where the console is too narrow, the first `keep` excepted; and those columns."""
    (head, *lines), left_out = table(columns, rows, list(columns)[:keep], console.width)
    return Text("\n", no_wrap=True, overflow="ellipsis").join([Text(head, "bold"), *map(Text, lines)]), left_out


def _runs(runs: list[RunState], console: Console) -> Iterator[RenderableType]:
    if not runs:
        yield "no run yet"
        return
    lines, left_out = _table(RUN_COLUMNS, [_run_cells(run) for run in runs], 2, console)
    yield lines
    yield from _reasons((kind, reason, run.label) for run in runs for kind, reason in _run_reasons(run))
    of_views = ", under the TTA set in [ ]" * ("tta" not in left_out)
    legend = {
        f"log loss: out of fold{of_views}": any(run.scored_by for run in runs),
        "! optimistic: epoch chosen on the validation drivers": any(run.chosen_on_validation for run in runs),
        "> at work now": any(run.writer for run in runs),
        "* src/ was changed since": "code" not in left_out and any(run.older_code for run in runs),
        f"a wider terminal also shows {', '.join(left_out)}": bool(left_out),
    }
    yield "; ".join(words for words, shown in legend.items() if shown)


def _run_reasons(run: RunState) -> Reasons:
    found = [("stale", reason) for reason in run.stale] + [("invalid", problem) for problem in run.problems]
    if run.differs:
        more = f", and {len(run.differs) - 3} more" if len(run.differs) > 3 else ""
        says = f"configs/models/{run.name}.yaml says otherwise today: {', '.join(run.differs[:3])}{more}"
        found.append(("differs", says))
    return found


def _run_cells(run: RunState) -> list[str]:
    if run.problem:
        return [run.label, "invalid", *[""] * (len(RUN_COLUMNS) - 2)]
    partly = " so far" if run.done and not run.finished and run.log_loss is not None else ""
    commits = sorted({fold.commit for fold in run.done if fold.commit})[:2]
    return [
        run.label,
        folds_cell(run.folds, run.writer is not None),
        "" if run.log_loss is None else f"{run.log_loss:.4f}{partly}" + "!" * run.chosen_on_validation,
        "" if run.standard_error is None else f"{run.standard_error:.4f}",
        " ".join(f"[{view}]" if view == run.scored_by else view for view in run.tta),
        duration(sum(fold.seconds for fold in run.done)) if run.done else "",
        " ".join(commit[:8] + "+" * commit.endswith("+") + "*" * (commit in run.older_code) for commit in commits),
    ]


def folds_cell(folds: list[FoldState], running: bool) -> str:
    """How far each fold is, in order: `done`, `2/5` epochs, `predict`, `-`; `>` before the one that is at work."""
    done = sum(fold.state == "finished" for fold in folds)
    if done == len(folds):
        return f"all {done} done" if done != 1 else "done"
    if len(folds) > MAX_FOLDS:
        rest = [f"{fold.number}: {_fold(fold)}" for fold in folds if fold.state not in ("finished", "not started")]
        return ", ".join([f"{done} of {len(folds)} done", *rest]) + (" >" if running else "")
    cells = " ".join((">" if fold.writer else "") + _fold(fold) for fold in folds)
    return cells + (" >" if running and not any(fold.writer for fold in folds) else "")


def _fold(fold: FoldState) -> str:
    words = {"finished": "done", "not started": "-", "invalid": "invalid", "trained": "predict"}
    return words.get(fold.state, f"{fold.epoch}/{fold.epochs}")


def _made(kind: str, made: list[SubmissionState], console: Console) -> Iterator[RenderableType]:
    """A table of submissions or pseudo-labels, and the reasons below it."""
    if not made:
        return
    diagnostics, made = sum(one.diagnostic for one in made), [one for one in made if not one.diagnostic]
    yield ""
    if diagnostics:
        yield f"{diagnostics} diagnostics of make submissions, TTA sets and folds of single runs (JSON=1 names them all)"
    if not made:
        return
    columns: Columns = {kind: False, **MADE_COLUMNS}
    yield _table(columns, [_made_cells(one) for one in made[:MAX_SUBMISSIONS]], 3, console)[0]
    if len(made) > MAX_SUBMISSIONS:
        yield f"and {len(made) - MAX_SUBMISSIONS} more (JSON=1 names them all)"
    yield from _reasons((kind, reason, one.name) for one in made for kind, reason in _why(one))


def _made_cells(one: SubmissionState) -> list[str]:
    state = "invalid" if one.problem else "stale" if one.stale else "checked"
    loss = "" if one.log_loss is None else f"{one.log_loss:.4f}"
    return [one.name, loss, state, "; ".join(one.uploads), " ".join(one.runs)]
