"""Compares a converted model with its original: outputs, logits and input gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from torchfgsm.comparison import Comparison, compare
from torchfgsm.converters.annotation import Array
from torchfgsm.converters.batches import Data, batches
from torchfgsm.converters.model import ConvertedModel, as_tensor
from torchfgsm.judgement import compare_to_truth

if TYPE_CHECKING:
    from torchfgsm.converters.exporting import Exporter


FACTOR = 4.0
"""How many times as far from float64 as TensorFlow's float32 the module may be."""
SLACK = 1e-6
"""Allowed on top, relative to the largest entry of the example."""
FLOAT32_TOLERANCE = 1e-5
"""Relative to the example's largest entry, where the original computes in float32 alone."""
FLOAT64_TOLERANCE = 1e-6
"""The same in float64, where float32 fell short by rounding; ONNX holds constants in float32."""
_DIRECTIONS = 3
_STEP = 1e-7


def verify_with_tensorflow(
    model: ConvertedModel, exporter: Exporter, data: Data | None
) -> Comparison:
    """Compares with the original in its process, judged by its own float64 results.

    The gradient is that of the summed cross-entropy of the logits, with labels chosen at random,
    or half the sum of squares where an output is no vector of logits.
    """
    objectives = _objectives(model)
    parts = []
    for title, batch in batches(model.annotation.inputs, data).items():
        labels = _labels(model, objectives, batch)
        arrays = {f"input/{name}": array for name, array in batch.items()}
        arrays |= {f"label/{i}": label for i, label in labels.items()}

        def original(precision: str, arrays: dict[str, Array] = arrays) -> dict[str, Array]:
            reply = exporter.call("evaluate", arrays, objectives=objectives, precision=precision)
            return _named(model, reply.arrays)

        actual = evaluate(model, batch, objectives, labels)
        expected = original("float32")
        if exporter.format == "keras":
            truth = original("float64")
            slack = {name: SLACK * _largest(array) for name, array in truth.items()}
            part = compare_to_truth(
                expected, actual, truth, factor=FACTOR, slack=slack, title=title
            )
            if not part and _outputs_agree(expected, actual):
                part = _compare_in_float64(model, batch, objectives, labels, truth, part)
        else:
            part = _compare_scaled(expected, actual, FLOAT32_TOLERANCE, title)
        parts.append(part)
    return Comparison.join("converted model against TensorFlow", parts)


def _outputs_agree(expected: Mapping[str, Array], actual: Mapping[str, Array]) -> bool:
    """Whether all but the gradients agree in float32."""
    sides = [
        {name: array for name, array in side.items() if not name.startswith("gradient")}
        for side in (expected, actual)
    ]
    return bool(_compare_scaled(sides[0], sides[1], FLOAT32_TOLERANCE, ""))


def _compare_in_float64(
    model: ConvertedModel,
    batch: Mapping[str, Array],
    objectives: list[dict[str, Any]],
    labels: Mapping[int, Array],
    truth: Mapping[str, Array],
    part: Comparison,
) -> Comparison:
    """The module in float64 against TensorFlow in float64, where float32 fell short.

    Four times a distance that was small by luck is little, and a relu within rounding of 0 makes a
    float32 gradient jump on one side only. A fault of the conversion shows in float64 too; if none
    shows, it was rounding. Outputs, which do not jump, must also agree in float32.
    """
    wide = copy.deepcopy(model).double()
    inputs = {n: a.astype(np.float64) if a.dtype.kind == "f" else a for n, a in batch.items()}
    actual = evaluate(wide, inputs, objectives, labels)
    title = f"{part.title}, in float64"
    exact = _compare_scaled(truth, actual, FLOAT64_TOLERANCE, title)
    return exact if exact else part


def verify_with_onnx(model: ConvertedModel, graph: Any, data: Data | None) -> Comparison:
    """Compares outputs with an ONNX runtime, and gradients with differences in float64.

    Each gradient is compared along random directions, in which every entry takes part.
    """
    run = _onnx_runner(graph, [port.tensor for port in model.annotation.outputs])
    objectives = _objectives(model)
    parts = []
    for title, batch in batches(model.annotation.inputs, data).items():
        labels = _labels(model, objectives, batch)
        feed = {port.tensor: batch[port.name] for port in model.annotation.inputs}
        named = zip(model.output_names, run(feed), strict=True)
        expected = {f"output {name}": array for name, array in named}
        actual = evaluate(model, batch, objectives, labels)
        outputs = {name: actual[name] for name in expected}
        parts.append(_compare_scaled(expected, outputs, FLOAT32_TOLERANCE, title))
        parts.append(_compare_slopes(model, batch, objectives, labels, title))
    return Comparison.join("converted model against ONNX", [part for part in parts if part.rows])


def evaluate(
    model: ConvertedModel,
    batch: Mapping[str, Array],
    objectives: list[dict[str, Any]],
    labels: Mapping[int, Array],
) -> dict[str, Array]:
    """Returns the model's outputs, logits and input gradients by name."""
    with torch.inference_mode(False), torch.enable_grad():
        inputs = [as_tensor(batch[name]) for name in model.input_names]
        floats = [x.requires_grad_() for x in inputs if x.is_floating_point()]
        outputs, logits = model.outputs_and_logits(*inputs)
        total = _objective(logits, objectives, labels).sum()
        gradients = torch.autograd.grad(total, floats, allow_unused=True)
    arrays: dict[str, Tensor | None] = {f"output/{i}": y for i, y in enumerate(outputs)}
    arrays |= {f"logits/{i}": z for i, z in enumerate(logits)}
    names = [n for n, x in zip(model.input_names, inputs, strict=True) if x.is_floating_point()]
    arrays |= {f"gradient/{n}": g for n, g in zip(names, gradients, strict=True)}
    found = {name: t.detach().numpy() for name, t in arrays.items() if t is not None}
    return _named(model, found)


def _objectives(model: ConvertedModel) -> list[dict[str, Any]]:
    found = []
    for port, head in zip(model.annotation.outputs, model.found_heads, strict=True):
        kind = "squares"
        if head.kind == "Sigmoid":
            kind = "binary"
        elif port.shape and None not in port.shape and (port.shape[-1] or 0) > 1:
            kind = "squares" if head.probabilities else "cross_entropy"
        found.append({"head": head.kind, "kind": kind})
    return found


def _labels(
    model: ConvertedModel, objectives: list[dict[str, Any]], batch: Mapping[str, Array]
) -> dict[int, Array]:
    random = np.random.default_rng(1)
    count = len(next(iter(batch.values())))
    labels = {}
    for i, (port, objective) in enumerate(zip(model.annotation.outputs, objectives, strict=True)):
        shape = tuple(n or 1 for n in port.shape)
        if objective["kind"] == "cross_entropy":
            labels[i] = random.integers(shape[-1], size=(count, *shape[:-1]))
        elif objective["kind"] == "binary":
            labels[i] = random.integers(2, size=(count, *shape))
    return labels


def _objective(
    logits: tuple[Tensor, ...], objectives: list[dict[str, Any]], labels: Mapping[int, Array]
) -> Tensor:
    """Returns the objective of each example, (N,)."""
    total = torch.zeros(())
    for i, (z, objective) in enumerate(zip(logits, objectives, strict=True)):
        if objective["kind"] == "cross_entropy":
            target = as_tensor(labels[i])
            values = F.cross_entropy(z.flatten(0, -2), target.flatten(), reduction="none")
        elif objective["kind"] == "binary":
            target = as_tensor(labels[i]).to(z.dtype)
            values = F.binary_cross_entropy_with_logits(z, target, reduction="none")
        else:
            values = z * z / 2
        total = total + values.reshape(len(z), -1).sum(dim=1)
    return total


def _named(model: ConvertedModel, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Replaces the numbers of outputs by their names; logits stand only where a head was cut."""
    found = {}
    for key, array in arrays.items():
        kind, _, what = key.partition("/")
        if kind != "gradient":
            if kind == "logits" and model.found_heads[int(what)].kind is None:
                continue
            what = model.output_names[int(what)]
        found[f"{kind} {what}"] = array
    return found


def _compare_scaled(
    expected: Mapping[str, Array], actual: Mapping[str, Array], tolerance: float, title: str
) -> Comparison:
    """Compares after dividing each example by its largest expected entry."""
    scales = {}
    for name, array in expected.items():
        largest = _largest(array).astype(array.dtype)
        scales[name] = np.where(largest > 0, largest, 1).reshape(-1, *[1] * (array.ndim - 1))

    def scaled(name: str, array: Array) -> Array:
        # Another shape is left to the comparison, which reports it.
        fits = name in expected and array.shape == expected[name].shape
        return np.asarray(array / scales[name]) if fits else array

    return compare(
        {name: scaled(name, array) for name, array in expected.items()},
        {name: scaled(name, array) for name, array in actual.items()},
        atol=tolerance,
        title=title,
    )


def _compare_slopes(
    model: ConvertedModel,
    batch: Mapping[str, Array],
    objectives: list[dict[str, Any]],
    labels: Mapping[int, Array],
    title: str,
) -> Comparison:
    twin = copy.deepcopy(model).double()
    random = np.random.default_rng(2)
    names = [n for n in model.input_names if batch[n].dtype.kind == "f"]
    # Away from exact zeros and ones: a difference across a kink is no derivative.
    start = {n: batch[n] + 0.01 * random.random(batch[n].shape) for n in names}
    fixed = {n: batch[n] for n in model.input_names if n not in names}
    gradients = evaluate(twin, start | fixed, objectives, labels)
    expected, actual = {}, {}
    for i in range(_DIRECTIONS):
        steps = {n: random.standard_normal(start[n].shape) for n in names}
        moved = ({n: start[n] + side * steps[n] for n in names} for side in (_STEP, -_STEP))
        ahead, behind = (_values(twin, x | fixed, objectives, labels) for x in moved)
        products = [_rows(gradients[f"gradient {n}"] * steps[n]) for n in names]
        size = np.maximum(sum(np.abs(p).sum(axis=1) for p in products), 1e-30)
        expected[f"slope {i}"] = (ahead - behind) / (2 * _STEP) / size
        actual[f"slope {i}"] = sum(p.sum(axis=1) for p in products) / size
    return compare(expected, actual, atol=FLOAT32_TOLERANCE, title=title)


def _values(
    model: ConvertedModel,
    batch: Mapping[str, Array],
    objectives: list[dict[str, Any]],
    labels: Mapping[int, Array],
) -> Array:
    with torch.no_grad():
        _, logits = model.outputs_and_logits(*(as_tensor(batch[n]) for n in model.input_names))
        return _objective(logits, objectives, labels).numpy()


def _onnx_runner(graph: Any, outputs: list[str]) -> Callable[[Mapping[str, Array]], list[Array]]:
    """Returns a call of the ONNX model, by onnxruntime where it is installed."""
    try:
        import onnxruntime
    except ImportError:
        from onnx.reference import ReferenceEvaluator

        reference = ReferenceEvaluator(graph)
        return lambda feed: [np.asarray(y) for y in reference.run(outputs, dict(feed))]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda feed: list(session.run(outputs, dict(feed)))


def _largest(array: Array) -> Array:
    """Returns the largest absolute entry of each example, (N,)."""
    return np.asarray(np.abs(_rows(array)).max(axis=1))


def _rows(array: Array) -> Array:
    return array.reshape(len(array), -1)
