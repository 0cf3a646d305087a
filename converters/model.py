"""The converted model: a torch module with the Keras model's names, order and weights."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx, nn

from torchfgsm.converters.annotation import Annotation, Weight
from torchfgsm.converters.errors import ConversionError
from torchfgsm.converters.input_checks import described, ordered_inputs
from torchfgsm.converters.ops.shapes import Float
from torchfgsm.converters.torch_side.heads import Head, logits_text
from torchfgsm.judging.comparison import Comparison
from torchfgsm.losses.output_form import OutputForm

Output = Tensor | tuple[Tensor, ...] | dict[str, Tensor]


class ConvertedModel(nn.Module):
    """A Keras or ONNX model as a trainable torch module, made by :func:`load`.

    Called with the inputs in the order of ``input_names``, or with one dict of them, in the
    model's own layout (images (N, H, W, C) where Keras has them so). Integer pixels that the model
    casts before anything else may come as floating-point numbers of the same range, to be attacked
    (``x.float()``, not divided by 255). Returns a tensor, or a tuple
    or dict where the Keras model returns a list or dict. Starts in eval mode; ``train()`` means
    what ``training=True`` means in Keras.

    Every trainable Keras weight is one parameter ``weights.<name>``; moving statistics are buffers
    there; weights of layers that are not trainable are parameters that require no gradient.

    Attributes:
        input_names: the inputs in the model's own order.
        output_names: the outputs in the model's own order.
        cast_inputs: names of integer inputs that may come as floating-point numbers.
        lost: parts of the Keras model's training that did not travel, each in words.
        logits: what was cut at each output to give logits, or why nothing was.
        found_heads: what stands at each output.
        verification: the comparison with the original that was made at conversion.
        annotation: names, weights and training settings as they stand in the ONNX file.
    """

    # False in the views of with_head and without_head.
    _puts_back = True

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
        self.lost = annotation.lost
        # Not "graph": torch.export makes a GraphModule of this, which has one of its own.
        self.network = graph
        self.cast_inputs = _cast_inputs(graph, self.input_names)
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
        self.logits = logits_text(heads, keep_head)
        self.verification = Comparison("not verified", ())
        self.eval()

    def forward(self, *inputs: Tensor | Mapping[str, Tensor]) -> Output:
        """Returns the model's outputs.

        Args:
            inputs: one tensor (N, ...) for each of ``input_names``, or one mapping of them.

        Raises:
            ValueError: the number of inputs, their names, shapes or dtypes are not the model's.
            TypeError: an input is no tensor.
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
        tensors = ordered_inputs(
            self.annotation.inputs, inputs, _floating_dtype(weights), self.cast_inputs
        )
        result = self.network(*tensors, *weights)
        logits = (result,) if isinstance(result, Tensor) else tuple(result)
        return tuple(h(z) for h, z in zip(self.heads, logits, strict=True)), logits

    @property
    def dtype(self) -> torch.dtype:
        """The floating dtype in which the model computes."""
        held = _floating_dtype([*self.weights.parameters(), *self.weights.buffers()])
        return held or getattr(torch, self.annotation.outputs[0].dtype)

    @property
    def output_form(self) -> OutputForm | None:
        """What the one output holds and where its classes are; None of several outputs."""
        return self.output_forms[0] if self.annotation.structure == "single" else None

    @property
    def output_forms(self) -> tuple[OutputForm, ...]:
        """The same of each output, in the order of ``output_names``."""
        return tuple(self._form(head) for head in self.found_heads)

    def _form(self, head: Head) -> OutputForm:
        names: dict[str | None, Literal["softmax", "sigmoid"]]
        names = {"Softmax": "softmax", "Sigmoid": "sigmoid"}
        name = names.get(head.kind)
        if head.probabilities or (head.kind and self.keep_head):
            return OutputForm("probabilities", name, head.axis)
        if head.kind:
            hidden = head.hidden_from_keras
            return OutputForm("logits", name, head.axis, self._puts_back, hidden)
        # Without a head nothing tells the axis: Keras' is the last one, other ONNX files have
        # torch's layout.
        return OutputForm("unknown", None, -1 if self.annotation.from_keras else 1)

    def with_head(self) -> ConvertedModel:
        """Returns the model as the original gives its output, with its softmax or sigmoid.

        It shares this one's weights, statistics and layers, and so the modes of these.
        """
        return self._view(keep_head=True)

    def without_head(self) -> ConvertedModel:
        """Returns the model that gives logits, to every attack.

        Otherwise the presets and dialects of CleverHans 4, which takes what the original gives for
        logits, put a head back that was cut off. It shares this one's weights, as `with_head` does.
        """
        return self._view(keep_head=False)

    def _view(self, *, keep_head: bool) -> ConvertedModel:
        view = copy.copy(self)
        view.keep_head, view._puts_back = keep_head, False
        view.logits = logits_text(self.found_heads, keep_head)
        return view

    def weight_names(self) -> dict[str, Weight]:
        """Returns the Keras weights by their names here, without the leading "weights."."""
        return dict(self._names)

    def to_keras_weights(self) -> dict[str, npt.NDArray[Any]]:
        """Returns the weights under their Keras names, for a model that was trained here.

        Returns:
            All the model's weights in Keras' layout and order, counters and the like with the
            values that they came with: ``keras_model.set_weights(list(result.values()))``.
        """
        annotation = self.annotation
        held = {f"weights.{name}": getattr(self.weights, name) for name in self._names}
        arrays = self.keras_arrays(held)
        arrays |= {weight.name: weight.array() for weight in annotation.other_weights}
        return {name: arrays[name] for name in annotation.weight_order or arrays}

    def layer_losses(self) -> tuple[Tensor, ...]:
        """Returns the L1 and L2 losses that Keras' layers add to the loss, a scalar for each.

        They are differentiable. A training step as in Keras adds their sum to the loss of the
        outputs. Layer losses of other kinds are named in ``lost``.
        """
        tensors = {w.tensor: getattr(self.weights, name) for name, w in self._names.items()}
        losses = []
        for penalty in self.annotation.penalties:
            weight = tensors[penalty.weight]
            losses.append(penalty.l1 * weight.abs().sum() + penalty.l2 * weight.square().sum())
        return tuple(losses)

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

    def extra_repr(self) -> str:
        """Describes the model: its ports, weights, heads and what is not as in Keras."""
        parameters = list(self.weights.parameters())
        trainable = [p for p in parameters if p.requires_grad]
        ports = [("input", p) for p in self.annotation.inputs]
        ports += [("output", p) for p in self.annotation.outputs]
        lines = [f"from {self.annotation.source}"]
        lines += [f"{kind} {port.name!r}: {described(port)} {port.dtype}" for kind, port in ports]
        lines.append(
            f"weights: {len(trainable)} trainable ({sum(p.numel() for p in trainable)} numbers), "
            f"{len(parameters) - len(trainable)} frozen, "
            f"{len(list(self.weights.buffers()))} moving statistics"
        )
        lines.append(f"logits: {self.logits}")
        if self.output_form is not None and self.output_form.cut:
            (head,) = self.found_heads
            lines.append(f"head: {head.who_sees_what}")
        lines += [f"only for inference: {name}" for name in self.annotation.only_inference]
        lines += [f"lost: {text}" for text in self.lost]
        lines.append(f"verification: {self.verification.title}: {self.verification.verdict}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        # The graph's own modules, hundreds at times, would bury what the model is.
        return f"{type(self).__name__}(\n  " + self.extra_repr().replace("\n", "\n  ") + "\n)"


def _floating_dtype(tensors: Sequence[Tensor]) -> torch.dtype | None:
    for tensor in tensors:  # no next() with a default, which torch 2.6 cannot compile
        if tensor.is_floating_point():
            return tensor.dtype
    return None


def _cast_inputs(graph: nn.Module, names: Sequence[str]) -> frozenset[str]:
    """Returns the inputs with which the graph does nothing but casts to a floating dtype."""
    if not isinstance(graph, fx.GraphModule):
        return frozenset()
    places = [node for node in graph.graph.nodes if node.op == "placeholder"]
    return frozenset(
        name
        for name, place in zip(names, places, strict=False)
        if place.users
        and all(
            user.op == "call_module" and isinstance(graph.get_submodule(str(user.target)), Float)
            for user in place.users
        )
    )


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
