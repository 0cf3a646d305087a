"""Adversarial training by the originals, live, and by this package."""
