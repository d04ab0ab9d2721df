"""EfficientNet-Lite as PyTorch's own layers, straight from a released checkpoint; run by `.venv-torch`.

    python torch_lite.py <checkpoint.pth> <images.npz> <outputs.npz>

`images.npz` holds scaled images (B, h, w, 3) by name; the outputs are softmax (B, 1000) by the same names.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

State = dict[str, torch.Tensor]
STRIDES = {0: 1, 1: 2, 2: 2, 3: 2, 4: 1, 5: 2, 6: 1}  # of each stage's first block


def same(x: torch.Tensor, kernel: int, stride: int) -> torch.Tensor:
    """TensorFlow's padding: what is odd goes below and to the right."""
    sides = []
    for side in (x.shape[3], x.shape[2]):
        total = max(0, (-(-side // stride) - 1) * stride + kernel - side)
        sides += [total // 2, total - total // 2]
    return functional.pad(x, sides)


def convolution(x: torch.Tensor, weight: torch.Tensor, stride: int = 1) -> torch.Tensor:
    groups = x.shape[1] // weight.shape[1]
    return functional.conv2d(same(x, weight.shape[2], stride), weight, stride=stride, groups=groups)


def normalised(x: torch.Tensor, state: State, name: str) -> torch.Tensor:
    mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    return functional.batch_norm(x, mean, variance, state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-3)


def block(x: torch.Tensor, state: State, name: str, stride: int) -> torch.Tensor:
    shortcut = x
    if f"{name}._expand_conv.weight" in state:
        x = functional.relu6(normalised(convolution(x, state[f"{name}._expand_conv.weight"]), state, f"{name}._bn0"))
    x = convolution(x, state[f"{name}._depthwise_conv.weight"], stride)
    x = functional.relu6(normalised(x, state, f"{name}._bn1"))
    x = normalised(convolution(x, state[f"{name}._project_conv.weight"]), state, f"{name}._bn2")
    return x + shortcut if x.shape == shortcut.shape else x


def strides(state: State) -> list[int]:
    """Of every block: a stage begins where the number of channels or the kernel's side changes."""
    found: list[int] = []
    kinds: list[tuple[int, int]] = []
    for i in range(len({name.split(".")[1] for name in state if name.startswith("_blocks.")})):
        kind = (
            state[f"_blocks.{i}._project_conv.weight"].shape[0],
            state[f"_blocks.{i}._depthwise_conv.weight"].shape[2],
        )
        first = not kinds or kind != kinds[-1]
        kinds += [kind] if first else []
        found.append(STRIDES[len(kinds) - 1] if first else 1)
    return found


@torch.no_grad()
def softmax(state: State, images: np.ndarray) -> np.ndarray:
    x = torch.from_numpy(images).permute(0, 3, 1, 2)
    x = functional.relu6(normalised(convolution(x, state["_conv_stem.weight"], 2), state, "_bn0"))
    for i, stride in enumerate(strides(state)):
        x = block(x, state, f"_blocks.{i}", stride)
    x = functional.relu6(normalised(convolution(x, state["_conv_head.weight"]), state, "_bn1"))
    return torch.softmax(functional.linear(x.mean((2, 3)), state["_fc.weight"], state["_fc.bias"]), 1).numpy()


def main(checkpoint: str, images: str, outputs: str) -> None:
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    with np.load(images) as archive:
        found = {name: softmax(state, archive[name]) for name in archive.files}
    with Path(outputs).open("wb") as file:
        np.savez(file, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
