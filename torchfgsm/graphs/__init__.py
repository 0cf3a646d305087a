"""A whole attack as one CUDA graph."""
