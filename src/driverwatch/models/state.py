"""Weights and optimizers in files of our own: plain arrays in the variables' order."""

from pathlib import Path
from typing import Any

import numpy as np

from driverwatch.errors import InputError
from driverwatch.hdf5 import UNREADABLE, created, opened
from driverwatch.writing import replacing


def write_state(path: Path, groups: dict[str, list[Any]], attributes: dict[str, str]) -> None:
    """Write variables (or arrays), in order, as HDF5 `<group>/<number>`, each with its name; whole or not at all."""
    import keras  # not to read what a fold's bundle says of its progress

    sizes = [4 * int(np.prod(v.shape)) + 1000 for variables in groups.values() for v in variables]
    with replacing(path) as temporary, created(temporary, sum(sizes)) as file:
        for group, variables in groups.items():
            file.create_group(group)
            for i, variable in enumerate(variables):
                value = keras.ops.convert_to_numpy(variable)
                file[group].create_dataset(f"{i:04d}", data=value).attrs["name"] = getattr(variable, "path", "")
        file.attrs.update(attributes)


def load_state(path: Path, groups: dict[str, list[Any]]) -> dict[str, str]:
    """Assign what `write_state` wrote; return its attributes.

    Raises:
        InputError: not a whole state file, or one of other variables (number and shapes are compared).
    """
    try:
        with opened(path) as file:
            for group, variables in groups.items():
                found = [file[group][key] for key in sorted(file[group])]
                if strange := next((one.name for one in found if one.dtype.kind not in "fiub"), None):
                    raise ValueError(f"{strange} holds no numbers")
                shapes = [one.shape for one in found]
                if shapes != [tuple(v.shape) for v in variables]:
                    raise InputError(
                        f"{path}: holds {len(shapes)} arrays of other shapes than the {len(variables)} in "
                        f"{group}; it is another network's"
                    )
                for variable, value in zip(variables, found, strict=True):
                    variable.assign(value[...])
            return dict(file.attrs)
    except UNREADABLE as error:
        words = " ".join(str(error).split())[:150]
        raise InputError(f"{path}: not a whole state file ({words}); remove it and run again") from error


def is_finite(variables: list[Any]) -> bool:
    """Whether every number of the variables that hold floats is finite."""
    import keras

    floats = [variable for variable in variables if keras.backend.is_float_dtype(variable.dtype)]
    return all(bool(keras.ops.all(keras.ops.isfinite(variable))) for variable in floats)
