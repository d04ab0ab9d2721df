"""What the line works on: the data set's files, ImageNet weights, and what was made already."""

from __future__ import annotations

import difflib
from pathlib import Path

from driverwatch.backbones import BACKBONES
from driverwatch.layout import TEST_IMAGES, folder_of
from driverwatch.listing import matching
from driverwatch.paths import user_path
from scripts.doctor.dataset_file import UnreadableError, dataset_settings, settings_path
from scripts.doctor.finding import Finding, Surroundings, names, note, ok, problem


def data_folder(s: Surroundings) -> Path | None:
    """DATA, or the folder that the data set's YAML names; None without one, or where the YAML takes a library that is not there."""
    if s.data:
        return s.root / user_path(s.data, s.environ)
    try:
        named = dataset_settings(s).get("data") if settings_path(s).is_file() else None
    except UnreadableError:
        return None
    return s.root / user_path(named, s.environ) if named else None


def test_folder(s: Surroundings) -> Path:
    """The folder of test images below the data folder: as the YAML names it, or Kaggle's where that cannot be read."""
    try:
        return folder_of(dataset_settings(s)["test_images"])
    except (UnreadableError, OSError):
        return folder_of(TEST_IMAGES)


def dataset(s: Surroundings) -> Finding:
    """The data set's settings and its files."""
    if not settings_path(s).is_file():
        known = [path.stem for path in matching(s.root / "configs/datasets", "*.yaml")]
        near = difflib.get_close_matches(s.dataset, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return problem(f"DATASET={s.dataset} has no YAML in configs/datasets", f"Known are: {names(known)}{hint}")
    try:
        settings = dataset_settings(s)
    except UnreadableError:
        found = f"configs/datasets/{s.dataset}.yaml cannot be read without PyYAML, so its files were not looked for"
        return note(found, "make setup installs it; then run make doctor again")
    folder = data_folder(s)
    if folder is None:
        return problem(f"configs/datasets/{s.dataset}.yaml says no data:", "Add that line, or pass DATA=<folder>")
    if not folder.is_dir():
        return (problem if s.data else note)(f"{s.dataset}: there is no folder {folder}", _how_to_get(s, settings))
    return _files(s, folder, settings)


def _files(s: Surroundings, folder: Path, settings: dict[str, str]) -> Finding:
    """Whether the tables and folders are there that the settings name: without one packing is refused, but for test images."""
    train, test = (folder_of(settings[key]).as_posix() for key in ("train_images", "test_images"))
    needed = [settings["table"], train, settings["sample_submission"]]
    missing = [name for name in needed if not (folder / name).exists()]
    if missing:
        return problem(f"{s.dataset}: {folder} lacks {', '.join(missing)}", _how_to_get(s, settings))
    if not (folder / test).is_dir():
        return note(f"{s.dataset}: {folder} lacks {test}", "Training works; submissions need the test photos")
    held = dict.fromkeys(name for name in (*needed, test) if name != ".")
    return ok(f"{s.dataset}: {folder} holds {', '.join(held)}")


def _how_to_get(s: Surroundings, settings: dict[str, str]) -> str:
    if (s.root / "configs/datasets" / f"{s.dataset}_images.csv").is_file():
        return f"make subset SOURCE=<full download> DATASET={s.dataset} fills it, or DATA= names where the photos lie"
    if "slug" in settings:
        return "Unpack the competition there (README, The full competition), or DATA= names where it lies"
    if "truth" in settings:
        return f"make sample DATASET={s.dataset} draws it"
    return "Put its files there, or DATA= names where they lie"


def weights(s: Surroundings) -> Finding:
    """ImageNet weights per backbone: in WEIGHTS, in Keras' own cache, or neither."""
    published = {name: row for name, row in BACKBONES.items() if row.weight_files}
    local: list[str] = []
    if s.weights:
        folder = s.root / user_path(s.weights, s.environ)
        if not folder.is_dir():
            return problem(f"WEIGHTS={s.weights} is no folder", "Name the folder that holds the weight files")
        local = [name for name, row in published.items() if _holds(folder, row.weight_files)]
        if not local:
            looked = "The names looked for stand in src/driverwatch/backbones.csv"
            return problem(f"WEIGHTS={s.weights} holds no weight file of a known name", looked)
    cache = _keras_cache(s)
    cached = [name for name, row in published.items() if row.downloads and _holds(cache, (row.trunk.official,))]
    found = "; ".join(
        f"{place}: {', '.join(held) or 'none'}" for place, held in (("WEIGHTS", local), ("Keras' cache", cached))
    )
    rest = [name for name in published if name not in local and name not in cached]
    return note(found, _still_to_come(rest)) if rest else ok(found)


def _still_to_come(rest: list[str]) -> str:
    downloads = [name for name in rest if BACKBONES[name].downloads]
    converted = [name for name in rest if BACKBONES[name].checkpoint]
    others = [
        f"{name} ({BACKBONES[name].weight_files[0]})"
        for name in rest
        if name not in downloads and name not in converted
    ]
    said = [f"Keras downloads {names(downloads)} on first use"] if downloads else []
    said += [f"make convert makes {', '.join(converted)} of PyTorch checkpoints"] if converted else []
    said += [f"{', '.join(others)} must lie in WEIGHTS=<folder>"] if others else []
    return "; ".join(said)


def _holds(folder: Path, files: tuple[str, ...]) -> bool:
    return any((folder / name).is_file() and (folder / name).stat().st_size > 0 for name in files)


def _keras_cache(s: Surroundings) -> Path:
    given = s.environ.get("KERAS_HOME", "")
    return (s.root / user_path(given, s.environ) if given else s.home / ".keras") / "models"


def made(s: Surroundings) -> Finding:
    """What the line has made of this data set: folds, packs, runs."""
    if not settings_path(s).is_file():
        return note("not looked at, for want of a data set", "See data set")
    packs, runs = (_folders(s.root / "build" / s.dataset / kind) for kind in ("pack", "runs"))
    found = f"packs: {names(packs) or 'none'}; runs: {names(runs) or 'none'}"
    folds = f"folds/{s.dataset}.csv"
    if not (s.root / folds).is_file():
        return note(f"no {folds}; {found}", f"make folds DATASET={s.dataset} writes it, once the data is there")
    return ok(f"{folds}; {found}")


def _folders(place: Path) -> list[str]:
    if not place.is_dir():
        return []
    return sorted(path.name for path in place.iterdir() if path.is_dir() and not path.name.startswith("."))
