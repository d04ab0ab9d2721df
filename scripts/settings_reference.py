"""The reference of all settings, as Markdown: read off the typed models, each key's reason being the comment beside it."""

import ast
import inspect
import io
import json
import tokenize
import types
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
from driverwatch.config.model import ModelSettings

FILES: dict[type[BaseModel], str] = {
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

Written by `make docs` from the typed settings (`src/driverwatch/*settings.py`): every key, what it may be, its default,
and why it is there. A YAML file says only what differs from the defaults; its file name is its name everywhere. An unknown
key or a wrong value ends in one line that names the key, what was expected and what was got. `SET="train.epochs=3
train.stages.0.epochs=1"` changes keys of a model on make's command line. Below, `<n>` stands for such a number, `<name>`
for a name of one's own. Keys without a default must be given.
"""


def settings_page() -> str:
    """`docs/settings.md`, whole."""
    parts = [HEAD]
    for kind, title in FILES.items():
        parts += [f"## {title}\n", *_tables(kind, "")]
    return "\n".join(parts)


def reasons(kind: type[BaseModel]) -> dict[str, str]:
    """Why each key of a model is there: the comments on the lines of its field, and those directly above it."""
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


def _tables(kind: type[BaseModel], key: str, unless: str = "") -> list[str]:
    """A table of a model's keys, and one for each model inside of it; `key` is where it is, with its dot.

    Args:
        unless: what may be in its place, in words.
    """
    lines, inner, why = list[str](), list[str](), reasons(kind)
    hints = get_type_hints(kind, include_extras=True)
    for name, field in kind.model_fields.items():
        nested, below = _nested(hints[name])
        if nested is None or nested is EnsembleSettings:
            lines.append(f"| `{key}{name}` | {_cell(allowed(hints[name]))} | {_default(field)} | {_cell(why[name])} |")
        else:
            inner += _tables(nested, f"{key}{name}{below}.", "`null`, or: " if field.default is None else "")
    head = ["| key | may be | default | why |", "|---|---|---|---|"]
    title = [f"### `{key[:-1]}`\n", f"{unless}{vars(kind)['__doc__']}\n"] if key else []
    own = [*title, *head, *lines, ""] if lines else []
    return own + inner


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


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
    return f"`{value}`" if isinstance(value, str) else f"`{json.dumps(value)}`"


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
