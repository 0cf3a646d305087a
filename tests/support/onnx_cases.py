"""ONNX models of one node, for each operation and each of its forms."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from torchfgsm.converters import ConvertedModel
from torchfgsm.converters.onnx_side.inference import infer
from torchfgsm.converters.torch_side.building import build


@dataclass
class Case:
    """One node: its operation, the shapes or values of its inputs, constants and attributes."""

    operation: str
    inputs: list[Any]
    constants: list[Any] = field(default_factory=list)
    attributes: dict[str, Any] = field(default_factory=dict)
    opset: int = 15
    outputs: int = 1
    positive: bool = False
    doc: str = ""

    def __str__(self) -> str:
        told = [f"{k}={v}" for k, v in self.attributes.items()]
        return "-".join([self.operation, str(self.opset), *told]).replace(" ", "")

    def arrays(self) -> list[np.ndarray]:
        random = np.random.default_rng(0)
        low = 0.1 if self.positive else -2.0
        return [
            random.uniform(low, 2.0, x).astype(np.float32) if isinstance(x, tuple) else np.array(x)
            for x in self.inputs
        ]

    def model(self) -> Any:
        arrays = self.arrays()
        names = [f"x{i}" for i in range(len(arrays))]
        constants = {f"c{i}": np.asarray(c) for i, c in enumerate(self.constants) if c is not None}
        slots = ["" if c is None else f"c{i}" for i, c in enumerate(self.constants)]
        outputs = [f"y{i}" for i in range(self.outputs)]
        node = helper.make_node(
            self.operation, [*names, *slots], outputs, "scope/layer/op",
            doc_string=self.doc, **self.attributes,
        )  # fmt: skip
        info = helper.make_tensor_value_info
        kind = helper.np_dtype_to_tensor_dtype
        graph = helper.make_graph(
            [node],
            "graph",
            [info(n, kind(a.dtype), a.shape) for n, a in zip(names, arrays, strict=True)],
            [helper.make_empty_tensor_value_info(name) for name in outputs],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        )
        opsets = [helper.make_opsetid("", self.opset)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        model = onnx.shape_inference.infer_shapes(model)
        for output in model.graph.output:
            # The inference does not know GroupNormalization.
            kind = output.type.tensor_type
            kind.elem_type = kind.elem_type or onnx.TensorProto.FLOAT
        return model

    def convert(self) -> ConvertedModel:
        model = self.model()
        with warnings.catch_warnings():
            # A converter that warns of other results has no place here.
            warnings.simplefilter("error")
            return build(model, infer(model, "test"), keep_head=True)


F32 = np.float32
PICTURE = (2, 3, 6, 5)
LINE = (3, 7)
KERNEL = (4, 3, 3, 2)
ROI = np.array([], F32)
ONES = np.ones(3, F32)
IDS = np.array([[0, 2], [1, -1]])

ACTIVATIONS = [
    *(Case(name, [LINE]) for name in (
        "Abs", "Celu", "Elu", "Erf", "Exp", "HardSigmoid", "HardSwish", "LeakyRelu", "Neg", "Relu",
        "Selu", "Sigmoid", "Softplus", "Softsign", "Tanh", "ThresholdedRelu", "Sin", "Cos", "Sinh",
        "Cosh", "Atan", "Asinh", "Identity", "LogSoftmax", "Softmax",
    )),
    *(Case(name, [LINE], positive=True) for name in ("Log", "Reciprocal", "Sqrt")),
    Case("Acosh", [np.array([1.5, 3.0], F32)]),
    *(Case(name, [np.array([-0.5, 0.3], F32)]) for name in ("Acos", "Asin", "Atanh", "Tan")),
    Case("Celu", [LINE], attributes={"alpha": 0.3}),
    Case("Elu", [LINE], attributes={"alpha": 0.3}, opset=22),
    Case("HardSigmoid", [LINE], attributes={"alpha": 0.3, "beta": 0.4}),
    Case("LeakyRelu", [LINE], attributes={"alpha": 0.3}),
    Case("Selu", [LINE], attributes={"alpha": 0.5, "gamma": 1.5}),
    Case("ThresholdedRelu", [LINE], attributes={"alpha": 0.3}),
    Case("Shrink", [LINE], attributes={"lambd": 0.5, "bias": 0.2}),
    Case("PRelu", [(2, 3, 4)], [np.array([[0.1], [0.5], [2.0]], F32)]),
    Case("Softmax", [(2, 3, 4)], opset=11),
    Case("LogSoftmax", [(2, 3, 4)], attributes={"axis": 2}, opset=11),
    Case("Softmax", [(2, 3, 4)], attributes={"axis": 1}),
    Case("Mish", [LINE], opset=18),
    Case("Gelu", [LINE], opset=20),
    Case("Gelu", [LINE], attributes={"approximate": "tanh"}, opset=20),
    Case("Clip", [LINE], [F32(-0.5), F32(0.7)]),
    Case("Clip", [LINE], [None, F32(0.7)]),
    Case("Clip", [LINE], [F32(-0.3)]),
    Case("Clip", [LINE], attributes={"min": -0.2, "max": 0.1}, opset=6),
    Case("Clip", [(3,), F32(-0.5), F32(0.7)]),
]  # fmt: skip

ARITHMETIC = [
    *(Case(name, [LINE, (7,)]) for name in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Mean", "Sum",
                                            "Equal", "Less", "Greater", "LessOrEqual",
                                            "GreaterOrEqual")),
    Case("Max", [LINE, (7,), (3, 1)]),
    *(Case(name, [LINE]) for name in ("Sign", "Ceil", "Floor", "IsNaN")),
    Case("Round", [np.array([-2.4, -0.6, 0.4, 1.6], F32)]),
    Case("IsInf", [np.array([-np.inf, 1, np.inf], F32)], attributes={"detect_negative": 0}),
    Case("IsInf", [np.array([-np.inf, 1, np.inf], F32)], attributes={"detect_positive": 0}),
    *(Case(name, [np.array([True, False, True]), np.array([True, True, False])])
      for name in ("And", "Or", "Xor")),
    Case("Not", [np.array([True, False])]),
    Case("Where", [np.array([[True], [False], [True]]), LINE, (7,)]),
    Case("Mod", [np.array([-5, 5, 7]), np.array([3, -3, 4])]),
    Case("Mod", [LINE, np.full(7, 0.6, F32)], attributes={"fmod": 1}),
    Case("Div", [np.array([-7, 7]), np.array([2, 2])]),
    Case("Pow", [LINE], [F32(2.0)]),
    Case("Pow", [LINE], [np.int64(3)]),
    Case("Pow", [LINE], [F32(0.3)], positive=True),
    Case("Pow", [LINE, (7,)], positive=True),
    Case("MatMul", [(2, 3, 4), (2, 4, 5)]),
    Case("Gemm", [(3, 4), (4, 5), (5,)]),
    Case("Gemm", [(3, 4), (4, 5)], attributes={"alpha": 0.3}),
    Case("Gemm", [(4, 3), (5, 4), (3, 1)],
         attributes={"transA": 1, "transB": 1, "alpha": 0.3, "beta": 0.7}),
    Case("Gemm", [(3, 4), (5, 4), (1,)], attributes={"transB": 1}),
    Case("Einsum", [(2, 3, 4), (4, 5)], attributes={"equation": "abc,cd->abd"}),
    Case("Trilu", [(4, 5)], [np.int64(1)]),
    Case("Trilu", [(4, 5)], attributes={"upper": 0}),
]  # fmt: skip

REDUCTIONS = [
    *(Case(f"Reduce{name}", [(2, 3, 4)], attributes={"axes": [0, 2], "keepdims": keep},
           positive=True)
      for keep in (0, 1) for name in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min",
                                      "Prod", "SumSquare")),
    Case("ReduceMax", [LINE]),
    Case("ReduceSum", [LINE], [np.array([-1])], {"keepdims": 0}),
    Case("ReduceSum", [LINE], attributes={"noop_with_empty_axes": 1}),
    Case("ReduceSum", [np.array([[1, 2], [3, 4]], np.int32)], [np.array([1])]),
    Case("ReduceMean", [LINE], [np.array([0])], opset=18),
    Case("ReduceMin", [LINE], [np.array([1])], {"keepdims": 0}, opset=20),
    Case("ArgMax", [np.array([[1, 3, 3], [2, 2, 1]], F32)], attributes={"axis": 1}),
    Case("ArgMax", [np.array([[1, 3, 3], [2, 2, 1]], F32)],
         attributes={"axis": 1, "select_last_index": 1, "keepdims": 0}),
    Case("ArgMin", [LINE], attributes={"axis": -1}),
    *(Case("CumSum", [LINE], [np.int64(1)], {"exclusive": e, "reverse": r})
      for e in (0, 1) for r in (0, 1)),
    Case("CumSum", [LINE], [np.int64(0)]),
    Case("TopK", [LINE], [np.array([3])], outputs=2),
    Case("TopK", [LINE], [np.array([2])], {"axis": 0, "largest": 0}, outputs=2),
]  # fmt: skip

INDEXING = [
    Case("GatherElements", [(3, 2)], [IDS], {"axis": 0}),
    Case("GatherND", [(3, 3, 2)], [np.array([[0, 1], [2, -1]])]),
    Case("GatherND", [(2, 3, 4)], [np.array([[1], [2]])], {"batch_dims": 1}),
    Case("GatherND", [(2, 2, 4)], [np.array([[[1], [2]], [[0], [3]]])], {"batch_dims": 2}),
    Case("ScatterND", [(4, 3)], [np.array([[0], [2]]), np.ones((2, 3), F32)]),
    Case("ScatterND", [(4, 3)], [np.array([[0], [0]]), np.ones((2, 3), F32)],
         {"reduction": "add"}, opset=18),
    Case("ScatterElements", [(3, 2)], [IDS, np.ones((2, 2), F32)], {"axis": 0}),
    Case("ScatterElements", [(3, 2)], [np.zeros((2, 2), np.int64), np.ones((2, 2), F32)],
         {"axis": 0, "reduction": "add"}, opset=18),
    Case("OneHot", [IDS], [np.int64(3), np.array([0.5, 2.0], F32)]),
    Case("OneHot", [IDS], [np.array([3]), np.array([0.5, 2.0], F32)], {"axis": 1}),
]  # fmt: skip

CONVOLUTIONS = [
    *(Case("Conv", [PICTURE, KERNEL, (4,)],
           attributes={"auto_pad": side, "strides": [2, 1], "kernel_shape": [3, 2]})
      for side in ("SAME_UPPER", "SAME_LOWER", "VALID")),
    Case("Conv", [PICTURE, KERNEL]),
    Case("Conv", [PICTURE, KERNEL], attributes={"pads": [1, 0, 2, 1], "dilations": [2, 1]}),
    Case("Conv", [PICTURE, (6, 1, 3, 2)], attributes={"group": 3, "pads": [1, 1, 1, 1]}),
    Case("Conv", [(2, 3, 8), (4, 3, 3)], attributes={"strides": [2]}, opset=22),
    Case("Conv", [(1, 2, 4, 5, 6), (3, 2, 3, 3, 3)], attributes={"auto_pad": "SAME_UPPER"}),
    Case("ConvTranspose", [PICTURE, (3, 2, 3, 2), (2,)]),
    Case("ConvTranspose", [PICTURE, (3, 2, 3, 2), (2,)],
         attributes={"strides": [2, 3], "pads": [1, 0, 0, 1]}),
    Case("ConvTranspose", [PICTURE, (3, 2, 3, 2), (2,)],
         attributes={"strides": [2, 3], "pads": [1, 1, 1, 1], "output_padding": [1, 2]}),
    Case("ConvTranspose", [PICTURE, (3, 2, 3, 2), (2,)],
         attributes={"strides": [2, 3], "output_shape": [12, 15]}),
    Case("ConvTranspose", [PICTURE, (3, 2, 3, 2)],
         attributes={"strides": [2, 3], "output_shape": [12, 16], "auto_pad": "SAME_UPPER"}),
    *(Case("ConvTranspose", [PICTURE, (3, 2, 3, 4), (2,)],
           attributes={"strides": [2, 2], "auto_pad": side})
      for side in ("SAME_UPPER", "SAME_LOWER")),
    Case("ConvTranspose", [PICTURE, (3, 2, 3, 2)], attributes={"group": 3, "dilations": [1, 2]}),
    Case("ConvTranspose", [(2, 3, 5), (3, 2, 3)], attributes={"strides": [2], "pads": [1, 0]}),
    Case("ConvTranspose", [(1, 2, 3, 3, 3), (2, 2, 2, 2, 2)], attributes={"strides": [2, 2, 2]}),
    *(Case(pool, [PICTURE], attributes={"kernel_shape": [3, 2], "strides": [2, 2], **more})
      for pool in ("AveragePool", "MaxPool")
      for more in ({}, {"auto_pad": "SAME_UPPER"}, {"auto_pad": "SAME_LOWER"},
                   {"pads": [1, 0, 0, 1]}, {"pads": [1, 1, 1, 1]}, {"ceil_mode": 1},
                   {"pads": [1, 0, 1, 1], "ceil_mode": 1})),
    Case("AveragePool", [PICTURE],
         attributes={"kernel_shape": [3, 2], "pads": [1, 0, 0, 1], "count_include_pad": 1}),
    Case("AveragePool", [PICTURE], attributes={
        "kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 3], "ceil_mode": 1,
        "count_include_pad": 1}, opset=19),
    Case("MaxPool", [PICTURE], attributes={"kernel_shape": [2, 2], "dilations": [2, 3]}, opset=22),
    Case("MaxPool", [(2, 3, 7)], attributes={"kernel_shape": [3], "pads": [1, 1]}),
    Case("AveragePool", [(1, 2, 4, 4, 4)],
         attributes={"kernel_shape": [2, 2, 2], "auto_pad": "SAME_UPPER"}),
    Case("GlobalAveragePool", [PICTURE]),
    Case("GlobalMaxPool", [(2, 3, 7)]),
]  # fmt: skip

NORMALIZATIONS = [
    Case("LayerNormalization", [LINE, (7,), (7,)], attributes={"epsilon": 0.1}, opset=17),
    Case("LayerNormalization", [(2, 3, 4), (3, 4)], attributes={"axis": 1}, opset=17),
    Case("InstanceNormalization", [PICTURE, (3,), (3,)], attributes={"epsilon": 0.1}),
    Case("GroupNormalization", [(2, 4, 3), (4,), (4,)], attributes={"num_groups": 2}, opset=21),
    Case("LpNormalization", [LINE]),
    Case("LpNormalization", [(2, 3, 4)], attributes={"axis": 1, "p": 1}, opset=22),
    Case("LRN", [(2, 6, 3, 1)], attributes={"size": 3, "alpha": 0.3, "bias": 2.0}),
    Case("BatchNormalization", [PICTURE, (3,), (3,)], [ONES, ONES], {"epsilon": 0.1}),
]  # fmt: skip

TWICE = [1, 1, 2, 2]
MODES = ("linear", "nearest")
COORDINATES = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
ROUNDINGS = ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")


def _sized(sizes: tuple[int, int], mode: str, coordinates: str) -> Case:
    attributes = {"mode": mode, "coordinate_transformation_mode": coordinates}
    constants = [ROI, ROI, np.array([1, 2, *sizes])]
    return Case("Resize", [(1, 2, 4, 5)], constants, attributes, opset=18)


def _nearest(scales: tuple[float, float], coordinates: str, rounding: str) -> Case:
    attributes = {"mode": "nearest", "coordinate_transformation_mode": coordinates}
    constants = [ROI, np.array([1, 1, *scales], F32)]
    return Case("Resize", [(1, 1, 4, 5)], constants, {**attributes, "nearest_mode": rounding})


def _cubic(scales: tuple[float, float], coefficient: float, *, exclude: int) -> Case:
    attributes = {"mode": "cubic", "cubic_coeff_a": coefficient, "exclude_outside": exclude}
    return Case("Resize", [(1, 1, 5, 6)], [ROI, np.array([1, 1, *scales], F32)], attributes)


RESIZES = [
    *(_sized((7, 3), mode, coordinates) for mode in MODES for coordinates in COORDINATES),
    # One number along an axis is a case of its own.
    *(_sized((1, 5), mode, coordinates)
      for mode in MODES for coordinates in ("align_corners", "pytorch_half_pixel")),
    # Twice a size puts places halfway between two numbers.
    *(_nearest((2, 3), "asymmetric", rounding) for rounding in ROUNDINGS),
    *(_nearest((0.6, 1.7), "half_pixel", rounding) for rounding in ROUNDINGS),
    _cubic((2, 2), -0.75, exclude=0),
    _cubic((0.6, 1.7), -0.5, exclude=1),
    Case("Resize", [(1, 1, 4, 5)], [ROI, np.array([1, 1, 2, 2], F32)],
         {"coordinate_transformation_mode": "tf_half_pixel_for_nn", "nearest_mode": "floor"}),
    Case("Resize", [(1, 2, 5)], [ROI, np.array([1, 1, 1.7], F32)], {"mode": "linear"}),
    Case("Resize", [(1, 2, 2, 3, 2)], [ROI, np.array([1, 1, 2, 2, 2], F32)], {"mode": "linear"}),
    Case("Resize", [(4, 5)], [ROI, np.array([2, 2], F32)],
         {"mode": "linear", "coordinate_transformation_mode": "asymmetric"}),
    Case("Resize", [(1, 1, 4, 5)], [None, np.array([2, 3], F32)], {"axes": [2, 3]}, opset=18),
    Case("Resize", [(1, 1, 4, 5)], [np.array(TWICE, F32)], {"mode": "linear"}, opset=10),
    Case("Upsample", [(1, 1, 4, 5)], [np.array(TWICE, F32)], {"mode": "nearest"}, opset=9),
    Case("Upsample", [(1, 1, 4, 5)], [np.array(TWICE, F32)], {"mode": "linear"}, opset=9),
    Case("DepthToSpace", [(1, 8, 2, 3)], attributes={"blocksize": 2}),
    Case("DepthToSpace", [(1, 8, 2, 3)], attributes={"blocksize": 2, "mode": "CRD"}),
    Case("SpaceToDepth", [(1, 2, 4, 6)], attributes={"blocksize": 2}),
]  # fmt: skip

# Every other combination of what RESIZES has; none takes a path of its own.
MORE_RESIZES = [
    *(_sized((8, 10), mode, coordinates) for mode in MODES for coordinates in COORDINATES),
    *(_sized((1, 5), mode, coordinates)
      for mode in MODES for coordinates in ("half_pixel", "asymmetric")),
    *(_nearest((2, 3), "half_pixel", rounding) for rounding in ROUNDINGS),
    *(_nearest((0.6, 1.7), "asymmetric", rounding) for rounding in ROUNDINGS),
    _cubic((2, 2), -0.5, exclude=1),
    _cubic((0.6, 1.7), -0.75, exclude=0),
]  # fmt: skip

CASES = ACTIVATIONS + ARITHMETIC + REDUCTIONS + INDEXING + CONVOLUTIONS + NORMALIZATIONS + RESIZES
