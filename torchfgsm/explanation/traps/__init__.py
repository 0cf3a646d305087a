"""What of model, output, input and gradient makes an attack silently wrong."""
