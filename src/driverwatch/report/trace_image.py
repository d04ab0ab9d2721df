"""`make trace`: one image's way through the pipeline, as far as it is built: table, fold, packs, runs, submissions; no Keras."""

import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from driverwatch.config.backbones import BACKBONES
from driverwatch.config.dataset import class_columns
from driverwatch.config.ensemble import PipelineSettings, kept_settings
from driverwatch.config.types import TtaSet, pixels, regions_of
from driverwatch.data import competition
from driverwatch.data import folds as fold_file
from driverwatch.data.competition import ImageTable
from driverwatch.data.context import Context, absent, open_packs, table_of
from driverwatch.data.folds import FoldTable
from driverwatch.data.images import examine
from driverwatch.data.tta import tta_set, unique
from driverwatch.ensemble import members as blending
from driverwatch.ensemble import post_processing
from driverwatch.ensemble.embedding_index import EmbeddingIndex
from driverwatch.ensemble.embeddings import open_embeddings
from driverwatch.ensemble.members import Finished, Member, finished_runs
from driverwatch.ensemble.transform import FittedTransform, MemberPredictions, apply_transforms, fit_transforms
from driverwatch.errors import InputError, nearest
from driverwatch.inference import predictions
from driverwatch.inference.predictions import default_tta_of, predicted_tta, prediction_path
from driverwatch.io.console import say, table
from driverwatch.io.manifests import read_json
from driverwatch.io.paths import matching
from driverwatch.metrics import limited, log_loss
from driverwatch.run import Run

MAX_CLASSES = 12  # that a table has room for; of more, the likeliest
SENTENCES = textwrap.TextWrapper(96, "  ", "    ", break_long_words=False, break_on_hyphens=False)
TOLERANCE = 2e-6  # a submission has seven decimals
FLIPS = {"none": "never flipped", "keep_labels": "half flipped, class kept",
         "swap_left_right": "half flipped, class swapped"}  # fmt: skip


@dataclass(frozen=True)
class TracedImage:
    """A line of the data set's tables: `label` is -1 where it is not known."""

    name: str
    kind: str  # train or test
    driver: str
    label: int
    path: str  # below the data folder; empty where the images are not here
    test_label: bool = False  # known because the data set is synthetic


def trace_image(context: Context, asked: str, names: list[str], submission: str | None) -> None:
    """Print the way of the image `asked` (a name, or a path whose last part is one).

    Args:
        names: runs; none: every finished one.
        submission: the submission whose pipeline is followed; None: the one with the least out-of-fold log loss.

    Raises:
        InputError: no table and no pack names it, or a named run or submission is not there.
    """
    image = find(context, Path(asked).name)
    say(f"{image.name}: a {'labelled' if image.kind == 'train' else 'test'} image of {context.dataset}")
    for title, lines in (("table", _table), ("fold", _fold), ("packs", _packs)):
        _section(title, lambda lines=lines: lines(context, image))  # type: ignore[misc]
    _section("runs", lambda: run_lines(context, image, names), bool(names))
    _section("submissions", lambda: submission_lines(context, image, submission), submission is not None)


def _section(title: str, lines: Callable[[], list[str]], named: bool = False) -> None:
    """Print a part of the way; what is not built is said, with the command, unless it was named by the user."""
    try:
        found = lines()
    except InputError as error:
        if named:
            raise
        found = [f"not yet: {error}"]
    is_whole = ["  " in line or "\n" in line for line in found]  # a table's line has columns two blanks apart
    shown = [f"  {line}" if whole else SENTENCES.fill(line) for whole, line in zip(is_whole, found, strict=True)]
    say("\n".join([f"\n{title}", *(line.rstrip() for line in shown)]))


def find(context: Context, name: str) -> TracedImage:
    """The image of this name, from the data set's tables, or where these are not here from a pack.

    Raises:
        InputError: no such image, with the nearest name.
    """
    labels, tables = _tables(context)
    for kind, images in reversed(tables.items()):
        frame = images.frame[images.frame["image"] == name]
        for driver, label, path in frame[["driver", "label", "path"]].itertuples(index=False, name=None):
            known = kind == "test" and name in labels
            return TracedImage(name, kind, str(driver), labels[name] if known else int(label), str(path), known)
    names = [str(one) for images in tables.values() for one in images.frame["image"]]
    raise InputError(
        f"IMAGE={name}: none of the {len(names)} images of {context.dataset} is called so{nearest(name, names)}"
    )


def _tables(context: Context) -> tuple[dict[str, int], dict[str, ImageTable]]:
    """Known labels of test images, and the images by kind: the data set's tables, or where these are not here a pack's."""
    settings, data = context.settings, context.data
    if (data / settings.table).is_file():
        labels = competition.read_test_labels(settings, data) or {}
        train, test = competition.read_train(settings, data).table, competition.read_test(settings, data).table
        return labels, {"train": train, "test": test}
    if not (sizes := _sizes(context)):
        way = absent(context) or f"{data}: holds no {settings.table}; DATA=<folder> must name the images"
        raise InputError(f"nothing is packed yet, and {way}")
    _, packs = open_packs(context, sizes[0])
    return {}, {kind: table_of(packs[kind], tuple(settings.classes)) for kind in ("train", "test")}


def _sizes(context: Context) -> list[str]:
    """Packs that are there, by their keys."""
    return [path.parent.name for path in matching(context.places.build / "pack", "*/train.json")]


def _table(context: Context, image: TracedImage) -> list[str]:
    settings = context.settings
    label = "unknown" if image.label < 0 else "{} ({})".format(*list(settings.classes.items())[image.label])
    if image.kind == "train":
        lines = [f"{settings.table}: driver {image.driver or 'not named'}, class {label}"]
    else:
        lines = [f"{settings.sample_submission}: no driver, no class"]
        known = f"{settings.test_labels}: class {label}, known because the data set is synthetic"
        lines += [known] * image.test_label
    if not image.path:
        return [*lines, "the image itself is not here (DATA=<folder>)"]
    path = context.data / image.path
    looked = examine(path, None)
    if looked.problem:
        return [*lines, f"{path}: {looked.problem}"]
    height, width = looked.shape
    unusual = "".join(f", {trait}" for trait in looked.traits)
    return [*lines, f"{path}: {width}x{height} px, {path.stat().st_size:,} bytes{unusual}"]


def _fold(context: Context, image: TracedImage) -> list[str]:
    path = context.places.folds
    known = fold_file.glance(path, tuple(context.settings.classes))
    if image.kind == "test":
        return [f"none of {known.count}: its driver is in no fold, so that every fold's model may predict it"]
    sizes = _sizes(context)
    if not sizes:
        more = "make pack MODEL=<name> tells who is held out with it"
        return [f"{path}: {known.count} folds of {known.drivers} drivers; {more}"]
    _, packs = open_packs(context, sizes[0])
    folds = fold_file.read(path, table_of(packs["train"], tuple(context.settings.classes)))
    if image.driver not in folds.of_driver:
        return ["its pack was made without it"]
    home = folds.of_driver[image.driver]
    mine = folds.frame[folds.frame["fold"] == home]
    return [
        f"{path}: fold {home} of {folds.count} holds driver {image.driver} out, with {len(mine) - 1} others and "
        f"{mine['images'].sum()} images in all",
        f"so the models of the other {folds.count - 1} folds are trained on it, and fold {home}'s alone predicts it",
    ]


def _packs(context: Context, image: TracedImage) -> list[str]:
    sizes = _sizes(context)
    if not sizes:
        raise InputError(f"no pack; run make pack MODEL=<name> DATASET={context.dataset}")
    return [line for size in sizes for line in _packed(context, image, size)]


def _packed(context: Context, image: TracedImage, size: str) -> list[str]:
    """Where in the file of a pack the image's pixels are."""
    try:
        pack = open_packs(context, size)[1][image.kind]
    except InputError as error:
        return [f"{size}: {error}"]
    found = np.flatnonzero(pack.names == image.name)
    if not len(found):
        return [f"{size}: packed without it, as invalid"]
    _, height, width, channels = pack.images.shape
    index, regions, each = int(found[0]), regions_of(size), height * width * channels
    stacked = f" ({len(regions)} regions of {'x'.join(map(str, pixels(size)))})" if len(regions) > 1 else ""
    mean = " ".join(f"{value:.1f}" for value in pack.pixels[index].mean(axis=(0, 1)))
    return [
        f"{pack.images.path}: index {index} of {len(pack.names)}, uint8 ({height}, {width}, {channels}){stacked}, {each:,} bytes "
        f"from byte {pack.images.offset + index * each:,}",
        f"mean of its red, green and blue {mean}; of all {' '.join(f'{value:.1f}' for value in pack.mean)}",
    ]


def run_lines(context: Context, image: TracedImage, names: list[str]) -> list[str]:
    """What every finished run was shown of the image, and what its models predicted."""
    finished, lines = finished_runs(context, names), list[str]()
    for run, test in zip(finished.runs, finished.tests, strict=True):
        unknown = image.kind == "test" and image.name in test.left_out.names
        lines += ["", *_network(run, image.kind), *[f"{run.name} was packed without it"] * unknown]
        found = predicted(run, finished.folds, image)
        lines += _probabilities(context, found, image, "TTA set, model") if found else []
        lines += [] if found else ["no prediction: every model was trained on it"]
    return lines[1:]


def _network(run: Run, kind: str) -> list[str]:
    """A run's network, and the crops that it is given."""
    settings, field, scaling = run.settings, run.settings.input, BACKBONES[run.settings.backbone].scaling
    cut = f" cut at {settings.truncate_at}" if settings.truncate_at else ""
    mean, std = (" ".join(f"{value:g}" for value in values) for values in (scaling.mean, scaling.std))
    network = f"{settings.backbone}{cut}, weights {settings.weights}"
    lines = [f"{run.name}: {network}; pixels as {scaling.order.upper()}, minus {mean}, by {std}"]
    if kind == "train":
        named = settings.augment.preset
        preset = named if isinstance(named, str) else f"{len(run.preset)} transforms"
        lines.append(
            f"shown in training as preset {preset}, {field.crop} patches of {field.size}, {FLIPS[settings.augment.hflip]}, drawn "
            f"by (seed {settings.train.seed}, epoch, index)"
        )
    tta, sizes = default_tta_of(run), (pixels(field.pack), pixels(field.size))
    crops = tta_set(tta, *sizes)
    return [
        *lines,
        f"ensembles take its {tta}: {len(crops)} views of {field.size} out of {field.pack}, {sum(c.flipped for c in crops)} of "
        f"them flipped, {len(unique([tta], *sizes))} forward passes; the mean counts",
    ]


def predicted(run: Run, folds: FoldTable, image: TracedImage) -> dict[str, np.ndarray]:
    """Probabilities, float64 (C,), by TTA set and model; of a labelled image those of models not trained on it."""
    kind, models = "test", list(range(run.settings.train.splits.models(folds.count)))
    if image.kind == "train":
        scored = blending.oof_of_member(run) and image.driver in folds.of_driver
        kind, models = "validation", [folds.of_driver[image.driver]] if scored else []
    default, found = default_tta_of(run), dict[str, np.ndarray]()
    there = sorted(predicted_tta(run, folds.count, (kind,)), key=lambda tta: tta != default) if models else []
    for tta in there:
        made = {k: p for k in models if (p := _prediction(run, k, kind, tta, image.name)) is not None}
        if tta == there[0] or len(made) == 1:
            found |= {f"{tta}, fold {k}": probabilities for k, probabilities in made.items()}
        if len(made) > 1:
            found[f"{tta}, mean"] = np.mean(list(made.values()), axis=0)
    return found


def _prediction(run: Run, fold: int, kind: str, tta: TtaSet, name: str) -> np.ndarray | None:
    made = predictions.read(prediction_path(run.fold(fold), kind, tta), run.predicted(fold, tta))
    found = np.flatnonzero(made.names == name)
    return made.probabilities[found[0]].astype(np.float64) if len(found) else None


def submission_lines(context: Context, image: TracedImage, chosen: str | None) -> list[str]:
    """A test image's probabilities in every submission; of any image the steps of one submission's pipeline."""
    paths = matching(context.places.submissions, "*.json")
    found = {path.stem: read_json(path) for path in paths if path.with_suffix(".csv").is_file()}
    if chosen is not None and chosen not in found:
        there = ", ".join(found) or "none, run make ensemble"
        raise InputError(f"NAME={chosen}: no such submission; there are: {there}")
    if not found:
        raise InputError(f"{context.places.submissions}: no submission; run make ensemble DATASET={context.dataset}")
    lines = list[str]()
    if image.kind == "test":
        made = {f"{one}.csv": _submitted(context, one, image.name) for one in found}
        lines = [*_probabilities(context, made, image, f"lines of {context.places.submissions}"), ""]
    scored = {one: facts["out_of_fold_log_loss"] for one, facts in found.items() if "out_of_fold_log_loss" in facts}
    one = chosen or min(scored, key=lambda key: (scored[key], key), default=next(iter(found)))
    try:
        return lines + _followed(context, one, found[one], image)
    except InputError as error:
        if chosen is not None or not lines:
            raise
        return [*lines, f"the pipeline of {one} is not followed: {error}"]


def _submitted(context: Context, one: str, name: str) -> np.ndarray:
    """An image's probabilities in a submission, float64 (C,)."""
    path = context.places.submission(one)
    frame = pd.read_csv(path)
    line = frame.loc[frame[context.settings.columns.image] == name, list(context.settings.classes)]
    if len(line) != 1:
        more = f"make check FILE={path} says what is wrong with it"
        raise InputError(f"{path}: expected one row of {name}, got {len(line)}; {more}")
    return line.to_numpy(np.float64)[0]


def _followed(context: Context, one: str, facts: dict[str, Any], image: TracedImage) -> list[str]:
    """The steps of a submission's pipeline, fitted again by the settings that its JSON keeps."""
    beside = context.places.submission(one).with_suffix(".json")
    settings, runs = kept_settings(facts.get("pipeline"), beside), facts["runs"]
    finished = finished_runs(context, list(runs))
    members = [Member(run, test, runs[run.name]) for run, test in zip(finished.runs, finished.tests, strict=True)]
    if not all(blending.oof_of_member(member.run) for member in members):
        return [f"{one}: its pipeline is not followed, since not all of its runs were trained on folds"]
    spaces = {text: open_embeddings(context, text) for text in settings.embeddings}
    _refuse_others(spaces, facts.get("embeddings") or {}, beside)
    steps = pipeline_steps(spaces, members, finished, settings, image)
    fitted_on = "fitted on all labelled images, applied to each fold's predictions of the test images; their mean"
    if image.kind == "train":
        own = finished.folds.of_driver[image.driver]
        fitted_on = f"fitted on the other folds, applied to the predictions of fold {own}"
    of = ", ".join(f"{run} ({tta})" for run, tta in runs.items())
    lines = [f"the pipeline of {one}, of {of}: {fitted_on}", *_probabilities(context, steps, image, "run or step")]
    if image.kind == "test":
        off = np.abs(list(steps.values())[-1] - _submitted(context, one, image.name)).max()
        differs = f"{one}.csv differs by {off:.2g}: it was made of other predictions, or changed since"
        lines.append(f"as in {one}.csv" if off < TOLERANCE else differs)
    return lines


def _refuse_others(spaces: dict[str, EmbeddingIndex], used: dict[str, str], beside: Path) -> None:
    """Refuse embeddings that are not those whose checksums a submission's JSON keeps; old ones keep none."""
    if other := [text for text, checksum in used.items() if text in spaces and spaces[text].checksum != checksum]:
        raise InputError(
            f"{beside}: was made with other embeddings of {', '.join(other)} than today's, which were computed again since; make "
            "ensemble writes it with these"
        )


def pipeline_steps(
    spaces: dict[str, EmbeddingIndex],
    members: list[Member],
    finished: Finished,
    settings: PipelineSettings,
    image: TracedImage,
) -> dict[str, np.ndarray]:
    """An image's probabilities, float64 (C,), by run and after each step; a labelled one's by nested cross-validation."""
    rows = blending.oof_of_members(members, finished.train, finished.folds)
    mine = (
        rows.sets == finished.folds.of_driver[image.driver]
        if image.kind == "train"
        else np.zeros(len(rows.names), bool)
    )
    steps = post_processing.steps_of(settings, spaces)
    labels, drivers = finished.train.labels[~mine], finished.train.drivers[~mine]
    fitted = fit_transforms(steps, rows.at(~mine), labels, drivers)
    rules = dict(zip([step.name for step in steps], fitted, strict=True))
    if image.kind == "train":
        parts = [rows.at(mine)]
    else:
        fits, names = blending.folds_of_run(members, finished.folds.count), list(finished.tests[0].names)
        parts = [blending.test_of_members(members, names, each) for each in fits]
    runs = [member.run.name for member in members]
    traces = [traced(rules, part, image.name, runs) for part in parts]
    found = {step: np.mean([trace[step] for trace in traces], axis=0) for step in traces[0]}
    last = "clip" if image.kind == "train" else "clip, and the mean"
    if settings.clip == "fitted":
        return {key if key != "clip" else last: probabilities for key, probabilities in found.items()}
    return found | {last: limited(list(found.values())[-1], float(settings.clip))}


def traced(
    rules: Mapping[str, FittedTransform], rows: MemberPredictions, name: str, runs: list[str]
) -> dict[str, np.ndarray]:
    """One image's probabilities, float64 (C,), by run, then after each rule by its name (the mean of several members).

    All images go through, since a rule may look at an image's neighbours or at its driver's other images.

    Raises:
        InputError: the image is not among the rows.
    """
    places = np.flatnonzero(rows.names == name)
    if not len(places):
        raise InputError(f"{name}: is not among the {len(rows.names)} images that the pipeline was given")
    found = {run: rows.members[i, places[0]] for i, run in enumerate(runs)}
    for step, rule in rules.items():
        rows = apply_transforms([rule], rows)
        found[step] = rows.members[:, places[0]].mean(axis=0)
    return found


def _probabilities(context: Context, rows: dict[str, np.ndarray], image: TracedImage, title: str) -> list[str]:
    """Lines of a table: probabilities (C,) in percent, and the log loss where the class is known."""
    columns, known = class_columns(context.settings.classes), image.label >= 0
    likeliest = np.argsort(-np.mean(list(rows.values()), axis=0), kind="stable")[:MAX_CLASSES]
    chosen = sorted(likeliest.tolist())
    lines = []
    for key, p in rows.items():
        losses = [f"{log_loss(p[None], np.array([image.label])):.3f}"] if known else []
        lines.append([key, *(f"{100 * p[i]:.1f}" for i in chosen), *losses])
    heads = {f"{title}, %": False} | {columns[i]: True for i in chosen} | ({"log loss": True} if known else {})
    return table(heads, lines, heads, 0)[0]
