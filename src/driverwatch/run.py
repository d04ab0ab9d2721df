"""A run's record, `run.json`: what it was started with, and the refusal to continue with anything else. Imports no Keras."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from driverwatch.config.dataset import DatasetSettings
from driverwatch.config.loading import parse
from driverwatch.config.model import ModelSettings, Transforms
from driverwatch.config.training import AVERAGE_SPAN
from driverwatch.config.types import WHOLE, TtaSet
from driverwatch.data.context import Context, going_on, open_packs
from driverwatch.data.folds import FoldTable
from driverwatch.data.pack import Pack
from driverwatch.data.tta import Columns
from driverwatch.errors import InputError, listed
from driverwatch.io.atomic import write_json
from driverwatch.io.manifests import checksum_of, checksum_of_file, differences, read_json

SPENT = ("checkpoint.h5", "best.h5")
NUMBERS = ("seconds", "training_seconds", "step_seconds", "trainable_parameters")  # of a manifest
DIVERGED = "diverged.json"  # left by a fold whose loss was no number any more, for who trains many
SPEED: Any = {
    "predict": True,
    "tracking": True,
    "train": {"workers", "loader", "devices", "parallel_folds"},
}  # decide no result


@dataclass(frozen=True)
class Run:
    """What came, or comes, of one model's settings on one data set's folds."""

    folder: Path
    settings: ModelSettings
    classes: tuple[str, ...]
    swap: list[int]
    preset: Transforms
    folds: str  # checksums
    packs: dict[str, str]
    weights: dict[str, str] | None
    # other runs: `teachers` of pseudo-labels, `epochs` of a refit on all data; `label_issues`
    learned_from: dict[str, Any] | None = None
    regions: dict[str, list[float]] = field(default_factory=dict)  # boxes of what it looks at; none: the whole frame

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def origin(self) -> dict[str, str]:
        """Checksums that the run's predictions repeat."""
        return {"folds": self.folds, "train_pack": self.packs["train"], "test_pack": self.packs["test"]}

    def predicted(self, number: int, tta: TtaSet) -> dict[str, str]:
        """What a fold's prediction file must say of its origin: the run's checksums and the weights the fold ended with."""
        return {**self.origin, "weights": self.manifest(number)["weights"], "tta": tta}

    @property
    def uses_validation(self) -> bool:
        """Whether validation drivers had a say in this run's weights, by teachers or label issues too (optimistic)."""
        learned = self.learned_from or {}
        teachers = any(made["chosen_on_validation"] for made in learned.get("teachers", {}).values())
        return self.settings.train.uses_validation or teachers or "label_issues" in learned

    @property
    def claim(self) -> dict[str, Any]:
        """What a finished fold repeats of its run, beside the settings."""
        facts = {"preset": self.preset, "classes": list(self.classes), "swap": self.swap, "pretrained": self.weights}
        return {**self.origin, **facts, "learned_from": self.learned_from, **_unless_whole_frame(self.regions)}

    @property
    def columns(self) -> Columns:
        """What becomes of the columns of flipped views."""
        return Columns(self.swap, self.settings.augment.hflip)

    def fold(self, number: int) -> Path:
        return self.folder / f"fold{number}"

    @property
    def identity(self) -> str:
        """Checksum of all that decides the run's result; a fold's checkpoint repeats it."""
        made_with = [self.preset, self.classes, self.swap, self.origin, self.weights, self.learned_from]
        return checksum_of(
            [_as_before(_decisive(self.settings)), *made_with, *_unless_whole_frame(self.regions).values()]
        )

    def finished(self, number: int) -> bool:
        return (self.fold(number) / "manifest.json").is_file()

    def sweep(self, number: int) -> None:
        """Remove what a fold that is finished needed on its way: a kill may have come before that was done."""
        for spent in SPENT if self.finished(number) else ():
            (self.fold(number) / spent).unlink(missing_ok=True)

    def verify(self, number: int) -> Path:
        """The weights of a finished fold, if they are what it was trained to. Raises as `manifest`, or if they are not."""
        made, file = self.manifest(number), self.fold(number) / "weights.h5"
        if not file.is_file() or checksum_of_file(file) != made["weights"]:
            way_out = f"restore it, or add FORCE=1 FOLD={number} to the command that trained it"
            raise InputError(f"{file}: is not what fold {number} was trained to; {way_out}")
        return file

    def manifest(self, number: int) -> dict[str, Any]:
        """A finished fold's manifest.

        Raises:
            InputError: not finished, or finished as part of another run.
        """
        path = self.fold(number) / "manifest.json"
        if not path.is_file():
            way_out = f"make train {going_on(self.name)} resumes it"
            raise InputError(f"{self.folder}: fold {number} is not finished; {way_out}")
        made, again = read_json(path), f"add FORCE=1 FOLD={number} to the command that trained it"
        settings = _decisive(parse(ModelSettings, made.get("settings", {}), str(path)))
        mine = {"settings": _decisive(self.settings), **self.claim}
        strange = differences({**{key: made.get(key) for key in mine}, "settings": settings}, mine)
        if strange or "weights" not in made:
            raise InputError(f"{path}: is of another run than {self.folder / 'run.json'}; {again}:{listed(strange)}")
        if wrong := _strange_facts(made):
            raise InputError(f"{path}: {wrong} is nothing that a fold's manifest says; {again}")
        return made

    def checksums(self, numbers: Iterable[int]) -> dict[str, str]:
        """The weights that finished folds ended with, by number, for who makes something of them. Raises as `manifest`."""
        return {str(number): self.manifest(number)["weights"] for number in numbers}

    def refuse_other_inputs(self, folds: str, packs: dict[str, str]) -> None:
        """Refuse folds or packs (checksums) other than those the run was started with."""
        way_out = "restore them, or train a new RUN="
        if self.folds != folds:
            raise InputError(f"{self.folder}: was trained on other folds than today's; {way_out}")
        if self.packs != packs:
            raise InputError(f"{self.folder}: was trained on another pack than today's; {way_out}")


def _strange_facts(made: dict[str, Any]) -> str | None:
    """The first of a manifest's facts that is of another kind than its readers expect."""
    number = int | float
    kinds: dict[str, Any] = {**dict.fromkeys(NUMBERS, number | None), "log_loss": dict | None, "weights": str}
    kinds |= {"commit": str | None, "versions": dict | None}
    if wrong := next((name for name, kind in kinds.items() if not isinstance(made.get(name), kind)), None):
        return wrong
    return None if all(isinstance(loss, number) for loss in (made.get("log_loss") or {}).values()) else "log_loss"


def identity(
    settings: ModelSettings,
    dataset: DatasetSettings,
    preset: list[Any],
    folds: str,
    packs: dict[str, str],
    weights: dict[str, str] | None,
    learned_from: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """All that decides a run's result, as plain data; not what decides its speed (`SPEED`)."""
    return {
        "settings": _decisive(settings),
        "preset": preset,
        "classes": list(dataset.classes),
        "swap": dataset.swap(),
        "folds": folds,
        "packs": packs,
        "weights": weights,
        "learned_from": learned_from,
        **_unless_whole_frame(dataset.boxes(settings.input.regions)),
    }


def _unless_whole_frame(regions: dict[str, list[float]]) -> dict[str, Any]:
    """Boxes as a run records them, which is not at all where it looks at the whole frame alone."""
    return {"regions": regions} if regions and list(regions) != [WHOLE] else {}


def begin(folder: Path, wanted: dict[str, Any], fold: int | None, force: bool) -> None:
    """Claim `folder` for a run with this identity, or find that it is this run's already. The caller holds its lock.

    A run that has not finished an epoch yet may begin again as something else. With `force` what is there is removed: the
    whole run if it was started with something else, or else `fold` (None: every fold).

    Raises:
        InputError: the folder holds a run with another identity (each difference is shown), or folds of an unknown run.
    """
    path = folder / "run.json"
    trained = any((p / name).exists() for p in folder.glob("fold*") for name in ("checkpoint.h5", "manifest.json"))
    changes = _changes(path, wanted, force)
    if changes and trained and not force:
        way_out = "give the new one a name with RUN=, or FORCE=1 to train it again"
        differing = f"(old -> new):{listed(changes, 20)}"
        raise InputError(f"{folder}: this run was started with other settings or data; {way_out} {differing}")
    if force or changes:
        for spent in folder.glob(f"fold{'*' if changes or fold is None else fold}"):
            (spent / "manifest.json").unlink(missing_ok=True)  # first: a removal cut short must not look finished
            shutil.rmtree(spent)
    if changes:
        write_json(path, wanted)


def diverged(folder: Path, number: int) -> bool:
    """Whether a fold of the run in `folder` last ended because its loss was no number any more."""
    return (folder / f"fold{number}" / DIVERGED).is_file()


def forget_divergence(folder: Path, number: int) -> None:
    """A fold is trained again: how it ended last is no news any more."""
    (folder / f"fold{number}" / DIVERGED).unlink(missing_ok=True)


def way_on(folder: Path, number: int) -> str:
    """What to do about a fold that failed: it resumes, unless what it was started with made it diverge and would again."""
    if diverged(folder, number):
        return "the same command would end there again: it needs a lower learning rate, under another RUN="
    return "that fixed, the same command without FORCE=1 resumes from its last finished epoch"


def is_as_started(folder: Path, wanted: dict[str, Any]) -> bool:
    """Whether `folder` holds a run with this identity, and `begin` would change nothing."""
    try:
        return (folder / "run.json").is_file() and not _changes(folder / "run.json", wanted, False)
    except InputError:
        return False


def _changes(path: Path, wanted: dict[str, Any], force: bool) -> list[str]:
    if not path.is_file():
        return [f"{path.name}: missing -> this run's"]
    try:
        return differences(as_today(read_json(path), path), wanted)
    except InputError:
        if force:
            return [f"{path.name}: damaged -> this run's"]
        raise


def as_today(made: dict[str, Any], path: Path) -> dict[str, Any]:
    """A stored identity with settings that were added since at their defaults."""
    return {**made, "settings": _decisive(parse(ModelSettings, made.get("settings", {}), str(path)))}


def _decisive(settings: ModelSettings) -> dict[str, Any]:
    return settings.model_dump(exclude=SPEED)


# settings that came after folds had been started without them: place, and the value that means what was before
ADDED: list[tuple[tuple[str, ...], str, Any]] = [
    ((), "precision", "float32"),
    (("train",), "label_issues", "none"),
    (("train",), "average_weights", "none"),
    (("train",), "average_span", AVERAGE_SPAN),
    (("train", "splits"), "train_drivers", None),
    (("train", "splits"), "split_seed", None),
]


def _as_before(decisive: dict[str, Any]) -> dict[str, Any]:
    """The same without settings of `ADDED` that change nothing, so that a fold which is under way outlives an update."""
    for place, name, before in ADDED:
        inner = decisive
        for key in place:
            inner = inner[key]
        if inner[name] == before:
            del inner[name]
    return decisive


def changed(run: Run, settings: ModelSettings) -> list[str]:
    """Where other settings differ from what decides the run's result, one `train.epochs: 3 -> 4` each."""
    if settings.precision == "auto":  # whichever it was started in
        settings = settings.model_copy(update={"precision": run.settings.precision})
    return differences(_decisive(run.settings), _decisive(settings))


def _elsewhere(folder: Path) -> str:
    """Which other data sets have a run of this name: a command without `DATASET=` may mean one of them."""
    places = folder.parent.parent.parent.glob("*/runs") if folder.parent.name == "runs" else ()
    names = sorted(place.parent.name for place in places if (place / folder.name / "run.json").is_file())
    return f"; one of this name is there: add DATASET={' or '.join(names)}" if names else ""


def load(folder: Path) -> Run:
    """Read a run as it was started; today's YAML is not asked.

    Raises:
        InputError: no such run, with the names of those there are.
    """
    path = folder / "run.json"
    if not path.is_file():
        there = sorted(p.parent.name for p in folder.parent.glob("*/run.json"))
        names, other = ", ".join(there) or "none", _elsewhere(folder)
        way_out = "" if there or other else ", run make train MODEL=... first"
        raise InputError(f"{folder}: no such run; there are: {names}{way_out}{other}")
    made = read_json(path)
    try:
        facts: list[Any] = [parse(ModelSettings, made["settings"], str(path)), tuple(made["classes"])]
        facts += [made[name] for name in ("swap", "preset", "folds", "packs", "weights")]
        return Run(*[folder, *facts, made.get("learned_from"), made.get("regions", {})])
    except (LookupError, TypeError) as error:
        raise InputError(f"{path}: lacks {error}; add FORCE=1 to the command that trained it") from error


def speed(settings: ModelSettings) -> dict[str, Any]:
    """Settings that decide speed alone, as plain data."""
    return settings.model_dump(include=SPEED)


def executed(run: Run, how: dict[str, Any]) -> Run:
    """The same run with settings that decide its speed, as `speed` has them. Raises `InputError` for others."""
    made = run.settings.model_dump()
    settings = {**made, **how, "train": {**made["train"], **how.get("train", {})}}
    return replace(run, settings=parse(ModelSettings, settings, str(run.folder / "execution.json")))


def seeded(run: Run, number: int) -> Run:
    """The run as fold `number` trains it: models that are trained on every driver differ in nothing but their seed."""
    if run.settings.train.splits.kind != "all":
        return run
    train = run.settings.train.model_copy(update={"seed": (run.settings.train.seed + number) % 2**32})
    return replace(run, settings=run.settings.model_copy(update={"train": train}))


def refuse_fold(fold: int | None, count: int) -> None:
    if fold is not None and not 0 <= fold < count:
        raise InputError(f"FOLD={fold}: expected 0 to {count - 1}")


def open_run(context: Context, name: str) -> tuple[Run, FoldTable, dict[str, Pack]]:
    """A run with the folds and packs it was started with; others are refused."""
    run = load(context.places.run(name))
    folds, packs = open_packs(context, run.settings.input.key)
    run.refuse_other_inputs(folds.checksum, {kind: pack.checksum for kind, pack in packs.items()})
    return run, folds, packs
