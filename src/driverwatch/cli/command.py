"""A command of the command line whose refusals read as they were typed: make's variables, and hints with their data set."""

import os
import re
from typing import Any

import typer
from typer.core import TyperCommand

from driverwatch.errors import InputError

USAGE_ERROR: Any = typer.BadParameter.__mro__[1]  # click's, which typer carries along under a name of its own
VARIABLES = {"--cpus": "CPUS_PER_FOLD", "--gpus": "GPUS_PER_FOLD", "--memory": "MEMORY_PER_FOLD", "--client": "KAGGLE"}
VALUE = r"""(?:"[^"]*"|\.\.\.|<[^>]*>|[^\s"`]*[^\s"`;,.:)])"""
HINT = re.compile(f"make (?P<target>[a-z]+(?:-[a-z]+)*)(?P<variables>(?: [A-Z_]+={VALUE})*)")


class Command(TyperCommand):
    """Raises what it refuses as one `InputError`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return list(super().parse_args(ctx, args))
        except USAGE_ERROR as error:
            raise InputError(f"{self.name}: {as_typed(error.format_message())}") from None

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except InputError as error:
            dataset, usual = ctx.params.get("dataset"), {each.name: each.default for each in self.params}
            if dataset == usual.get("dataset"):
                raise
            raise InputError(with_dataset(str(error), dataset, commands_of_datasets(ctx.parent.command))) from error


def commands_of_datasets(group: Any) -> set[str]:
    """Names of the commands, and so of make's targets, that take a data set."""
    return {name for name, each in group.commands.items() if any(option.name == "dataset" for option in each.params)}


def with_dataset(sentence: str, dataset: str | None, targets: set[str]) -> str:
    """The sentence with `DATASET=` in each command that it suggests, so that it does what it says when it is copied."""

    def complete(found: "re.Match[str]") -> str:
        lacks = dataset and found["target"] in targets and " DATASET=" not in found["variables"]
        return f"{found[0]} DATASET={dataset}" if lacks else found[0]

    return HINT.sub(complete, sentence)


def as_typed(sentence: str) -> str:
    """The sentence with options by the names that were typed after make (`CAM=`), or unchanged without make."""
    if "MAKELEVEL" not in os.environ:
        return sentence
    return re.sub(r"'?(--[a-z-]+)'?", lambda found: f"{variable_of(found[1])}=", sentence)


def variable_of(option: str) -> str:
    """Make's variable of an option."""
    return VARIABLES.get(option, option.removeprefix("--").upper().replace("-", "_"))
