"""The torch modules of converted graphs, by family, and which ONNX operation each stands for.

Weights belong to the model, not to these modules: one tensor stays one parameter however often
the graph uses it. Kinks differentiate as in TensorFlow. No module copies a value to the host.
"""
