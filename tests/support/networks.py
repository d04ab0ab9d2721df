"""Settings of untrained networks by backbone and size."""

from driverwatch.settings import ModelSettings
from driverwatch.typed_yaml import parse

MEAN = (100.0, 110.0, 120.0)


def settings(backbone: str = "tiny", size: str = "32x48", **more: object) -> ModelSettings:
    content = {"backbone": backbone, "weights": "none", "input": {"pack": size, "size": size}, **more}
    return parse(ModelSettings, content, "test")
