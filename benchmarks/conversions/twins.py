"""Hand-written torch modules of the architectures that the conversions' speed is measured on.

Their layers bear the Keras layers' names, so that they take the Keras weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Array = npt.NDArray[Any]

_LEAVES = {
    "kernel": "weight",
    "gamma": "weight",
    "bias": "bias",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_AXES = {2: (1, 0), 4: (3, 2, 0, 1)}


class Twin(nn.Module):
    """A module whose children bear the names of Keras layers."""

    def take(self, arrays: Mapping[str, Array]) -> None:
        """Takes the Keras weights, by names such as "conv1/kernel"."""
        state = self.state_dict()
        taken = [name for name in state if name.endswith("num_batches_tracked")]
        for path, array in arrays.items():
            layer, leaf = path.removesuffix(":0").split("/")[-2:]
            name = f"{layer}.{_LEAVES[leaf]}"
            state[name].copy_(torch.from_numpy(array.transpose(_AXES.get(array.ndim, (0,)))))
            taken.append(name)
        missing = sorted(set(state) - set(taken))
        if missing:
            raise ValueError(f"expected weights for all layers, got none for {missing}")


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class CNN(Twin):
    """Three convolutions with BatchNorm, max-pooling and a dense head, for images of 32x32."""

    def __init__(self) -> None:
        super().__init__()
        inputs = 3
        for i, width in enumerate((32, 64, 128), start=1):
            self.add_module(f"conv{i}", nn.Conv2d(inputs, width, 3, padding=1))
            self.add_module(f"norm{i}", _norm(width))
            inputs = width
        self.head = nn.Linear(128 * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 10) of images (N, 3, 32, 32)."""
        for i in (1, 2, 3):
            h = self.get_submodule(f"norm{i}")(self.get_submodule(f"conv{i}")(x))
            x = F.max_pool2d(F.relu(h), 2)
        # Keras flattens with the channels last.
        logits: Tensor = self.head(x.permute(0, 2, 3, 1).flatten(1))
        return logits


class _Bottleneck(nn.Module):
    """The part of Keras' ResNet50 whose layers' names begin with one prefix."""

    def __init__(self, inputs: int, width: int, stride: int, *, project: bool) -> None:
        super().__init__()
        sizes = [(inputs, width, 1, stride), (width, width, 3, 1), (width, 4 * width, 1, 1)]
        if project:
            self.add_module("0_conv", nn.Conv2d(inputs, 4 * width, 1, stride))
            self.add_module("0_bn", nn.BatchNorm2d(4 * width, eps=1.001e-5))
        for i, (before, after, size, step) in enumerate(sizes, start=1):
            self.add_module(f"{i}_conv", nn.Conv2d(before, after, size, step, padding=size // 2))
            self.add_module(f"{i}_bn", nn.BatchNorm2d(after, eps=1.001e-5))
        self.project = project

    def _normed(self, i: int, x: Tensor) -> Tensor:
        found: Tensor = self.get_submodule(f"{i}_bn")(self.get_submodule(f"{i}_conv")(x))
        return found

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self._normed(0, x) if self.project else x
        h = F.relu(self._normed(2, F.relu(self._normed(1, x))))
        return F.relu(shortcut + self._normed(3, h))


class ResNet50(Twin):
    """Keras' ResNet50 (biases in the convolutions, strides in the first 1x1) with ten classes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1_conv = nn.Conv2d(3, 64, 7, 2, padding=3)
        self.conv1_bn = nn.BatchNorm2d(64, eps=1.001e-5)
        self.blocks = nn.Sequential()
        inputs = 64
        for stage, (width, depth) in enumerate(zip((64, 128, 256, 512), (3, 4, 6, 3), strict=True)):
            for block in range(depth):
                stride = 2 if stage and not block else 1
                part = _Bottleneck(inputs, width, stride, project=not block)
                self.blocks.add_module(f"conv{stage + 2}_block{block + 1}", part)
                inputs = 4 * width
        self.predictions = nn.Linear(inputs, 10)

    def take(self, arrays: Mapping[str, Array]) -> None:
        """Takes the Keras weights; "conv2_block1_1_conv" is "blocks.conv2_block1.1_conv" here."""

        def place(path: str) -> str:
            layer, leaf = path.removesuffix(":0").split("/")[-2:]
            if "_block" in layer:
                stage, block, rest = layer.split("_", 2)
                layer = f"blocks.{stage}_{block}.{rest}"
            return f"{layer}/{leaf}"

        super().take({place(path): array for path, array in arrays.items()})

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 10) of images (N, 3, H, W)."""
        x = F.max_pool2d(F.relu(self.conv1_bn(self.conv1_conv(x))), 3, 2, padding=1)
        logits: Tensor = self.predictions(self.blocks(x).mean(dim=(2, 3)))
        return logits


TWINS: Mapping[str, Callable[[], Twin]] = MappingProxyType({"CNN": CNN, "ResNet50": ResNet50})
