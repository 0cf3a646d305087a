"""Exported programs of torch on the command line: whatever batch they were exported with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("onnx")
pytest.importorskip("onnx2torch")

from attack_files import PGD, classes, inputs, refused, run

from torchfgsm import Recipe, attack, cli

Capture = pytest.CaptureFixture[str]
pytestmark = pytest.mark.usefixtures("one_thread")


# torch 2.6 has words of its own for it.
NOT_TAKEN = (
    "to be <= 6, but got 7"
    if torch.__version__ < "2.7"
    else "the exported program does not take these inputs"
)


@pytest.fixture(autouse=True)
def _nothing_traced_before() -> None:
    """torch counts the traces of one function over a whole process, and refuses the ninth."""
    torch.compiler.reset()


ROWS = 10


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).eval()


def exported(path: Path, model: nn.Module, *examples: Tensor, dims: Any = None) -> Path:
    program = torch.export.export(model, examples or (torch.zeros(4, 6),), dynamic_shapes=dims)
    torch.export.save(program, path)
    return path


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "in.npz"
    np.savez(path, x=inputs(ROWS), y=classes(ROWS))
    return path


BATCHES: dict[str, tuple[Any, int]] = {
    "fixed": (None, 128),
    "fixed, in batches of others": (None, 3),
    "at most 7": (({0: torch.export.Dim("batch", min=2, max=7)},), 128),
    "at least 2": (({0: torch.export.Dim("batch", min=2)},), 9),
    "even": (({0: 2 * torch.export.Dim("half", min=1, max=20)},), 128),
}


@pytest.mark.parametrize("name", BATCHES)
def test_all_rows_are_attacked_as_by_the_model_itself(
    rows: Path, tmp_path: Path, capsys: Capture, name: str
) -> None:
    dims, size = BATCHES[name]
    path, out = exported(tmp_path / "m.pt2", network(), dims=dims), tmp_path / "out.npy"
    arguments = (path, "--allow-unsafe", "--data", rows, "-o", out, "--batch-size", size)
    assert run(capsys, *arguments, "--recipe", "native", "--norm", "l2", "--eps", 0.5)[0] == 0
    x, y = torch.from_numpy(inputs(ROWS)), torch.from_numpy(classes(ROWS))
    expected = attack(network(), x, y, recipe=Recipe(norm="l2", step=0.5))
    np.testing.assert_allclose(np.load(out), expected.numpy(), rtol=0, atol=1e-6)


def test_explain_takes_a_fixed_batch(rows: Path, tmp_path: Path, capsys: Capture) -> None:
    found = []
    for dims in (None, ({0: torch.export.Dim("batch", min=2)},)):
        path = exported(tmp_path / "m.pt2", network(), dims=dims)
        arguments = ["explain", str(path), "--allow-unsafe", "--data", str(rows)]
        assert cli.main([*arguments, "--count", "9"]) == 0
        summary, *_ = capsys.readouterr().out.split("Which choice makes the difference")
        found.append(summary)  # behind it are numbers that are rounding alone
    assert "differ: b's perturbation is" in found[0]
    assert found[0] == found[1]


class WithTwo(nn.Module):
    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return x @ z.T


class OfWholeNumbers(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.float() @ torch.ones(6, 3)


class OfAnyWidth(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x.sum(1), x.mean(1), -x.sum(1)], 1)


class WithADict(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"z": x[:, :3]}


class OfTheWholeBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sum()


def test_what_a_program_does_not_take_is_one_line(
    rows: Path, tmp_path: Path, capsys: Capture
) -> None:
    wide = tmp_path / "wide.npz"
    np.savez(wide, x=np.zeros((ROWS, 7), np.float32), y=classes(ROWS))
    narrow = ({1: torch.export.Dim("width", min=2, max=6)},)
    cases: dict[str, tuple[Path, Path, str]] = {
        "another shape": (exported(tmp_path / "a.pt2", network()), wide, "(N, 6) torch.float32"),
        "rows that see each other": (
            exported(tmp_path / "b.pt2", network().train()), rows, "2 are left over"),
        "a condition of the program": (
            exported(tmp_path / "c.pt2", OfAnyWidth(), dims=narrow), wide,
            NOT_TAKEN),
        "two inputs": (
            exported(tmp_path / "d.pt2", WithTwo(), torch.zeros(4, 6), torch.zeros(3, 6)), rows,
            "got the inputs ['x', 'z']"),
        "whole numbers": (
            exported(tmp_path / "e.pt2", OfWholeNumbers(), torch.zeros(4, 6).long()), rows,
            "the program takes torch.int64"),
        "a dict": (exported(tmp_path / "f.pt2", WithADict()), rows, "got dict"),
        "a scalar": (exported(tmp_path / "g.pt2", OfTheWholeBatch()), rows, "got ()"),
    }  # fmt: skip
    for name, (model, data, says) in cases.items():
        arguments = (model, "--allow-unsafe", "--data", data, "-o", tmp_path / "o.npy", *PGD)
        assert says in refused(capsys, *arguments), name
        shown = ["explain", str(model), "--allow-unsafe", "--data", str(data)]
        assert cli.main(shown) == 2, name
        assert says in capsys.readouterr().err.splitlines()[-1], name
