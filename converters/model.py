"""The converted model: a torch module with the Keras model's names, order and weights."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from torchfgsm.comparison import Comparison
from torchfgsm.converters.annotation import Annotation, Weight
from torchfgsm.converters.errors import ConversionError
from torchfgsm.converters.heads import Head

Output = Tensor | tuple[Tensor, ...] | dict[str, Tensor]


class ConvertedModel(nn.Module):
    """A Keras or ONNX model as a trainable torch module, made by :func:`load`.

    Called with the inputs in the order of ``input_names``, or with one dict of them, in the
    model's own layout (images (N, H, W, C) where Keras has them so). Returns a tensor, or a tuple
    or dict where the Keras model returns a list or dict. Starts in eval mode; ``train()`` means
    what ``training=True`` means in Keras.

    Every trainable Keras weight is one parameter ``weights.<name>``; moving statistics are buffers
    there; weights of layers that are not trainable are parameters that require no gradient.

    Attributes:
        input_names: the inputs in the model's own order.
        output_names: the outputs in the model's own order.
        logits: what was cut at each output to give logits, or why nothing was.
        found_heads: what stands at each output.
        verification: the comparison with the original that was made at conversion.
        annotation: names, weights and training settings as they stand in the ONNX file.
    """

    def __init__(
        self,
        graph: nn.Module,
        annotation: Annotation,
        tensors: Mapping[str, Tensor],
        heads: Sequence[Head],
        *,
        keep_head: bool,
    ) -> None:
        """Takes a graph that is called with the inputs and then the weights' tensors."""
        super().__init__()
        self.annotation = annotation
        self.input_names = tuple(port.name for port in annotation.inputs)
        self.output_names = tuple(port.name for port in annotation.outputs)
        self.graph = graph
        self.weights = nn.Module()
        self._names = dict(zip(_identifiers(annotation.weights), annotation.weights, strict=True))
        for name, weight in self._names.items():
            tensor = tensors[weight.tensor]
            if weight.statistic:
                self.weights.register_buffer(name, tensor)
            else:
                self.weights.register_parameter(name, nn.Parameter(tensor, weight.trainable))
        self.heads = nn.ModuleList(head.module() for head in heads)
        self.found_heads = tuple(heads)
        self.keep_head = keep_head
        self.logits = "; ".join(head.text for head in heads)
        if keep_head and any(head.kind for head in heads):
            self.logits += " (put back: keep_head=True)"
        self.verification = Comparison("not verified", ())
        self.eval()

    def forward(self, *inputs: Tensor | Mapping[str, Tensor]) -> Output:
        """Returns the model's outputs.

        Args:
            inputs: one tensor (N, ...) for each of ``input_names``, or one mapping of them.

        Raises:
            ValueError: the number of inputs or their names differ from ``input_names``.
        """
        values = self.outputs_and_logits(*inputs)[0 if self.keep_head else 1]
        if self.annotation.structure == "dict":
            return dict(zip(self.output_names, values, strict=True))
        return values[0] if self.annotation.structure == "single" else values

    def outputs_and_logits(
        self, *inputs: Tensor | Mapping[str, Tensor]
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Returns the original's outputs and, with the heads cut, the logits; one pass for both."""
        weights = [getattr(self.weights, name) for name in self._names]
        result = self.graph(*self._ordered(inputs), *weights)
        logits = (result,) if isinstance(result, Tensor) else tuple(result)
        return tuple(h(z) for h, z in zip(self.heads, logits, strict=True)), logits

    def train(self, mode: bool = True) -> ConvertedModel:
        """Sets training or eval mode.

        Raises:
            ConversionError: a layer's training behaviour could not be converted.
        """
        if mode and self.annotation.only_inference:
            raise ConversionError(
                "expected a model whose training behaviour is known in torch, got "
                f"{', '.join(self.annotation.only_inference)}; weights can be trained in eval mode"
            )
        return super().train(mode)

    def keras_arrays(self, tensors: Mapping[str, Tensor]) -> dict[str, npt.NDArray[Any]]:
        """Returns tensors as arrays with Keras' names and layouts.

        Args:
            tensors: any tensors (weights, gradients, statistics) under the names that
                ``named_parameters()`` and ``named_buffers()`` give, each in that one's shape.

        Raises:
            KeyError: a name is not one of this model's weights.
        """
        arrays = {}
        for name, tensor in tensors.items():
            weight = self._names.get(name.removeprefix("weights."))
            if weight is None or not name.startswith("weights."):
                raise KeyError(f"expected names such as 'weights.{next(iter(self._names), '')}', "
                               f"got {name!r}")  # fmt: skip
            arrays[weight.name] = weight.to_keras(np.asarray(tensor.detach().cpu()))
        return arrays

    def _ordered(self, inputs: Sequence[Any]) -> list[Tensor]:
        if len(inputs) == 1 and isinstance(inputs[0], Mapping):
            if set(inputs[0]) != set(self.input_names):
                raise ValueError(
                    f"expected the inputs {list(self.input_names)}, got {list(inputs[0])}"
                )
            return [inputs[0][name] for name in self.input_names]
        if len(inputs) != len(self.input_names):
            raise ValueError(
                f"expected {len(self.input_names)} inputs {list(self.input_names)}, "
                f"got {len(inputs)}"
            )
        return list(inputs)


def _identifiers(weights: Sequence[Weight]) -> list[str]:
    """Returns unique Python names: "dense/kernel:0" becomes "dense_kernel"."""
    names: list[str] = []
    for weight in weights:
        plain = name = "w" * weight.name[:1].isdigit() + re.sub(
            r"\W+", "_", weight.name.removesuffix(":0")
        ).strip("_")
        count = 1
        while name in names or hasattr(nn.Module, name):
            count += 1
            name = f"{plain}_{count}"
        names.append(name)
    return names


def as_tensor(array: npt.NDArray[Any]) -> Tensor:
    """Returns a tensor of its own memory."""
    return torch.from_numpy(np.array(array, order="C"))
