"""Adversarial training: the step, its batch and its loss."""
