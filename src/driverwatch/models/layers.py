"""A trunk's layers, told one by one: what may be frozen and cut, and what each stage of training freezes."""

from dataclasses import dataclass
from typing import Any

from driverwatch.backbones import BACKBONES
from driverwatch.models.cuts import single_tensor_layers
from driverwatch.models.freezing import check_names, frozen_count
from driverwatch.models.weights import build_trunk, refuse_size
from driverwatch.settings import ModelSettings


@dataclass(frozen=True)
class LayerDescription:
    """One layer of a trunk."""

    name: str
    block: str  # the block end at which it is frozen and cut along with its block; empty after the last
    shape: tuple[int, ...]  # of its output, without the batch
    parameters: int
    frozen: tuple[bool, ...]  # in each stage of training
    legal_cut: bool


def described(settings: ModelSettings) -> list[LayerDescription]:
    """Describe the layers of a model's trunk, in order, down to its cut; built with random weights.

    Raises:
        InputError: an unknown or illegal cut, a stage that freezes at no layer of the trunk.
    """
    if settings.weights != "none":
        refuse_size(settings)
    trunk = build_trunk(settings, None, load=False)
    layers = trunk.layers
    for stage in settings.train.stages:
        check_names(layers, stage)
    counts = [frozen_count(layers, stage.freeze_until) for stage in settings.train.stages]
    legal = set(single_tensor_layers(trunk))
    blocks = _blocks([layer.name for layer in layers], BACKBONES[settings.backbone].freeze_points)
    return [
        LayerDescription(
            layer.name, block, _shape(layer), layer.count_params(), tuple(i < c for c in counts), layer.name in legal
        )
        for i, (layer, block) in enumerate(zip(layers, blocks, strict=True))
    ]


def _blocks(names: list[str], ends: tuple[str, ...]) -> list[str]:
    """For each layer, the next block end at or after it."""
    blocks, block = [], ""
    for name in reversed(names):
        block = name if name in ends else block
        blocks.append(block)
    return blocks[::-1]


def _shape(layer: Any) -> tuple[int, ...]:
    return tuple(layer.output.shape[1:])
