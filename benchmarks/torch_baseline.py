"""Fine-tuning as PyTorch's and albumentations' guides show it, every fold in one process: a side of the row end_to_end.

https://docs.pytorch.org/tutorials/beginner/transfer_learning_tutorial.html: a data set over image files, a `DataLoader` whose
processes augment (one per core), a training and a validation phase in each epoch; channels last, as the tuning guide has it.
torchvision is not part of the set-up: albumentations makes the images, and `Network` is the Keras network layer by layer in
PyTorch's own layers, with the same initial weights. Imports no Keras.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import torch
from albumentations.pytorch import ToTensorV2
from torch import nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.training_plan import Plan, PlannedStage

Node = dict[str, Any]  # a layer of a network: `name`, `kind`, `config`, `parents`
Weights = dict[str, np.ndarray]


class Images(Dataset):
    """Image files, decoded and transformed one by one, and their labels."""

    def __init__(self, plan: Plan, rows: np.ndarray, training: bool) -> None:
        self.plan, self.rows, self.transform = plan, rows, transforms(plan, training)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> tuple[Any, int]:
        row = int(self.rows[place])
        image = cv2.cvtColor(cv2.imread(self.plan.paths[row]), cv2.COLOR_BGR2RGB)
        return self.transform(image=image)["image"], self.plan.labels[row]


def transforms(plan: Plan, training: bool) -> A.Compose:
    """Resizing, in training the preset, cutting, scaling to the network's input."""
    crop = A.RandomCrop if training and plan.crop == "random" else A.CenterCrop
    change = [getattr(A, name)(**keywords) for step in plan.preset for name, keywords in step.items()]
    change += [A.HorizontalFlip(p=0.5)] if plan.hflip else []
    swapped = -1 if plan.order == "bgr" else 1
    scale = A.Normalize(plan.mean[::swapped], plan.std[::swapped], max_pixel_value=1.0)
    resize = A.Resize(*plan.packed, interpolation=cv2.INTER_AREA)
    return A.Compose([resize, *(change if training else []), crop(*plan.size), scale, ToTensorV2()])


def loader(plan: Plan, rows: np.ndarray, training: bool) -> DataLoader:
    """Batches by a process per core."""
    images = Images(plan, rows, training)
    return DataLoader(
        images, plan.batch, shuffle=training, num_workers=os.cpu_count() or 1, worker_init_fn=_one_opencv_thread
    )


def _one_opencv_thread(_: int) -> None:
    cv2.setNumThreads(0)


class Same(nn.Module):
    """Padding with zeros as Keras has it under "same": the odd line at the bottom and right."""

    def __init__(self, kernel: tuple[int, int], strides: tuple[int, int]) -> None:
        super().__init__()
        self.kernel, self.strides = kernel, strides

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pads: list[int] = []
        for size, kernel, stride in zip(x.shape[2:], self.kernel, self.strides, strict=True):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads = [total // 2, total - total // 2, *pads]
        return nn.functional.pad(x, pads) if any(pads) else x


def _convolution(config: Node, weights: Weights) -> nn.Module:
    """A convolution, depthwise if its kernel says so; weights (h, w, in, out) or (h, w, in, multiplier)."""
    kernel, depthwise = weights["kernel"], config["depthwise"]
    height, width, inputs, outputs = kernel.shape
    groups = inputs if depthwise else config.get("groups", 1)
    outputs = inputs * outputs if depthwise else outputs
    odd = height % 2 and width % 2 and config["strides"] == [1, 1] and config["padding"] == "same"
    made = nn.Conv2d(
        inputs if depthwise else inputs * groups, outputs, (height, width), config["strides"],
        padding=(height // 2, width // 2) if odd else 0, groups=groups, bias="bias" in weights
    )  # fmt: skip
    order = (2, 3, 0, 1) if depthwise else (3, 2, 0, 1)
    made.weight.data = torch.from_numpy(kernel.transpose(order).reshape(made.weight.shape).copy())
    if "bias" in weights:
        made.bias.data = torch.from_numpy(weights["bias"].copy())
    before = [Same((height, width), tuple(config["strides"]))] if config["padding"] == "same" and not odd else []
    after = [] if config["activation"] == "linear" else [_activation(config, weights)]
    return nn.Sequential(*before, made, *after) if before or after else made


def _normalisation(config: Node, weights: Weights) -> nn.Module:
    mean = weights["moving_mean"]
    made = nn.BatchNorm2d(len(mean), config["epsilon"], 1 - config["momentum"])
    for name, own in (("gamma", "weight"), ("beta", "bias")):
        if name in weights:
            getattr(made, own).data = torch.from_numpy(weights[name].copy())
        else:  # never trained
            value = getattr(made, own).data
            delattr(made, own)
            made.register_buffer(own, value)
    made.running_mean = torch.from_numpy(mean.copy())
    made.running_var = torch.from_numpy(weights["moving_variance"].copy())
    return made


def _activation(config: Node, _: Weights) -> nn.Module:
    kinds: dict[Any, Callable[[], nn.Module]] = {"relu": nn.ReLU, "linear": nn.Identity, "relu6": nn.ReLU6}
    return kinds[config["activation"]]()


def _rectifier(config: Node, _: Weights) -> nn.Module:
    return nn.ReLU6() if config["max_value"] == 6 else nn.ReLU()


def _pooling(kind: Any, **more: Any) -> Callable[[Node, Weights], nn.Module]:
    def made(config: Node, _: Weights) -> nn.Module:
        same, size = config["padding"] == "same", config["pool_size"]
        if same and (config["strides"] != [1, 1] or not (size[0] % 2 and size[1] % 2)):
            raise NotImplementedError("pooling with strides under same padding")
        return kind(size, config["strides"], (size[0] // 2, size[1] // 2) if same else 0, **more)

    return made


def _padding(config: Node, _: Weights) -> nn.Module:
    (top, bottom), (left, right) = config["padding"]
    return nn.ZeroPad2d((left, right, top, bottom))


class _Sum(nn.Module):
    def forward(self, *given: torch.Tensor) -> torch.Tensor:
        return torch.stack(given).sum(0) if len(given) != 2 else given[0] + given[1]


class _Joined(nn.Module):
    def forward(self, *given: torch.Tensor) -> torch.Tensor:
        return torch.cat(given, 1)


LAYERS: dict[str, Callable[[Node, Weights], nn.Module]] = {
    "InputLayer": lambda config, weights: nn.Identity(),
    "Conv2D": lambda config, weights: _convolution({**config, "depthwise": False}, weights),
    "DepthwiseConv2D": lambda config, weights: _convolution({**config, "depthwise": True}, weights),
    "BatchNormalization": _normalisation,
    "Activation": _activation,
    "ReLU": _rectifier,
    "MaxPooling2D": _pooling(nn.MaxPool2d),
    "AveragePooling2D": _pooling(nn.AvgPool2d, count_include_pad=False),
    "ZeroPadding2D": _padding,
    "Add": lambda config, weights: _Sum(),
    "Concatenate": lambda config, weights: _Joined(),
}


class Network(nn.Module):
    """A Keras network's layers in PyTorch's: float32 (B, 3, h, w), scaled -> (B, F, h', w')."""

    def __init__(self, nodes: list[Node], weights: dict[str, np.ndarray]) -> None:
        """Build it.

        Args:
            nodes: in an order in which each comes after its parents.
            weights: by `<layer>/<name>`.
        """
        super().__init__()
        self.nodes, self.parts = nodes, nn.ModuleList()
        for node in nodes:
            own = {key.split("/")[1]: value for key, value in weights.items() if key.split("/")[0] == node["name"]}
            self.parts.append(LAYERS[node["kind"]](node["config"], own))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: dict[str, torch.Tensor] = {}
        for node, part in zip(self.nodes, self.parts, strict=True):
            x = part(*[made[name] for name in node["parents"]]) if node["parents"] else part(x)
            made[node["name"]] = x
        return x

    def freeze(self, count: int) -> None:
        """Freeze the first `count` layers of the Keras network, the others not."""
        for node, part in zip(self.nodes, self.parts, strict=True):
            part.requires_grad_(node["place"] >= count)


class Classifier(nn.Module):
    """float32 (B, 3, h, w), scaled -> logits (B, C): a backbone, pooling, dropout, a new linear layer."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        where = Path(plan.network)
        nodes = json.loads(where.with_suffix(".json").read_text())
        with np.load(where.with_suffix(".npz")) as weights:
            self.backbone = Network(nodes, dict(weights))
        self.flips, self.statistics = plan.order == "bgr", plan.statistics
        self.pool, self.dropout = nn.AdaptiveAvgPool2d(1), nn.Dropout(plan.dropout)
        with torch.no_grad():
            features = self.backbone.eval()(torch.zeros(1, 3, *plan.size)).shape[1]
        self.top = nn.Linear(features, plan.classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.backbone(x.flip(1) if self.flips else x)
        return self.top(self.dropout(self.pool(x).flatten(1)))

    def train(self, mode: bool = True) -> "Classifier":
        """Training mode; the backbone's normalisation stays in inference mode unless it is to use batch statistics."""
        super().train(mode)
        if not self.statistics:
            self.backbone.eval()
        return self


def trained(plan: Plan) -> np.ndarray:
    """Out-of-fold probabilities float32 (N, C), one fold after another."""
    found = np.zeros((len(plan.paths), plan.classes), np.float32)
    for number in range(plan.count):
        torch.manual_seed(plan.seed)
        shown, held = plan.split(number)
        model: Any = Classifier(plan).to(memory_format=torch.channels_last)
        training, validation = loader(plan, shown, True), loader(plan, held, False)
        for stage in plan.stages:
            train_stage(plan, model, stage, training, validation)
        found[held] = predicted(model, validation)
    return found


def train_stage(
    plan: Plan, model: Classifier, stage: PlannedStage, training: DataLoader, validation: DataLoader
) -> None:
    """A stage's epochs, each with a training and a validation phase."""
    model.backbone.freeze(stage.frozen)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    made: dict[str, Callable[[], torch.optim.Optimizer]] = {
        "sgd": lambda: torch.optim.SGD(weights, stage.learning_rate, plan.momentum, nesterov=plan.momentum > 0),
        "adam": lambda: torch.optim.Adam(weights, stage.learning_rate),
        "adamw": lambda: torch.optim.AdamW(weights, stage.learning_rate, weight_decay=0.0),
    }
    optimizer, total = made[plan.optimizer](), stage.epochs * len(training)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: plan.factor(min(step, total - 1), total))
    criterion = nn.CrossEntropyLoss(label_smoothing=plan.label_smoothing)
    for _ in range(stage.epochs):
        model.train()
        for images, labels in training:
            optimizer.zero_grad()
            loss = criterion(model(images.to(memory_format=torch.channels_last)), labels)
            loss.backward()
            optimizer.step()
            schedule.step()
        predicted(model, validation)


def predicted(model: Classifier, batches: DataLoader) -> np.ndarray:
    """Probabilities float32 (n, C) of a loader's images, in its order."""
    model.eval()
    with torch.inference_mode():
        parts = [model(images.to(memory_format=torch.channels_last)).softmax(1) for images, _ in batches]
    return torch.cat(parts).numpy()


def main(plan: str, target: str) -> None:
    """Train every fold, and keep the out-of-fold probabilities."""
    np.savez(target, probabilities=trained(Plan.read(Path(plan))))


if __name__ == "__main__":
    main(*sys.argv[1:])
