"""The torch module made of an ONNX graph."""
