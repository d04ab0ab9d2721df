"""The recommended recipe, `configs/recommended.yaml`: what every model's YAML is read over, so that it says only what differs."""

from pathlib import Path
from typing import Any, Literal

from driverwatch.config.loading import Strict, overridden, parse, read_yaml
from driverwatch.config.training import Boundary
from driverwatch.errors import InputError

RECIPE = "recommended.yaml"  # beside the folder of models
Content = dict[str, Any]  # settings as plain data


class ModelFile(Strict):
    """What a model's YAML, or `SET=`, may say beside its settings: it is written out in them before they are checked."""

    # what the file is read over: the recipe in configs/recommended.yaml, or none, for settings that must not move with it
    base: Literal["recommended", "none"] = "recommended"
    # freeze point of every stage that names none of its own, such as the recipe's second one
    freeze_until: Boundary = None


KEYS = tuple(ModelFile.model_fields)


def over_recipe(content: Content, path: Path, overrides: str) -> Content:
    """A model's settings over the recommended recipe: its section `from_scratch` with `weights: none`, else `fine_tuning`.

    Args:
        content: the YAML of the model, at `path`.
        overrides: of `SET=`; only `weights` and the keys of `ModelFile` are looked at.

    Raises:
        InputError: such a key holds something else, no stage takes the freeze point, or the recipe's file lacks the section.
    """
    said = overridden({}, _picked(overrides, True))
    passed_by = ("freeze_until",) if said.get("weights") == "none" else ()  # nothing random may be frozen
    asked = {key: content[key] for key in KEYS if key in content and key not in passed_by}
    asked |= {key: said[key] for key in KEYS if key in said}
    file = parse(ModelFile, asked, str(path))
    made = {key: value for key, value in content.items() if key not in KEYS}
    if file.base == "recommended":
        scratch = said.get("weights", content.get("weights")) == "none"
        made = merged(_section(path.parent.parent / RECIPE, "from_scratch" if scratch else "fine_tuning"), made)
    return _frozen(made, file.freeze_until, path) if "freeze_until" in asked else made


def without_file_keys(overrides: str) -> str:
    """`SET=` without what `over_recipe` has taken of it."""
    return _picked(overrides, False)


def _picked(overrides: str, early: bool) -> str:
    keys = (*KEYS, "weights") if early else KEYS
    return " ".join(one for one in overrides.split() if (one.partition("=")[0] in keys) is early)


def _section(path: Path, name: str) -> Content:
    if not path.is_file():
        raise InputError(f"{path}: is not there; restore it (git checkout), or say base: none in the model's YAML")
    sections = read_yaml(path)
    if not isinstance(sections, dict) or not isinstance(sections.get(name), dict):
        raise InputError(f"{path}: expected settings of a model below {name}:")
    return dict(sections[name])


def merged(below: Content, above: Content) -> Content:
    """Two levels of settings as one: mappings key by key (a null is an empty one), all else (lists too) as `above` has it."""
    shared = below.keys() & above.keys()
    both = {key for key in shared if isinstance(below[key], dict) and isinstance(above[key], dict | None)}
    return {**below, **above, **{key: merged(below[key], above[key] or {}) for key in both}}


def _frozen(content: Content, until: str | int | float | None, path: Path) -> Content:
    """The same settings with a freeze point in every stage that names none. Raises `InputError` if each names its own."""
    train = content.get("train") or {}
    stages = train.get("stages", [{}]) if isinstance(train, dict) else None
    if not isinstance(stages, list) or not all(isinstance(stage, dict) for stage in stages):
        return content  # refused for that
    if all("freeze_until" in stage for stage in stages):
        last = len(stages) - 1
        raise InputError(
            f"{path}: freeze_until is for stages that name none, and each does; set train.stages.{last}.freeze_until"
        )
    return {**content, "train": {**train, "stages": [{"freeze_until": until, **stage} for stage in stages]}}
