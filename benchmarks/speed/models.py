"""The attacked models with random weights, in plain torch: logits of images (N, C, H, W)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn

_NARROW = (64, 128, 256, 512)


class _Residual(nn.Module):
    """A residual block: two 3x3 convolutions, or 1x1, 3x3 and 1x1 around a bottleneck."""

    def __init__(self, inputs: int, width: int, stride: int, expansion: int) -> None:
        super().__init__()
        outputs = width * expansion
        layers = [_convolution(inputs, width, 3, stride), nn.ReLU(), _convolution(width, width, 3)]
        if expansion > 1:
            layers = [
                _convolution(inputs, width, 1),
                nn.ReLU(),
                _convolution(width, width, 3, stride),
                nn.ReLU(),
                _convolution(width, outputs, 1),
            ]
        self.body = nn.Sequential(*layers)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else _convolution(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def _convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False),
        nn.BatchNorm2d(outputs),
    )


def _resnet(stem: list[nn.Module], depths: tuple[int, ...], expansion: int) -> nn.Sequential:
    layers, inputs = list(stem), _NARROW[0]
    for stage, (width, depth) in enumerate(zip(_NARROW, depths, strict=True)):
        for block in range(depth):
            stride = 2 if stage > 0 and block == 0 else 1
            layers.append(_Residual(inputs, width, stride, expansion))
            inputs = width * expansion
    classes = 10 if expansion == 1 else 1000
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes)]
    return nn.Sequential(*layers)


def resnet18() -> nn.Sequential:
    """ResNet-18 with the 3x3 stem for images of 32x32."""
    return _resnet([_convolution(3, 64, 3), nn.ReLU()], (2, 2, 2, 2), 1)


def resnet50() -> nn.Sequential:
    """ResNet-50 for images of 224x224."""
    stem = [_convolution(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    return _resnet(stem, (3, 4, 6, 3), 4)


class VisionTransformer(nn.Module):
    """ViT-B/16 for images of 224x224."""

    def __init__(self, width: int = 768, depth: int = 12, patch: int = 16) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, (224 // patch) ** 2 + 1, width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, 12, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 1000)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 1000) of images (N, 3, 224, 224)."""
        patches = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), patches], dim=1)
        logits: Tensor = self.head(self.norm(self.encoder(tokens + self.positions))[:, 0])
        return logits


def mlp() -> nn.Sequential:
    """784-256-128-10 for images of 28x28."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 256),
        nn.ReLU(),
        nn.Linear(256, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


def mnist_cnn() -> nn.Sequential:
    """Two convolutions and two dense layers for images of 28x28."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 49, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


@dataclass(frozen=True)
class Architecture:
    """A model and its data.

    Attributes:
        make: Builds it.
        shape: Of one example.
        classes: Number of logits.
    """

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    classes: int

    def build(self, device: torch.device) -> nn.Module:
        """The model in eval mode, its weights always the same."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.make().eval().to(device)

    def batches(
        self, size: int, count: int, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> list[tuple[Tensor, Tensor]]:
        """Batches of random images in [0, 1] with random labels."""
        generator = torch.Generator().manual_seed(1)
        found = []
        for _ in range(count):
            x = torch.rand(size, *self.shape, generator=generator).to(device, dtype)
            y = torch.randint(self.classes, (size,), generator=generator).to(device)
            found.append((x, y))
        return found


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "MLP": Architecture(mlp, (1, 28, 28), 10),
        "MNIST CNN": Architecture(mnist_cnn, (1, 28, 28), 10),
        "ResNet-18": Architecture(resnet18, (3, 32, 32), 10),
        "ResNet-50": Architecture(resnet50, (3, 224, 224), 1000),
        "ViT-B/16": Architecture(VisionTransformer, (3, 224, 224), 1000),
    }
)
