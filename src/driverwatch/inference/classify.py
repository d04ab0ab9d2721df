"""Photos through a network, or through the fold models of a run one after another: mean probabilities, mean heat maps."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from keras import ops

from driverwatch.backbones import BACKBONES
from driverwatch.inference import heatmap
from driverwatch.inference.network import Network, of_classifier, of_whole
from driverwatch.models.classifier import build
from driverwatch.models.scaling import ChannelScaling
from driverwatch.models.state import load_state
from driverwatch.models.weights import build_whole
from driverwatch.settings import ModelSettings

AT_ONCE = 16  # images in one forward pass

Networks = Callable[[], Iterator[Network]]  # each network in turn; one is spent when the next is asked for


def imagenet(backbone: str, folder: Path | None) -> Networks:
    """A backbone whole, with its top. Raises as `models.weights.build_whole`."""
    network = of_whole(build_whole(backbone, folder), ChannelScaling.of(BACKBONES[backbone].scaling))
    return lambda: iter([network])


def fold_models(settings: ModelSettings, classes: int, mean: tuple[float, ...], files: list[Path]) -> Networks:
    """A run's fold models: one classifier, into which each fold's weights are loaded in turn, so that memory holds but one."""
    classifier = build(settings, classes, mean, None, load=False)
    network = of_classifier(classifier)

    def each() -> Iterator[Network]:
        for file in files:
            load_state(file, {"model": classifier.weights})
            yield network

    return each


def resident(settings: ModelSettings, classes: int, mean: tuple[float, ...], files: list[Path]) -> Networks:
    """The same, each fold's classifier kept in memory: for whoever asks again and again about a photo at a time."""
    networks = []
    for file in files:
        classifier = build(settings, classes, mean, None, load=False)
        load_state(file, {"model": classifier.weights})
        networks.append(of_classifier(classifier))
    return lambda: iter(networks)


def probabilities(networks: Networks, images: np.ndarray) -> np.ndarray:
    """The mean over networks: uint8 (B, R * h, w, 3) -> float64 (B, C), rows sum to 1."""
    found = [np.concatenate([_rows(network, part) for part in _parts(images)]) for network in networks()]
    mean = np.mean(found, axis=0, dtype=np.float64)
    return mean / mean.sum(axis=1, keepdims=True)


def heat_map(networks: Networks, image: np.ndarray, label: int) -> tuple[np.ndarray, heatmap.Method]:
    """The mean over networks (all of one kind) of `heatmap.heat`: uint8 (R * h, w, 3) -> float32 (R * y, x); how it was made."""
    made = [heatmap.heat(network, image, label) for network in networks()]
    return np.mean([heat for heat, _ in made], axis=0), made[0][1]


def _rows(network: Network, images: np.ndarray) -> np.ndarray:
    return ops.convert_to_numpy(network(images))


def _parts(images: np.ndarray) -> Iterator[np.ndarray]:
    return (images[start : start + AT_ONCE] for start in range(0, len(images), AT_ONCE))
