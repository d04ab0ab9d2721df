"""The reference of settings: whole, each key with its reason, and what is committed is what the generator makes."""

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field
from support.places import ROOT

from driverwatch.config.loading import Strict, overridden, parse
from driverwatch.config.model import ModelSettings
from driverwatch.errors import InputError
from driverwatch.io.paths import is_on
from scripts import settings_reference as reference

PAGE = ROOT / "docs" / "settings.md"
ROWS = [line.split(" | ") for line in reference.settings_page().splitlines() if line.startswith("| `")]


def models(kind: type[BaseModel] = Strict) -> list[type[BaseModel]]:
    """Every model of settings that the package defines."""
    found = [one for one in kind.__subclasses__() if one.__module__.startswith("driverwatch.config.")]
    return found + [below for one in found for below in models(one)]


def test_the_page_is_todays() -> None:
    """`make docs` writes it."""
    if is_on("WRITE_DOCS"):
        PAGE.write_text(reference.settings_page())
    assert PAGE.read_text() == reference.settings_page(), "run make docs"


@pytest.mark.parametrize("kind", models(), ids=lambda kind: kind.__name__)
def test_every_setting_has_a_reason(kind: type[BaseModel]) -> None:
    nested = {name for name in kind.model_fields if reference._nested(kind.model_fields[name].annotation)[0]}
    assert [name for name, why in reference.reasons(kind).items() if not why and name not in nested] == []
    assert kind.__dict__["__doc__"], "a model says what it is for"


def test_every_model_is_on_the_page() -> None:
    keys = {row[0].strip("| `").rsplit(".", 1)[-1] for row in ROWS}
    kinds = [kind for kind in models() if kind.__name__ != "PipelineSettings"]  # part of EnsembleSettings
    assert len(kinds) >= 20
    for kind in kinds:
        leaves = [n for n, f in kind.model_fields.items() if reference._nested(f.annotation)[0] is None]
        assert set(leaves) <= keys, kind


def test_a_row_has_four_cells_and_says_what_it_may_be() -> None:
    assert len(ROWS) > 100
    assert all(len(row) == 4 and row[1].strip() for row in ROWS)
    assert len({row[0] for row in ROWS}) > 100


def leaf(row: list[str]) -> str:
    return row[0].strip("| `").replace("<n>", "0")


@pytest.mark.parametrize("row", ROWS[: [leaf(row) for row in ROWS].index("title")], ids=leaf)
def test_a_models_keys_can_be_set_by_their_dotted_names(row: list[str]) -> None:
    """A number where none may be: the line that refuses it names the key as the page does, unless it may be anything."""
    content = {"backbone": "tiny", "weights": "none", "input": {"pack": "40x56", "size": "32x48"}}
    content["train"] = {"stages": [{}]}
    with pytest.raises(InputError) as refused:
        parse(ModelSettings, overridden(content, f"{leaf(row)}=-1.5"), "x")
    assert leaf(row).split(".")[-1] in str(refused.value)


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
    row = "| `two` | number above 0 and below 1 or `null` | `null` |  |"
    table = reference._tables(Made, "")
    assert row in table
    assert '| `four` | by text: list of: `true` or `false` | `{"x": [true]}` | noqa: RUF012 |' in table
