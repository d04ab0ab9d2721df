"""The reference of all settings, as Markdown: read off the typed models, each key's description being the comment beside it."""

import ast
import inspect
import io
import json
import tokenize
import types
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from driverwatch.config import dataset, ensemble, training
from driverwatch.config import model as model_settings
from driverwatch.config import types as setting_types
from driverwatch.config.dataset import DatasetSettings
from driverwatch.config.ensemble import EnsembleSettings
from driverwatch.config.experiments import AblationsSettings, RecipeSettings, SearchSettings, StudySettings
from driverwatch.config.model import ModelFile, ModelSettings
from scripts.markdown import item, paragraph

FILES: dict[type[BaseModel], str] = {
    ModelFile: "A model's file: what it may say beside the model's settings",
    ModelSettings: "A model: `configs/models/<name>.yaml`",
    DatasetSettings: "A data set: `configs/datasets/<name>.yaml`",
    EnsembleSettings: "An ensemble: `configs/ensembles/<name>.yaml`",
    RecipeSettings: "A recipe: `configs/recipes/<dataset>.yaml`",
    AblationsSettings: "A table of ablations: `configs/ablations/<dataset>.yaml`",
    StudySettings: "A study: `configs/studies/<name>.yaml`",
    SearchSettings: "A search: `configs/searches/<name>.yaml`",
}
# what is checked by a function of our own, in words
WORDS: list[tuple[Any, str]] = [
    (setting_types.Size, "`<height>x<width>` in px"),
    (setting_types.TtaSet, f"a TTA set: {', '.join(f'`{name}`' for name in setting_types.TTA_SETS)}"),
    (setting_types.TtaSets, f"one or several TTA sets: {', '.join(f'`{name}`' for name in setting_types.TTA_SETS)}"),
    (setting_types.Regions, "list of 1 to 7 region names, each once"),
    (setting_types.Region, "name of small letters, digits and `_`"),
    (get_type_hints(ModelSettings, include_extras=True)["backbone"], "name of a backbone"),
    (dataset.DatasetSettings.__annotations__["train_images"], "path with `{label}` and `{image}`"),
    (dataset.DatasetSettings.__annotations__["test_images"], "path with `{image}`"),
    (setting_types.Name, "name of letters, digits, `.`, `_`, `-`"),
    (model_settings.Preset, "name in `configs/presets`, list of transforms, or `null`"),
    (training.Boundary, "layer, block, number of layers, share of them (0 to 1), `head`, or `null`"),
    (ensemble.EmbeddingSpec, "`<model>[:<last layer>][:<rows>x<columns>]`"),
    (ensemble.Clip, "number from 1e-5 to 0.1, or `fitted`"),
    (dataset.Below, "path below the data folder"),
    (dataset.Class, "class name"),
    (dataset.Corners, "`[top, left, bottom, right]`, shares of the frame"),
    (dataset.Pair, "list of two classes"),
]
PLAIN = {str: "text", int: "whole number", float: "number", bool: "`true` or `false`", Any: "anything"}
SIGNS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
HEAD = """\
# Settings

Every key of every settings file: what it may be, its default, and what it does. A YAML file says only what differs from the
defaults (a model's: from the [recommended recipe](../explain/fine-tuning.md), `configs/recommended.yaml`), and its file name is
its name everywhere. An unknown key or a wrong value ends in one line that names the key, what was
expected and what was got.

Settings of a model can be changed on make's command line, several separated by spaces:

```sh
make train MODEL=inception_v3 RUN=inception_v3_short SET="train.epochs=3 train.stages.1.learning_rate=3e-5"
```

Below, `<n>` stands for a number like the `1` above, counted from 0, and `<name>` for a name of your choice. Keys without a
default must be given.

`make docs` writes this page from the typed settings in `src/driverwatch/config/`. A test reads every example as the command
would.
"""
# by section: an example, YAML of the whole file
EXAMPLES: dict[tuple[str, str], str] = {
    ("modelfile", ""): """\
freeze_until: conv3_block4_out
""",
    ("model", ""): """\
backbone: resnet50
truncate_at: conv4_block6_out
input: {pack: 256x342, size: 224x298}
""",
    ("model", "input"): """\
input: {pack: 180x240, size: 160x208, regions: [whole, wheel]}
""",
    ("model", "head"): """\
head: {pooling: flatten, dense: [256], dropout: 0.5}
""",
    ("model", "augment"): """\
augment: {preset: erasing, mix: same_class_halves}
""",
    ("model", "train"): """\
train: {optimizer: adam, learning_rate: 1e-4, epochs: 4, patience: 2}
""",
    ("model", "train.stages.<n>"): """\
train:
  stages:
    - {freeze_until: head, fit: linear_probe, l2: [0.3]}
    - {freeze_until: conv3_block4_out, lr_multipliers: {conv4_block6_out: 0.3}}
""",
    ("model", "train.splits"): """\
train:
  splits: {kind: shuffle_split, count: 10, val_drivers: 4}
""",
    ("model", "train.pseudo"): """\
train:
  pseudo: {runs: [inception_v3_strong], images: both}
""",
    ("model", "predict"): """\
predict: {tta: [five_crop, shifts], batch_size: 100}
""",
    ("dataset", ""): """\
title: Drivers of our buses
data: data/buses
train_images: frames/{label}/{image}
classes: {safe: both hands on the wheel, phone: phone in a hand}
""",
    ("dataset", "expected"): """\
expected: {train: 22424, test: 79726, gigabytes: 4.5}
""",
    ("dataset", "columns"): """\
columns: {image: file, label: label, driver: person}
""",
    ("dataset", "leaderboard.<n>"): """\
leaderboard:
  - {team: 10th place, log_loss: 0.149}
""",
    ("ensemble", ""): """\
runs: [inception_v3_strong, resnet50]
blend: geometric
calibrate: temperature
""",
    ("ensemble", "knn"): """\
class_balance: mobilenet_v2
knn: {embeddings: "mobilenet_v2:block_13_expand_relu:2x2", smooth_before_balancing: true}
""",
    ("recipe", ""): """\
submissions:
  best: {runs: [first], calibrate: temperature}
""",
    ("recipe", "runs.<name>"): """\
runs:
  first: {model: inception_v3_strong, set: train.epochs=3}
""",
    ("ablations", ""): """\
pseudo_labels:
  teachers: {runs: [base], class_balance: mobilenet_v2}
""",
    ("ablations", "runs.<name>"): """\
runs:
  base: {model: mobilenet_v2_screen}
  erasing: {model: mobilenet_v2_screen, set: augment.preset=erasing}
""",
    ("ablations", "rows.<name>.<n>"): """\
rows:
  Augmentation:
    - {ablation: preset erasing, before: {runs: [base]}, after: {runs: [erasing]}, kept: true}
""",
    ("study", ""): """\
settings: {input: {pack: 135x180, size: 120x160}, train: {epochs: 2}}
head: {freeze_until: head, fit: linear_probe, l2: [0.3]}
""",
    ("study", "models.<name>"): """\
models:
  mobilenet_v2: {backbone: mobilenet_v2, freeze_until: [head, block_13_project_BN, block_6_project_BN]}
""",
    ("search", ""): """\
startup: 4
prune_after: 2
""",
    ("search", "space.<name>"): """\
space:
  train.learning_rate: {low: 1e-5, high: 1e-2, log: true}
  augment.preset: {choices: [light, strong]}
""",
}


@dataclass(frozen=True)
class Setting:
    """One key: its dotted name, what it may be in words, its default as YAML has it (or nothing), and what it does."""

    key: str
    allowed: str
    default: str
    description: str

    def __str__(self) -> str:
        default = f"; default {self.default}" if self.default else ""
        description = f": {self.description}" if self.description else ""
        return item(f"`{self.key}` ({self.allowed}{default}){description}")


@dataclass(frozen=True)
class Section:
    """The keys of one model: of a whole file where `key` is empty, else of what is below that key."""

    kind: type[BaseModel]  # of the file
    key: str
    about: str
    settings: tuple[Setting, ...]

    @property
    def example(self) -> str:
        """YAML of a file in which this section's keys are set."""
        return EXAMPLES[self.kind.__name__.removesuffix("Settings").lower(), self.key]

    def __str__(self) -> str:
        head = [f"### `{self.key}`", paragraph(self.about)] if self.key else []
        keys = "\n".join(map(str, self.settings))
        return "\n\n".join([*head, f"```yaml\n{self.example}```", keys])


def settings_page() -> str:
    """`docs/reference/settings.md`, whole."""
    parts = [HEAD.rstrip("\n")]
    for kind, title in FILES.items():
        parts += [f"## {title}", *map(str, sections(kind))]
    return "\n\n".join(parts) + "\n"


def sections(kind: type[BaseModel]) -> Iterator[Section]:
    """The sections of a file's settings, its own keys first."""
    return _sections(kind, kind, "", "")


def _sections(file: type[BaseModel], kind: type[BaseModel], key: str, unless: str) -> Iterator[Section]:
    """A section of a model's own keys, and one for each model inside of it.

    Args:
        key: where it is, with its dot.
        unless: what may be in its place, in words.
    """
    own, inner, why = list[Setting](), list[tuple[type[BaseModel], str, str]](), reasons(kind)
    hints = get_type_hints(kind, include_extras=True)
    for name, field in kind.model_fields.items():
        nested, below = _nested(hints[name])
        if nested is None or nested is EnsembleSettings:
            own.append(Setting(f"{key}{name}", allowed(hints[name]), _default(field), why[name]))
        else:
            inner.append((nested, f"{key}{name}{below}.", "`null`, or: " if field.default is None else ""))
    if own:
        yield Section(file, key[:-1], f"{unless}{vars(kind)['__doc__']}", tuple(own))
    for nested, below, instead in inner:
        yield from _sections(file, nested, below, instead)


def reasons(kind: type[BaseModel]) -> dict[str, str]:
    """What each key of a model does: the comments on the lines of its field, and those directly above it."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if issubclass(base, BaseModel) and base is not BaseModel:
            found |= _commented(Path(inspect.getfile(base))).get(base.__name__, {})
    return {name: found.get(name, "") for name in kind.model_fields}


@cache
def _commented(path: Path) -> dict[str, dict[str, str]]:
    """Comments by class and field of a source file."""
    text = path.read_text(encoding="utf-8")
    comments, alone = {}, set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            comments[token.start[0]] = token.string.lstrip("# ").strip()
            alone |= {token.start[0]} if token.line.lstrip().startswith("#") else set()
    found: dict[str, dict[str, str]] = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef):
            fields = [part for part in node.body if isinstance(part, ast.AnnAssign)]
            found[node.name] = {ast.unparse(part.target): _beside(part, comments, alone) for part in fields}
    return found


def _beside(field: ast.AnnAssign, comments: dict[int, str], alone: set[int]) -> str:
    first = field.lineno
    while first - 1 in alone:
        first -= 1
    return " ".join(comments[line] for line in range(first, (field.end_lineno or first) + 1) if line in comments)


def _nested(kind: Any) -> tuple[type[BaseModel] | None, str]:
    """The model that a field holds, and how a key resumes to one of several."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind, ""
    origin, arguments = get_origin(kind), get_args(kind)
    step = ".<n>" if origin is list else ".<name>" if origin is dict else ""
    for part in () if origin is Literal else arguments:
        found, below = _nested(part)
        if found is not None:
            return found, step + below
    return None, ""


def _default(field: FieldInfo) -> str:
    """A default as YAML has it; nothing for a key that must be given."""
    if field.is_required():
        return ""
    value = field.get_default(call_default_factory=True, validated_data={})
    return f"`{value}`" if value and isinstance(value, str) else f"`{json.dumps(value)}`"


def allowed(kind: Any) -> str:
    """What a setting of this type may be, in words."""
    if found := next((words for alias, words in WORDS if alias == kind), None):
        return found
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        bounds = [words for extra in arguments[1:] for words in _bounds(extra)]
        return " ".join([allowed(arguments[0]), *([" and ".join(bounds)] if bounds else [])])
    if origin in (Union, types.UnionType):
        return " or ".join("`null`" if part is type(None) else allowed(part) for part in arguments)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin is list:
        return f"list of: {allowed(arguments[0])}"
    if origin is dict:
        return f"by {allowed(arguments[0])}: {allowed(arguments[1])}"
    if kind is EnsembleSettings:
        return "settings of an ensemble, as above"
    return PLAIN[kind]


def _bounds(extra: Any) -> list[str]:
    """Limits out of an annotation's extras."""
    parts = extra.metadata if isinstance(extra, FieldInfo) else [extra]
    return [
        f"{words} {getattr(part, sign):g}" for part in parts for sign, words in SIGNS.items() if hasattr(part, sign)
    ]
