"""Predictions that end on their way."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from driverwatch.inference import predictions


class Killed(BaseException):
    pass


@contextmanager
def killed_at(write: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Predict inside of this: it ends after that many files."""
    real, count = predictions.write, 0

    def dies(*arguments: Any) -> None:
        nonlocal count
        real(*arguments)
        count += 1
        if count == write:
            raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(predictions, "write", dies)
        yield
