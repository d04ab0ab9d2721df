"""Whether models can be built and their pretrained weights are at hand, asked before the first of them trains for hours."""

from pathlib import Path

from driverwatch.errors import InputError
from driverwatch.models import weights as weight_files
from driverwatch.settings import ModelSettings


def refuse_misfits(wanted: dict[str, ModelSettings], weights: Path | None) -> None:
    """Raise `InputError` for the first run, by name, with unknown layers, an illegal truncation or missing weights."""
    from driverwatch.models import backend

    backend.start()
    from driverwatch.models.layers import described

    for name, settings in wanted.items():
        try:
            weight_files.find(settings, weights)
            described(settings)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
