"""Turns TensorFlow/Keras and ONNX models into trainable torch modules."""

if __name__ == "converters":
    raise ImportError(
        "this package is imported as torchfgsm.converters, not as converters: "
        "a second copy under the bare name would have classes of its own"
    )

from torchfgsm.converters.errors import ConversionError
from torchfgsm.converters.loading import (
    export_onnx,
    from_frozen_graph,
    from_keras,
    from_onnx,
    from_saved_model,
    from_tflite,
    load,
)
from torchfgsm.converters.model import ConvertedModel

__all__ = [
    "ConversionError",
    "ConvertedModel",
    "export_onnx",
    "from_frozen_graph",
    "from_keras",
    "from_onnx",
    "from_saved_model",
    "from_tflite",
    "load",
]
