"""A run's identity: what it was begun with, and the refusal to go on with anything else. Imports no Keras."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from driverwatch.artifacts import differences, read_json, write_json
from driverwatch.errors import InputError, listed
from driverwatch.settings import DatasetSettings, ModelSettings, parse


@dataclass(frozen=True)
class Run:
    """What came, or comes, of one model's settings on one data set's folds."""

    folder: Path
    settings: ModelSettings
    classes: tuple[str, ...]
    swap: list[int]
    policy: list[dict[str, dict[str, Any]]]
    folds: str  # digests
    packs: dict[str, str]
    weights: dict[str, str] | None

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def origin(self) -> dict[str, str]:
        """Digests that the run's predictions repeat."""
        return {"folds": self.folds, "train_pack": self.packs["train"], "test_pack": self.packs["test"]}

    def fold(self, number: int) -> Path:
        return self.folder / f"fold{number}"

    def finished(self, number: int) -> bool:
        return (self.fold(number) / "manifest.json").is_file()


def identity(
    settings: ModelSettings,
    dataset: DatasetSettings,
    policy: list[Any],
    folds: str,
    packs: dict[str, str],
    weights: dict[str, str] | None,
) -> dict[str, Any]:
    """All that decides a run's result, as plain data; what only decides its speed (`workers`, `predict`) is left out."""
    return {
        "settings": _decisive(settings),
        "policy": policy,
        "classes": list(dataset.classes),
        "swap": dataset.swap(),
        "folds": folds,
        "packs": packs,
        "weights": weights,
    }


def begin(folder: Path, wanted: dict[str, Any], fold: int | None, force: bool) -> None:
    """Claim `folder` for a run with this identity, or find that it is this run's already. The caller holds its lock.

    With `force` what is there is removed: the whole run if it was begun with something else, or else `fold` (None: every fold).

    Raises:
        InputError: the folder holds a run with another identity; each difference is shown.
    """
    path = folder / "run.json"
    changes = differences(_as_today(read_json(path), path), wanted) if path.is_file() else []
    if changes and not force:
        raise InputError(
            f"{folder}: this run was begun with other settings or data; give the new one a name with RUN=, "
            f"or FORCE=1 to train it anew (old -> new):{listed(changes, 20)}"
        )
    if force:
        for spent in folder.glob(f"fold{'*' if changes or fold is None else fold}"):
            shutil.rmtree(spent)
    if changes or not path.is_file():
        write_json(path, wanted)


def _as_today(made: dict[str, Any], path: Path) -> dict[str, Any]:
    """A stored identity with settings that were added since at their defaults."""
    return {**made, "settings": _decisive(parse(ModelSettings, made.get("settings", {}), str(path)))}


def _decisive(settings: ModelSettings) -> dict[str, Any]:
    return settings.model_dump(exclude={"predict": True, "train": {"workers"}})


def load(folder: Path) -> Run:
    """Read a run as it was begun; today's YAML is not asked.

    Raises:
        InputError: no such run, with the names of those there are.
    """
    path = folder / "run.json"
    if not path.is_file():
        there = sorted(p.parent.name for p in folder.parent.glob("*/run.json"))
        raise InputError(
            f"{folder}: no such run; there are: {', '.join(there) or 'none, run make train MODEL=... first'}"
        )
    made = read_json(path)
    try:
        return Run(
            folder,
            parse(ModelSettings, made["settings"], str(path)),
            tuple(made["classes"]),
            made["swap"],
            made["policy"],
            made["folds"],
            made["packs"],
            made["weights"],
        )
    except KeyError as error:
        raise InputError(
            f"{path}: lacks {error}; it was written by another version, train anew with FORCE=1"
        ) from error


def with_settings(run: Run, settings: ModelSettings) -> Run:
    """The same run with settings that differ only in what decides its speed."""
    return replace(run, settings=settings)
