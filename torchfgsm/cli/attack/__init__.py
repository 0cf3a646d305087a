"""The command `torchfgsm attack`: adversarial examples of a whole file, in constant memory."""
