"""A float TensorFlow Lite file as the source of a conversion."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import tensorflow as tf
import tf2onnx
from onnx import numpy_helper
from tf2onnx.tflite.BuiltinOperator import BuiltinOperator
from tf2onnx.tflite.Model import Model

from . import tflite_repairs
from .graph import OPSET
from .graph_sources import refuse_text
from .keras_model import UnsupportedModelError
from .keras_source import Arrays, Values
from .keras_trust import ALLOW

_CUSTOM = ("TFLite_Detection_PostProcess",)  # of TFLite's own, without a number
_VARIABLES = frozenset(("ASSIGN_VARIABLE", "READ_VARIABLE", "VAR_HANDLE"))


class TFLiteSource:
    """A TFLite model: converted from its file, and run by the TFLite interpreter.

    The interpreter has outputs, but no gradients.

    Attributes:
        description: names, shapes, dtypes and structure of inputs and outputs.
    """

    def __init__(self, path: str, *, allow_unsafe: bool = False) -> None:
        """Reads the file.

        Raises:
            UnsupportedModelError: it is no TFLite file, or a quantised one; an operation could do
                more than compute, and is not allowed.
        """
        self._path = path
        with open(path, "rb") as file:
            content = file.read()
        operations = _operations(content)
        if not allow_unsafe:
            _refuse_foreign(operations)
        try:
            # Of a path it would keep the file mapped, and end with it where it is written anew.
            self._interpreter = tf.lite.Interpreter(model_content=content, num_threads=1)
        except ValueError as error:
            raise UnsupportedModelError(f"expected a TFLite model: {error}") from error
        _refuse_quantised(self._interpreter)
        _refuse_variables(operations)
        self._inputs = self._interpreter.get_input_details()
        self._outputs = self._interpreter.get_output_details()
        names = _signature_names(self._interpreter)
        self.description: Values = {
            "inputs": [names.get(d["index"], _plain(d["name"])) for d in self._inputs],
            "shapes": [_shape(d) for d in self._inputs],
            "dtypes": [_dtype(d) for d in self._inputs],
            "outputs": [names.get(d["index"], _plain(d["name"])) for d in self._outputs],
            "output_structure": "single" if len(self._outputs) == 1 else "list",
            "batch": next(filter(None, map(_batch, self._inputs)), None),
        }
        refuse_text(self.description)

    def export(self, precision: str = "float32") -> tuple[Values, Any, Arrays]:
        """Returns what there is to say of the model, and its ONNX graph, which has the weights."""
        if precision != "float32":
            raise UnsupportedModelError("a TFLite model computes in its own precision")
        with tflite_repairs.applied():
            model, _ = tf2onnx.convert.from_tflite(self._path, opset=OPSET)
        if self.description["batch"] is not None:
            _free_the_batch(model)
        values = {
            **self.description,
            "input_tensors": [d["name"] for d in self._inputs],
            "output_tensors": [d["name"] for d in self._outputs],
            "weights": [],
            "only_inference": ["TFLite: its graph is the one for inference"],
        }
        return values, model, {}

    def outputs(self, inputs: list[Any]) -> list[Any]:
        """Returns the interpreter's outputs, each example run by itself."""
        runs = [self._run([x[i : i + 1] for x in inputs]) for i in range(len(inputs[0]))]
        return [np.concatenate(parts) for parts in zip(*runs, strict=True)]

    def _run(self, example: list[Any]) -> list[Any]:
        for detail, x in zip(self._inputs, example, strict=True):
            self._interpreter.resize_tensor_input(detail["index"], x.shape)
        try:
            self._interpreter.allocate_tensors()
            for detail, x in zip(self._inputs, example, strict=True):
                self._interpreter.set_tensor(detail["index"], x)
            self._interpreter.invoke()
        except RuntimeError as error:
            raise UnsupportedModelError(
                f"TensorFlow Lite itself cannot run the model ({error}): write it with another "
                "version of TensorFlow, or convert the model that it was made from"
            ) from error
        return [self._interpreter.get_tensor(d["index"]) for d in self._outputs]


def _refuse_quantised(interpreter: Any) -> None:
    for detail in interpreter.get_tensor_details():
        scales = detail["quantization_parameters"]["scales"]
        if np.dtype(detail["dtype"]).kind in "iu" and len(scales):
            raise UnsupportedModelError(
                f"the model is quantised (tensor {detail['name']!r} is "
                f"{np.dtype(detail['dtype']).name}): convert the float model that it was made from"
            )


def _operations(content: bytes) -> dict[str, bool]:
    """Returns the operations that a model names, and whether each is one of TFLite's own.

    Only the list of operations is read, before anything of TFLite is run.
    """
    names = {v: k for k, v in vars(BuiltinOperator).items() if not k.startswith("_")}
    found = {}
    try:
        if content[4:8] != b"TFL3":
            raise ValueError("the file does not begin as one")
        model = Model.GetRootAsModel(bytearray(content), 0)
        for i in range(model.OperatorCodesLength()):
            entry = model.OperatorCodes(i)
            # Old files have the number in a byte, to which newer ones say that there is another.
            number = max(entry.DeprecatedBuiltinCode(), entry.BuiltinCode())
            own = number != BuiltinOperator.CUSTOM
            name = names.get(number, str(number)) if own else (entry.CustomCode() or b"").decode()
            found[name] = own
    except Exception as error:  # reading a damaged file may raise anything
        text = f"{type(error).__name__}: {error}"
        raise UnsupportedModelError(f"expected a TFLite model: {text}") from error
    return found


def _refuse_foreign(operations: dict[str, bool]) -> None:
    for name, own in operations.items():
        # One of TensorFlow's ("Flex...") runs what stands in its options, whatever its name is.
        if not own and name not in _CUSTOM:
            raise UnsupportedModelError(
                f"the TFLite operation {name!r} is none of TFLite's own and could do more than "
                f"compute: write the model without it, or {ALLOW}"
            )


def _refuse_variables(operations: Collection[str]) -> None:
    states = sorted(_VARIABLES.intersection(operations))
    if states:
        raise UnsupportedModelError(
            f"the TFLite model keeps a state in variables ({', '.join(states)}), which a "
            "converted model does not: build the model with stateful=False and write it again"
        )


def _signature_names(interpreter: Any) -> dict[int, str]:
    """Returns the names that the first signature gives, by the tensor's index."""
    signatures = interpreter.get_signature_list()
    if not signatures:
        return {}
    runner = interpreter.get_signature_runner(next(iter(signatures)))
    details = {**runner.get_output_details(), **runner.get_input_details()}
    return {detail["index"]: name for name, detail in details.items()}


def _plain(tensor: str) -> str:
    return tensor.removesuffix(":0")


def _dtype(detail: dict[str, Any]) -> str:
    dtype = np.dtype(detail["dtype"])
    return "string" if dtype.kind in "SUO" else dtype.name


def _shape(detail: dict[str, Any]) -> list[int | None]:
    return [None if n < 0 else int(n) for n in detail["shape_signature"][1:]]


def _batch(detail: dict[str, Any]) -> int | None:
    """Returns the one batch size that an input has, None where it takes any."""
    size = int(detail["shape_signature"][0])
    return size if size > 0 else None


def _free_the_batch(model: Any) -> None:
    """Lets a graph that was written for one example take any number of them."""
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    del model.graph.value_info[:]
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        tensor = constants.get(node.input[1]) if node.op_type == "Reshape" else None
        if tensor is None:
            continue
        target = numpy_helper.to_array(tensor).copy()
        if len(target) and target[0] == 1:
            target[0] = 0 if -1 in target else -1
            tensor.CopyFrom(numpy_helper.from_array(target, tensor.name))
