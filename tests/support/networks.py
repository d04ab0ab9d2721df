"""Settings of untrained networks by backbone and size."""

from driverwatch.config.loading import parse
from driverwatch.config.model import ModelSettings

MEAN = (100.0, 110.0, 120.0)


def settings(backbone: str = "tiny", size: str = "32x48", **more: object) -> ModelSettings:
    content = {"backbone": backbone, "weights": "none", "input": {"pack": size, "size": size}, **more}
    return parse(ModelSettings, content, "test")
