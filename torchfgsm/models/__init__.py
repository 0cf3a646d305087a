"""How a model is called: its input, its mode, what wraps it, and no trace left on it."""
