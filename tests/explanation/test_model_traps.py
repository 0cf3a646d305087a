"""Traps in the model and in torch's settings, each with and without."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toy_models import batch, mlp, noisy
from trap_cases import LINF, labels, rows, traps

from torchfgsm.explanation.first_gradient import SideView
from torchfgsm.explanation.traps import model as model_traps
from torchfgsm.parity.recorded import Recording
from torchfgsm.system.arithmetic import exact_arithmetic


def test_training_mode_in_the_attack() -> None:
    x, y = batch(torch.float32)
    keeps = dataclasses.replace(LINF, model_mode="keep")
    found = traps(noisy(), x, y, LINF, keeps)
    assert {"dropout in the attack", "BatchNorm in training mode"} <= set(found)
    for name, module in (("dropout in the attack", "(3)"), ("BatchNorm in training mode", "(1)")):
        assert (found[name].count, found[name].side) == (1, "b")
        assert module in found[name].message
    assert "moving statistics" not in found["BatchNorm in training mode"].message
    updates = dataclasses.replace(LINF, model_mode="keep_and_update")
    assert (
        "moving statistics" in traps(noisy(), x, y, updates)["BatchNorm in training mode"].message
    )
    settled = set(traps(noisy().eval(), x, y, keeps))
    assert not settled & {"dropout in the attack", "BatchNorm in training mode"}


def test_layers_that_ignore_eval_mode() -> None:
    class AlwaysDropout(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(x, 0.5, training=True)

    x, y = batch(torch.float32)
    model = nn.Sequential(mlp(torch.float32), nn.BatchNorm1d(3, track_running_stats=False))
    found = traps(model.eval(), x, y, LINF)
    assert found["BatchNorm without moving statistics"].count == 1
    assert "random numbers in each pass" not in found
    found = traps(nn.Sequential(AlwaysDropout(), mlp(torch.float32)).eval(), x, y, LINF)
    assert "in eval mode too" in found["random numbers in each pass"].message
    keeps = dataclasses.replace(LINF, model_mode="keep")
    assert "random numbers in each pass" in traps(AlwaysDropout().eval(), x, y, keeps)
    # Any callable can draw; its layers are not known.
    drawing = traps(lambda x: x[:, :3] + torch.rand(3), x, y, LINF)
    assert "random numbers in each pass" in drawing


def test_what_a_conversion_has_lost() -> None:
    pytest.importorskip("onnx2torch", reason="onnx2torch, which reads ONNX files, is missing")
    import numpy as np
    from onnx import helper
    from onnx_models import FLOAT, dense, module_of

    weight, y = np.eye(3), labels(0, 2)
    x = rows([1, 0, 0], [0, 0, 1])
    plain = module_of(dense(weight, np.zeros(3), [], [("z", FLOAT, [3])]))
    name = "dropout may be lost in conversion"
    assert traps(plain, x, y, LINF)[name].severity == "note"
    drop = [helper.make_node("Dropout", ["z"], ["d"])]
    assert name not in traps(
        module_of(dense(weight, np.zeros(3), drop, [("d", FLOAT, [3])])), x, y, LINF
    )
    plain.annotation = dataclasses.replace(
        plain.annotation, only_inference=("StochasticDepth 'depth'",), lost=("a constraint",)
    )
    trap = traps(plain, x, y, LINF)["training lost in conversion"]
    assert trap.count == 2
    assert "StochasticDepth 'depth'; a constraint" in trap.message


def test_a_model_converted_from_keras_has_lost_no_dropout(recording: Recording) -> None:
    pytest.importorskip("onnx2torch", reason="onnx2torch, which reads ONNX files, is missing")
    from torchfgsm import converters

    for name, data in recording.data().items():
        model = converters.load(recording.paths[name], verify=False)
        x = {key: torch.from_numpy(value) for key, value in data.x.items()}
        found = traps(model, x, torch.from_numpy(data.y), LINF)
        assert not [t for t in found if "conversion" in t]


def on_cuda(dtype: torch.dtype = torch.float32) -> SideView:
    """What the search for TF32 asks of a view; such a tensor needs a GPU."""
    tensor = SimpleNamespace(device=torch.device("cuda", 0), dtype=dtype)
    return cast(SideView, SimpleNamespace(features=SimpleNamespace(tensors=[tensor])))


def test_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    (trap,) = model_traps.tf32(on_cuda())  # torch allows it for convolutions
    assert "convolutions" in trap.message or "cuDNN" in trap.message
    assert not list(model_traps.tf32(on_cuda(torch.float64)))
    with exact_arithmetic():
        assert not list(model_traps.tf32(on_cuda()))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert not list(model_traps.tf32(on_cuda()))
    x, y = batch()
    assert "TF32" not in traps(mlp(), x, y, LINF)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
def test_tf32_on_a_gpu() -> None:
    x, y = batch(torch.float32)
    found = traps(mlp(torch.float32).cuda(), x.cuda(), y.cuda(), LINF)
    assert ("TF32" in found) == (torch.cuda.get_device_capability() >= (8, 0))


def test_autocast() -> None:
    x, y = batch(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = traps(mlp(torch.float32), x, y, LINF)
    assert "bfloat16" in found["autocast"].message
    assert "autocast" not in traps(mlp(torch.float32), x, y, LINF)
