"""`make train` from JPEG files to out-of-fold predictions, beside fine-tuning as Keras', PyTorch's and HDF5 guides show it.

Every side trains the same images, driver folds, network, initial weights, frozen layers, epochs, batch and learning rates,
validates each epoch, and predicts each fold's validation images once (centre view), in processes of its own.
"""

import csv
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.result import Result
from benchmarks.scratch_project import command, environment
from benchmarks.timing import Side, Timing, interleaved, speed, spread
from benchmarks.training_plan import PORTED, Plan, PlannedStage
from benchmarks.workload import Bench
from driverwatch.config.model import ModelSettings
from driverwatch.config.training import Stage
from driverwatch.data import folds as fold_file
from driverwatch.data.augment import load_preset
from driverwatch.data.context import CONFIGS
from driverwatch.errors import InputError
from driverwatch.inference import predictions
from driverwatch.inference.predictions import prediction_path
from driverwatch.io.console import say
from driverwatch.metrics import log_loss

FOLDS = 2
NAME = "bench"  # of the data set and of the model in the project that is trained
HEAD_RATE = 1e-3  # of the head alone where our recipe solves for it: Adam's default, as Keras' guide has it
TARGET = 2.0
BASELINES = {
    "directory": "Keras' fine-tuning, image_dataset_from_directory",
    "cached": "Keras' fine-tuning, decoded images cached",
    "torch": "PyTorch with a DataLoader",
    "generator": "the guides' HDF5 generator and fit",
}
LOSS = "log loss above that of"


@dataclass(frozen=True)
class Sides:
    """The project that is trained, what its baselines train, and the log loss of each run of each side, in order."""

    project: Path
    plan: Plan
    losses: dict[str, list[float]]

    def ours(self, weights: Path | None) -> None:
        """`make train`'s two commands that depend on the images: packing, and training with predictions."""
        place = [] if weights is None else ["--weights", str(weights.absolute())]
        for words in (["pack", "--model", NAME], ["train", NAME, *place]):
            finished(command([*words, "--dataset", NAME]), self.project)
        run = self.project / "build" / NAME / "runs" / NAME
        said: dict[str, np.ndarray] = {}
        for number in range(self.plan.count):
            made = predictions.read(prediction_path(run / f"fold{number}", "validation", "centre"), {})
            said |= dict(zip(made.names, made.probabilities, strict=True))
        self._score("ours", np.array([said[Path(path).name] for path in self.plan.paths]))

    def baseline(self, side: str) -> None:
        """A baseline's process."""
        target, plan = self.project / f"{side}.npz", str(self.project / "plan.json")
        module = ["benchmarks.torch_baseline"] if side == "torch" else ["benchmarks.keras_baselines", side]
        finished([sys.executable, "-m", *module, plan, str(target)], self.project)
        with np.load(target) as made:
            self._score(side, made["probabilities"])

    def forget(self) -> None:
        """Remove what our side has built."""
        shutil.rmtree(self.project / "build", ignore_errors=True)

    def _score(self, side: str, probabilities: np.ndarray) -> None:
        self.losses.setdefault(side, []).append(log_loss(probabilities, np.array(self.plan.labels)))


def results(bench: Bench) -> list[Result]:
    """Seconds of each baseline over ours, and our log loss less its."""
    settings = comparable(bench)
    project = (bench.place / "end_to_end").absolute()
    plan, kinds = prepared(bench, settings, project)
    skipped = skipped_sides(kinds)
    there = [side for side in BASELINES if side not in skipped]
    sides = Sides(project, plan, {})
    timed = interleaved(
        {"ours": Side(lambda: sides.ours(bench.weights if settings.weights == "imagenet" else None), sides.forget)}
        | {side: Side(partial(sides.baseline, side)) for side in there},
        bench.asked.repeat,
        cpu=children_seconds,
        warm_up=0,
    )
    facts = {"model": bench.model, "weights": settings.weights, "images": len(plan.paths), "folds": plan.count,
             "epochs": sum(stage.epochs for stage in plan.stages), "batch": plan.batch}  # fmt: skip
    found = []
    for side, what in BASELINES.items():
        found += (
            [_skipped(what, skipped[side])] if side in skipped else _results(what, side, timed, sides.losses, facts)
        )
    return found


def _results(
    what: str, side: str, timed: dict[str, Timing], losses: dict[str, list[float]], facts: dict[str, Any]
) -> list[Result]:
    """The ratio of seconds, and the difference of log losses, of one baseline."""
    timings = {"ours": timed["ours"], "theirs": timed[side]}
    both = {"ours": losses["ours"], "theirs": losses[side]}
    facts = {**facts, "log_loss": both, "cpu_ratio": speed(*(Timing(t.cpu, t.cpu) for t in timings.values()))._asdict()}
    above = spread([ours - theirs for ours, theirs in zip(*both.values(), strict=True)])
    return [
        Result("end_to_end", what, "higher", TARGET, speed(*timings.values()), timings, facts),
        Result("end_to_end", f"{LOSS} {what}", "lower", 0.0, above, timings, facts),
    ]


def _skipped(what: str, why: str) -> Result:
    return Result("end_to_end", what, "higher", TARGET, skipped=why)


def skipped_sides(kinds: set[str]) -> dict[str, str]:
    """Baselines that cannot run here, and why; `kinds`: of the network's layers."""
    if importlib.util.find_spec("torch") is None:
        return {"torch": "PyTorch is not installed; make setup EXTRAS=backends"}
    if strange := sorted(kinds - set(PORTED)):
        return {"torch": f"benchmarks/torch_baseline.py has no {', '.join(strange)}"}
    return {}


def children_seconds() -> float:
    """CPU seconds of all processes that this one started and that have ended."""
    taken = os.times()
    return taken.children_user + taken.children_system


def finished(words: list[str], project: Path) -> None:
    """Run a command in a project to its end. Raises `InputError` with the last that it printed, if it fails."""
    variables = {**environment(), "NO_ALBUMENTATIONS_UPDATE": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    made = subprocess.run(words, cwd=project, env=variables, capture_output=True, text=True, check=False)
    if made.returncode:
        raise InputError(f"{project}: {' '.join(words[1:4])} failed: {(made.stdout + made.stderr)[-500:]}")


def comparable(bench: Bench) -> ModelSettings:
    """The model's settings for a comparison: random weights unless WEIGHTS= names their folder, and the centre view alone.

    Raises:
        InputError: settings that the baselines do not follow.
    """
    settings = bench.settings
    train, head, augment = settings.train, settings.head, settings.augment
    followed = {
        "input.regions": settings.input.regions == ["whole"],
        "head": head.pooling == "average" and not head.dense and not head.weight_decay,
        "augment": augment.mix == "none" and augment.hflip != "swap_left_right",
        "train.weight_decay": not train.weight_decay,
        "train.splits": train.splits.kind == "folds" and train.splits.train_drivers is None,
        "train.pseudo": train.pseudo is None,
        "train.average_weights": train.average_weights == "none",
        "train.select": not train.uses_validation,
        "train.class_weights": train.class_weights == "none" and train.label_issues == "none",
        "train.stages": not any(stage.lr_multipliers for stage in train.stages),
        "columns.driver of the data set": bench.context.settings.columns.driver is not None,
    }
    if others := [name for name, is_so in followed.items() if not is_so]:
        raise InputError(f"MODEL={bench.model}: the baselines of end_to_end do not follow its {', '.join(others)}")
    predict = settings.predict.model_copy(update={"tta": ["centre"], "test": False})
    if bench.weights is None and settings.weights == "imagenet":
        say("end_to_end: random weights and nothing frozen, since WEIGHTS= names no folder; log losses then say little")
        stages = [Stage(epochs=sum(train.planned))]
        train = train.model_copy(update={"stages": stages, "max_epochs": None, "augmentation_passes": None})
        settings = settings.model_copy(update={"weights": "none", "train": train})
    return settings.model_copy(update={"predict": predict})


def prepared(bench: Bench, settings: ModelSettings, project: Path) -> tuple[Plan, set[str]]:
    """Write everything that all sides start from; the plan, and the kinds of the network's layers."""
    shutil.rmtree(project, ignore_errors=True)
    _write_configs(bench, settings, project)
    _link_images(bench, project / "data")
    finished(command(["folds", "--dataset", NAME]), project)
    table = bench.table.frame
    of_driver = fold_file.read(project / "folds" / f"{NAME}.csv", bench.table).of_driver
    classifier, stages = _initial(bench, settings)
    kinds = export(classifier.backbone, project / "initial.keras")
    scaling, train = classifier.scaling, settings.train
    plan = Plan(
        folder=str(project / "by_fold"),
        paths=[str(path.absolute()) for path in bench.paths],
        labels=[int(label) for label in table["label"]],
        folds=[int(of_driver[driver]) for driver in table["driver"]],
        classes=len(bench.context.settings.classes),
        packed=bench.size, size=bench.input_size, crop=settings.input.crop,
        network=str(project / "initial.keras"),
        order=scaling.order, mean=list(scaling.mean), std=list(scaling.std),
        statistics=any(stage.normalization == "train" for stage in _plans(settings)),
        dropout=settings.head.dropout, stages=stages, batch=train.batch_size,
        optimizer=train.optimizer, momentum=train.momentum, label_smoothing=train.label_smoothing,
        schedule=train.schedule, warmup=train.warmup,
        preset=load_preset(CONFIGS / "presets", settings.augment.preset),
        hflip=settings.augment.hflip == "keep_labels", seed=train.seed,
    )  # fmt: skip
    _link_folds(plan, list(bench.context.settings.classes))
    plan.write(project / "plan.json")
    return plan, kinds


def _plans(settings: ModelSettings) -> list[Any]:
    from driverwatch.training.optimizer import plan

    return plan(settings)


def _initial(bench: Bench, settings: ModelSettings) -> tuple[Any, list[PlannedStage]]:
    """The classifier as each of our folds starts with it, and what its stages freeze."""
    from driverwatch.models import backend

    backend.start()
    from driverwatch.models import classifier, weight_files
    from driverwatch.models.freezing import frozen_count

    backend.deterministic(settings.train.seed)
    weights = weight_files.find(settings, bench.weights)
    made = classifier.build(settings, len(bench.context.settings.classes), bench.pack.mean, weights)
    stages = []
    for stage in _plans(settings):
        rate = HEAD_RATE if stage.settings.fit == "linear_probe" else stage.learning_rate
        stages.append(PlannedStage(frozen_count(made.backbone.layers, stage.freeze_until), stage.stop, rate))
    return made, stages


def export(backbone: Any, path: Path) -> set[str]:
    """Save a network, and beside it its layers as JSON and their weights as NumPy arrays; the kinds of layers it has."""
    backbone.save(path)
    places = {layer.name: place for place, layer in enumerate(backbone.layers)}
    nodes, weights = list[dict[str, Any]](), dict[str, np.ndarray]()
    for layer in backbone.operations:
        parents = [parent.operation.name for parent in layer._inbound_nodes[0].parent_nodes]
        kind, config = type(layer).__name__, layer.get_config()
        nodes.append({"name": layer.name, "kind": kind, "place": places.get(layer.name, 0), "parents": parents,
                      "config": {key: value for key, value in config.items() if _is_plain(value)}})  # fmt: skip
        weights |= {f"{layer.name}/{weight.name}": np.asarray(weight) for weight in getattr(layer, "weights", [])}
    path.with_suffix(".json").write_text(json.dumps(nodes), encoding="utf-8")
    np.savez(path.with_suffix(".npz"), **weights)  # type: ignore[arg-type]
    return {str(node["kind"]) for node in nodes}


def _is_plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def _write_configs(bench: Bench, settings: ModelSettings, project: Path) -> None:
    """The project's configs: the real ones, the data set with `FOLDS` folds, and the model with every setting said."""
    shutil.copytree(CONFIGS, project / "configs")
    (project / "folds").mkdir()
    asked = bench.context.settings.model_dump(
        include={"title", "classes", "left_right_pairs", "columns", "table", "train_images", "test_images",
                 "sample_submission"}
    )  # fmt: skip
    files = {"datasets": {**asked, "data": "data", "folds": FOLDS}, "models": {"base": "none", **settings.model_dump()}}
    for folder, content in files.items():
        text = yaml.safe_dump(content, sort_keys=False)
        (project / "configs" / folder / f"{NAME}.yaml").write_text(text, encoding="utf-8")


def _link_images(bench: Bench, data: Path) -> None:
    """A competition of the images measured on, and no test images: links, and its two tables."""
    about, frame = bench.context.settings, bench.table.frame
    for path, source in zip(frame["path"], bench.paths, strict=True):
        link(source, data / path)
    columns, classes = about.columns, list(about.classes)
    rows = zip(frame["driver"], frame["label"], frame["image"], strict=True)
    lines = [[driver, classes[label], image] for driver, label, image in rows]
    tables: dict[str, list[list[str]]] = {
        about.table: [columns.named, *lines],
        about.sample_submission: [[columns.image, *classes]],
    }
    for name, table in tables.items():
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        with (data / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(table)


def _link_folds(plan: Plan, classes: list[str]) -> None:
    """Folders of each fold's training and validation images by class; a file's name begins with the image's row."""
    for number in range(plan.count):
        for kind, rows in zip(("training", "validation"), plan.split(number), strict=True):
            for place, label in enumerate(classes):
                (Path(plan.folder) / f"fold{number}" / kind / f"{place:03d}-{label}").mkdir(parents=True)
            for row in rows:
                name = f"{plan.labels[row]:03d}-{classes[plan.labels[row]]}"
                source = Path(plan.paths[row])
                link(source, Path(plan.folder) / f"fold{number}" / kind / name / f"{row}-{source.name}")


def link(source: Path, target: Path) -> None:
    """A link to a file, in folders that are made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(source.absolute())
