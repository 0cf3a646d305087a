"""Why two configurations give different adversarial examples, on a model and a batch."""
