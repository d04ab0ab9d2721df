"""A submission's model card, and the three files that Kaggle asks winners for, from what is committed alone.

The card follows Mitchell et al. 2019 (Model Cards for Model Reporting) with the front matter that the Hugging Face Hub reads; the
others are entry_points.md, SETTINGS.json and directory_structure.txt of Kaggle's winning model documentation guidelines, part B.
All is taken from the submission's manifest, its out-of-fold file, the folds and the settings, so every clone writes the same.
"""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from driverwatch.config.backbones import BACKBONES
from driverwatch.config.dataset import DatasetSettings
from driverwatch.config.ensemble import PipelineSettings, embedding_source, kept_settings
from driverwatch.config.experiments import RecipeSettings
from driverwatch.config.loading import load, parse
from driverwatch.config.model import ModelSettings
from driverwatch.data.context import CONFIGS, Context, absent, going_on
from driverwatch.data.folds import glance
from driverwatch.errors import InputError
from driverwatch.io.atomic import write_json, write_text
from driverwatch.io.console import close
from driverwatch.io.html import render
from driverwatch.io.manifests import checksum_of_file, git, read_json
from driverwatch.metrics import interval, oof_score
from driverwatch.submission.build import read_out_of_fold

UNRECORDED = "not recorded"
LIMITS = "On a road nothing of this was tested."
HONEST = "No epoch was chosen on these drivers."
STAGED = {  # by competition, as its own page says of the images
    "state-farm-distracted-driver-detection": "The drivers only acted: a truck dragged the car along the street."
}
UNLABELLED = {"test": "test images", "validation": "validation images", "both": "test and validation images"}
CALIBRATED = {"temperature": "temperature scaling", "bias": "temperature scaling and class biases"}
IN_INDEX = {"efficientnet_lite1", "efficientnet_lite2"}  # whose weights make setup EXTRAS=weights installs


class Recipe(NamedTuple):
    """A recipe that makes the submission, and its name in configs/recipes."""

    name: str
    settings: RecipeSettings


def write_card(context: Context, name: str) -> Path:
    """The folder into which submission `name`'s model card, entry points, settings and directory structure are written.

    Raises:
        InputError: no such submission, one without out-of-fold probabilities, or ones of another submission.
    """
    path, source = context.places.submission(name).with_suffix(".json"), context.places.out_of_fold(name)
    if not path.is_file():
        way_out = absent(context) or f"make ensemble NAME={name} DATASET={context.dataset} writes it"
        raise InputError(f"{path}: no such submission; {way_out}")
    made, (frame, probabilities) = read_json(path), read_out_of_fold(context, name)
    if made.get("out_of_fold_rows") != checksum_of_file(source):
        raise InputError(f"{source}: is not of {path}; make ensemble NAME={name} DATASET={context.dataset} writes both")
    folder, recipe = context.places.card(name), _recipe(name, made["runs"])
    members = [_member(recipe, run, tta, made) for run, tta in made["runs"].items()]
    facts = {**_results(context, frame, probabilities), **_origin(context, name, made, recipe)}
    facts |= {"members": members, "teachers": list(_teachers(context, recipe, list(made["runs"])))}
    write_text(folder / "MODEL_CARD.md", render("model_card.md", name=name, manifest=path, **facts))
    write_text(folder / "entry_points.md", _entry_points(context, name, made, recipe))
    write_json(folder / "SETTINGS.json", _settings(context))
    write_text(folder / "directory_structure.txt", "\n".join(_directories()) + "\n")
    score = facts["score"]
    close(folder, f"MODEL_CARD.md and 3 more files, out-of-fold log loss {score.log_loss:.4f}")
    return folder


def _recipe(name: str, members: Iterable[str]) -> Recipe | None:
    """The recipe that makes this submission of these runs, if one does: a name alone, such as best, may be anyone's."""
    for path in sorted((CONFIGS / "recipes").glob("*.yaml")):
        recipe = load(RecipeSettings, path.parent, path.stem)
        if name in recipe.submissions and set(recipe.submissions[name].runs) == set(members):
            return Recipe(path.stem, recipe)
    return None


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


def _origin(context: Context, name: str, made: dict[str, Any], recipe: Recipe | None) -> dict[str, Any]:
    """What a manifest and the settings say of data, post-processing, hardware and time."""
    settings, manifest = context.settings, context.places.submission(name).with_suffix(".json")
    pipeline = kept_settings(made["pipeline"], manifest)
    chosen = ", ".join(made.get("chosen_on_validation") or [])
    doubted = context.places.label_issues.with_suffix(".json")
    return {
        "label_errors": read_json(doubted).get("errors") if doubted.is_file() else None,
        "title": settings.title, "dataset": context.dataset, "slug": settings.slug, "fold_file": context.places.folds,
        "checksum": glance(context.places.folds, tuple(settings.classes)).checksum,
        "optimistic": f"Optimistic: the validation drivers had a say in {chosen}." if chosen else HONEST,
        "staged": f"{STAGED.get(settings.slug or '', '')} {LIMITS}".strip(), "predicted": made.get("prediction_interval"),
        "transductive": bool(pipeline.embeddings), "single": _single_image(context, name, recipe),
        "models": sum(map(len, made["fold_models"].values())), "plain": made.get("plain_mean_log_loss"),
        "embeddings": [_embedding(text, made.get("embeddings", {})) for text in pipeline.embeddings],
        "steps": ", then ".join([*_steps(pipeline), f"clipping at {made['pipeline'].get('clip')}"]),
        "machine": f"{made.get('processor') or made.get('machine')}, {made.get('cores')} cores",
        "seconds": made.get("seconds", math.nan),
        "commit": made.get("commit"), "versions": ", ".join(f"{k} {v}" for k, v in made.get("versions", {}).items()),
    }  # fmt: skip


def _steps(pipeline: PipelineSettings) -> list[str]:
    """What happens to the runs' probabilities, in the glossary's words."""
    blend = pipeline.blend.replace("_", " ")
    steps = [
        {"mean": "mean of the runs", "geometric": "geometric mean of the runs"}.get(blend, f"{blend} blend of the runs")
    ]
    near = pipeline.knn
    smoothed = ["k-NN smoothing" if near.method == "average" else "averages over clusters"] if near else []
    passed = smoothed if near and near.smooth_before_balancing else []
    passed = passed + ([CALIBRATED["temperature"]] if near and near.passes > 1 else [])
    passed = passed + (["per-driver class balancing"] if pipeline.class_balance else [])
    steps += passed * (near.passes if near else 1) + smoothed
    return steps + ([CALIBRATED[pipeline.calibrate]] if pipeline.calibrate != "none" else [])


def _embedding(text: str, checksums: dict[str, str]) -> dict[str, str | None]:
    """Where images are compared: its name, the licence of its network's weights, and the checksum of what was computed."""
    path = CONFIGS / "models" / f"{embedding_source(text).model}.yaml"
    backbone = load(ModelSettings, path.parent, path.stem).backbone if path.is_file() else ""
    return {"name": text, "weights": _weights(backbone), "checksum": checksums.get(text)}


def _single_image(context: Context, name: str, recipe: Recipe | None) -> dict[str, Any] | None:
    """The recipe's best other submission that takes each image by itself, by runs that never saw an image without a label."""
    found = []
    for other, settings in recipe.settings.submissions.items() if recipe else ():
        path = context.places.submission(other).with_suffix(".json")
        alone = not settings.embeddings and not any(_run_settings(recipe, run).train.pseudo for run in settings.runs)
        if alone and other != name and path.is_file() and "out_of_fold_log_loss" in (made := read_json(path)):
            found.append(
                {"name": other, "log_loss": made["out_of_fold_log_loss"], "accuracy": made["out_of_fold_accuracy"]}
            )
    return min(found, key=lambda one: one["log_loss"], default=None)


def _run_settings(recipe: Recipe | None, name: str) -> ModelSettings:
    """A recipe's run as it is trained. Raises `InputError`: its model's settings are invalid."""
    run = recipe.settings.runs[name] if recipe else None
    return load(ModelSettings, CONFIGS / "models", run.model if run else name, run.set if run else "")


def _member(recipe: Recipe | None, name: str, tta: str, made: dict[str, Any]) -> dict[str, Any]:
    """A run's line: from the manifest, else, of one from before that was kept, the recipe's or its model's settings."""
    found = made.get("trained", {}).get(name, {})
    facts = {"run": name, "tta": tta, "trained": _trained(found) if found else UNRECORDED, "pseudo": None}
    if found:
        settings = parse(ModelSettings, found["settings"], f"{name}: trained.settings")
    elif (recipe and name in recipe.settings.runs) or (CONFIGS / "models" / f"{name}.yaml").is_file():
        settings = _run_settings(recipe if recipe and name in recipe.settings.runs else None, name)
    else:
        return facts | dict.fromkeys(("backbone", "weights", "input", "stages"), UNRECORDED)
    stages = ", ".join(
        f"{epochs} epoch{'s' * (epochs > 1)}" if stage.fit == "gradient" else "linear probe"
        for stage, epochs in zip(settings.train.stages, settings.train.planned, strict=True)
    )
    pseudo = settings.train.pseudo
    stages += f", on pseudo-labels of {UNLABELLED[pseudo.images]} too" if pseudo else ""
    weights = _weights(settings.backbone, found.get("pretrained")) if settings.weights == "imagenet" else "none"
    named = {"backbone": settings.backbone, "weights": weights, "input": settings.input.size, "stages": stages}
    return facts | named | {"pseudo": pseudo and pseudo.images}


def _teachers(context: Context, recipe: Recipe | None, runs: list[str]) -> Iterable[dict[str, Any]]:
    """Lines of the runs that only made pseudo-labels for these, from whichever manifest of the recipe's has them."""
    if recipe is None:
        return
    paths = [context.places.submission(name).with_suffix(".json") for name in recipe.settings.submissions]
    for run in _with_teachers(recipe, runs):
        found = (made for path in paths if path.is_file() and run in (made := read_json(path)).get("trained", {}))
        if run not in runs:
            yield _member(recipe, run, "", next(found, {}))


def _trained(found: dict[str, Any]) -> str:
    """Where, how long and at which commits a run was trained and predicted with, in words."""
    predicting = (found["seconds"] - found["training_seconds"]) / 60
    minutes = f"{found['training_seconds'] / 60:.0f} min training, {predicting:.0f} min predicting"
    return f"{'; '.join(found['machines'])}: {minutes}, at {', '.join(found['commits'])}"


def _weights(backbone: str, loaded: dict[str, str] | None = None) -> str:
    """The licence of a backbone's ImageNet weights, and which file was loaded, with its checksum."""
    if backbone not in BACKBONES:
        return UNRECORDED
    row, file = BACKBONES[backbone], "; ".join(f"{key} {value}" for key, value in (loaded or {}).items())
    published = {row.backbone.official, row.whole.official, Path(row.package.file).name if row.package else ""} - {""}
    other = loaded and published and not published & set(loaded.values())
    note = "; not the published file, which has this licence" if other else ""
    return f"{row.licence or 'licence unknown'}; {file or f'file {UNRECORDED}'}{note}"


def _entry_points(context: Context, name: str, made: dict[str, Any], recipe: Recipe | None) -> str:
    """Commands that prepare, train and predict, as Kaggle's guidelines ask for them."""
    where, runs = f"DATASET={context.dataset}", list(made["runs"])
    if recipe:
        which = f" NAME={recipe.name}" if recipe.name != context.dataset else ""
        train = predict = [f"make reproduce {where}{which}"]
        needed = _with_teachers(recipe, runs)
        trained = [f"{recipe.settings.runs[run].command(run)} {where}" for run in needed]
        extra = any(_run_settings(recipe, run).backbone in IN_INDEX for run in needed)
    else:
        train = trained = [f"make train {going_on(run)} {where}" for run in runs]
        predict, extra = [f'make ensemble NAME={name} MODELS="{" ".join(runs)}" {where}'], False
    steps = {
        "Install": [f"make setup{' EXTRAS=weights' if extra else ''}"],
        "Prepare the data (RAW_DATA_DIR to PROCESSED_DATA_DIR)": [*_data(context), f"make folds {where}"],
        "Train (PROCESSED_DATA_DIR to MODEL_DIR)": train,
        "Predict the test images (MODEL_DIR to SUBMISSION_DIR)": predict,
        "Check it, and name the classes of new images": [
            f"make check {where} FILE={context.places.submission(name)}",
            f"make classify {where} RUN={runs[0]} IMAGE=<image>",
        ],
    }
    return render("entry_points.md", steps=steps, trained=trained, reproduced=recipe is not None)


def _with_teachers(recipe: Recipe, runs: list[str]) -> list[str]:
    """Runs in the recipe's order, those whose pseudo-labels they are trained on included."""
    needed = set(runs) & set(recipe.settings.runs)
    while True:
        asked = [pseudo for run in needed if (pseudo := _run_settings(recipe, run).train.pseudo)]
        named = [recipe.settings.pseudo_labels[one.labels].runs if one.labels else one.runs for one in asked]
        if needed >= (teachers := {run for each in named for run in each}):
            return [run for run in recipe.settings.runs if run in needed]
        needed |= teachers


def _data(context: Context) -> list[str]:
    """Commands that fetch the images; none for a data set of one's own."""
    settings, where = context.settings, f"DATASET={context.dataset}"
    if settings.subset is None:
        return [f"make data {where}"] if settings.slug else [f"make synthetic {where}"] if settings.test_labels else []
    for path in sorted((CONFIGS / "datasets").glob("*.yaml")):
        whole = load(DatasetSettings, path.parent, path.stem)
        if whole.slug == settings.slug and whole.subset is None:
            return [f"make data DATASET={path.stem}", f"make subset SOURCE={whole.data} {where}"]
    return [f"make subset SOURCE=<the full download> {where}"]


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
