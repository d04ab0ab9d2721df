"""Switches in the environment: what means on and off, as in the Makefile."""

import os

from driverwatch.errors import InputError

ON = ("1", "yes", "true", "on", "y")
OFF = ("", "0", "no", "false", "off", "n")


def is_on(name: str) -> bool:
    """Whether a variable of the environment switches something on; one that is not there, or empty, does not.

    Raises:
        InputError: it says neither.
    """
    value = os.environ.get(name, "").strip().lower()
    if value in ON or value in OFF:
        return value in ON
    raise InputError(f"{name}={os.environ[name]}: expected 1 (yes, true, on) or 0 (no, false, off)")
