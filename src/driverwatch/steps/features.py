"""Feature extraction: the trunk as it is, computed once, and a head fitted on what it gives."""

from driverwatch.errors import InputError, nearest
from driverwatch.settings import ModelSettings
from driverwatch.typed_yaml import parse

HEADS = ("logistic", "dense")
UNITS, DRAWS = [256], 4  # of the dense head, where the model's own settings do not say


def feature_settings(settings: ModelSettings, head: str, cut: str | None) -> ModelSettings:
    """A model's settings with its trunk frozen throughout.

    Args:
        head: `logistic` solves for the softmax; `dense` trains a small dense head (`head.dense`, else 256 units) on cached
            augmentation draws (`train.cache_trunk`, else 4).
        cut: last layer kept of the backbone; None: as the model has it.

    Raises:
        InputError: another head, or settings that do not fit together.
    """
    if head not in HEADS:
        raise InputError(f"HEAD={head}: expected {' or '.join(HEADS)}{nearest(head, list(HEADS))}")
    if settings.weights == "none":
        raise InputError(
            f"features of {settings.backbone}: expected pretrained weights, the model says weights: none; random layers give "
            "no features worth the name, train it instead"
        )
    content = settings.model_dump()
    content["cut"] = cut or settings.cut
    content["train"]["stages"] = [{"freeze_until": "head", "fit": "logistic"}]
    if head == "dense":
        content["head"]["dense"] = settings.head.dense or UNITS
        content["train"] |= {"cache_trunk": settings.train.cache_trunk or DRAWS, "optimizer": "adam"}
        content["train"]["stages"] = [{"freeze_until": "head", "epochs": 20, "learning_rate": 1e-3}]
    return parse(ModelSettings, content, f"features of {settings.backbone}")
