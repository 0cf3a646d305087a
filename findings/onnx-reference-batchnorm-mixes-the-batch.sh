#!/usr/bin/env bash
# onnx 1.23.2's own reference, taken for the truth, normalises an inference by the batch it is given.
#
# Guess: BatchNormalization in inference uses the stored mean and variance, in every opset, and the
#   reference evaluator of the onnx package, which defines the operators, says so.
# Real: of a model of opset 9 to 13 `ReferenceEvaluator` mixes the batch's own mean and variance into
#   the stored ones (share 1 - momentum = 0.1) and normalises by the mixture, so that one example's
#   result depends on the others of its batch. From opset 14 on (training_mode=0) it does not. With
#   opset 7 and 8 it raises a TypeError: a one-tuple was meant. onnxruntime 1.28.0 gives
#   x / sqrt(1 + 1e-5) throughout. Files of opset 9 to 13 are common (Paddle2ONNX, older exporters).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    onnx==1.23.2 onnxruntime==1.28.0 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PY'
import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator


def model(opset):
    stored = {"scale": [1, 1], "bias": [0, 0], "mean": [0, 0], "variance": [1, 1]}
    graph = helper.make_graph(
        [helper.make_node("BatchNormalization", ["x", *stored], ["y"])],
        "one_batch_norm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(np.array(v, np.float32), name) for name, v in stored.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    made.ir_version = 7
    return made


x = np.array([[1, 10], [3, 30], [5, 50]], np.float32)
stored_only = x / np.sqrt(np.float32(1 + 1e-5))
mean, variance = 0.1 * x.mean(0), 0.9 + 0.1 * x.var(0)
mixed = (x - mean) / np.sqrt(variance + 1e-5)
for opset in (7, 8, 9, 11, 13, 14, 15):
    made = model(opset)
    try:
        (found,) = ReferenceEvaluator(made).run(None, {"x": x})
        row = "stored" if np.allclose(found, stored_only) else "mixed" if np.allclose(found, mixed) else "?"
    except TypeError:
        row = "TypeError"
    session = onnxruntime.InferenceSession(made.SerializeToString())
    right = np.allclose(session.run(None, {"x": x})[0], stored_only)
    print(f"opset {opset:2}: reference {row}, onnxruntime {'stored' if right else '?'}")
    expected = "TypeError" if opset < 9 else "mixed" if opset < 14 else "stored"
    if row != expected or not right:
        raise SystemExit(f"changed: expected {expected}")
PY
