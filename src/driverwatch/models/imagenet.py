"""ImageNet's 1000 classes, in the order of every published network's output. Imports no Keras."""

from functools import cache
from importlib import resources


@cache
def classes() -> dict[str, str]:
    """WordNet id: name, in the order of ILSVRC (Russakovsky et al. 2015, arXiv:1409.0575).

    Two names stand twice (`crane`, `maillot`); ids are unique.
    """
    text = (resources.files("driverwatch.models") / "imagenet_classes.csv").read_text(encoding="utf-8")
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    return dict(line.split(",") for line in lines)
