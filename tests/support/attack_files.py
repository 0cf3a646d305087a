"""Models, data and calls for the tests of `torchfgsm attack`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import helper
from onnx_models import FLOAT, graph_of, single

from torchfgsm import cli

Array = npt.NDArray[Any]
PGD = ("--iterations", 3, "--eps", 0.2, "--clip-min", -2, "--clip-max", 2)


def write_model(path: Path) -> Path:
    """Writes an ONNX network from (N, 6) through 8 units to 3 classes."""
    generator = np.random.default_rng(0)
    constants = {
        "first": single(generator.normal(size=(6, 8))),
        "last": single(generator.normal(size=(8, 3))),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["a"]),
        helper.make_node("Tanh", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "last"], ["z"]),
    ]
    onnx.save(graph_of(nodes, constants, [("x", FLOAT, [6])], [("z", FLOAT, [3])]), path)
    return path


def inputs(count: int = 50, dtype: Any = np.float32) -> Array:
    return np.random.default_rng(1).normal(size=(count, 6)).astype(dtype)


def classes(count: int = 50) -> Array:
    return np.random.default_rng(2).integers(3, size=count)


def run(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, list[str]]:
    code = cli.main(["attack", *map(str, arguments)])
    shown = capsys.readouterr()
    return code, shown.out, shown.err.splitlines()


def made(model_file: Path, data: Path, out: Path, *arguments: Any) -> Array:
    """The rows that a run writes, with whatever is not the default before it."""
    given = ["attack", model_file, "--no-verify", "--data", data, "-o", out, *arguments]
    assert cli.main(list(map(str, given))) == 0
    found: Array = np.load(out)
    return found


def refused(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    """The one line that a refusal says, after the steps of the conversion."""
    code, out, lines = run(capsys, *arguments)
    said = [line for line in lines if " s  " not in line and not line.startswith("attacking")]
    assert code == 2
    assert out == ""
    assert len(said) == 1, lines
    return said[0]
