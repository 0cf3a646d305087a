"""The ONNX file: read, trusted, mended, run."""
