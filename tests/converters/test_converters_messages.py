"""What users are told of errors of TensorFlow and Keras; the texts are theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from torchfgsm.converters import ConversionError
from torchfgsm.converters.exporting import Exporter
from torchfgsm.converters.tensorflow_side.messages import cause
from torchfgsm.originals.process import WorkerError

IN_USER_CODE = """in user code:

    File "/tmp/__autograph_generated_filecd2ftsm3.py", line 15, in tf__call
        raise

    TypeError: Exception encountered when calling layer 'model' (type Model).
    
    in user code:
    
        File "/work/model.py", line 10, in call  *
            return self.bad(x)
    
        TypeError: Exception encountered when calling layer 'bad' (type Bad).
        
        in user code:
        
            File "/work/model.py", line 7, in call  *
                return tf.reshape(x, "wrong")
        
            TypeError: Value passed to parameter 'shape' has DataType string
        
        
        Call arguments received by layer 'bad' (type Bad):
          • x=tf.Tensor(shape=(2, 3), dtype=float32)
    
    
    Call arguments received by layer 'model' (type Model):
      • x=tf.Tensor(shape=(2, 3), dtype=float32)
"""
OF_KERAS_3 = (
    "Exception encountered when calling Bad.call().\n\n\x1b[1mValue for attr 'Tshape' of string is "
    "not in the list of allowed values: int32, int64\n\t; NodeDef: {{node Reshape}}; Op<name="
    "Reshape; signature=tensor:T, shape:Tshape -> output:T> [Op:Reshape]\x1b[0m\n\n"
    "Arguments received by Bad.call():\n  • x=tf.Tensor(shape=(2, 3), dtype=float32)"
)
IN_A_GRAPH = (
    "Graph execution error:\n\nDetected at node GatherV2 defined at (most recent call last):\n"
    '  File "/work/texts.py", line 25, in <module>\n\n  File "/work/texts.py", line 23, in g\n\n'
    "indices = 7 is not in [0, 2)\n\t [[{{node GatherV2}}]] [Op:__inference_g_52]"
)
WITHOUT_TRACES = (
    "Graph execution error:\n\nDetected at node import/Relu defined at (most recent call last):\n"
    "<stack traces unavailable>\nFused conv implementation does not support grouped convolutions "
    "for now.\n\t [[{{node import/Relu}}]] [Op:__inference_run_1049]"
)
OF_A_FILE = (
    "Error when deserializing class 'Attention' using config={'name': 'attention', 'dropout': 0.0}."
    "\n\nException encountered: Invalid value for argument score_mode. Received: score_mode=dot"
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            IN_USER_CODE,
            "layer 'bad' (type Bad): Value passed to parameter 'shape' has DataType string",
        ),
        (
            OF_KERAS_3,
            "Bad.call(): Value for attr 'Tshape' of string is not in the list of allowed values: "
            "int32, int64",
        ),
        (IN_A_GRAPH, "indices = 7 is not in [0, 2) (node GatherV2)"),
        (
            WITHOUT_TRACES,
            "Fused conv implementation does not support grouped convolutions for now. "
            "(node import/Relu)",
        ),
        (
            OF_A_FILE,
            "Error when deserializing class 'Attention': Invalid value for argument score_mode. "
            "Received: score_mode=dot",
        ),
        ("'input/input_0'", "'input/input_0'"),
        (
            "Shape mismatch in layer #2.\nExpected (4,).",
            "Shape mismatch in layer #2. Expected (4,).",
        ),
    ],
)
def test_the_cause_is_told_and_not_the_trace(text: str, expected: str) -> None:
    assert cause(text) == expected


@pytest.mark.parametrize(("method", "doing"), [("export", "read"), ("evaluate", "compute")])
def test_an_error_says_what_tensorflow_was_doing(method: str, doing: str) -> None:
    class Failing:
        def call(self, method: str, arrays: Any, /, **params: Any) -> Any:
            raise WorkerError("InvalidArgumentError", IN_A_GRAPH)

    exporter = Exporter(Failing(), Path("model.pb"), "frozen_graph")
    with pytest.raises(ConversionError) as caught:
        exporter.call(method, precision="float32")
    assert str(caught.value) == (
        f"model.pb: TensorFlow could not {doing} it: InvalidArgumentError: "
        "indices = 7 is not in [0, 2) (node GatherV2)"
    )
