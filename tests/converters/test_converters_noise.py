"""Layers that act in training: noise, and BatchNormalization."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("onnx")
pytest.importorskip("onnx2torch")

from onnx_cases import F32, LINE, Case

from torchfgsm.converters.ops import noise, normalization

pytestmark = pytest.mark.usefixtures("one_thread")


class TestNoise:
    """Draws of a fixed generator: means and variances within five standard errors."""

    COUNT = 40_000

    def module(self, kind: str, **settings: Any) -> Any:
        doc = json.dumps({"kind": kind, "layer": "noisy", **settings})
        model = Case("Dropout", [(4, 5)], doc=doc).convert()
        (module,) = [m for m in model.modules() if noise.is_noise(m)]
        assert module.layer == "noisy"
        assert repr(settings.get("rate", settings.get("stddev"))) in repr(module)
        x = torch.rand(4, 5)
        assert torch.equal(model.eval()(x), x)
        torch.manual_seed(0)
        return module.train()

    def near(self, actual: Tensor, expected: float, deviation: float) -> None:
        assert abs(actual.double().mean().item() - expected) < 5 * deviation / self.COUNT**0.5

    @pytest.mark.parametrize("axes", [[], [1]])
    def test_dropout(self, axes: list[int]) -> None:
        y = self.module("Dropout", rate=0.3, axes=axes)(torch.ones(self.COUNT, 3, 1))
        values = torch.tensor([0.0, 1 / 0.7])
        torch.testing.assert_close(y.unique(), values)
        self.near((y[:, 0] == 0).float(), 0.3, (0.3 * 0.7) ** 0.5)
        shared = bool((y[:, :1] == y).all())
        assert shared == bool(axes)

    def test_gaussian_noise(self) -> None:
        x = torch.full((self.COUNT,), 2.0)
        y = self.module("GaussianNoise", stddev=0.5)(x)
        self.near(y, 2.0, 0.5)
        self.near((y - 2) ** 2, 0.25, 0.25 * 2**0.5)

    def test_gaussian_dropout(self) -> None:
        x = torch.full((self.COUNT,), 2.0)
        y = self.module("GaussianDropout", rate=0.2)(x)
        self.near(y, 2.0, 1.0)
        self.near((y - 2) ** 2, 1.0, 2**0.5)

    def test_alpha_dropout_keeps_mean_and_variance(self) -> None:
        x = torch.randn(self.COUNT, generator=torch.Generator().manual_seed(1))
        y = self.module("AlphaDropout", rate=0.25)(x)
        self.near(y, 0.0, 1.0)
        self.near(y**2, 1.0, 2.0)
        dropped = y.mode().values
        self.near((y == dropped).float(), 0.25, (0.25 * 0.75) ** 0.5)
        a = ((1 - 0.25) * (1 + 0.25 * 1.7580993408473766**2)) ** -0.5
        expected = a * (-1.7580993408473766 + 1.7580993408473766 * 0.25)
        assert dropped.item() == pytest.approx(expected, rel=1e-6)

    def test_shared_axes_of_the_other_kinds(self) -> None:
        for kind, setting in (("GaussianNoise", "stddev"), ("GaussianDropout", "rate"),
                              ("AlphaDropout", "rate")):  # fmt: skip
            y = self.module(kind, **{setting: 0.4}, axes=[2, -2])(torch.ones(50, 3, 4))
            assert (y == y[:, :1, :1]).all()
            assert len(y.unique()) > 1

    def test_a_plain_onnx_dropout(self) -> None:
        (module,) = [
            m for m in Case("Dropout", [LINE], [F32(0.4)]).convert().modules() if noise.is_noise(m)
        ]
        assert module.p == 0.4
        assert not noise.is_noise(torch.nn.ReLU())


def test_batch_norm_in_training_is_differentiable_twice() -> None:
    module = normalization.KerasBatchNorm(1e-3, 0.9, unbiased=False, frozen=False)
    mean, var = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    tensors = [torch.rand(s, dtype=torch.float64, requires_grad=True) for s in ((3, 2, 4), 2, 2)]
    assert torch.autograd.gradcheck(lambda *x: module(*x, mean, var), tensors)
    assert torch.autograd.gradgradcheck(lambda *x: module(*x, mean, var), tensors)


def test_batch_norm_compiles_in_training() -> None:
    x = torch.rand(5, 3, 4, 4)
    results = []
    for compiled in (False, True):
        module = normalization.KerasBatchNorm(1e-3, 0.9, unbiased=True, frozen=False)
        holder = _Holder(module)
        run = torch.compile(holder, fullgraph=True, backend="aot_eager") if compiled else holder
        y = run(x)
        results.append((y, holder.mean, holder.var))
    assert not torch.equal(results[0][1], torch.zeros(3))
    torch.testing.assert_close(results[0], results[1])


class _Holder(torch.nn.Module):
    """A layer with its statistics, which it moves in place."""

    mean: Tensor
    var: Tensor

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module
        self.gamma = torch.nn.Parameter(torch.rand(3, generator=torch.Generator().manual_seed(0)))
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("var", torch.ones(3))

    def forward(self, x: Tensor) -> Any:
        return self.module(x, self.gamma, self.gamma, self.mean, self.var)
