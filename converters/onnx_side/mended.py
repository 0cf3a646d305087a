"""What the onnx package's reference evaluator is to run in the place of its own operations.

It is the float64 witness of operations that ONNX Runtime has in float32 alone. Some of its own are
right only for images, only for one version of the standard, or round to float32.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from torchfgsm.converters.annotation import Array


def mended() -> list[Any]:
    """Returns the operations, each under the name that it has in the standard."""
    from onnx.reference.op_run import OpRun

    def operation(name: str, compute: Any) -> Any:
        def run(self: Any, *inputs: Any, **_: Any) -> tuple[Array]:
            # Not the evaluator's attributes, whose defaults are those of one version.
            given = {a.name: self._extract_attribute_value(a) for a in self.onnx_node.attribute}
            if len([name for name in self.onnx_node.output if name]) > 1:
                raise NotImplementedError(f"{name} of several outputs")
            return (compute(self.run_params["opsets"].get("", 0), given, *inputs),)

        return type(name, (OpRun,), {"_run": run, "op_domain": ""})

    return [operation(name, compute) for name, compute in _OPERATIONS.items()]


def _batch_normalization(
    opset: int, given: Any, x: Array, scale: Array, bias: Array, mean: Array, variance: Array
) -> Array:
    """By the statistics that it is given; the evaluator mixes the batch's own into them."""
    if given.get("training_mode") or not given.get("spatial", 1):
        raise NotImplementedError("BatchNormalization in training, or not spatial")
    rows = [v.reshape(-1, *[1] * (x.ndim - 2)) for v in (scale, bias, mean, variance)]
    spread = np.sqrt(rows[3] + given.get("epsilon", 1e-5))
    return np.asarray(rows[0] * (x - rows[2]) / spread + rows[1])


def _softmax(opset: int, given: Any, x: Array) -> Array:
    return np.asarray(np.exp(_log_softmax(opset, given, x)))


def _log_softmax(opset: int, given: Any, x: Array) -> Array:
    """Over one axis, before opset 13 over all from that one on."""
    axis = given.get("axis", -1 if opset >= 13 else 1) % x.ndim
    axes = (axis,) if opset >= 13 else tuple(range(axis, x.ndim))
    z = x - x.max(axis=axes, keepdims=True)
    return np.asarray(z - np.log(np.exp(z).sum(axis=axes, keepdims=True)))


def _lp_normalization(opset: int, given: Any, x: Array) -> Array:
    axis, p = given.get("axis", -1), given.get("p", 2)
    length = (np.abs(x) ** p).sum(axis=axis, keepdims=True) ** (1 / p)
    return np.where(length == 0, 0, x / np.where(length == 0, 1, length))


def _lrn(opset: int, given: Any, x: Array) -> Array:
    """Over channels around each one; the evaluator counts examples for channels."""
    size = given["size"]
    before, behind = (size - 1) // 2, size - 1 - (size - 1) // 2
    pad = [(0, 0), (before, behind), *[(0, 0)] * (x.ndim - 2)]
    squares = np.pad(x * x, pad)
    total = sum(squares[:, i : i + x.shape[1]] for i in range(size))
    alpha, beta, bias = given.get("alpha", 1e-4), given.get("beta", 0.75), given.get("bias", 1.0)
    return np.asarray(x / (bias + alpha / size * total) ** beta)


def _max_pool(opset: int, given: Any, x: Array) -> Array:
    kernel = given["kernel_shape"]
    rank = len(kernel)
    strides, dilations = (given.get(n, [1] * rank) for n in ("strides", "dilations"))
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    pads = _pads(given, x.shape[2:], spans, strides)
    sizes = []
    for i, (before, behind) in enumerate(pads):
        room = x.shape[2 + i] + before + behind - spans[i]
        size = (math.ceil if given.get("ceil_mode") else math.floor)(room / strides[i]) + 1
        # The last window begins inside of the picture.
        size -= (size - 1) * strides[i] >= x.shape[2 + i] + before
        sizes.append(size)
    wide = [(b, max(e, s * n)) for (b, e), s, n in zip(pads, strides, sizes, strict=True)]
    padded = np.pad(x, [(0, 0), (0, 0), *wide], constant_values=-np.inf)
    found = np.full((*x.shape[:2], *sizes), -np.inf, x.dtype)
    for place in itertools.product(*map(range, kernel)):
        starts = [i * d for i, d in zip(place, dilations, strict=True)]
        cuts = zip(starts, sizes, strides, strict=True)
        part = tuple(slice(a, a + s * (n - 1) + 1, s) for a, n, s in cuts)
        found = np.maximum(found, padded[tuple([slice(None)] * 2 + list(part))])
    return found


def _pads(
    given: Any, sizes: Sequence[int], spans: Sequence[int], strides: Sequence[int]
) -> list[tuple[int, int]]:
    """Returns how much is put before and behind each axis of a picture."""
    side, rank = given.get("auto_pad", "NOTSET"), len(sizes)
    if side == "VALID":
        return [(0, 0)] * rank
    if side == "NOTSET":
        pads = given.get("pads", [0] * (2 * rank))
        return list(zip(pads[:rank], pads[rank:], strict=True))
    found = []
    for size, span, stride in zip(sizes, spans, strides, strict=True):
        total = max(0, (math.ceil(size / stride) - 1) * stride + span - size)
        less, more = total // 2, total - total // 2
        found.append((less, more) if side == "SAME_UPPER" else (more, less))
    return found


def _conv_transpose(opset: int, given: Any, x: Array, weight: Array, *bias: Array) -> Array:
    kernel, groups = weight.shape[2:], given.get("group", 1)
    rank = len(kernel)
    strides, dilations = (given.get(n, [1] * rank) for n in ("strides", "dilations"))
    more = given.get("output_padding", [0] * rank)
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    sums = zip(x.shape[2:], strides, spans, more, strict=True)
    full = [(n - 1) * stride + span + extra for n, stride, span, extra in sums]
    of_groups = x.reshape(len(x), groups, -1, *x.shape[2:])
    weight = weight.reshape(groups, -1, *weight.shape[1:])
    found = np.zeros((len(x), groups, weight.shape[2], *full), x.dtype)
    for place in itertools.product(*map(range, kernel)):
        tap = weight.reshape(*weight.shape[:3], -1)[..., np.ravel_multi_index(place, kernel)]
        part = np.einsum("ngc...,gco->ngo...", of_groups, tap)
        starts = zip(place, dilations, strides, x.shape[2:], strict=True)
        cuts = [slice(i * d, i * d + s * (n - 1) + 1, s) for i, d, s, n in starts]
        found[tuple([slice(None)] * 3 + cuts)] += part
    found = found.reshape(len(x), -1, *full)
    ends = _ends(given, x.shape[2:], full, strides)
    # A size that the kernel does not reach ends in zeros.
    beyond = [(0, max(0, end - n)) for (_, end), n in zip(ends, full, strict=True)]
    found = np.pad(found, [(0, 0), (0, 0), *beyond])
    found = found[tuple([slice(None)] * 2 + [slice(*places) for places in ends])]
    return found + bias[0].reshape(-1, *[1] * rank) if bias else found


def _ends(
    given: Any, sizes: Sequence[int], full: Sequence[int], strides: Sequence[int]
) -> list[tuple[int, int]]:
    """Returns where the result of a transposed convolution begins and ends in the full one."""
    side, rank = given.get("auto_pad", "NOTSET"), len(sizes)
    wanted = given.get("output_shape", [])[-rank:]
    if side.startswith("SAME"):
        wanted = wanted or [n * stride for n, stride in zip(sizes, strides, strict=True)]
    if not wanted:
        pads = given.get("pads", [0] * (2 * rank)) if side == "NOTSET" else [0] * (2 * rank)
        return [(pads[i], n - pads[rank + i]) for i, n in enumerate(full)]
    found = []
    for n, size in zip(full, wanted, strict=True):
        less, more = max(0, n - size) // 2, max(0, n - size) - max(0, n - size) // 2
        before = less if side == "SAME_UPPER" else more
        found.append((before, before + size))
    return found


def _rms_normalization(opset: int, given: Any, x: Array, scale: Array) -> Array:
    axes = tuple(range(given.get("axis", -1) % x.ndim, x.ndim))
    square = np.mean(x * x, axis=axes, keepdims=True)
    return np.asarray(x / np.sqrt(square + given.get("epsilon", 1e-5)) * scale)


def _gather_elements(opset: int, given: Any, x: Array, indices: Array) -> Array:
    """Also of indices that do not reach to the end of the other axes."""
    axis = given.get("axis", 0) % x.ndim
    reach = [slice(n) if i != axis else slice(None) for i, n in enumerate(indices.shape)]
    return np.take_along_axis(x[tuple(reach)], indices, axis)


def _global_max_pool(opset: int, given: Any, x: Array) -> Array:
    """In any rank; the evaluator's is right for images alone."""
    return np.asarray(x.max(axis=tuple(range(2, x.ndim)), keepdims=True))


def _erf(opset: int, given: Any, x: Array) -> Array:
    return np.asarray(np.vectorize(math.erf, otypes=[x.dtype])(x))


_OPERATIONS = {
    "BatchNormalization": _batch_normalization,
    "ConvTranspose": _conv_transpose,
    "Erf": _erf,
    "GatherElements": _gather_elements,
    "GlobalMaxPool": _global_max_pool,
    "LRN": _lrn,
    "LogSoftmax": _log_softmax,
    "LpNormalization": _lp_normalization,
    "MaxPool": _max_pool,
    "RMSNormalization": _rms_normalization,
    "Softmax": _softmax,
}
