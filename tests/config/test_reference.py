"""The reference of settings: whole, each key with its reason, and what is committed is what the generator makes."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field
from support.places import ROOT

from driverwatch.config.backbones import BACKBONES
from driverwatch.config.loading import Strict, overridden, parse, parse_yaml
from driverwatch.config.model import ModelSettings
from driverwatch.errors import InputError
from driverwatch.io.paths import is_on
from scripts import settings_reference as reference
from scripts.models_reference import models_page

SECTIONS = [section for kind in reference.FILES for section in reference.sections(kind)]
SETTINGS = [setting for section in SECTIONS for setting in section.settings]


def models(kind: type[BaseModel] = Strict) -> list[type[BaseModel]]:
    """Every model of settings that the package defines."""
    found = [one for one in kind.__subclasses__() if one.__module__.startswith("driverwatch.config.")]
    return found + [below for one in found for below in models(one)]


@pytest.mark.parametrize(("name", "made"), [("settings", reference.settings_page()), ("models", models_page())])
def test_the_page_is_todays(name: str, made: str) -> None:
    """`make docs` writes it."""
    page = ROOT / "docs" / "reference" / f"{name}.md"
    if is_on("WRITE_DOCS"):
        page.write_text(made)
    assert page.read_text() == made, "run make docs"


def test_the_page_of_models_has_each_network_once_with_a_source_of_weights() -> None:
    lines = [line.split(" | ") for line in models_page().split("## Networks")[1].splitlines() if line.startswith("| `")]
    assert [line[0].strip("| `") for line in lines] == list(BACKBONES)
    sources = {line[0].strip("| `"): line[-1].strip("| ") for line in lines}
    assert sources["resnet50"] == "Keras' download"
    assert sources["googlenet"] == "PyTorch checkpoint `googlenet-1378be20.pth`"
    assert (sources["squeezenet"], sources["alexnet"]) == ("local file", "none")
    assert max(map(len, models_page().splitlines())) <= 160


@pytest.mark.parametrize("kind", models(), ids=lambda kind: kind.__name__)
def test_every_setting_has_a_reason(kind: type[BaseModel]) -> None:
    nested = {name for name in kind.model_fields if reference._nested(kind.model_fields[name].annotation)[0]}
    assert [name for name, why in reference.reasons(kind).items() if not why and name not in nested] == []
    assert kind.__dict__["__doc__"], "a model says what it is for"


def test_every_model_is_on_the_page() -> None:
    keys = {setting.key.rsplit(".", 1)[-1] for setting in SETTINGS}
    kinds = [kind for kind in models() if kind.__name__ != "PipelineSettings"]  # part of EnsembleSettings
    assert len(kinds) >= 20
    for kind in kinds:
        leaves = [n for n, f in kind.model_fields.items() if reference._nested(f.annotation)[0] is None]
        assert set(leaves) <= keys, kind


def test_every_setting_is_on_the_page_with_what_it_may_be() -> None:
    assert len(SETTINGS) > 100
    assert all(setting.allowed.strip() for setting in SETTINGS)
    assert len({setting.key for setting in SETTINGS}) > 100
    page = reference.settings_page()
    assert all(f"\n- `{setting.key}` (" in page for setting in SETTINGS)
    assert max(map(len, page.splitlines())) <= 160


MODELS = list(reference.sections(ModelSettings))
BASES: dict[str, dict[str, Any]] = {
    "ModelFile": {},
    "ModelSettings": {"backbone": "resnet50", "input": {"pack": "256x342", "size": "224x298"}},
    "DatasetSettings": {"title": "x", "data": "x", "classes": {"a": "x", "b": "y"}, "train_images": "{label}/{image}"},
    "EnsembleSettings": {"runs": ["a"]},
    "RecipeSettings": {"runs": {"first": {"model": "x"}}, "submissions": {"x": {"runs": ["first"]}}},
    "AblationsSettings": {"runs": {"base": {"model": "x"}, "erasing": {"model": "x"}}, "rows": {"x": []}},
    "StudySettings": {"settings": {}, "head": {}, "models": {"x": {"backbone": "x", "freeze_until": ["head"]}}},
    "SearchSettings": {"space": {"train.epochs": {"low": 1, "high": 2}}},
}


@pytest.mark.parametrize("section", SECTIONS, ids=lambda one: f"{one.kind.__name__}.{one.key}")
def test_every_section_has_an_example_that_the_command_takes(section: reference.Section) -> None:
    example = parse_yaml(section.example)
    parse(section.kind, BASES[section.kind.__name__] | example, "the example")
    first = section.key.split(".")[0]
    assert first in example if first else example.keys() & {setting.key for setting in section.settings}
    assert section.example in reference.settings_page()


def test_no_example_is_of_a_section_that_is_gone() -> None:
    assert len(reference.EXAMPLES) == len(SECTIONS)


def leaf(setting: reference.Setting) -> str:
    return setting.key.replace("<n>", "0")


@pytest.mark.parametrize("setting", [one for section in MODELS for one in section.settings], ids=leaf)
def test_a_models_keys_can_be_set_by_their_dotted_names(setting: reference.Setting) -> None:
    """A number where none may be: the line that refuses it names the key as the page does, unless it may be anything."""
    content = {"backbone": "tiny", "weights": "none", "input": {"pack": "40x56", "size": "32x48"}}
    content["train"] = {"stages": [{}]}
    with pytest.raises(InputError) as refused:
        parse(ModelSettings, overridden(content, f"{leaf(setting)}=-1.5"), "x")
    assert leaf(setting).split(".")[-1] in str(refused.value)


class Made(Strict):
    """Of every shape."""

    # above,
    # twice
    one: int = 1  # and beside
    two: Annotated[float, Field(gt=0, lt=1)] | None = None
    three: Literal["a", "b"] = (
        "a"  # inside
    )  # fmt: skip
    four: dict[str, list[bool]] = {"x": [True]}  # noqa: RUF012


def test_comments_are_found_above_beside_and_inside() -> None:
    said = reference.reasons(Made)
    assert said == {"one": "above, twice and beside", "two": "", "three": "inside fmt: skip", "four": "noqa: RUF012"}
    (section,) = reference.sections(Made)
    one, two, _, four = map(str, section.settings)
    assert one == "- `one` (whole number; default `1`): above, twice and beside"
    assert two == "- `two` (number above 0 and below 1 or `null`; default `null`)"
    assert four == '- `four` (by text: list of: `true` or `false`; default `{"x": [true]}`): noqa: RUF012'
