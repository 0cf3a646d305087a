"""Scripts that run inside the TensorFlow environments, where this package is not installed."""
