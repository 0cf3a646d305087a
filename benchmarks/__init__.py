"""Measurements: parity with the originals, and the differences between them."""
