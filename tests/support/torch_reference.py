"""What torchvision publishes, rebuilt in PyTorch with its state-dict names; run by `.venv-torch`, where torchvision is not.

    python torch_reference.py <network> <checkpoint.pth> <outputs.npz> <height>x<width> ...

Saves a network with random weights and random running statistics, and its inputs and softmax outputs at each size.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn


def unit(inputs: int, outputs: int, **shape: Any) -> nn.Module:
    """`BasicConv2d`: convolution, normalisation, ReLU."""
    conv = nn.Conv2d(inputs, outputs, bias=False, **shape)
    return named(conv=conv, bn=nn.BatchNorm2d(outputs, eps=0.001), relu=nn.ReLU())


def named(**parts: nn.Module) -> nn.Sequential:
    sequence = nn.Sequential()
    for name, part in parts.items():
        sequence.add_module(name, part)
    return sequence


class Inception(nn.Module):
    def __init__(self, inputs: int, one: int, a: int, three: int, b: int, five: int, pooled: int) -> None:
        super().__init__()
        self.branch1 = unit(inputs, one, kernel_size=1)
        self.branch2 = nn.Sequential(unit(inputs, a, kernel_size=1), unit(a, three, kernel_size=3, padding=1))
        self.branch3 = nn.Sequential(unit(inputs, b, kernel_size=1), unit(b, five, kernel_size=3, padding=1))
        pool = nn.MaxPool2d(3, stride=1, padding=1, ceil_mode=True)
        self.branch4 = nn.Sequential(pool, unit(inputs, pooled, kernel_size=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class Auxiliary(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.conv = unit(inputs, 128, kernel_size=1)
        self.fc1 = nn.Linear(2048, 1024)
        self.fc2 = nn.Linear(1024, 1000)
        nn.init.kaiming_normal_(self.fc1.weight)
        nn.init.normal_(self.fc2.weight, 0, 0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(nn.functional.adaptive_avg_pool2d(x, (4, 4)))
        return self.fc2(torch.relu(self.fc1(torch.flatten(x, 1))))


class GoogLeNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = unit(3, 64, kernel_size=7, stride=2, padding=3)
        self.maxpool1 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.conv2 = unit(64, 64, kernel_size=1)
        self.conv3 = unit(64, 192, kernel_size=3, padding=1)
        self.maxpool2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.inception3a = Inception(192, 64, 96, 128, 16, 32, 32)
        self.inception3b = Inception(256, 128, 128, 192, 32, 96, 64)
        self.maxpool3 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.inception4a = Inception(480, 192, 96, 208, 16, 48, 64)
        self.inception4b = Inception(512, 160, 112, 224, 24, 64, 64)
        self.inception4c = Inception(512, 128, 128, 256, 24, 64, 64)
        self.inception4d = Inception(512, 112, 144, 288, 32, 64, 64)
        self.inception4e = Inception(528, 256, 160, 320, 32, 128, 128)
        self.maxpool4 = nn.MaxPool2d(2, stride=2, ceil_mode=True)
        self.inception5a = Inception(832, 256, 160, 320, 32, 128, 128)
        self.inception5b = Inception(832, 384, 192, 384, 48, 128, 128)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.flatten = nn.Flatten()
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(1024, 1000)
        self.backbone = list(self.children())
        self.aux1, self.aux2 = Auxiliary(512), Auxiliary(528)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for part in self.backbone:
            x = part(x)
        return x


class Fire(nn.Module):
    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.squeeze(x))
        return torch.relu(torch.cat([self.expand1x1(x), self.expand3x3(x)], 1))


def pool() -> nn.Module:
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)


def squeezenet(*features: nn.Module) -> nn.Module:
    top = nn.Sequential(nn.Dropout(0.5), nn.Conv2d(512, 1000, 1), nn.ReLU(), nn.AdaptiveAvgPool2d((1, 1)))
    return named(features=nn.Sequential(*features), classifier=top, flatten=nn.Flatten())


def squeezenet_1_0() -> nn.Module:
    early = [Fire(96, 16, 64), Fire(128, 16, 64), Fire(128, 32, 128)]
    late = [Fire(256, 32, 128), Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256)]
    return squeezenet(nn.Conv2d(3, 96, 7, 2), nn.ReLU(), pool(), *early, pool(), *late, pool(), Fire(512, 64, 256))


def squeezenet_1_1() -> nn.Module:
    early, middle = [Fire(64, 16, 64), Fire(128, 16, 64)], [Fire(128, 32, 128), Fire(256, 32, 128)]
    late = [Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256)]
    return squeezenet(nn.Conv2d(3, 64, 3, 2), nn.ReLU(), pool(), *early, pool(), *middle, pool(), *late)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "googlenet": GoogLeNet,
    "squeezenet_torch": squeezenet_1_0,
    "squeezenet_v1_1": squeezenet_1_1,
}


TAPS = [(14, 14), (10, 13), (5, 7), (4, 3)]


def randomise(network: nn.Module) -> None:
    """Statistics and scales far from 0 and 1, so that no forgotten or swapped one goes unseen; sharp outputs."""
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, 0, 0.3)
            nn.init.uniform_(part.running_var, 0.3, 2)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.3)
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight)
            if part.bias is not None:
                nn.init.normal_(part.bias, 0, 0.1)


@torch.no_grad()
def auxiliary(aux: nn.Module) -> dict[str, np.ndarray]:
    """An auxiliary classifier's tensors, and its outputs for taps of several sizes."""
    found = {f"aux {name}": value.numpy() for name, value in aux.state_dict().items()}
    for height, width in TAPS:
        tap = torch.randn(2, 512, height, width)
        found[f"tap {height}x{width}"] = tap.permute(0, 2, 3, 1).numpy()
        found[f"tap softmax {height}x{width}"] = torch.softmax(aux(tap), 1).numpy()
    return found


def main(network: str, checkpoint: str, outputs: str, *sizes: str) -> None:
    torch.manual_seed(0)
    built = NETWORKS[network]()
    randomise(built)
    torch.save(built.state_dict(), checkpoint)
    built.eval()
    found = {}
    for size in sizes:
        image = torch.randn(2, 3, *map(int, size.split("x")))
        with torch.no_grad():
            logits = built(image)
        found[f"image {size}"] = image.permute(0, 2, 3, 1).numpy()
        found[f"softmax {size}"] = torch.softmax(logits, 1).numpy()
    if network == "googlenet":
        found |= auxiliary(built.aux1)
    with Path(outputs).open("wb") as file:
        np.savez(file, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
