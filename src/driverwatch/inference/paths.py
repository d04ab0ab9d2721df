"""Where a fold's predictions lie; apart from the code that makes them, so that readers need no Keras."""

from pathlib import Path


def prediction_path(fold: Path, kind: str, views: str) -> Path:
    """`<fold folder>/<held_out|test>-<view set>.h5`."""
    return fold / f"{kind}-{views}.h5"
