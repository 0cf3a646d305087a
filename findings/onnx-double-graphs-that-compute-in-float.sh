#!/usr/bin/env bash
# A graph whose every tensor is DOUBLE is no float64 witness: which normalisations round to float32.
#
# Guess: with double input, scale and bias an operator computes in double, in the onnx package's
#   reference and in onnxruntime alike; where one cannot, it says so.
# Real (onnx 1.23.2, onnxruntime 1.32.0): the result has dtype double everywhere, but
#   GroupNormalization is off by 5e-7 (reference) and 7e-7 (onnxruntime): its attribute stash_type
#   is 1, "float32", unless the exporter wrote another, and asks for that in a double graph too.
#   LayerNormalization and RMSNormalization have the same attribute and the same default, and both
#   runtimes compute them in double all the same (2e-12 to 3e-11: epsilon is a float32).
#   MeanVarianceNormalization raises in the reference: its definition adds a float32 constant.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PY'
import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

x = np.random.default_rng(0).random((2, 4, 3))


def model(op, opset, sizes, **attributes):
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["N", 4, 3])
    parts = {"scale": np.ones, "bias": np.zeros}
    held = [(name, parts[name](n)) for name, n in sizes.items()]
    graph = helper.make_graph(
        [helper.make_node(op, ["x", *sizes], ["y"], **attributes)], "one", [value("x")], [value("y")],
        [numpy_helper.from_array(array, name) for name, array in held],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    made.ir_version = 10
    return made


def normal(v, axes):
    return (v - v.mean(axes, keepdims=True)) / np.sqrt(v.var(axes, keepdims=True) + 1e-5)


cases = {
    "GroupNormalization": (
        model("GroupNormalization", 21, {"scale": 4, "bias": 4}, num_groups=2),
        normal(x.reshape(2, 2, 6), -1).reshape(x.shape), "float32", "float32",
    ),
    "LayerNormalization": (
        model("LayerNormalization", 17, {"scale": 3, "bias": 3}), normal(x, -1), "double", "double",
    ),
    "RMSNormalization": (
        model("RMSNormalization", 23, {"scale": 3}),
        x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5), "double", "double",
    ),
    "MeanVarianceNormalization": (
        model("MeanVarianceNormalization", 13, {}, axes=[2]), None, "RuntimeTypeError", None,
    ),
}
for name, (made, right, *expected) in cases.items():
    runs = (
        lambda: ReferenceEvaluator(made).run(None, {"x": x})[0],
        lambda: onnxruntime.InferenceSession(made.SerializeToString()).run(None, {"x": x})[0],
    )
    for runtime, run, wanted in zip(("reference", "onnxruntime"), runs, expected):
        if wanted is None:
            continue
        try:
            found = run()
            off = abs(found - right).max()
            word = "float32" if off > 1e-8 else "double"
            shown = f"{word} (off by {off:.0e}, dtype {found.dtype})"
        except (TypeError, RuntimeError) as error:
            word = shown = type(error).__name__
        print(f"{name}, {runtime}: {shown}")
        if word != wanted:
            raise SystemExit(f"changed: expected {wanted}")
PY
