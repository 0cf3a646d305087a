"""Exported programs of torch as models of any number of rows."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

_FREE = "torch.export.export(model.eval(), (x,), dynamic_shapes=({0: torch.export.Dim('batch')},))"
_CLOSE = 1e-3
"""Of the largest output: what filling a batch up may change in other rows' outputs."""


def load(path: Path, *, allowed: bool) -> tuple[nn.Module, torch.dtype]:
    """The program in a .pt2 file, and the dtype of its input.

    Args:
        path: The file.
        allowed: Whether what lies in the file may run as code.

    Raises:
        FileNotFoundError: No such file.
        OSError: The system refuses.
        ValueError: It was not allowed; no exported program; several inputs or outputs, or an input
            that cannot be perturbed.
    """
    if not allowed:
        raise ValueError(
            f"{path}: torch reads parts of an exported program with pickle, which can run code "
            "that lies in the file: --allow-unsafe allows it, for files of your own"
        )
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected an exported program, found no such file")
    try:
        with _without_traces():
            program = torch.export.load(str(path))
    except OSError as error:
        raise OSError(f"{path}: could not be read: {error.strerror or error}") from error
    except MemoryError:
        raise
    except Exception as error:  # torch raises what it meets
        raise ValueError(f"{path}: expected a program that torch.export saved: {error}") from error
    signature = program.graph_signature
    if len(signature.user_inputs) != 1 or len(signature.user_outputs) != 1:
        raise ValueError(
            f"{path}: expected a program with one input and one output, got the inputs "
            f"{list(signature.user_inputs)} and {len(signature.user_outputs)} outputs: use "
            "torchfgsm in Python"
        )
    (example,) = [n.meta["val"] for n in program.graph.nodes if n.name in signature.user_inputs]
    if not isinstance(example, Tensor) or not example.is_floating_point() or not example.dim():
        kind = getattr(example, "dtype", type(example).__name__)
        raise ValueError(
            f"{path}: expected a floating-point input (N, ...), which alone can be perturbed, the "
            f"program takes {kind}"
        )
    return Exported(program, example), example.dtype


class Exported(nn.Module):
    """A program that is run on batches of the sizes that it takes; a short last one is filled up.

    What fills a batch up are copies of its last row, which get no gradient and whose outputs are
    left out. A program whose rows see each other, so that the copies count, is refused then.
    """

    def __init__(self, program: Any, example: Tensor) -> None:
        """Takes the program and what it was told of its input."""
        super().__init__()
        self.program = program.module()
        self._shape = tuple(n if isinstance(n, int) else None for n in example.shape)
        self._dtype = example.dtype
        self._least, self._most = _batch_sizes(program, example.shape[0])
        self._rows_are_apart = False

    def forward(self, x: Tensor) -> Tensor:
        """The program's outputs, (N, ...).

        Raises:
            ValueError: Inputs that the program does not take.
        """
        pairs = zip(x.shape[1:], self._shape[1:], strict=False)
        fits = x.dim() == len(self._shape) and all(size in (n, None) for n, size in pairs)
        if not fits or x.dtype != self._dtype:
            sizes = ", ".join("?" if n is None else str(n) for n in self._shape[1:])
            raise ValueError(
                f"expected inputs (N, {sizes}) {self._dtype}, got {tuple(x.shape)} {x.dtype}"
            )
        size = self._most or len(x)
        parts = [self._of_a_part(x[first : first + size]) for first in range(0, len(x), size)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _of_a_part(self, x: Tensor) -> Tensor:
        lacking = self._least - len(x)
        if lacking <= 0:
            return self._output(x)
        output = self._output(torch.cat([x, x[-1:].detach().expand(lacking, *x.shape[1:])]))
        if not self._rows_are_apart:
            with torch.no_grad():
                others = self._output(torch.cat([x, x.new_zeros(lacking, *x.shape[1:])]))
            self._refuse_other(output[: len(x)].detach(), others[: len(x)])
            self._rows_are_apart = True
        return output[: len(x)]

    def _output(self, x: Tensor) -> Tensor:
        try:
            output = self.program(x)
        except AssertionError as error:  # what torch makes of the program's own conditions
            raise ValueError(f"the exported program does not take these inputs: {error}") from error
        if not isinstance(output, Tensor) or output.shape[:1] != x.shape[:1]:
            came = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(f"expected an output ({len(x)}, ...) of the program, got {came}")
        return output

    def _refuse_other(self, output: Tensor, others: Tensor) -> None:
        slack = _CLOSE * float(output.abs().nan_to_num(0.0, 0.0).max())
        if not torch.allclose(output, others, rtol=0.0, atol=slack, equal_nan=True):
            raise ValueError(
                f"the program takes batches of at least {self._least} rows, and {len(output)} are "
                "left over, whose outputs depend on the rows beside them: it computes over its "
                "batch, as BatchNorm does in training mode, or draws random numbers. Give rows "
                f"that fill all batches, or export it otherwise: {_FREE}"
            )


def _batch_sizes(program: Any, size: Any) -> tuple[int, int | None]:
    """The smallest and the largest batch that a program takes; None without a limit."""
    if isinstance(size, int):
        return size, size
    limits = program.range_constraints.get(size.node.expr)
    if limits is None:  # sizes that depend on each other: the program refuses what it does not take
        return 1, None
    bounded = bool(limits.upper < 2**62)
    return max(1, int(limits.lower)), int(limits.upper) if bounded else None


@contextlib.contextmanager
def _without_traces() -> Iterator[None]:
    """Keeps torch from logging the trace of what it could not read."""
    logger = logging.getLogger("torch.export")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
