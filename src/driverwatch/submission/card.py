"""A submission's model card, and the three files that Kaggle asks winners for, from what is recorded alone.

The card follows Mitchell et al. 2019 (Model Cards for Model Reporting) with the front matter that the Hugging Face Hub reads; the
others are entry_points.md, SETTINGS.json and directory_structure.txt of Kaggle's winning model documentation guidelines, part B.
"""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from driverwatch import run as runs
from driverwatch.config.backbones import BACKBONES
from driverwatch.config.experiments import RecipeSettings
from driverwatch.config.loading import load
from driverwatch.config.model import ModelSettings
from driverwatch.data.context import CONFIGS, Context, going_on
from driverwatch.data.folds import glance
from driverwatch.errors import InputError
from driverwatch.io.atomic import write_json, write_text
from driverwatch.io.console import close
from driverwatch.io.html import render
from driverwatch.io.manifests import checksum_of_file, git, read_json
from driverwatch.metrics import interval, oof_score
from driverwatch.submission.build import read_out_of_fold

UNRECORDED = "not recorded on this machine"
LIMITS = "On a road nothing of this was tested."
HONEST = "No epoch was chosen on these drivers."
STAGED = {  # by competition, as its own page says of the images
    "state-farm-distracted-driver-detection": "The drivers only acted: a truck dragged the car along the street."
}


def write_card(context: Context, name: str) -> Path:
    """The folder into which submission `name`'s model card, entry points, settings and directory structure are written.

    Raises:
        InputError: no such submission, one without out-of-fold probabilities, or ones of another submission.
    """
    path, source = context.places.submission(name).with_suffix(".json"), context.places.out_of_fold(name)
    if not path.is_file():
        raise InputError(f"{path}: no such submission; make ensemble NAME={name} DATASET={context.dataset} writes it")
    made, (frame, probabilities) = read_json(path), read_out_of_fold(context, name)
    if made.get("out_of_fold_rows") != checksum_of_file(source):
        raise InputError(f"{source}: is not of {path}; make ensemble NAME={name} DATASET={context.dataset} writes both")
    folder, recipe = context.places.card(name), _recipe(context, name)
    facts = {**_results(context, frame, probabilities), **_origin(context, name, made, recipe)}
    write_text(folder / "MODEL_CARD.md", render("model_card.md", name=name, manifest=path, **facts))
    write_text(folder / "entry_points.md", _entry_points(context, name, made, recipe))
    write_json(folder / "SETTINGS.json", _settings(context))
    write_text(folder / "directory_structure.txt", "\n".join(_directories()) + "\n")
    score = facts["score"]
    close(folder, f"MODEL_CARD.md and 3 more files, out-of-fold log loss {score.log_loss:.4f}")
    return folder


def _recipe(context: Context, name: str) -> RecipeSettings | None:
    """The data set's recipe, where it makes this submission."""
    if not (CONFIGS / "recipes" / f"{context.dataset}.yaml").is_file():
        return None
    recipe = load(RecipeSettings, CONFIGS / "recipes", context.dataset)
    return recipe if name in recipe.submissions else None


def _results(context: Context, frame: pd.DataFrame, probabilities: np.ndarray) -> dict[str, Any]:
    """Scores of all images, by class and by driver, computed from the out-of-fold rows."""
    labels, drivers = frame["label"].to_numpy(np.int64), frame["driver"].to_numpy(str)
    score, said = oof_score(probabilities, labels, drivers), probabilities.argmax(axis=1)
    names = list(context.settings.classes.items())
    each = frame.assign(log_loss=score.losses, accuracy=said == labels, images=1)
    means = {"images": "sum", "log_loss": "mean", "accuracy": "mean"}
    of_class, of_driver = each.groupby("label").agg(means), each.groupby("driver").agg({"fold": "first", **means})
    classes = []
    for label, line in zip(of_class.index, of_class.to_dict("records"), strict=True):
        wrong = np.bincount(said[(labels == label) & (said != label)], minlength=len(names))
        error = f"{names[wrong.argmax()][0]} ({wrong.max()})" if wrong.any() else "none"
        classes.append({"name": names[label][0], "meaning": names[label][1], "error": error, **line})
    return {
        "score": score, "interval": interval(score.losses, drivers), "uniform": math.log(len(names)), "classes": classes,
        "drivers": of_driver.sort_values("log_loss", ascending=False, kind="stable").reset_index().to_dict("records"),
        "images": len(frame), "folds": frame["fold"].nunique(),
    }  # fmt: skip


def _origin(context: Context, name: str, made: dict[str, Any], recipe: RecipeSettings | None) -> dict[str, Any]:
    """What a manifest and the settings say of data, runs, post-processing, hardware and time."""
    settings, pipeline = context.settings, made.get("pipeline", {})
    chosen = ", ".join(made.get("chosen_on_validation") or [])
    optimistic = f"Optimistic: the validation drivers had a say in {chosen}." if chosen else HONEST
    doubted = context.places.label_issues.with_suffix(".json")
    asked = pipeline.get("settings") or (recipe.submissions[name].pipeline if recipe else {})
    spaces = [asked.get("class_balance"), (asked.get("knn") or {}).get("embeddings")]
    return {
        "label_errors": read_json(doubted).get("errors") if doubted.is_file() else None,
        "title": settings.title, "dataset": context.dataset, "slug": settings.slug, "fold_file": context.places.folds,
        "checksum": glance(context.places.folds, tuple(settings.classes)).checksum, "optimistic": optimistic,
        "staged": f"{STAGED.get(settings.slug or '', '')} {LIMITS}".strip(), "predicted": made.get("prediction_interval"),
        "members": [_member(context, recipe, run, tta) for run, tta in made["runs"].items()],
        "transductive": not {"knn", "class_balance"}.isdisjoint(pipeline.get("steps", {})),
        "models": sum(map(len, made["fold_models"].values())), "plain": made.get("plain_mean_log_loss"),
        "embeddings": [{"name": one, "weights": _weights(one.split(":")[0])} for one in dict.fromkeys(filter(None, spaces))],
        "steps": ", then ".join([*pipeline.get("steps", {}), f"clipped at {pipeline.get('clip')}"]).replace("_", " "),
        "machine": f"{made.get('machine')}, {made.get('cores')} cores", "seconds": made.get("seconds", math.nan),
        "commit": made.get("commit"), "versions": ", ".join(f"{k} {v}" for k, v in made.get("versions", {}).items()),
    }  # fmt: skip


def _member(context: Context, recipe: RecipeSettings | None, name: str, tta: str) -> dict[str, Any]:
    """A run's line: from its record where it is built, else from the recipe's or its model's settings."""
    folder, facts = context.places.run(name), {"run": name, "tta": tta, "trained": UNRECORDED}
    loaded: dict[str, str] | None = None
    if (folder / "run.json").is_file():
        run = runs.load(folder)
        settings, loaded = run.settings, run.weights
        found = [run.manifest(k) for k in range(context.settings.folds) if run.finished(k)]
        hours = f"{sum(one.get('seconds') or 0 for one in found) / 3600:.1f} h"
        machines = {f"{one.get('machine')}, {one.get('cores')} cores, {hours}, {one.get('commit')}" for one in found}
        facts["trained"] = "; ".join(sorted(machines)) or UNRECORDED
    elif recipe and name in recipe.runs:
        settings = load(ModelSettings, CONFIGS / "models", recipe.runs[name].model, recipe.runs[name].set)
    elif (CONFIGS / "models" / f"{name}.yaml").is_file():
        settings = load(ModelSettings, CONFIGS / "models", name)
    else:
        return facts | dict.fromkeys(("backbone", "weights", "input", "stages"), UNRECORDED)
    stages = ", ".join(
        f"{epochs} epoch{'s' * (epochs > 1)}" if stage.fit == "gradient" else "linear probe"
        for stage, epochs in zip(settings.train.stages, settings.train.planned, strict=True)
    )
    stages += ", on pseudo-labels of test images too" if settings.train.pseudo else ""
    weights = _weights(settings.backbone, loaded) if settings.weights == "imagenet" else "none"
    return facts | {"backbone": settings.backbone, "weights": weights, "input": settings.input.size, "stages": stages}


def _weights(backbone: str, loaded: dict[str, str] | None = None) -> str:
    """Which weights were loaded, as the run records it: a file or download, its checksum, its licence."""
    if backbone not in BACKBONES:
        return UNRECORDED
    file = ", ".join(f"{key} {value}" for key, value in (loaded or {}).items())
    return f"ImageNet, {file or f'file {UNRECORDED}'}, {BACKBONES[backbone].licence}"


def _entry_points(context: Context, name: str, made: dict[str, Any], recipe: RecipeSettings | None) -> str:
    """Commands that prepare, train and predict, as Kaggle's guidelines ask for them."""
    where = f"DATASET={context.dataset}"
    trained = [
        f"{recipe.runs[run].command(run) if recipe and run in recipe.runs else f'make train {going_on(run)}'} {where}"
        for run in made["runs"]
    ]
    ensemble = f'make ensemble NAME={name} MODELS="{" ".join(made["runs"])}" {where}'
    steps = {
        "Install": ["make setup"],
        "Prepare the data (RAW_DATA_DIR to PROCESSED_DATA_DIR)": [f"make data {where}", f"make folds {where}"],
        "Train (PROCESSED_DATA_DIR to MODEL_DIR)": [f"make reproduce {where}"] if recipe else trained,
        "Predict the test images (MODEL_DIR to SUBMISSION_DIR)": [f"make reproduce {where}" if recipe else ensemble],
        "Check it, and name the classes of new images": [
            f"make check {where} FILE={context.places.submission(name)}",
            f"make classify {where} RUN={next(iter(made['runs']))} IMAGE=<image>",
        ],
    }
    return render("entry_points.md", steps=steps, trained=trained, reproduced=recipe is not None)


def _settings(context: Context) -> dict[str, str]:
    """The folders of SETTINGS.json, relative to the repository's root."""
    places = context.places
    return {
        "RAW_DATA_DIR": context.settings.data,
        "PROCESSED_DATA_DIR": str(places.build / "pack"),
        "CHECKPOINT_DIR": str(places.runs),
        "MODEL_DIR": str(places.runs),
        "SUBMISSION_DIR": str(places.submissions),
    }


def _directories() -> Iterable[str]:
    """Folders that the repository tracks, as `find . -type d` lists them; where git cannot tell, those that are not hidden."""
    tracked = git(Path(), "ls-files")
    files = tracked.splitlines() if tracked else [str(p) for p in Path().rglob("*") if not p.is_dir()]
    folders = {parent.as_posix() for file in files for parent in Path(file).parents}
    kept = [folder for folder in folders if not folder.startswith((".venv", "build"))]
    return sorted(f"./{folder}" if folder != "." else "." for folder in kept)
